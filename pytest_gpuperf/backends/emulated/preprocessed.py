"""The code of a kernel file after the preprocessor: which of it is the user's, and where it came from.

Conditions are decided and macros expanded, so what is found here is compiled. CUDA's qualifiers are still
there, since simt/cuda.hpp defines them as themselves; ``compiled`` gives them their meaning for g++.
"""

from __future__ import annotations

import os
import re
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from pytest_gpuperf.backends.functions import Function, functions
from pytest_gpuperf.backends.sources import blank, blanked

_MARKER = re.compile(r'^# (\d+) "((?:[^"\\\n]|\\.)*)"((?: [1-4])*)\n', re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Segment:
    """A stretch of the text that comes from one file, without a break."""

    begin: int
    end: int
    file: Path
    line: int
    named: str  # the file, as g++ names it


def unescaped(name: str) -> str:
    """Return a file's name from how g++ writes it in a string."""

    def plain(match: re.Match[bytes]) -> bytes:
        return bytes([int(match[1], 8)]) if match[1].isdigit() else match[1]

    return os.fsdecode(re.sub(rb"\\([0-7]{3}|.)", plain, os.fsencode(name)))


class Code:
    """The preprocessed text; ``user`` is that of the user's own files, and offsets are counted in it."""

    def __init__(self, text: str, folder: Path, ours: Path, header: Path) -> None:
        self.text = text
        self.segments: list[Segment] = []
        self.included: list[tuple[str, Path, int]] = []  # what is included, by which file and line
        marks = list(_MARKER.finditer(text))
        stack: list[Segment] = []
        for mark, following in zip(marks, [*marks[1:], None], strict=True):
            end = following.start() if following else len(text)
            named = unescaped(mark[2])
            file = folder / named
            here = Segment(mark.end(), end, file, int(mark[1]), named)
            if "1" in mark[3].split() and stack and not stack[-1].file.is_relative_to(ours):
                before = stack[-1]
                line = before.line + text.count("\n", before.begin, before.end)
                self.included.append((str(file), before.file, line))
            stack = [here]
            system = "3" in mark[3].split() or mark[2].startswith("<") or file.is_relative_to(ours)
            system = system or file == header
            if not system and file.is_file():
                self.segments.append(here)
        self._starts: list[int] = []
        self._emptied = set[int]()  # segments behind which there is nothing left up to the next
        length = 0
        for segment in self.segments:
            self._starts.append(length)
            length += segment.end - segment.begin
        self.user = "".join(text[s.begin : s.end] for s in self.segments)
        self.code = blanked(self.user, keep=lambda literal: literal == '"C"')
        self._inserted: list[tuple[int, str]] = []
        self.host_functions = set[str]()  # the names of those that have been left out

    def where(self, offset: int) -> tuple[Path, int]:
        """Return file and line of an offset in ``user``."""
        number = bisect_right(self._starts, offset) - 1
        segment, start = self.segments[number], self._starts[number]
        return segment.file, segment.line + self.user.count("\n", start, offset)

    def lines(self, file: str, line: int) -> Iterator[tuple[int, int]]:
        """Yield begin and end in ``user`` of a file's line, of each of its parts."""
        for segment, start in zip(self.segments, self._starts, strict=True):
            end = start + segment.end - segment.begin
            if segment.named != file or not segment.line <= line <= segment.line + self.user.count(
                "\n", start, end
            ):
                continue
            begin = start
            for _ in range(line - segment.line):
                begin = self.user.index("\n", begin) + 1
            yield begin, min(self.user.find("\n", begin, end) % (end + 1), end)

    def erase(self, begin: int, end: int) -> None:
        """Replace code by spaces, with what system macros (NULL, stderr) have put inside; lines stay."""
        first, last = (bisect_right(self._starts, offset) - 1 for offset in (begin, end - 1))
        self._emptied.update(range(first, last))
        for name in ("user", "code"):
            text = getattr(self, name)
            setattr(self, name, text[:begin] + re.sub(r"[^\n]", " ", text[begin:end]) + text[end:])

    def insert(self, offset: int, text: str) -> None:
        """Add text that has no end of line to what g++ gets; offsets stay as they are."""
        self._inserted.append((offset, text))

    def insertions(self) -> list[tuple[int, str]]:
        """Return what was added so far."""
        return self._inserted.copy()

    def restore(self, insertions: Sequence[tuple[int, str]]) -> None:
        """Take back what was added since ``insertions`` was returned."""
        self._inserted = list(insertions)

    def compiled(self, more: Sequence[tuple[int, str]] = ()) -> str:
        """Return the text for g++: the user's as it is now, with g++'s words for CUDA's qualifiers.

        ``more`` is inserted as well, this once.
        """
        parts, at = [], 0
        inserted = sorted([*self._inserted, *more], key=lambda each: each[0], reverse=True)
        for number, (segment, start) in enumerate(zip(self.segments, self._starts, strict=True)):
            end = start + segment.end - segment.begin
            user = self.user[start:end]
            for offset, text in inserted:
                if start <= offset < end:
                    user = user[: offset - start] + text + user[offset - start :]
            before = self.text[at : segment.begin]
            if number - 1 in self._emptied:
                marks = list(_MARKER.finditer(before))
                if not any({"1", "2"} & set(mark[3].split()) for mark in marks):  # no file in between
                    before = "".join(mark[0] for mark in marks)
            parts += [before, _WORDS.sub(_translated, user)]
            at = segment.end
        return "".join([*parts, self.text[at:]])

    def functions(self, members: bool = False) -> Iterator[Function]:
        """Yield the functions that are defined at namespace scope, with ``members`` also those of classes."""
        return functions(self.code, members)


_WORDS = re.compile(
    r"(?P<before>(?:\b(?:extern|static|volatile)\s+)*\bthread_local\s+)(?P<aligned>alignas\s*\((?:[^()]|\([^()]*\))*\))|"
    r"\b__(?:global|device|host|constant|grid_constant)__\b|\b__launch_bounds__\s*\((?:[^()]|\([^()]*\))*\)"
    r"|(?<!\(\()\b__noinline__\b"
)


def _translated(match: re.Match[str]) -> str:
    if match["aligned"]:  # __shared__ alignas(16) float s[4], where g++ wants it first
        return f"{match['aligned']} {match['before']}"
    if match[0] == "__global__":
        return "__attribute__((noinline, used))"
    return "__attribute__((noinline))" if match[0] == "__noinline__" else blank(match)
