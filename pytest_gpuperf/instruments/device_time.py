"""Device time of a launch, by events on the device's own clock.

What makes the samples worth comparing (each point has cost somebody a false red):
- the stream is *held* while launches are queued, so that the host's gaps never enter a sample, and
  whether it was held is checked;
- launches shorter than a few microseconds are timed in batches: events step by 32 ns, and an event
  pair costs about as much as such a launch;
- samples begin after a warm-up, and end when the median's interval is narrow or the time is spent;
- with ``l2="cold"`` the cache is flushed before each sample, outside the events.
"""

from __future__ import annotations

import math
import time
import weakref
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import median
from typing import TYPE_CHECKING, Any, Protocol

from pytest_gpuperf.errors import KernelError

if TYPE_CHECKING:
    from pytest_gpuperf.gpu import Gpu

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
WALL = 2.0  # seconds on the host's clock, after warm-up
WARMUP_FEWEST = 3
UNSEEN = 10e-3  # seconds of work after the last event


class Timer(Protocol):
    """A stopwatch on one stream. Everything but ``now``, ``done`` and the waits is only enqueued."""

    def now(self) -> float:
        """The host's clock, in seconds."""

    def event(self) -> Any: ...

    def hold(self, seconds: float) -> None:
        """Keeps the stream from going on for so long."""

    def record(self, event: Any) -> None: ...

    def flush(self) -> None:
        """Evicts the L2 cache."""

    def done(self, event: Any) -> bool: ...

    def wait(self, event: Any) -> None: ...

    def seconds(self, start: Any, end: Any) -> float:
        """Device time between two events that are done."""

    def synchronize(self) -> None:
        """Waits for the whole device, other streams included."""


class Settings(Protocol):
    """What a test may ask for: ``l2`` "hot" or "cold", ``seconds`` of device time to sample at most, and
    ``warmup`` seconds before it."""

    @property
    def l2(self) -> str: ...
    @property
    def seconds(self) -> float: ...
    @property
    def warmup(self) -> float: ...


@dataclass(frozen=True, slots=True)
class Options:
    """The default ``Settings``."""

    l2: str = "hot"
    seconds: float = 0.5
    warmup: float = 0.2


@dataclass(frozen=True, slots=True)
class Timing:
    """Samples in seconds per launch, and how they were taken.

    ``details``: "batch" launches a sample, "gated" (the stream was held), "host-bound" with the reason
    where it could not be, "precision" (relative half width of the median's 95 % interval); or
    {"emulated": True}.
    """

    samples: tuple[float, ...]
    details: Mapping[str, Any] = field(default_factory=dict)

    @property
    def median(self) -> float:
        """Seconds; NaN where nothing was timed."""
        return median(self.samples) if self.samples else math.nan


def measure(
    gpu: Gpu,
    launch: Callable[..., Any],
    args: Sequence[Any] = (),
    options: Settings | None = None,
    *,
    batch: int | None = None,
) -> Timing:
    """Times ``launch(*args)`` on ``gpu``.

    ``launch`` is a kernel's Launch, or any callable that enqueues its work on the device's stream or
    on the default stream. ``batch`` fixes the launches a sample to what a baseline used; without it
    launches below BATCH_BELOW get the power of two that lasts BATCH_LASTS. Raises KernelError for a
    callable whose work the events cannot see. On the emulated backend one run after a warm one, in
    host seconds, to be shown and never judged.
    """
    enqueue = _bound(launch, args)
    if gpu.backend == "emulated":
        return _emulated(enqueue, gpu)
    backend: Any = gpu.device
    return Stopwatch(backend.timer(), enqueue, options or Options(), batch).measure()


def _bound(launch: Callable[..., Any], args: Sequence[Any]) -> Callable[[], Any]:
    """Kernels check their arguments once, so that a check is not what the stream waits for."""
    bind = getattr(launch, "bind", None)
    return bind(*args) if bind else lambda: launch(*args)


def _emulated(enqueue: Callable[[], Any], gpu: Gpu) -> Timing:
    enqueue()
    gpu.synchronize()
    start = time.perf_counter()
    enqueue()
    gpu.synchronize()
    return Timing((time.perf_counter() - start,), {"emulated": True})


# --------------------------------------------------------------------------- the arithmetic


def batch_size(seconds: float) -> int:
    """Launches a sample, a power of two, so that two runs near a boundary more often agree."""
    if seconds >= BATCH_BELOW:
        return 1
    wanted = BATCH_LASTS / max(seconds, BATCH_LASTS / BATCH_MOST)
    return min(BATCH_MOST, 2 ** math.ceil(math.log2(wanted)))


def precision(samples: Sequence[float]) -> float:
    """Relative half width of the median's distribution-free 95 % interval, from order statistics.

    Ranks n/2 -+ 1.96 sqrt(n)/2, rounded outward (Conover, Practical Nonparametric Statistics, 3.2:
    the normal approximation to the binomial, good from 20 samples). Infinite below 6 samples, of
    which no interval has that confidence.
    """
    count = len(samples)
    if count < 6:
        return math.inf
    ordered = sorted(samples)
    reach = 1.96 * math.sqrt(count) / 2
    low = ordered[max(0, math.floor(count / 2 - reach))]
    high = ordered[min(count - 1, math.ceil(count / 2 + reach))]
    return (high - low) / 2 / median(ordered)


def is_enough(samples: Sequence[float], batch: int, budget: float, wall: float) -> bool:
    """Whether to stop sampling: precise enough, or the device's or the host's time is spent."""
    launch = median(samples)
    fewest = FEWEST if launch * batch < LONG else FEWEST_LONG
    if len(samples) < fewest:
        return False
    return sum(samples) * batch >= budget or wall >= WALL or precision(samples) <= PRECISION


# --------------------------------------------------------------------------- the sampling


class Stopwatch:
    """One measurement of one callable."""

    def __init__(
        self, timer: Timer, enqueue: Callable[[], Any], options: Settings, batch: int | None = None
    ) -> None:
        self._timer = timer
        self._enqueue = enqueue
        self._options = options
        self._cold = options.l2 == "cold"
        self._batch = 1
        self._wanted_batch = batch
        self._hold = HOLD_FIRST
        self._host_bound = ""
        self._opened = timer.event()
        self._pairs: list[tuple[Any, Any]] = []

    def measure(self) -> Timing:
        """Warms up, finds out how to time the callable, and samples it."""
        self._warm_up()
        launch = self._probe()
        self._batch = self._wanted_batch or (1 if self._host_bound else batch_size(launch))
        if self._cold:
            self._batch = 1  # the second launch of a batch would find the cache warm
        samples = self._sample(launch)
        details: dict[str, Any] = {
            "batch": self._batch,
            "gated": not self._host_bound,
            "l2": self._options.l2,
        }
        if math.isfinite(width := precision(samples)):
            details["precision"] = width
        if self._host_bound:
            details["host-bound"] = self._host_bound
        return Timing(tuple(samples), details)

    def _warm_up(self) -> None:
        """Launches until the clocks are up; each round is twice the last, so that few waits interrupt it."""
        timer, begin, launches, count = self._timer, self._timer.now(), 0, 1
        seen = unseen = 0.0
        while launches < WARMUP_FEWEST or timer.now() - begin < self._options.warmup:
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
        """Seconds of one launch, and whether the stream can be held while the callable enqueues."""
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
        timer, samples = self._timer, list[float]()
        begin = timer.now()
        count = self._most()
        while not samples or not is_enough(samples, self._batch, self._options.seconds, timer.now() - begin):
            # A chunk is looked at only when it is over: do not let a slow launch's outlast the budget.
            room = max(1, round(self._options.seconds / 4 / (launch * self._batch)))
            count = min(count, room, self._most())
            chunk = self._chunk(count, self._batch)
            samples += chunk
            if not chunk:
                count = self._shrink(count)
        return samples

    def _most(self) -> int:
        """Samples a chunk, by what may be in flight; one at a time where the stream is not held."""
        return 1 if self._host_bound else max(1, IN_FLIGHT // (self._batch + 3))

    def _shrink(self, count: int) -> int:
        """After a chunk that was not held: hold longer and queue less; with nothing left, stop holding."""
        if self._hold >= HOLD_MOST and count == 1:
            self._give_up_holding()
        self._hold = min(2 * self._hold, HOLD_MOST)
        return max(1, count // 2)

    def _chunk(self, count: int, batch: int) -> list[float]:
        """``count`` samples of ``batch`` launches, queued behind a hold; none where it did not hold."""
        timer = self._timer
        while len(self._pairs) < count:
            self._pairs.append((timer.event(), timer.event()))
        pairs = self._pairs[:count]
        if not self._host_bound:
            timer.hold(self._hold)
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


# --------------------------------------------------------------------------- the device's own peak

_bandwidths: weakref.WeakKeyDictionary[Any, float] = weakref.WeakKeyDictionary()


def copy_bandwidth(gpu: Gpu) -> float:
    """Bytes per second, read and written, of a device-to-device copy: what "fraction of copy" is of.

    Of min(256 MiB, an eighth of the free memory), once per process and device. NaN when emulated.
    """
    backend: Any = gpu.device
    if gpu.backend == "emulated":
        return math.nan
    if backend not in _bandwidths:
        nbytes = min(256 * 2**20, backend.free_memory() // 8)
        source, destination = backend.empty((nbytes,), "u1"), backend.empty((nbytes,), "u1")
        try:
            timing = measure(gpu, backend.copy, (destination, source))
        finally:
            backend.free(source)
            backend.free(destination)
        _bandwidths[backend] = 2 * nbytes / timing.median
    return _bandwidths[backend]
