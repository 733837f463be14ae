"""The sampling of device time, on a simulated device: a host clock, one stream in order, a queue."""

import math
import random
from collections import deque
from contextlib import contextmanager
from types import SimpleNamespace

import numpy as np
import pytest

from pytest_gpuperf.backends.geometry import Geometry
from pytest_gpuperf.backends.gpu import Gpu
from pytest_gpuperf.backends.timer import Work
from pytest_gpuperf.errors import KernelError
from pytest_gpuperf.instruments import device_time, stopwatch
from pytest_gpuperf.instruments.device_time import Settings, Timing, measure
from pytest_gpuperf.instruments.stopwatch import Stopwatch, batch_size, precision

US = 1e-6


class Device:
    """Host and device of a GPU as far as a stopwatch sees them; all times in seconds.

    Enqueuing costs the host ``host_cost``; the device starts work when the host has enqueued it and
    what came before is over. The driver's queue holds 1,024 entries and then blocks the host. An
    event takes ``event_cost`` of the stream and steps by 32 ns.
    """

    def __init__(self, host_cost=3 * US, event_cost=0.5 * US):
        self.clock = self.free_at = self.elsewhere_at = 0.0
        self.host_cost, self.event_cost = host_cost, event_cost
        self.queue = deque()
        self.unpinned_at = 0.0
        self.deepest = self.holds = self.flushes = self.launches = 0
        self.held = 0.0
        self.cold = True
        self.pinned = False
        self.works = []

    def enqueue(self, duration, work=""):
        self.clock += self.host_cost
        while self.queue and self.queue[0] <= self.clock:
            self.queue.popleft()
        if len(self.queue) >= 1024:
            self.clock = self.queue.popleft()
        start = max(self.free_at, self.clock)
        self.free_at = start + duration
        if work:
            self.ran(work, start, self.free_at)
        self.queue.append(self.free_at)
        self.deepest = max(self.deepest, len(self.queue))

    def ran(self, work, start, end):
        self.works.append(Work(work, round(start * 1e9), round(end * 1e9), held=work == "hold"))

    def elsewhere(self, duration, after=0.0, work="elsewhere"):
        """Run so much work on a stream that nothing waits for; ``after`` so long a thread enqueues it."""
        self.clock += self.host_cost
        start = self.clock + after
        if not after:
            start = max(self.elsewhere_at, start)
            self.elsewhere_at = start + duration
        self.ran(work, start, start + duration)

    def kernel(self, duration, cold=None, work="kernel"):
        """A launch of so long, or as a function of the time of its start; ``cold`` after a flush."""

        def launch():
            self.launches += 1
            taken = duration(max(self.free_at, self.clock)) if callable(duration) else duration
            if cold is not None and self.cold:
                taken = cold
            self.cold = False
            self.enqueue(taken, work)

        return launch

    # the Timer protocol

    def now(self):
        self.clock += 0.1 * US
        return self.clock

    def event(self):
        return SimpleNamespace(at=None)

    def hold(self, seconds):
        self.holds += 1
        self.held += seconds
        self.enqueue(seconds, "hold")

    @contextmanager
    def watched(self):
        works, begin = [], round(self.clock * 1e9)
        yield works
        now = round(self.clock * 1e9)
        works += sorted((w for w in self.works if w.end > begin and w.start <= now), key=lambda w: w.start)
        self.works = [work for work in self.works if work.start > now]

    def unpin(self):
        self.unpinned_at = self.clock
        return self.pinned

    def record(self, event):
        self.enqueue(self.event_cost)
        event.at = self.free_at

    def flush(self):
        self.flushes += 1
        self.cold = True
        self.enqueue(40 * US)

    def done(self, event):
        return event.at <= self.clock

    def wait(self, event):
        self.clock = max(self.clock, event.at)

    def seconds(self, start, end):
        assert end.at <= self.clock, "an event was read before it was done"
        return round((end.at - start.at) / 32e-9) * 32e-9

    def synchronize(self):
        self.clock = max(self.clock, self.free_at, self.elsewhere_at)


def timed(device, launch, batch=None, **options) -> Timing:
    return Stopwatch(device, launch, Settings(**options), batch).measure()


# --------------------------------------------------------------------------- pure parts


def test_batches_of_a_power_of_two_last_long_enough():
    for nanoseconds in range(50, 20000, 50):
        seconds = nanoseconds * 1e-9
        batch = batch_size(seconds)
        assert batch & (batch - 1) == 0
        if seconds >= stopwatch.BATCH_BELOW:
            assert batch == 1
        else:
            assert batch * seconds >= stopwatch.BATCH_LASTS or batch == stopwatch.BATCH_MOST
    assert batch_size(0) == stopwatch.BATCH_MOST


def test_precision_by_order_statistics():
    # n = 100: ranks 50 -+ 9.8 outward, so the 41st and the 61st value.
    assert precision(range(1, 101)) == pytest.approx((61 - 41) / 2 / 50.5)
    assert precision([3.0] * 50) == 0
    assert precision([1.0] * 5) == math.inf


def test_the_interval_holds_the_median_as_often_as_it_says():
    generator, covered = np.random.default_rng(0), 0
    for _ in range(2000):
        samples = np.sort(generator.lognormal(0, 0.3, 60))
        reach = 1.96 * math.sqrt(60) / 2
        low, high = samples[math.floor(30 - reach)], samples[math.ceil(30 + reach)]
        assert precision(samples) == pytest.approx((high - low) / 2 / np.median(samples))
        covered += low <= 1 <= high
    assert covered / 2000 > 0.95


# --------------------------------------------------------------------------- sampling


def test_gaps_of_a_slow_host_do_not_enter():
    device = Device(host_cost=30 * US)
    timing = timed(device, device.kernel(15 * US))
    # An event pair adds one event's cost; the host's 30 us between launches must not show.
    assert timing.median == pytest.approx(15.5 * US, rel=0.005)
    assert timing.details["gated"] is True
    assert timing.details["batch"] == 1


def test_the_person_who_waits_is_told_the_samples():
    told: list[int] = []
    device = Device()
    timing = timed(device, device.kernel(15 * US), tell=told.append)
    assert told[-1] == len(timing.samples)
    assert told == sorted(told)


@pytest.mark.parametrize(("kernel", "batch"), [(1 * US, 64), (2 * US, 32), (9 * US, 8), (11 * US, 1)])
def test_short_launches_are_timed_in_batches(kernel, batch):
    device = Device()
    timing = timed(device, device.kernel(kernel))
    assert timing.details["batch"] == batch
    assert timing.median == pytest.approx(kernel + 0.5 * US / batch, rel=0.005)


def test_a_batch_can_be_fixed_to_the_baselines():
    device = Device()
    timing = timed(device, device.kernel(11 * US), batch=8)
    assert timing.details["batch"] == 8
    assert timing.median == pytest.approx((8 * 11 + 0.5) / 8 * US, rel=0.001)


def test_the_hold_grows_until_it_holds():
    device = Device()
    host = device.kernel(20 * US)

    def slow_to_enqueue():
        device.clock += 5e-3
        host()

    timing = timed(device, slow_to_enqueue, seconds=0.01)
    assert timing.details["gated"] is True
    assert timing.median == pytest.approx(20.5 * US, rel=0.005)


def test_a_callable_that_synchronises_is_host_bound_and_ends():
    device = Device()
    kernel = device.kernel(100 * US)

    def synchronising():
        kernel()
        device.synchronize()
        device.clock += 50 * US

    timing = timed(device, synchronising)
    assert timing.details["gated"] is False
    assert "synchronises" in timing.details["host-bound"]
    assert timing.median > 100 * US


def test_the_drivers_queue_is_never_filled():
    for kernel in (0.2 * US, 9 * US, 200 * US):
        device = Device(host_cost=1 * US)
        timed(device, device.kernel(kernel))
        assert device.deepest < 600


def test_steady_samples_end_soon_and_noisy_ones_take_their_time():
    noise = random.Random(1)
    steady, noisy, wild = Device(), Device(), Device()
    few = timed(steady, steady.kernel(200 * US))
    some = timed(noisy, noisy.kernel(lambda _: 200 * US * noise.lognormvariate(0, 0.003)))
    most = timed(wild, wild.kernel(lambda _: 200 * US * noise.lognormvariate(0, 0.3)))
    assert stopwatch.FEWEST <= len(few.samples) < len(some.samples) < len(most.samples)
    assert some.details["precision"] <= stopwatch.PRECISION < most.details["precision"]
    assert 0.5 <= sum(most.samples) < 0.7  # the budget, and at most a chunk more


def test_sampling_waits_for_the_clocks():
    device = Device()
    timing = timed(device, device.kernel(lambda start: 150 * US if start < 0.15 else 100 * US))
    assert max(timing.samples) == pytest.approx(100.5 * US, rel=0.005)
    cold_clocks = Device()
    early = timed(
        cold_clocks, cold_clocks.kernel(lambda start: 150 * US if start < 0.15 else 100 * US), warmup=0.0
    )
    assert max(early.samples) > 140 * US


def test_long_launches_are_not_launched_often():
    device = Device()
    timing = timed(device, device.kernel(0.3))
    assert len(timing.samples) == stopwatch.FEWEST_LONG
    assert device.launches <= 1 + stopwatch.FEWEST_LONG  # a warm-up; the probe is a sample
    assert "precision" not in timing.details


def test_cold_flushes_before_every_sample_and_outside_it():
    hot, cold = Device(), Device()
    warm = timed(hot, hot.kernel(5 * US, cold=8 * US), l2="hot")
    flushed = timed(cold, cold.kernel(5 * US, cold=8 * US), l2="cold")
    assert hot.flushes == 0
    assert warm.median == pytest.approx(5 * US, rel=0.02)
    assert set(np.round(np.array(flushed.samples) / US, 1)) == {8.5}
    assert flushed.details["batch"] == 1
    assert flushed.details["l2"] == "cold"


def test_work_that_events_cannot_see_is_an_error():
    device = Device()

    def on_another_stream():
        device.clock += 3 * US
        device.elsewhere_at = max(device.elsewhere_at, device.clock) + 100 * US

    with pytest.raises(KernelError, match="non-blocking stream"):
        timed(device, on_another_stream)


def test_a_host_that_loses_its_core_for_a_moment_is_no_error():
    device, lost = Device(), iter([False] * 2 + [True] + [False] * 10**6)
    synchronize = device.synchronize

    def preempted():
        synchronize()
        device.clock += 30e-3 if next(lost) else 0

    device.synchronize = preempted
    assert timed(device, device.kernel(100 * US)).median == pytest.approx(100.5 * US, rel=0.005)


def test_a_callable_that_enqueues_nothing_is_an_error():
    device = Device(event_cost=0.0, host_cost=0.0)
    with pytest.raises(KernelError, match="enqueues nothing"):
        timed(device, lambda: None, warmup=0.0)


def test_persisting_lines_are_let_go_before_each_cold_sample():
    device = Device()
    device.pinned = True
    launch, late = device.kernel(5 * US, cold=8 * US), []

    def persisting():
        late.append(device.unpinned_at < max(running, default=0.0))
        launch()
        running.append(device.free_at)

    running: list[float] = []
    timing = timed(device, persisting, l2="cold", warmup=0.0)
    assert not any(late[stopwatch.WARMUP_FEWEST + 1 :])
    assert len(timing.samples) >= stopwatch.FEWEST
    assert timing.details["gated"] is True


def test_a_sample_taken_alone_is_held_for_its_share_only():
    device = Device()
    device.pinned = True
    timing = timed(device, device.kernel(100 * US, cold=120 * US), l2="cold", warmup=0.0)
    assert timing.details["gated"] is True
    assert device.held < 0.3e-3 * len(timing.samples)


# --------------------------------------------------------------------------- measure and the copy


class SimulatedBackend:
    name, judges_times = "cuda", True

    def __init__(self, free=8 * 2**30, rate=1e12):
        self.device, self.free_bytes, self.rate = Device(), free, rate
        self.made, self.freed, self.copies = [], [], 0

    def timer(self):
        return self.device

    def free_memory(self):
        return self.free_bytes

    def empty(self, shape, dtype):
        self.made.append(SimpleNamespace(nbytes=shape[0]))
        return self.made[-1]

    def free(self, array):
        self.freed.append(array)

    def copy(self, destination, source):
        assert destination.nbytes == source.nbytes
        self.copies += 1
        self.device.kernel(2 * source.nbytes / self.rate)()


def test_a_launch_is_bound_once_and_a_callable_is_given_all():
    backend, calls = SimulatedBackend(), []
    kernel = backend.device.kernel(100 * US)

    class Launch:
        geometry, declaration = Geometry.of(1, 1), SimpleNamespace(parameters=())

        def bind(self, *args):
            calls.append(args)
            return kernel

    assert measure(Gpu(backend), Launch(), (1, 2)).median == pytest.approx(100.5 * US, rel=0.005)
    assert calls == [(1, 2)]
    measure(Gpu(backend), lambda *args: (calls.append(args), kernel()), (3,), Settings(warmup=0.0))
    assert set(calls[1:]) == {(3,)}


def test_emulated_runs_once_warm_and_once_timed_and_says_so():
    calls = []
    backend = SimpleNamespace(judges_times=False, synchronize=lambda: calls.append("synchronize"))
    timing = measure(Gpu(backend), lambda: calls.append("run"))
    assert calls == ["run", "synchronize", "run", "synchronize"]
    assert timing.details == {"emulated": True}
    assert len(timing.samples) == 1
    assert 0 < timing.median < 1
    assert math.isnan(device_time.copy_bandwidth(Gpu(backend)))


@pytest.mark.parametrize(("free", "nbytes"), [(8 * 2**30, 256 * 2**20), (2**30, 128 * 2**20)])
def test_copy_bandwidth_counts_reads_and_writes_once_per_device(free, nbytes):
    backend = SimulatedBackend(free=free)
    assert device_time.copy_bandwidth(Gpu(backend)) == pytest.approx(1e12, rel=0.01)
    assert [array.nbytes for array in backend.made] == [nbytes, nbytes]
    assert {id(array) for array in backend.freed} == {id(array) for array in backend.made}
    copies = backend.copies
    assert device_time.copy_bandwidth(Gpu(backend)) == pytest.approx(1e12, rel=0.01)
    assert backend.copies == copies


def test_nothing_timed_has_no_median():
    assert math.isnan(Timing(()).median)


@pytest.mark.parametrize(
    ("moved", "seconds", "possible"),
    [
        (None, 1e-9, True),
        (400e6, 130e-6, True),  # 3,077 GB/s
        (400e6, 100e-6, False),  # 4,000 GB/s: 348 MB of them cannot come from the L2 cache
        (40e6, 1e-6, True),  # all of it may lie in the L2 cache
        (4e9, 2e-6, False),
    ],
)
def test_a_time_too_short_for_the_memory_is_refused(moved, seconds, possible):
    device = SimpleNamespace(judges_times=True, l2_bytes=50 * 2**20, peak_bandwidth=3.352e12, peak_flops=0.0)
    if possible:
        device_time.check_possible(device, "copy", seconds, moved)
        return
    with pytest.raises(KernelError, match=r"copy is faster than the hardware: .* moves 3,352 at most"):
        device_time.check_possible(device, "copy", seconds, moved)


def test_a_device_of_unknown_bandwidth_refuses_nothing():
    device = SimpleNamespace(judges_times=True, l2_bytes=0, peak_bandwidth=0.0, peak_flops=0.0)
    device_time.check_possible(device, "copy", 1e-9, 1e9, 1e15)
