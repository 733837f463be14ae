"""Kernel files: what in them is code, which files they are made of, and the cache of what is compiled."""

from __future__ import annotations

import hashlib
import os
import re
import subprocess
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

from pytest_gpuperf.files import cached

_INCLUDE = re.compile(rb'^[ \t]*#[ \t]*include[ \t]*["<]([^">\n]+)[">]', re.MULTILINE)
_NOT_CODE = re.compile(
    r"""//(?:\\\n|[^\n])*
      | /\*.*?\*/
      | R"(?P<fence>[^()\\\s]{0,16})\(.*?\)(?P=fence)"
      | "(?:\\.|[^"\\\n])*"
      | (?<!\w)'(?:\\.|[^'\\\n])+'""",
    re.DOTALL | re.VERBOSE,
)


def blanked(source: str, keep: Callable[[str], bool] = lambda text: False) -> str:
    """Replace comments and literals by spaces, except those to ``keep``; offsets and lines stay."""
    return _NOT_CODE.sub(lambda match: match[0] if keep(match[0]) else blank(match), source)


def blank(match: re.Match[str]) -> str:
    """Return as many spaces as a match has characters, and its line breaks."""
    return re.sub(r"[^\n]", " ", match[0])


def include_folders(path: Path, options: Sequence[str]) -> list[Path]:
    """Return the folders that -I and --include-path options name, relative ones from the file's folder."""
    folders = []
    for option, following in zip(options, (*options, "")[1:], strict=True):
        if option in ("-I", "--include-path"):
            folders.append(path.parent / following)
        elif match := re.match(r"(?:-I|--include-path=)(.+)", option):
            folders.append(path.parent / match[1])
    return folders


def sources(path: Path, folders: Sequence[Path]) -> Iterator[Path]:
    """Yield the file and what it includes from its folder or from ``folders``, each once, in reading order.

    The toolkit's and the system's own headers are not followed: the compiler's version stands for them.
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


def fingerprint(parts: Iterable[str], files: Iterable[Path]) -> str:
    """Hash all that decides what a compiler makes: its version, options, the files' names and contents."""
    digest = hashlib.sha256()
    for part in parts:
        digest.update(part.encode() + b"\0")
    for file in files:
        content = file.read_bytes()
        digest.update(f"{file.name}\0{len(content)}\0".encode() + content)
    return digest.hexdigest()


def compiled(name: str, build: Callable[[Path], None]) -> Path:
    """Return the cache's file of that name; if it is missing, ``build`` makes it, in a folder of its own."""

    def make() -> bytes:
        with tempfile.TemporaryDirectory(prefix="gpuperf-") as folder:
            output = Path(folder) / f"output{Path(name).suffix}"
            build(output)
            return output.read_bytes()

    return cached(name, make)


def run(command: Sequence[str], folder: Path) -> subprocess.CompletedProcess[str]:
    """Run a compiler in a source's folder, so that relative -I options mean what they say beside the file."""
    # Messages are read by a program here, so in English.
    environment = os.environ | {"LC_ALL": "C"}
    return subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, errors="replace"
    )
