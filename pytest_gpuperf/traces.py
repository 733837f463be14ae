"""What a test asked of CUDA, call by call, and what the device did of it; summed up by name."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

What = Literal["call", "kernel", "copy", "memset"]
MOST = 50_000
"""Events of one test that are kept for the file; the table has all of them."""


class Event(NamedTuple):
    """A call of CUDA's API, or a kernel, copy or memset, in ns of one clock.

    ``lane`` is a call's thread, or the stream of the device's work. ``link`` is the same for a call and the
    work that it caused, 0 for none.
    """

    what: What
    name: str
    start: int
    end: int
    lane: int = 0
    link: int = 0
    device: int = 0


@dataclass(frozen=True, slots=True)
class Calls:
    """All calls, or launches, of one name in a test; times in seconds.

    ``first`` is the first one's, which may include set-up, ``rest`` the others' mean; None where there is no
    such. ``on_device``: it is the device's work and not a call.
    """

    name: str
    count: int
    total: float
    first: float | None
    rest: float | None
    on_device: bool


@dataclass(frozen=True, slots=True)
class Trace:
    """One test in one process, from ``start`` to ``end``; ``left_out`` are events too many to keep."""

    events: tuple[Event, ...]
    calls: tuple[Calls, ...]
    start: int
    end: int
    process: int
    left_out: int = 0


def trace_of(events: Iterable[Event], start: int, end: int, process: int) -> Trace:
    """Make a test's trace of what was recorded meanwhile."""
    found = sorted(events, key=lambda event: event.start)
    left = max(0, len(found) - MOST)
    return Trace(tuple(found[:MOST]), tuple(sum_up(found)), start, end, process, left)


def sum_up(events: Sequence[Event]) -> list[Calls]:
    """Sum up events in order of their starts, by name: the calls, then the device's work."""
    by: dict[tuple[bool, str], list[float]] = {}
    for event in events:
        by.setdefault((event.what != "call", event.name), []).append((event.end - event.start) / 1e9)
    ordered = sorted(by.items(), key=lambda item: item[0][0])  # stable: each kind as it came
    return [_calls(name, taken, on_device) for (on_device, name), taken in ordered]


def _calls(name: str, taken: Sequence[float], on_device: bool) -> Calls:
    first, *rest = taken
    return Calls(name, len(taken), sum(taken), first, sum(rest) / len(rest) if rest else None, on_device)
