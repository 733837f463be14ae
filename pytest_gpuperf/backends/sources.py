"""Which files a kernel file is made of, so that a cache knows when one of them changed."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

_INCLUDE = re.compile(rb'^[ \t]*#[ \t]*include[ \t]*["<]([^">\n]+)[">]', re.MULTILINE)


def include_folders(path: Path, options: Sequence[str]) -> list[Path]:
    """The folders that -I and --include-path options name, relative ones from the file's folder."""
    folders = []
    for option, following in zip(options, (*options, "")[1:], strict=True):
        if option in ("-I", "--include-path"):
            folders.append(path.parent / following)
        elif match := re.match(r"(?:-I|--include-path=)(.+)", option):
            folders.append(path.parent / match[1])
    return folders


def sources(path: Path, folders: Sequence[Path]) -> Iterator[Path]:
    """The file and what it includes from beside it or from ``folders``, each once, in reading order.

    The toolkit's and the system's own headers are not followed: nvcc's version stands for them.
    """
    seen: set[Path] = set()
    waiting = [path]
    while waiting:
        file = waiting.pop(0)
        if file in seen:
            continue
        seen.add(file)
        yield file
        for match in _INCLUDE.finditer(file.read_bytes()):
            name = os.fsdecode(match[1])
            found = next(
                (place / name for place in (file.parent, *folders) if (place / name).is_file()), None
            )
            if found:
                waiting.append(found.resolve())
