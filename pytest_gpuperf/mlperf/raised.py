"""What a suite's own code raised under LoadGen, in words: its traceback ends in ours."""

from __future__ import annotations

import os
import sysconfig
from pathlib import Path
from traceback import extract_tb

_OURS = (f"{Path(__file__).parents[1]}{os.sep}", "<")  # "<string>" is no file
_LIBRARIES = tuple(
    sysconfig.get_path(name) + os.sep for name in ("stdlib", "platstdlib", "purelib", "platlib")
)


def described(error: BaseException) -> str:
    """Return an exception's class, what it says if it can, and the file and line that raised it.

    That is the last line that is neither ours nor in a library, or else the last of a library's.
    """
    try:
        said = str(error)
    except Exception:  # it is not ours
        said = ""
    frames = [frame for frame in extract_tb(error.__traceback__) if not frame.filename.startswith(_OURS)]
    theirs = [frame for frame in frames if not frame.filename.startswith(_LIBRARIES)] or frames
    place = f" ({theirs[-1].filename}:{theirs[-1].lineno})" if theirs else ""
    return ": ".join(filter(None, (type(error).__name__, said))) + place
