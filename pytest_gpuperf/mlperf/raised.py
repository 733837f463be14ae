"""What a suite's own code raised under LoadGen, in words: its traceback ends in ours."""

from __future__ import annotations

from pathlib import Path
from traceback import extract_tb

from pytest_gpuperf.files import PACKAGE, is_users


def described(error: BaseException) -> str:
    """Return an exception's class, what it says if it can, and the file and line that raised it.

    That is the last line that is neither ours nor in a library, or else the last of a library's.
    """
    try:
        said = str(error)
    except Exception:  # it is not ours
        said = ""
    frames = [frame for frame in extract_tb(error.__traceback__) if not _is_ours(frame.filename)]
    theirs = [frame for frame in frames if is_users(Path(frame.filename))] or frames
    place = f" ({theirs[-1].filename}:{theirs[-1].lineno})" if theirs else ""
    return ": ".join(filter(None, (type(error).__name__, said))) + place


def _is_ours(name: str) -> bool:
    return name.startswith("<") or PACKAGE in Path(name).parents  # "<string>" is no file
