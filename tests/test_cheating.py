"""Callables whose time is not their work's: each is refused in a sentence, and honest ones pass."""

from __future__ import annotations

import ctypes
import functools
import threading
import time
from collections import deque
from contextlib import contextmanager
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from fakecupti import Cupti
from gpuproject import let_wait, side_stream
from test_device_time import US, SimulatedBackend

from pytest_gpuperf.backends.cuda import activity
from pytest_gpuperf.backends.cuda.peak import peak_flops, peak_fp32
from pytest_gpuperf.backends.geometry import Geometry
from pytest_gpuperf.backends.gpu import Gpu
from pytest_gpuperf.backends.kernels import Kernels
from pytest_gpuperf.backends.timer import Work
from pytest_gpuperf.errors import KernelError, Unavailable
from pytest_gpuperf.instruments import device_time, watch
from pytest_gpuperf.instruments.device_time import Settings, measure
from pytest_gpuperf.instruments.stopwatch import Stopwatch

NOT_THE_SAME = "does not do the same in each call: 1 kernels and copies a call before the samples, "
NOT_IN_ORDER = "on a stream that is not in order with the timed one"
TOO_LATE = "begins when its calls are over"
NOTHING = "enqueues nothing on the device from its second call on"
LESS = "it does less in the calls that are timed"
FEWER = "with the same kernels: it does less once it was called a few times"


@pytest.fixture
def sampling(monkeypatch):
    """Whether samples are being taken: what a callable that finds out about being watched would know."""
    now = SimpleNamespace(on=False)
    original = Stopwatch.measure

    def measured(stopwatch):
        now.on = True
        try:
            return original(stopwatch)
        finally:
            now.on = False

    monkeypatch.setattr(Stopwatch, "measure", measured)
    return now


def after(calls, first, then):
    """A callable that does ``first`` in so many calls, and ``then`` in the others."""
    made = iter(range(10**9))
    return lambda: first() if next(made) < calls else then()


# --------------------------------------------------------------------------- on a simulated device


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


def test_more_operations_than_the_hardware_does():
    device = SimpleNamespace(judges_times=True, l2_bytes=0, peak_bandwidth=0.0, peak_flops=2.141e15)
    device_time.check_possible(device, "matmul", 1e-3, None, 2.1e12)
    with pytest.raises(
        KernelError, match=r"matmul is faster than the hardware: 2,200 TFLOP/s .* 2,141 at most"
    ):
        device_time.check_possible(device, "matmul", 1e-3, None, 2.2e12)


# What NVIDIA states for a product, in tera-operations a second, from its SMs and boost clock.
@pytest.mark.parametrize(
    ("capability", "units", "hertz", "stated"),
    [
        ((7, 0), 80, 1.53e9, 125),
        ((7, 5), 40, 1.59e9, 260),
        ((8, 0), 108, 1.41e9, 1248),
        ((8, 6), 82, 1.695e9, 568),
        ((8, 9), 128, 2.52e9, 1321),
        ((9, 0), 132, 1.83e9, 1979),
        ((10, 0), 148, 1.85e9, 9000),
        ((12, 0), 170, 2.407e9, 1676),
    ],
)
def test_the_peak_of_an_architecture_is_its_products(capability, units, hertz, stated):
    assert peak_flops(capability, units, hertz) == pytest.approx(stated * 1e12, rel=0.01)


def test_an_unknown_architecture_has_no_peak():
    assert peak_flops((3, 5), 15, 1e9) == peak_flops(None, 15, 1e9) == 0
    assert peak_fp32((3, 5), 15, 1e9) == peak_fp32(None, 15, 1e9) == 0


def test_the_fp32_peak_is_the_datasheets():
    # NVIDIA H100 Tensor Core GPU Architecture: 66.9 TFLOPS, 132 SMs, 1.98 GHz; A100: 19.5, 108 SMs, 1.41 GHz
    assert peak_fp32((9, 0), 132, 1.98e9) == pytest.approx(66.9e12, rel=0.01)
    assert peak_fp32((8, 0), 108, 1.41e9) == pytest.approx(19.5e12, rel=0.01)


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


# --------------------------------------------------------------------------- what CUPTI writes


def test_records_are_read_where_cupti_writes_them():
    """Offsets of cupti_activity.h, the same from CUDA 12.0 to 13.5."""
    offsets = {name: getattr(activity.Kernel, name).offset for name, _ in activity.Kernel._fields_}
    assert (offsets["start"], offsets["end"], offsets["device"], offsets["stream"]) == (16, 24, 40, 48)
    assert (offsets["geometry"], offsets["correlation"], offsets["name"]) == (52, 92, 104)
    offsets = {name: getattr(activity.Copy, name).offset for name, _ in activity.Copy._fields_}
    assert (offsets["bytes"], offsets["start"], offsets["end"]) == (8, 16, 24)
    assert (offsets["device"], offsets["stream"]) == (32, 40)


def record(structure, **fields):
    made = structure(**fields)
    return activity.read(ctypes.addressof(made))


def test_kernels_and_copies_are_told_apart_and_others_left_out():
    geometry = (ctypes.c_int32 * 6)(4, 1, 1, 256, 1, 1)
    times = {"start": 5, "end": 9, "device": 1, "stream": 7}
    device, work = record(activity.Kernel, kind=10, geometry=geometry, name=b"add_one", **times)
    assert (device, work) == (1, Work("add_one[4, 1, 1, 256, 1, 1]", 5, 9, 7))
    assert record(activity.Kernel, kind=10, **times)[1].what.startswith("a kernel[")
    _, copied = record(activity.Copy, kind=1, what=(ctypes.c_uint8 * 4)(8, 3, 3, 0), bytes=64, **times)
    _, filled = record(activity.Copy, kind=2, bytes=64, **times)
    assert (copied.what, filled.what) == ("copy 08030300 of 64 bytes", "memset 00000000 of 64 bytes")
    assert record(activity.Copy, kind=5) is None


def test_what_ran_on_the_held_device_is_recorded_in_order(monkeypatch):
    kernels = [(b"late", 30, 0), (b"elsewhere", 20, 1), (b"gpuperf_hold", 10, 0)]
    made = [activity.Kernel(kind=10, name=name, start=at, end=at + 1, device=on) for name, at, on in kernels]
    cupti = Cupti(made)
    monkeypatch.setattr(activity.cupti, "library", lambda: cupti)
    with activity.recorded("gpuperf_hold") as works:
        assert works == []
    assert [(work.what.partition("[")[0], work.held) for work in works] == [
        ("gpuperf_hold", True),
        ("late", False),
    ]
    assert activity._buffers == {}
    assert {("cuptiActivityEnable", kind) for kind in (1, 2, 10)} <= {
        call for call in cupti.calls if "Register" not in call[0]
    }


def test_a_library_that_refuses_says_why_and_is_left_as_it_was(monkeypatch):
    cupti = Cupti([], refuses="cuptiActivityEnable")
    monkeypatch.setattr(activity.cupti, "library", lambda: cupti)
    refused = pytest.raises(Unavailable, match="cuptiActivityEnable says CUPTI_ERROR_NOT_INITIALIZED")
    with refused, activity.recorded("gpuperf_hold"):
        raise AssertionError
    assert not [call for call in cupti.calls if call[0] == "cuptiActivityDisable"]


# --------------------------------------------------------------------------- on a device

KERNELS = """
extern "C" __global__ void spin(int microseconds) {
    unsigned long long start, now;
    asm volatile("mov.u64 %0, %globaltimer;" : "=l"(start));
    do asm volatile("mov.u64 %0, %globaltimer;" : "=l"(now)); while (now < start + 1000ull * microseconds);
}
extern "C" __global__ void add_one(float* x, int n) {
    for (int i = blockIdx.x * blockDim.x + threadIdx.x; i < n; i += gridDim.x * blockDim.x) x[i] += 1;
}
extern "C" __global__ void nothing(float* x) {}
extern "C" __global__ void chain(float* x, int n) {
    float y = x[threadIdx.x];
    for (int i = 0; i < n; ++i) y = y * 1.0001f + 0.5f;
    x[threadIdx.x] = y;
}
extern "C" __global__ void drain(float* left) {
    unsigned long long start, now;
    for (; left[0] > 0; left[0] -= 1) {
        asm volatile("mov.u64 %0, %globaltimer;" : "=l"(start));
        do asm volatile("mov.u64 %0, %globaltimer;" : "=l"(now)); while (now < start + 10000ull);
    }
}
"""
N = 2**22
FAST = Settings(seconds=0.1, warmup=0.05)


@pytest.fixture(scope="module")
def device(gpu, tmp_path_factory):
    folder = tmp_path_factory.mktemp("kernels")
    (folder / "cheat.cu").write_text(KERNELS)
    file = Kernels(folder, gpu)["cheat.cu"]
    x = gpu.to_device(np.zeros(N, "f4"))
    made = SimpleNamespace(gpu=gpu, file=file, x=x)
    made.full = file.add_one[1024, 256].bind(x, N)
    made.few = file.add_one[1, 256].bind(x, N // 1024)
    made.nothing = file.nothing[1, 1].bind(x)
    return made


def on_gpu(device, call, **options):
    """Time it, as the fixture does; an honest callable was watched, or the test says why not."""
    timing = measure(device.gpu, call, (), FAST, name="cheat", **options)
    print(timing.median, dict(timing.details))
    return timing


@pytest.mark.gpu
def test_on_a_gpu_an_honest_callable_passes(device):
    timing = on_gpu(device, lambda: (device.full(), device.nothing()))
    assert timing.details.get("works") == 2, timing.details
    assert device.x.get().min() == device.x.get().max() > 0


@pytest.mark.gpu
def test_on_a_gpu_a_synchronising_callable_passes(device):
    timing = on_gpu(device, lambda: (device.full(), device.gpu.synchronize()))
    assert timing.details.get("works") == 1, timing.details
    assert "host-bound" in timing.details


@pytest.mark.gpu
@pytest.mark.parametrize(("then", "left"), [("none", 0), ("nothing", 1), ("few", 1)])
def test_on_a_gpu_a_callable_that_does_less_after_five_calls(device, then, left):
    less = getattr(device, then, lambda: None)
    with pytest.raises(KernelError, match=f"{NOT_THE_SAME}{left} after them .add_one is gone."):
        on_gpu(device, after(5, device.full, less))


@pytest.mark.gpu
def test_on_a_gpu_the_same_kernel_with_less_to_do(device):
    full, less = (device.file.spin[1, 1].bind(microseconds) for microseconds in (300, 20))
    with pytest.raises(KernelError, match=FEWER):
        on_gpu(device, after(5, full, less))


@pytest.mark.gpu
def test_on_an_idle_gpu_an_honest_callable_passes(device):
    call = device.file.chain[132, 256].bind(device.gpu.to_device(np.zeros(256, "f4")), 10**5)
    time.sleep(3)
    assert on_gpu(device, call).details.get("works") == 1


@pytest.mark.gpu
def test_on_a_gpu_less_to_do_on_what_a_kernel_made(device):
    left = device.gpu.to_device(np.full(1, 30, "f4"))
    with pytest.raises(KernelError, match=r"drain takes 3\d\d\.\d us on what the test put into"):
        measure(device.gpu, device.file.drain[1, 1], (left,), FAST)


@pytest.mark.gpu
def test_on_a_gpu_a_callable_that_keeps_its_result(device):
    with pytest.raises(KernelError, match=NOTHING):
        on_gpu(device, functools.cache(lambda: device.full()))


@pytest.mark.gpu
@pytest.mark.parametrize("microseconds", [20, 400])
def test_on_a_gpu_a_side_stream_that_nothing_waits_for(device, microseconds):
    hidden = device.file.spin[1, 1, 0, side_stream(device.gpu)].bind(microseconds)
    with pytest.raises(KernelError, match=f"runs spin {NOT_IN_ORDER}"):
        on_gpu(device, lambda: (hidden(), device.full(), device.full()))


def forked(device, waits, joins):
    """A kernel on a side stream that waits for the timed one, or is waited for, by events."""
    side = side_stream(device.gpu)
    hidden = device.file.spin[1, 1, 0, side].bind(300)

    def call():
        if waits:
            let_wait(device.gpu, side, device.gpu.stream)
        hidden()
        if joins:
            let_wait(device.gpu, device.gpu.stream, side)
        device.nothing()

    return call


@pytest.mark.gpu
@pytest.mark.parametrize(("waits", "joins"), [(True, False), (False, True)])
def test_on_a_gpu_a_side_stream_waits_one_way_only(device, waits, joins):
    with pytest.raises(KernelError, match=f"runs spin {NOT_IN_ORDER}"):
        on_gpu(device, forked(device, waits, joins))


@pytest.mark.gpu
def test_on_a_gpu_an_ordered_side_stream_is_in_the_time(device):
    timing = on_gpu(device, forked(device, True, True))
    assert timing.details.get("works") == 2, timing.details
    assert 300 * US < timing.median < 330 * US


@pytest.mark.gpu
def test_on_a_gpu_a_kernel_launched_on_a_stream_of_its_own(device):
    launch = device.file.spin[1, 1, 0, side_stream(device.gpu)]
    with pytest.raises(KernelError, match=f"runs spin {NOT_IN_ORDER}"):
        measure(device.gpu, launch, (50,), FAST, name="cheat")


@pytest.fixture
def thread(device):
    """Give what lets a thread run work 20 ms later, on its own stream, a thousand times a second at most."""
    hidden = device.file.spin[1, 1, 0, side_stream(device.gpu)].bind(50)
    driver, context = ctypes.CDLL("libcuda.so.1"), ctypes.c_void_p()
    due, over = deque([0.0]), threading.Event()
    driver.cuCtxGetCurrent(ctypes.byref(context))

    def work():
        driver.cuCtxSetCurrent(context)
        while not over.is_set():
            if len(due) > 1 and due[1] <= time.monotonic():
                due.popleft()
                hidden()
            time.sleep(2e-4)

    def later():
        if (at := time.monotonic() + 0.02) - due[-1] > 1e-3:
            due.append(at)

    worker = threading.Thread(target=work)
    worker.start()
    yield later
    over.set()
    worker.join()
    device.gpu.synchronize()


@pytest.mark.gpu
def test_on_a_gpu_work_that_a_thread_starts_later(device, thread):
    """As seen before there was a watch: 2.3 us, without a word."""
    with pytest.raises(KernelError, match=f"{TOO_LATE}|{NOT_IN_ORDER}"):
        on_gpu(device, lambda: (device.nothing(), thread()))


@pytest.mark.gpu
def test_on_a_gpu_calls_that_work_when_watched_alone(device, sampling):
    with pytest.raises(KernelError, match=LESS):
        on_gpu(device, lambda: device.few() if sampling.on else [device.full() for _ in range(20)])


@pytest.mark.gpu
def test_on_a_gpu_a_clock_that_was_tampered_with(device, monkeypatch):
    timer = device.gpu.device.timer()
    seconds = timer.seconds
    monkeypatch.setattr(timer, "seconds", lambda start, end: seconds(start, end) / 10)
    with pytest.raises(KernelError, match=LESS):
        on_gpu(device, lambda: [device.full() for _ in range(4)])


@pytest.mark.gpu
def test_on_a_gpu_a_speed_beyond_the_hardware(device):
    timing = on_gpu(device, lambda: device.nothing())
    backend = device.gpu.device
    assert backend.peak_flops > 0 or backend.compute_capability not in [(8, 0), (9, 0)]
    for work in ((1e15, None), (None, 1e18)):
        with pytest.raises(KernelError, match="faster than the hardware"):
            device_time.check_possible(backend, "cheat", timing.median, *work)


@pytest.mark.gpu
def test_on_a_gpu_persisting_lines_are_let_go(device):
    driver, share = ctypes.CDLL("libcuda.so.1"), ctypes.c_size_t()
    timer, limit = device.gpu.device.timer(), 6  # CU_LIMIT_PERSISTING_L2_CACHE_SIZE
    assert driver.cuCtxGetLimit(ctypes.byref(share), limit) == 0  # 9.4 MiB on an H100 where nobody set it
    assert driver.cuCtxSetLimit(limit, ctypes.c_size_t(0)) == 0
    try:
        assert timer.unpin() is False
        assert driver.cuCtxSetLimit(limit, ctypes.c_size_t(2**20)) == 0
        assert timer.unpin() is True
        timing = measure(device.gpu, device.full, (), Settings(l2="cold", seconds=0.02, warmup=0.0))
        assert timing.details["gated"] is True
    finally:
        assert driver.cuCtxSetLimit(limit, share) == 0


@pytest.mark.gpu
def test_on_a_gpu_torch_on_a_stream_of_its_own(device):
    torch = pytest.importorskip("torch")
    # Long enough that what runs beside the mark after the last call cannot be over with it.
    x, side = torch.ones(2**26, device="cuda"), torch.cuda.Stream()

    def hidden():
        with torch.cuda.stream(side):
            x.mul_(1.0)

    with pytest.raises(KernelError, match="the time does not include it"):
        on_gpu(device, lambda: (x.add_(0.0), hidden()))


@pytest.mark.gpu
def test_on_a_gpu_a_graph_of_torch_passes(device):
    torch = pytest.importorskip("torch")
    x = torch.ones(2**22, device="cuda")
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        x.mul_(1.0)
        x.add_(0.0)
    timing = on_gpu(device, graph.replay)
    assert timing.details.get("works") == 2, timing.details


@pytest.mark.gpu
def test_on_a_gpu_cupy_that_keeps_its_result(device):
    cupy = pytest.importorskip("cupy")
    x, kept = cupy.ones(2**20, "f4"), {}

    def call():
        if len(kept) < 5:
            kept[len(kept)] = x * 2
        return kept[len(kept) - 1]

    with pytest.raises(KernelError, match="does not do the same"):
        on_gpu(device, call)
