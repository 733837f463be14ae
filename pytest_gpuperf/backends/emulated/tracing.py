"""Record the emulated launches, in times of this host: there is no API whose calls could be recorded."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from pytest_gpuperf.backends.emulated import program
from pytest_gpuperf.traces import Event


class LaunchTracer:
    """See ``Tracer``; a launch is the device's work, from its call to its end."""

    def __init__(self) -> None:
        self._events: list[Event] = []

    def start(self) -> None:
        program.on_launch = self._add

    def _add(self, kernel: str, start: int, end: int) -> None:
        self._events.append(Event("kernel", kernel, start, end))

    def take(self) -> list[Event]:
        found, self._events = self._events, []
        return found

    @contextmanager
    def paused(self, synchronize: Callable[[], None]) -> Iterator[None]:
        synchronize()
        program.on_launch = None
        try:
            yield
        finally:
            program.on_launch = self._add

    def now(self) -> int:
        return time.time_ns()
