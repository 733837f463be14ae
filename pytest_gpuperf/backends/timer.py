"""The contract of a backend's stopwatch: all that a caller may ask of the time on a device's stream."""

from __future__ import annotations

from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Protocol


@dataclass(frozen=True, slots=True)
class Work:
    """A kernel, copy or memset that a device ran, from ``start`` to ``end`` on a clock of its own (ns).

    ``what`` is the same for the same work: name and geometry of a kernel, kind and bytes of a copy. ``held``:
    it is the timer's own ``hold``. ``end`` is 0 where the times are not known.
    """

    what: str
    start: int
    end: int
    stream: int = 0
    held: bool = False


class Timer(Protocol):
    """A stopwatch on one stream. Everything but ``now``, ``done`` and the waits is only enqueued."""

    def now(self) -> float:
        """Read the host's clock, in seconds."""

    def event(self) -> Any:
        """Make an event to be recorded."""

    def hold(self, seconds: float) -> None:
        """Keep the stream from going on for so long."""

    def record(self, event: Any) -> None:
        """Let the event happen when everything enqueued before it is done."""

    def flush(self) -> None:
        """Evict the L2 cache, but for lines that persist until ``unpin``."""

    def unpin(self) -> bool:
        """Let lines that persist in the L2 cache go, at once; say whether a kernel could make such lines."""

    def watched(self) -> AbstractContextManager[list[Work]]:
        """Record what this process runs on the device while the block does, on any stream, by any library.

        The list is filled when the block ends, in order of the starts; recording costs a launch some time.
        Raises Unavailable where nothing records it.
        """

    def done(self, event: Any) -> bool:
        """Say whether the event has happened, without waiting."""

    def wait(self, event: Any) -> None:
        """Wait until the event has happened."""

    def seconds(self, start: Any, end: Any) -> float:
        """Return the device's time between two events that have happened."""

    def synchronize(self) -> None:
        """Wait for the whole device, other streams included."""
