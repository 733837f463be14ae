"""Choose what records a process's API calls and launches, whichever backend makes them."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Protocol

from pytest_gpuperf.backends import NO_DEVICE, device_count, expects_device
from pytest_gpuperf.errors import Unavailable
from pytest_gpuperf.traces import Event


class Tracer(Protocol):
    """Records from ``start`` on; raises Unavailable where it cannot."""

    def start(self) -> None:
        """Begin to record."""

    def take(self) -> list[Event]:
        """Return what ended since it was last asked; the device is idle."""

    def paused(self, synchronize: Callable[[], None]) -> AbstractContextManager[None]:
        """Leave out what happens within the block; ``synchronize`` waits for the device."""

    def now(self) -> int:
        """Return the ns of the clock that the events have."""


def tracer(choice: str) -> Tracer:
    """Return the tracer of a session with this choice of backend; raises Unavailable without CUPTI or GPU."""
    if expects_device(choice):
        from pytest_gpuperf.backends.cuda.activity import CuptiTracer
        from pytest_gpuperf.backends.cuda.cupti import library

        library()
        if not device_count(choice):
            raise Unavailable(NO_DEVICE)
        return CuptiTracer()
    from pytest_gpuperf.backends.emulated.tracing import LaunchTracer

    return LaunchTracer()
