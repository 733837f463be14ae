"""Kernel files: what in them is code, which files they are made of, and the cache of what is compiled."""

from __future__ import annotations

import hashlib
import os
import re
import subprocess
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from pytest_gpuperf.cache import cached
from pytest_gpuperf.errors import KernelError

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


DIRECTIVE = re.compile(r"^[ \t]*#(?:\\\n|[^\n])*", re.MULTILINE)


def without_directives(source: str) -> str:
    """Replace preprocessor lines, too, and every literal but the "C" of extern; offsets and lines stay."""
    return DIRECTIVE.sub(blank, blanked(source, keep=lambda literal: literal == '"C"'))


_INCLUDE = re.compile(r'^[ \t]*#[ \t]*include[ \t]*"([^"\n]+)"', re.MULTILINE)


def with_included(path: Path) -> list[tuple[Path, str]]:
    """Return the file and those that it includes by their names in quotes, each once, with their text."""
    found, waiting = dict[Path, str](), [path]
    while waiting:
        file = waiting.pop(0)
        found[file] = read_source(file)
        code = blanked(found[file], keep=lambda literal: not literal.startswith("/"))
        beside = (file.parent / match[1] for match in _INCLUDE.finditer(code))
        waiting += [included for included in beside if included.is_file() and included not in found]
    return list(found.items())


def read_source(path: Path) -> str:
    """Read a source file in whatever encoding its comments are."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise KernelError(f"{path} cannot be read: {error}.") from None
    if b"\0" in content:
        raise KernelError(f"{path} cannot be read as UTF-8 text: it holds a byte 0.")
    try:
        return content.decode()
    except UnicodeDecodeError:
        return content.decode("latin-1")


def preprocess(
    command: Sequence[str], folder: Path, source: bytes = b""
) -> subprocess.CompletedProcess[bytes]:
    """Run a compiler's preprocessor in a source's folder; its output is all that will be compiled.

    So it tells two states of the sources apart by every file that they include and by none that they do not:
    through macros, search paths, ``__has_include`` and the environment, as only the compiler itself can.
    """
    return subprocess.run(command, cwd=folder, env=_environment(), input=source, capture_output=True)


# A system header's has flag 3.
_LINE_MARKER = re.compile(rb'^# \d+ "((?:[^"\\\n]|\\.)+)"(?: [124])*$', re.MULTILINE)


def sources(preprocessed: bytes, folder: Path) -> Iterator[Path]:
    """Yield the files of code preprocessed in ``folder``, each once, in reading order; not the system's."""
    for name in dict.fromkeys(match[1] for match in _LINE_MARKER.finditer(preprocessed)):
        file = folder / os.fsdecode(re.sub(rb"\\(.)", rb"\1", name))
        if file.is_file():
            yield file


def not_compiled(path: Path, said: str, compiler: str) -> KernelError:
    """Return the error of a file that does not compile, with the first one that the compiler ``said``."""
    lines = [line for line in said.splitlines() if line.strip()]
    first = next((number for number, line in enumerate(lines) if re.search(r"\berror\b", line)), 0)
    shown = "\n".join(lines[first : first + 6]) or f"{compiler} said nothing"
    return KernelError(f"{path} does not compile:\n{shown}")


def fingerprint(*parts: str | bytes) -> str:
    """Hash all that decides what a compiler makes: its version, its options, the preprocessed code."""
    digest = hashlib.sha256()
    for part in parts:
        content = part.encode() if isinstance(part, str) else part
        digest.update(f"{len(content)}\0".encode() + content)
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
    return subprocess.run(
        command, cwd=folder, env=_environment(), capture_output=True, text=True, errors="replace"
    )


def _environment() -> dict[str, str]:
    # Messages are read by a program here, so in English.
    return os.environ | {"LC_ALL": "C"}
