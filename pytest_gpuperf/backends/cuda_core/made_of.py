"""Find the files that a kernel file is made of, which NVRTC does not list: cubins are cached by them."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from pytest_gpuperf.backends.sources import blanked, read_source

_INCLUDE = re.compile(
    r'^[ \t]*#[ \t]*include(?:_next)?\b[ \t]*(?:"([^"\n]+)"|<([^>\n]+)>|(.*))', re.MULTILINE
)


def made_of(path: Path, folders: Sequence[Path], cudas: Sequence[Path]) -> list[str] | None:
    """Return the texts of a file and of all that it may include, but from CUDA's own folders.

    ``folders`` are searched for names in <> and, behind the file's own, for those in quotes. A superset is
    good enough: what a condition leaves out is listed too. None where names or conditions are computed, so
    that the text does not tell.
    """
    found, waiting = dict[Path, str](), [path.absolute()]
    while waiting:
        file = waiting.pop(0)
        if file in found or any(file.is_relative_to(folder) for folder in cudas):
            continue
        found[file] = read_source(file)
        code = blanked(found[file].replace("\\\n", ""), keep=lambda literal: not literal.startswith("/"))
        if "__has_include" in code:
            return None
        for quoted, angled, computed in _INCLUDE.findall(code):
            if computed:
                return None
            beside = [file.parent] if quoted else []
            waiting += _first(quoted or angled, [*beside, *folders])
    return list(found.values())


def _first(name: str, folders: Sequence[Path]) -> Iterator[Path]:
    """Yield the file of a name in the first folder that has it; none for what comes from elsewhere."""
    for folder in folders:
        if (file := Path(os.path.normpath(folder / name))).is_file():
            yield file
            return


def state_of(folders: Sequence[Path]) -> str:
    """Describe which versions of CUDA's headers are installed, without reading them."""
    entries = (entry for folder in folders for entry in os.scandir(folder))
    return repr(sorted((entry.path, entry.stat().st_size, entry.stat().st_mtime_ns) for entry in entries))
