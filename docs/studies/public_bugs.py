"""Bugs that are planted in public kernels: what becomes what in a line, and what must be said of it."""

from __future__ import annotations

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
