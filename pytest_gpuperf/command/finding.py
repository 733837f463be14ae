"""A line of ``gpuperf doctor``."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True)
class Finding:
    """One line: what was looked at, how it is, and what to do, "" for nothing.

    ``needed``: tests of kernels cannot run without it here.
    """

    name: str
    state: Literal["ok", "warn", "missing"]
    says: str
    do: str = ""
    needed: bool = False


Checks = Iterator[tuple[str, Callable[[], Finding], bool]]
