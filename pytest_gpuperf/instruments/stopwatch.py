"""Time what is enqueued on a stream, by events on the device's own clock.

These make the samples worth comparing (each point has cost somebody a false failure):
- the stream is *held* while launches are queued, so that the host's gaps never enter a sample, and
  whether it was held is checked;
- launches shorter than a few microseconds are timed in batches: events step by 32 ns, and an event
  pair costs about as much as such a launch;
- samples begin after a warm-up, and end when the median's interval is narrow or the time is spent;
- with ``l2="cold"`` the cache is flushed before each sample, outside the events;
- if a launch's arrays can be moved, each sample is of another place in memory (places.py).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import median
from typing import Any

from pytest_gpuperf.backends.timer import Timer
from pytest_gpuperf.errors import KernelError
from pytest_gpuperf.instruments.places import ArrayMover

BATCH_BELOW = 10e-6  # seconds of one launch; longer ones are a sample each
BATCH_LASTS = 50e-6  # seconds of one batch, at least: 32 ns are then below 0.1 %
BATCH_MOST = 128
IN_FLIGHT = 400  # launches and events queued at once; the driver's queue blocks the host at about 1,000
HOLD_FIRST = 1e-3  # seconds
HOLD_MOST = 64e-3
PRECISION = 0.0005  # half width of the median's interval, relative
FEWEST = 20  # samples
FEWEST_LONG = 5  # samples, where one launch lasts longer than LONG
LONG = 50e-3
WARMUP = 0.2  # seconds, unless a test says otherwise
WALL = 2.0  # seconds on the host's clock, after warm-up
AT_A_PLACE = 5  # launches or batches whose median is a sample, where places differ and launches hardly do
PLACES = 100  # at most; on an H200 they differ by up to 1.1 % (sd), which leaves the median 0.14 %
WARMUP_FEWEST = 3  # launches, unless they last longer than LONG
UNSEEN = 10e-3  # seconds of work after the last event


@dataclass(frozen=True, slots=True)
class Settings:
    """A way to time: ``l2`` "hot" or "cold", at most ``seconds`` of device time, after ``warmup`` seconds.

    ``tell`` is told between samples how many there are.
    """

    l2: str = "hot"
    seconds: float = 0.5
    warmup: float = WARMUP
    tell: Callable[[int], None] = lambda count: None


@dataclass(frozen=True, slots=True)
class Timing:
    """Samples in seconds per launch, and how they were taken.

    If a kernel's arrays were moved, a sample is the median of some launches at one place, else one launch
    (or batch). ``details``: "batch" launches a sample, "moved" (each sample is of another place), "gated"
    (the stream was held), "host-bound" with the reason if it could not be, "precision" (relative half width
    of the median's 95 % interval), "works" (a callable's kernels and copies a call) or "unwatched" (why these
    are not known); or {"emulated": True}.
    """

    samples: tuple[float, ...]
    details: Mapping[str, Any] = field(default_factory=dict)

    @property
    def median(self) -> float:
        """Return the median in seconds; NaN if nothing was timed."""
        return median(self.samples) if self.samples else math.nan


# --------------------------------------------------------------------------- the arithmetic


def batch_size(seconds: float) -> int:
    """Choose the launches of a sample: a power of two, on which runs near a boundary agree more often."""
    if seconds >= BATCH_BELOW:
        return 1
    wanted = BATCH_LASTS / max(seconds, BATCH_LASTS / BATCH_MOST)
    return min(BATCH_MOST, 2 ** math.ceil(math.log2(wanted)))


def precision(samples: Sequence[float]) -> float:
    """Return the relative half width of the median's distribution-free 95 % interval.

    By the order statistics n/2 -+ 1.96 sqrt(n)/2, rounded outward (Conover, Practical Nonparametric
    Statistics, 3.2: the normal approximation to the binomial, good from 20 samples). Infinite below 6
    samples, of which no interval has that confidence.
    """
    count = len(samples)
    if count < 6:
        return math.inf
    ordered = sorted(samples)
    reach = 1.96 * math.sqrt(count) / 2
    low = ordered[max(0, math.floor(count / 2 - reach))]
    high = ordered[min(count - 1, math.ceil(count / 2 + reach))]
    return (high - low) / 2 / median(ordered)


def is_enough(samples: Sequence[float], fewest: int, left: float, wall: float) -> bool:
    """Say whether to stop: the samples are precise enough, or the device's or the host's time is spent."""
    if len(samples) < fewest:
        return False
    return left <= 0 or wall >= WALL or precision(samples) <= PRECISION


# --------------------------------------------------------------------------- the sampling


class Stopwatch:
    """One measurement of one callable; ``mover`` enqueues it on arrays in other places."""

    def __init__(
        self,
        timer: Timer,
        enqueue: Callable[[], Any],
        settings: Settings,
        batch: int | None = None,
        mover: ArrayMover | None = None,
    ) -> None:
        self._timer = timer
        self._enqueue = enqueue
        self._settings = settings
        self._cold = settings.l2 == "cold"
        self._batch = 1
        self._wanted_batch = batch
        self._mover = mover
        self._hold = HOLD_FIRST
        self._host_bound = ""
        self._opened = timer.event()
        self._pairs: list[tuple[Any, Any]] = []

    def measure(self) -> Timing:
        """Warm up, find out how to time the callable, and sample it."""
        self._warm_up()
        launch = self._probe()
        self._batch = self._wanted_batch or (1 if self._host_bound else batch_size(launch))
        if self._cold:
            self._batch = 1  # the second launch of a batch would find the cache warm
        moved = [] if self._host_bound or not self._mover else self._sample_places(self._mover, launch)
        samples = moved or self._sample(launch)
        details: dict[str, Any] = {
            "batch": self._batch,
            "gated": not self._host_bound,
            "moved": bool(moved),
            "l2": self._settings.l2,
        }
        if math.isfinite(width := precision(samples)):
            details["precision"] = width
        if self._host_bound:
            details["host-bound"] = self._host_bound
        return Timing(tuple(samples), details)

    def once(self) -> float:
        """Launch once more and return its seconds; NaN where the host's gaps may be in them."""
        taken = self._chunk(1, 1)
        return taken[0] if taken and not self._host_bound else math.nan

    def _warm_up(self) -> None:
        """Launch until the clocks are up; each round is twice the last, which keeps the waits few."""
        timer, begin, launches, count = self._timer, self._timer.now(), 0, 1
        seen = unseen = 0.0
        while (spent := timer.now() - begin) < self._settings.warmup or (
            launches < WARMUP_FEWEST and spent < LONG
        ):
            start = timer.now()
            for _ in range(count):
                self._enqueue()
            timer.record(self._opened)
            timer.wait(self._opened)
            done = timer.now()
            timer.synchronize()
            seen, unseen = seen + done - start, unseen + timer.now() - done
            launches += count
            count = min(2 * count, IN_FLIGHT // 2)
        # Work that goes on after our event is done runs where events do not see it: its time would be ~0.
        # Over the whole warm-up, because a host that lost its core for a moment looks alike in one round.
        if unseen > max(UNSEEN, seen):
            raise KernelError(
                "What was timed goes on after events on gpu.stream are done, so it runs on a non-blocking "
                "stream of its own; enqueue it on gpu.stream or on the default stream."
            )

    def _probe(self) -> float:
        """Return the seconds of one launch; find out if the stream can be held while it is enqueued."""
        while True:
            samples = self._chunk(1, 1)
            if samples and samples[0] > 0:
                return samples[0]
            if samples:
                raise KernelError("No time passed on the device; what was timed enqueues nothing there.")
            if self._hold >= HOLD_MOST:
                self._give_up_holding()
            else:
                self._hold = min(2 * self._hold, HOLD_MOST)

    def _give_up_holding(self) -> None:
        self._host_bound = (
            f"the callable synchronises, or takes longer than {HOLD_MOST * 1e3:.0f} ms to enqueue: "
            "the time includes the host's"
        )

    def _sample(self, launch: float) -> list[float]:
        timer, fewest = self._timer, self._fewest(launch)
        # A long launch is not made again for what the probe has found.
        samples = [launch] if self._batch == 1 and fewest == FEWEST_LONG else []
        begin, count = timer.now(), self._most()
        while not is_enough(samples, fewest, self._left(samples), timer.now() - begin):
            # A chunk is looked at only when it is over: do not let a slow launch's outlast the budget.
            room = max(1, round(self._settings.seconds / 4 / (launch * self._batch)))
            count = min(count, room, self._most())
            chunk = self._chunk(count, self._batch)
            samples += chunk
            self._settings.tell(len(samples))
            if not chunk:
                count = self._shrink(count)
        return samples

    def _sample_places(self, mover: ArrayMover, launch: float) -> list[float]:
        """Take samples that are medians of some launches, each on arrays in another place.

        Returns none if the host cannot enqueue them in time.
        """
        timer, samples, taken = self._timer, list[float](), list[float]()
        begin, here = timer.now(), self._enqueue
        fewest = self._fewest(launch)
        count = 1 + (AT_A_PLACE if fewest == FEWEST else 1)  # the first finds no page of a place in the TLB
        while len(samples) < PLACES and not is_enough(
            samples, fewest, self._left(taken), timer.now() - begin
        ):
            with mover.moved() as self._enqueue:
                chunk = self._chunk(min(count, self._most()), self._batch)
            self._enqueue = here
            if chunk:
                taken += chunk
                samples.append(median(chunk[1:]))
                self._settings.tell(len(samples))
            elif self._hold < HOLD_MOST:
                self._hold *= 2
            else:
                return []
        return samples

    def _fewest(self, launch: float) -> int:
        return FEWEST if launch * self._batch < LONG else FEWEST_LONG

    def _left(self, taken: Sequence[float]) -> float:
        """Return the seconds of the device's that samples may still take."""
        return self._settings.seconds - sum(taken) * self._batch

    def _most(self) -> int:
        """Return how many samples of a chunk may be in flight; one at a time if the stream is not held."""
        return 1 if self._host_bound else max(1, IN_FLIGHT // (self._batch + 3))

    def _shrink(self, count: int) -> int:
        """Hold longer and queue less, after a chunk that was not held; with nothing left, stop holding."""
        if self._hold >= HOLD_MOST and count == 1:
            self._give_up_holding()
        self._hold = min(2 * self._hold, HOLD_MOST)
        return max(1, count // 2)

    def _chunk(self, count: int, batch: int, share: int = 1) -> list[float]:
        """Take ``count`` samples of ``batch`` launches, queued behind a hold; none if it did not hold.

        ``share`` is the part of the hold, 1 / share, that is enough for them.
        """
        timer = self._timer
        if self._cold and timer.unpin() and count > 1:
            # Lines that persist outlive a flush, and are let go only at once: a sample at a time.
            taken = list[float]()
            for _ in range(count):
                if not (one := self._chunk(1, batch, share=count)):
                    return []
                taken += one
            return taken
        while len(self._pairs) < count:
            self._pairs.append((timer.event(), timer.event()))
        pairs = self._pairs[:count]
        if not self._host_bound:
            timer.hold(self._hold / share)
        timer.record(self._opened)
        for start, end in pairs:
            if self._cold:
                timer.flush()
            timer.record(start)
            for _ in range(batch):
                self._enqueue()
            timer.record(end)
        held = bool(self._host_bound) or not timer.done(self._opened)
        timer.wait(pairs[-1][1])
        if not held:
            return []
        return [timer.seconds(start, end) / batch for start, end in pairs]
