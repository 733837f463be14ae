"""Bugs that are planted in public kernels: what becomes what in a line, and what must be said of it."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Bug:
    """``old`` becomes ``new`` in ``line``; the report must have ``says`` and name one of the lines ``at``."""

    kind: str
    line: int
    old: str
    new: str
    says: str
    at: tuple[int, ...]


@dataclass(frozen=True)
class Case:
    """A kernel, its launch, and what some of its arguments should hold afterwards."""

    file: str
    kernel: str
    grid: Any
    block: Any
    shared: int
    arguments: list[Any]
    wants: dict[int, np.ndarray]
    bugs: tuple[Bug, ...] = ()
    options: tuple[str, ...] = ()


def barrier(
    line: int, *at: int, word: str = r"(__syncthreads|cg::sync|cooperative_groups::sync)\(\w*\);"
) -> Bug:
    return Bug("no barrier", line, word, ";", "race", at)


def plain(line: int, old: str, new: str) -> Bug:
    return Bug("no atomic", line, old, new, "race", (line,))


def beyond(line: int, old: str, new: str, *at: int, says: str = "past the end") -> Bug:
    return Bug("out of bounds", line, old, new, says, at or (line,))


def unwritten(line: int, old: str, new: str, *at: int) -> Bug:
    return Bug("unwritten shared memory", line, old, new, "no thread of the block has written", at)


def lanes(line: int, old: str, new: str, *at: int, says: str = "lane") -> Bug:
    return Bug("wrong mask", line, old, new, says, at or (line,))


def between(line: int, old: str, new: str, *at: int) -> Bug:
    return Bug("race between blocks", line, old, new, "race", at or (line,))


_GIVEN = re.compile(
    r"\s+(?:float|int|double|unsigned(?: int)?)\s+(\w+)(?:\[[^\]]*\])*\s*="
    r"\s*(?:0(?:\.0?f?)?|\{\s*0(?:\.0?f?)?\s*\}|-INFINITY|\w+\[[^;]*\]);\s*(?://.*)?$"
)
# Written again before they are read, or in a branch that the launch does not take.
_NO_BUGS = {("6_kernel_vectorize.cuh", 40), ("6_kernel_vectorize.cuh", 41)}
_NO_BUGS |= {("fastWalshTransform_kernel.cuh", 98), ("fastWalshTransform_kernel.cuh", 99)}


def without_values(case: Case, lines: Sequence[str]) -> Iterator[Bug]:
    """Yield a bug for each variable of the case's kernel that begins as 0 or as an array's element."""
    name = re.split("<", case.kernel)[0].rpartition("::")[2]
    begin = next(n for n, line in enumerate(lines) if re.search(rf"\b{name}\s*\(", line))
    end = next((n for n in range(begin, len(lines)) if lines[n].startswith("}")), len(lines))
    for number in range(begin + 1, end + 1):
        given = _GIVEN.match(lines[number - 1])
        if given and (case.file.rpartition("/")[2], number) not in _NO_BUGS:
            says = f"its own '{given[1]}'"
            yield Bug(
                "variable without a value",
                number,
                r"\s*=[^;]*;",
                ";",
                says,
                tuple(range(number + 1, end + 1)),
            )
