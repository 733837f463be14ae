"""Measure the energy of a launch: keep the device busy with launches while a counter of its energy goes on.

Such a counter steps, NVML's every 0.1 s or so. It is read from one of its changes to another, so that the
step is no error, only how late a change is seen: after a look at it, some 0.1 ms. What is measured is the
power in that span, times the seconds that a launch took.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from statistics import median
from typing import Any

from pytest_gpuperf.backends.base import Timer
from pytest_gpuperf.errors import Unavailable

WARMUP = 0.5  # seconds until the power is that of the launches
SPAN = 1.0  # seconds between the first and the last change of the counter, at least
STEPS = 10  # changes between them, at least
LONGEST = 5.0  # seconds for all that, whatever came of it
TRAIN = 2e-3  # seconds of launches enqueued at a time, while those before run
MOST = 400  # launches of a train; the driver's queue blocks the host at about 1,000


@dataclass(frozen=True, slots=True)
class Energy:
    """The joules of a launch, the power in watts, and over how many seconds and in what steps it was read."""

    joules: float
    watts: float
    seconds: float
    step: float


def energy(
    timer: Timer, enqueue: Callable[[], Any], read: Callable[[], float], limit: float = 60.0
) -> Energy:
    """Measure ``enqueue`` by what ``read`` counts, in joules; raises Unavailable if that does not go on.

    A train of launches is given up after ``limit`` seconds, as ``Timer.wait`` does.
    """
    return _Meter(timer, enqueue, read, limit).measure()


class _Meter:
    def __init__(
        self, timer: Timer, enqueue: Callable[[], Any], read: Callable[[], float], limit: float
    ) -> None:
        self._timer, self._enqueue, self._read, self._limit = timer, enqueue, read, limit
        self._events = [timer.event(), timer.event()]
        self._launches = 1
        self._joules = 0.0
        self._changes: list[tuple[float, float]] = []  # when the counter changed, and to what

    def measure(self) -> Energy:
        timer = self._timer
        self._size()
        self._train(0)
        begin, number = timer.now(), 1
        while timer.now() - begin < WARMUP:
            self._train(number)
            self._until_done(number - 1)
            number += 1
        self._joules, self._changes, begin = self._read(), [], timer.now()
        done = list[float]()  # when each train was
        while not self._is_enough(timer.now() - begin) or len(done) < 2:
            self._train(number)
            self._until_done(number - 1)
            done.append(timer.now())
            number += 1
        timer.synchronize()
        return self._result((done[-1] - done[0]) / (len(done) - 1) / self._launches)

    def _size(self) -> None:
        """Find out how many launches make a train, once what is made at the first is made."""
        self._enqueue()
        self._timer.synchronize()
        while True:
            start = self._timer.now()
            self._train(0)
            self._timer.wait(self._events[0])
            if self._timer.now() - start >= TRAIN or self._launches >= MOST:
                return
            self._launches = min(MOST, 2 * self._launches)

    def _train(self, number: int) -> None:
        for _ in range(self._launches):
            self._enqueue()
        self._timer.record(self._events[number % 2])

    def _until_done(self, number: int) -> None:
        """Look at the counter until a train is done; the next one is enqueued already."""
        event, begin = self._events[number % 2], self._timer.now()
        while True:
            ended = self._timer.done(event)
            if (joules := self._read()) != self._joules:
                self._joules = joules
                self._changes.append((self._timer.now(), joules))
            if ended:
                return
            if self._timer.now() - begin > self._limit:
                self._timer.wait(event)  # which says so

    def _is_enough(self, taken: float) -> bool:
        if taken >= LONGEST:
            return True
        span = self._changes[-1][0] - self._changes[0][0] if self._changes else 0.0
        return span >= SPAN and len(self._changes) > STEPS

    def _result(self, period: float) -> Energy:
        if len(self._changes) < 2:
            raise Unavailable(f"energy: the counter of the GPU's energy does not change within {LONGEST:g} s")
        (start, first), (end, last) = self._changes[0], self._changes[-1]
        times = [when for when, _ in self._changes]
        step = median(after - before for before, after in pairwise(times))
        watts = (last - first) / (end - start)
        return Energy(watts * period, watts, end - start, step)
