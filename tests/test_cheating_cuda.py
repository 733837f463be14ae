"""Callables whose time is not their work's, on a GPU: each is refused, and honest ones pass."""

from __future__ import annotations

import ctypes
import functools
import threading
import time
from collections import deque
from types import SimpleNamespace

import numpy as np
import pytest
from cheats import FEWER, LESS, NOT_IN_ORDER, NOT_THE_SAME, NOTHING, TOO_LATE, after, sampled  # noqa: F401  (a fixture)
from gpuproject import let_wait, side_stream
from test_device_time import US

from pytest_gpuperf.backends.kernels import Kernels
from pytest_gpuperf.errors import KernelError
from pytest_gpuperf.instruments import device_time
from pytest_gpuperf.instruments.device_time import Settings, measure

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
