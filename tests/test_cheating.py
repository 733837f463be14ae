"""Callables whose time is not their work's, on a simulated device: each is refused, and honest ones pass."""

from __future__ import annotations

import functools
from contextlib import contextmanager
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from cheats import FEWER, LESS, NOT_IN_ORDER, NOT_THE_SAME, NOTHING, TOO_LATE, after, sampled  # noqa: F401  (a fixture)
from test_device_time import US, SimulatedBackend

from pytest_gpuperf.backends.geometry import Geometry
from pytest_gpuperf.backends.gpu import Gpu
from pytest_gpuperf.backends.timer import Work
from pytest_gpuperf.errors import KernelError, Unavailable
from pytest_gpuperf.instruments import watch
from pytest_gpuperf.instruments.device_time import Settings, measure


@pytest.fixture
def simulated(monkeypatch):
    backend = SimulatedBackend()
    device = backend.device

    def wait(seconds):
        device.clock += seconds

    monkeypatch.setattr(watch, "sleep", wait)
    return SimpleNamespace(gpu=Gpu(backend), device=device)


def timed(simulated, call, **options):
    return measure(simulated.gpu, call, (), Settings(seconds=0.05, warmup=0.01), name="cheat", **options)


def test_an_honest_callable_passes_and_its_works_are_told(simulated):
    first, second = simulated.device.kernel(100 * US), simulated.device.kernel(50 * US, work="other")
    timing = timed(simulated, lambda: (first(), second()))
    assert timing.details["works"] == 2
    assert timing.median == pytest.approx(150.5 * US, rel=0.01)


def test_work_of_the_first_call_alone_is_a_warm_up(simulated):
    kernel, tuning = simulated.device.kernel(100 * US), simulated.device.kernel(1e-3, work="tuning")
    assert timed(simulated, after(1, lambda: (tuning(), kernel()), kernel)).details["works"] == 1


def test_a_callable_that_stops_after_five_calls(simulated):
    with pytest.raises(KernelError, match=f"cheat {NOT_THE_SAME}0 after them"):
        timed(simulated, after(5, simulated.device.kernel(100 * US), lambda: None))


def test_a_callable_that_runs_another_kernel_after_five_calls(simulated):
    device = simulated.device
    with pytest.raises(KernelError, match=f"{NOT_THE_SAME}1 after them .kernel is gone."):
        timed(simulated, after(5, device.kernel(100 * US), device.kernel(1 * US, work="less")))


def test_a_callable_that_keeps_its_result(simulated):
    kernel = simulated.device.kernel(100 * US)
    with pytest.raises(KernelError, match=f"cheat {NOTHING}"):
        timed(simulated, functools.cache(lambda: kernel()))


def test_a_callable_that_gives_the_same_kernel_less_to_do(simulated):
    """Its name and geometry are the same, and n is not: samples and the calls after them agree."""
    full, less = simulated.device.kernel(100 * US), simulated.device.kernel(10 * US)
    with pytest.raises(
        KernelError, match=rf"cheat keeps .* 100.0 us a call before .* 10.0 us after .*{FEWER}"
    ):
        timed(simulated, after(5, full, less))
    assert timed(simulated, after(5, simulated.device.kernel(29 * US), less)).median < 11 * US, (
        "clocks, caches"
    )


def sorting(simulated, first, then, interrupted=0):
    """A kernel that takes ``first`` on the test's contents and ``then`` on its own, and its array."""
    device, backend = simulated.device, simulated.gpu.device
    state = SimpleNamespace(sorted=False, interrupted=interrupted)

    def run():
        taken = then if state.sorted else first
        if state.restored and state.interrupted:
            taken, state.interrupted = first * 20, state.interrupted - 1
        state.sorted = True
        device.enqueue(taken)

    state.restored = False
    parameter = SimpleNamespace(pointer=True, const=False)

    def copy(destination, source):
        if destination is array:
            state.sorted, state.restored = False, True

    array = SimpleNamespace(nbytes=4, shape=(), dtype=np.dtype("f4"))
    backend.synchronize = lambda: None
    backend.owns_memory, backend.copy = lambda each: each is array, copy
    backend.empty = lambda *_: SimpleNamespace(nbytes=4)
    launch = SimpleNamespace(
        bind=lambda *_: run,
        geometry=Geometry.of(1, 1),
        name="sort",
        declaration=SimpleNamespace(parameters=[parameter]),
    )
    return launch, array


def test_a_kernel_with_less_to_do_on_what_it_has_made(simulated):
    launch, array = sorting(simulated, 300 * US, 20 * US)
    with pytest.raises(
        KernelError, match=r"sort takes 300.\d us on what the test put .* and 20.\d us on what it"
    ):
        measure(simulated.gpu, launch, (array,), Settings(seconds=0.05, warmup=0.01))


def test_one_launch_that_is_interrupted_is_no_finding(simulated):
    launch, array = sorting(simulated, 30 * US, 20 * US, interrupted=2)
    measure(simulated.gpu, launch, (array,), Settings(seconds=0.05, warmup=0.01))
    launch, array = sorting(simulated, 30 * US, 20 * US, interrupted=3)
    with pytest.raises(KernelError, match="sort takes 600"):
        measure(simulated.gpu, launch, (array,), Settings(seconds=0.05, warmup=0.01))


def test_half_of_the_work_on_another_stream(simulated):
    kernel = simulated.device.kernel(100 * US)
    with pytest.raises(KernelError, match=f"cheat runs elsewhere {NOT_IN_ORDER}"):
        timed(simulated, lambda: (simulated.device.elsewhere(90 * US), kernel()))


def test_work_of_another_stream_that_ends_after_the_events(simulated):
    device = simulated.device
    kernel = device.kernel(100 * US)

    def forks_and_does_not_join():
        kernel()
        device.elsewhere_at = device.free_at
        device.elsewhere(90 * US)

    with pytest.raises(KernelError, match=f"cheat runs elsewhere {NOT_IN_ORDER}"):
        timed(simulated, forks_and_does_not_join)


def test_work_that_a_thread_enqueues_later(simulated):
    kernel = simulated.device.kernel(1 * US)
    with pytest.raises(KernelError, match=TOO_LATE):
        timed(simulated, lambda: (kernel(), simulated.device.elsewhere(90 * US, after=20e-3)))


def test_work_done_when_watched_and_not_when_timed_is_refused(simulated, sampling):
    full, less = simulated.device.kernel(100 * US), simulated.device.kernel(1 * US)
    with pytest.raises(KernelError, match=rf"busy for 100.0 us a call when it is watched.*{LESS}"):
        timed(simulated, lambda: less() if sampling.on else full())


def test_without_records_nothing_is_refused_and_it_is_said_why(simulated, monkeypatch):
    @contextmanager
    def watched():
        raise Unavailable("no library")
        yield

    monkeypatch.setattr(simulated.device, "watched", watched)
    timing = timed(simulated, after(5, simulated.device.kernel(100 * US), simulated.device.kernel(2 * US)))
    assert timing.details["unwatched"] == "no library"


def test_work_without_records_is_told_from_none(simulated):
    timing = timed(simulated, simulated.device.kernel(100 * US, work=""))
    assert "no record of its work" in timing.details["unwatched"]


def test_records_that_were_dropped_refuse_nothing(simulated, monkeypatch):
    monkeypatch.setattr(simulated.device, "ran", lambda *work: None)
    timing = timed(simulated, simulated.device.kernel(100 * US))
    assert timing.details["unwatched"].startswith("CUPTI recorded 0 of 2 marks")


def test_records_without_times_refuse_nothing(simulated, monkeypatch):
    with_times = simulated.device.watched

    @contextmanager
    def watched():
        with with_times() as works:
            yield works
        works += [Work("kernel", 0, 0)]

    monkeypatch.setattr(simulated.device, "watched", watched)
    timing = timed(simulated, simulated.device.kernel(100 * US))
    assert "1 works without their times" in timing.details["unwatched"]


def test_only_a_kernel_on_another_stream_is_watched(simulated):
    def launch(stream):
        bind = lambda: lambda: simulated.device.elsewhere(100 * US)  # noqa: E731
        geometry, declaration = replace(Geometry.of(1, 1), stream=stream), SimpleNamespace(parameters=())
        return SimpleNamespace(bind=bind, geometry=geometry, declaration=declaration)

    with pytest.raises(KernelError, match="non-blocking stream"):
        timed(simulated, launch(None))
    with pytest.raises(KernelError, match=NOT_IN_ORDER):
        timed(simulated, launch("another"))


STATEFUL = """
    import numpy as np

    def test_it(gpu, kernels, gpuperf):
        y = gpu.to_device(np.zeros(1, "f4"))
        gpuperf(kernels["k.cu"].stops[1, 1], y)
        assert y.get()[0] == 1
"""


@pytest.mark.parametrize("backend", ["emulated", pytest.param("cuda", marks=pytest.mark.gpu)])
def test_a_kernel_that_stops_after_launches_has_a_wrong_result(pytester, backend):
    (pytester.mkdir("kernels") / "k.cu").write_text(
        "__device__ int launches;\n"
        'extern "C" __global__ void stops(float* y) { if (launches++ < 1) y[0] = 1; }\n'
    )
    pytester.makepyfile(STATEFUL)
    untimed = (f"--gpuperf-backend={backend}",)
    pytester.runpytest_subprocess(*untimed).assert_outcomes(passed=1)
    pytester.runpytest_subprocess(*untimed, "--gpuperf", "--gpuperf-strict=off").assert_outcomes(failed=1)
