"""Measure the energy of a launch: keep the device busy with launches while a counter of its energy goes on.

Such a counter steps, NVML's on an H100 every 0.1 s, and to look at it takes NVML 3 ms, and 30 ms while the
device is busy: so a thread of its own looks, and the device always has work enqueued. What is measured is the
power, as the slope of a line through the counter's changes, which the steps do not blur, times the seconds
that a launch took.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from itertools import pairwise
from statistics import linear_regression, median
from threading import Event, Thread
from typing import Any

from pytest_gpuperf.backends.timer import Timer
from pytest_gpuperf.errors import Unavailable

WARMUP = 0.5  # seconds until the power is that of the launches
SPAN = 1.5  # seconds between the first and the last change of the counter, at least
STEPS = 10  # changes after the first, at least
LONGEST = 5.0  # seconds for all that, whatever came of it
TRAIN = 10e-3  # seconds of launches enqueued at a time, while those before run
MOST = 400  # launches of a train; the driver's queue blocks the host at about 1,000
PAUSE = 0.5e-3  # seconds between looks

Changes = Sequence[tuple[float, float]]
"""When a counter changed, on the timer's clock, and to how many joules."""


@dataclass(frozen=True, slots=True)
class Energy:
    """The joules of a launch, the power in watts, and over how many seconds and in what steps it was read."""

    joules: float
    watts: float
    seconds: float
    step: float


class Looks:
    """Looks at a counter on a thread of its own while it is entered, and gives what returns the changes."""

    def __init__(self, read: Callable[[], float], now: Callable[[], float]) -> None:
        self._read, self._now = read, now
        self._over = Event()
        self._thread = Thread(target=self._look, daemon=True)
        self._changes = list[tuple[float, float]]()
        self._failed: Exception | None = None

    def __enter__(self) -> Callable[[], Changes]:
        self._thread.start()
        return self._found

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _found(self) -> Changes:
        """Return the changes; raises Unavailable once the counter could not be read any more."""
        if self._failed:
            raise Unavailable(f"no energy: NVML says {self._failed}")
        return tuple(self._changes)

    def _look(self) -> None:
        try:
            last = self._read()
            while not self._over.wait(PAUSE):
                if (joules := self._read()) != last:
                    last = joules
                    self._changes.append((self._now(), joules))
        except Exception as error:  # NVMLError is a class of the module that was found
            self._failed = error


def energy(
    timer: Timer, enqueue: Callable[[], Any], looks: AbstractContextManager[Callable[[], Changes]]
) -> Energy:
    """Measure ``enqueue`` by a counter's changes; raises Unavailable if it does not go on."""
    trains = _Trains(timer, enqueue)
    trains.run(lambda taken: taken >= WARMUP)
    with looks as changes:
        done = trains.run(lambda taken: taken >= LONGEST or _is_enough(changes()))
        found = changes()
    timer.synchronize()
    if len(found) < 2:
        raise Unavailable(f"energy: the counter of the GPU's energy does not change within {LONGEST:g} s")
    times, joules = zip(*found, strict=True)
    watts = linear_regression(times, joules).slope
    launch = (done[-1] - done[0]) / (len(done) - 1) / trains.launches
    step = median(after - before for before, after in pairwise(times))
    return Energy(watts * launch, watts, times[-1] - times[0], step)


def _is_enough(changes: Changes) -> bool:
    return len(changes) > STEPS and changes[-1][0] - changes[0][0] >= SPAN


class _Trains:
    """Trains of ``launches``, of which one is always enqueued behind the one that runs."""

    def __init__(self, timer: Timer, enqueue: Callable[[], Any]) -> None:
        self._timer, self._enqueue = timer, enqueue
        self._events = [timer.event(), timer.event()]
        self.launches = self._number = 1
        self._size()
        self._train()

    def _size(self) -> None:
        """Find out how many launches make a train, once what is made at the first is made."""
        self._enqueue()
        self._timer.synchronize()
        while True:
            start = self._timer.now()
            self._train()
            self._timer.wait(self._events[self._number % 2])
            if self._timer.now() - start >= TRAIN or self.launches >= MOST:
                return
            self.launches = min(MOST, 2 * self.launches)

    def run(self, is_over: Callable[[float], bool]) -> list[float]:
        """Run trains until that is over, two at least; return when each was done."""
        begin, done = self._timer.now(), list[float]()
        while len(done) < 2 or not is_over(done[-1] - begin):
            before = self._events[self._number % 2]
            self._train()
            self._timer.wait(before)
            done.append(self._timer.now())
        return done

    def _train(self) -> None:
        self._number += 1
        for _ in range(self.launches):
            self._enqueue()
        self._timer.record(self._events[self._number % 2])
