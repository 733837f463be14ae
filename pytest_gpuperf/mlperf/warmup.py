"""Run the model before a phase: until it is warm, and to tell how long a batch takes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import median
from typing import Any

from pytest_gpuperf.errors import GpuperfError
from pytest_gpuperf.mlperf import perf_counter
from pytest_gpuperf.mlperf.callbacks import Callbacks
from pytest_gpuperf.mlperf.settings import Scenario

TRIES = 10  # of a query alone: a busy host makes some of them slow
IMAGES = 64  # loaded to warm up with, or as many as a batch has
FEWEST = 4  # runs
# Seconds, and by how much the medians of two may differ: what gets faster by 1 % a second is not warm.
WINDOW, STEADY = 0.25, 0.0025


def probe(calls: Callbacks, batch: int, sizes: Sequence[int], seconds: float) -> float:
    """Warm up at the measured shape, and once at each of ``sizes``; returns the seconds of a batch.

    Until batches take the same time in two stretches of WINDOW seconds, or for ``seconds``. The result is the
    median of the later half of the runs, and of several workers what they take together: none stops before
    all are warm, or the others would have its share of the device.
    """
    everyone: list[Steady] = []

    def work(worker: Any) -> float:
        everyone.append(steady := Steady())
        for size in sizes:
            worker.run(calls.library.slice(0, size))
        times: list[float] = []
        end = perf_counter() + seconds
        while len(times) < FEWEST or not (all(s.reached for s in everyone) or perf_counter() >= end):
            images = calls.library.slice(len(times) * batch, batch)
            begin = perf_counter()
            worker.run(images)
            calls.progress = perf_counter()
            times.append(calls.progress - begin)
            steady.saw(times[-1])
            if calls.abandoned:
                break
        return median(times[len(times) // 2 :])

    return 1 / sum(1 / each for each in calls.on_each(work))


class Steady:
    """Whether runs have come to take the same time: two stretches of WINDOW seconds in a row did."""

    reached = False

    def __init__(self) -> None:
        self._before, self._now, self._spent = math.inf, list[float](), 0.0

    def saw(self, seconds: float) -> None:
        """Take in what one more run took."""
        self._now.append(seconds)
        self._spent += seconds
        if self._spent >= WINDOW and len(self._now) >= FEWEST:
            now = median(self._now)
            self.reached = self.reached or abs(now / self._before - 1) <= STEADY
            self._before, self._now, self._spent = now, [], 0.0


def require_in_time(calls: Callbacks, scenario: Scenario) -> None:
    """Raise GpuperfError if a server cannot answer even a query that comes alone within its latency."""

    def work(worker: Any) -> float:
        times: list[float] = []
        while len(times) < TRIES and min(times, default=math.inf) > scenario.max_latency:
            begin = perf_counter()
            worker.run(calls.library.slice(0, 1))
            calls.progress = perf_counter()
            times.append(calls.progress - begin)
        return min(times)

    if (alone := min(calls.on_each(work))) > scenario.max_latency:
        raise GpuperfError(
            f"one query alone takes {1e3 * alone:.3g} ms, longer than max_latency={scenario.max_latency:g}: "
            "no rate keeps that; give a longer one"
        )
