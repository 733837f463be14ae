"""Counters of whatever launches kernels: by kernel name and summed, on the emulated device and by CUPTI."""

from __future__ import annotations

import ctypes
from types import SimpleNamespace

import numpy as np
import pytest
from gpuproject import BINDINGS, opened

from pytest_gpuperf.backends.cuda import cupti, launches
from pytest_gpuperf.backends.cuda.context import CudaContext
from pytest_gpuperf.backends.cuda.metrics import METRICS
from pytest_gpuperf.errors import GpuperfError, Unavailable
from pytest_gpuperf.instruments.counters import GlobalTraffic, count_all

KERNELS = """
extern "C" __global__ void copy(const float *in, float *out) { out[threadIdx.x] = in[threadIdx.x]; }
extern "C" __global__ void apart(const float *in, float *out) { out[threadIdx.x] = in[threadIdx.x * 8]; }
"""
# Its callable launches three times two kernels: 2 + 2 + 1 warps, of 4 or 32 sectors a load.
SUITE = """
    import pytest

    @pytest.fixture
    def work(gpu, kernels):
        src, dst, file = gpu.random(1024, seed=1), gpu.empty(64), kernels["k.cu"]

        def two_kernels(blocks=1):
            file.copy[1, 64](src, dst)
            file.apart[1, 64](src, dst)
            file.copy[1, 32](src, dst)

        two_kernels.arrays = src, dst
        return two_kernels
"""


@pytest.fixture
def project(pytester: pytest.Pytester, kernel_cache: None):
    """Run a suite of one test on the emulated device, or on a GPU."""
    (pytester.mkdir("kernels") / "k.cu").write_text(KERNELS)
    pytester.mkdir("baselines")

    def run(test: str, *flags: str, backend: str = "emulated") -> pytest.RunResult:
        body = "\n".join(f"        {line}" for line in test.splitlines())
        pytester.makepyfile(f"{SUITE}\n    def test_it(work, gpu, kernels, counters):\n{body}\n")
        result = pytester.runpytest_subprocess(f"--gpuperf-backend={backend}", "-rs", *flags)
        if "no compiler" in result.stdout.str():
            pytest.skip("no compiler to emulate with")
        return result

    run.path = pytester.path
    return run


SUMS = """
found = counters(work)
assert found.launches == 3
assert {name: kernel.launches for name, kernel in found.kernels.items()} == {"copy": 2, "apart": 1}
copy, apart = found.kernels["copy"], found.kernels["apart"]
assert (copy.global_load.requests, copy.global_load.sectors) == (3, 12)
assert (apart.global_load.requests, apart.global_load.sectors) == (2, 64)
assert (found.global_load.requests, found.global_load.sectors) == (5, 76)
alone = counters(kernels["k.cu"].apart[1, 64], *work.arrays)
assert (alone.global_load, alone.global_store) == (apart.global_load, apart.global_store)
assert alone.launches == 1 and alone.kernels == {}
"""


def test_a_callable_is_the_sum_of_its_kernels(project):
    project(SUMS).assert_outcomes(passed=1)


def test_it_is_called_twice_with_its_arguments(project):
    test = """
calls = []

def work_of(*given, **named):
    calls.append((given, named))
    work()

counters(work_of, 1, blocks=2, launch=3, name="it")
assert calls == [((1,), {"blocks": 2, "launch": 3})] * 2
"""
    project(test).assert_outcomes(passed=1)


def test_its_sums_are_judged_under_its_name(project):
    assert project("counters(work)", "--gpuperf", "--gpuperf-update").ret == 0
    (file,) = (project.path / "baselines").rglob("*.json")
    assert '"two_kernels global_load.sectors"' in file.read_text()
    assert project("counters(work)", "--gpuperf", "--gpuperf-strict=on").ret == 0
    more = "counters(lambda: (work(), work()), name='two_kernels')"
    result = project(more, "--gpuperf", "--gpuperf-strict=on")
    assert result.ret == 1
    result.stdout.fnmatch_lines(["regressed: two_kernels global_load.requests x2, tolerance 0 %*"])


def test_kernels_of_others_are_a_skip_that_says_what_they_need(project):
    result = project("counters(lambda: None, name='matmul')")
    result.assert_outcomes(skipped=1)
    result.stdout.fnmatch_lines(
        ["SKIPPED *matmul launched no kernel of the kernels fixture: counters of other kernels need a GPU"]
    )
    flags = ("--gpuperf", "--gpuperf-strict=on", "-o", "gpuperf_require=counters")
    assert project("counters(lambda: None)", *flags).ret == 22


def test_what_cannot_be_called_is_refused_in_a_sentence(project):
    result = project("counters(work.arrays[0])")
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["*counters takes a launch or another callable, not EmulatedArray"])
    for call, said in (
        ("kernels['k.cu'].copy[1, 64], *work.arrays, n=1", "copy is a kernel, which takes no n= by keyword*"),
        ("work, block=1", "two_kernels takes no block= (did you mean blocks=?)"),
        ("lambda name: work(), name='w'", "name= is counters' own, and <lambda> takes one too*"),
    ):
        result = project(f"counters({call})")
        result.stdout.fnmatch_lines([f"*.py:*: counters(...): {said}"])


def test_an_error_of_the_callable_is_its_own(project):
    result = project("counters(lambda: 1 / 0)")
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["*ZeroDivisionError*"])


# --------------------------------------------------------------------------- CUPTI, without a GPU


BUSY = 26


class Cupti:
    """libcupti on a device where each figure of a kernel is the number that it was launched with."""

    def __init__(self) -> None:
        self.ran: list[float] = []
        self.room, self.listener, self.subscribers = 0, None, 0
        self.whole, self.passes = False, 0
        self.held = self.busy = 0

    def __getattr__(self, name):
        return lambda *_: 0

    def cuptiRangeProfilerEnable(self, _):
        self.held += 1
        return 0

    def cuptiRangeProfilerDisable(self, _):
        self.held -= 1
        return 0

    def cuptiRangeProfilerSetConfig(self, given):
        self.room, self.whole = given._obj.ranges, (given._obj.range, given._obj.replay) == (2, 3)
        self.passes = 0
        return 0

    def cuptiRangeProfilerStop(self, given):
        self.passes += 1
        given._obj.all = self.passes == 4 or not self.whole
        if self.whole:
            self.ran = [sum(self.ran)]
        return 0

    def cuptiRangeProfilerStart(self, _):
        self.ran = []
        self.busy -= 1
        return BUSY if self.busy >= 0 else 0

    def cuptiRangeProfilerDecodeData(self, given):
        given._obj.dropped = max(0, len(self.ran) - self.room)
        return 0

    def cuptiRangeProfilerGetCounterDataInfo(self, given):
        given._obj.ranges = len(self.ran)
        return 0

    def cuptiProfilerHostEvaluateToGpuValues(self, given):
        values = ctypes.cast(given._obj.values, ctypes.POINTER(ctypes.c_double))
        for metric in range(given._obj.number):
            values[metric] = self.ran[given._obj.index]
        return 0

    def cuptiSubscribe(self, _, listener, data):
        self.listener = listener
        return 39 if self.subscribers else 0

    def cuptiUnsubscribe(self, _):
        self.listener = None
        return 0

    def cuptiGetResultString(self, result, said):
        names = {BUSY: b"CUPTI_ERROR_HARDWARE_BUSY", 39: b"CUPTI_ERROR_MULTIPLE_SUBSCRIBERS_NOT_SUPPORTED"}
        said._obj.value = names[result]
        return 0

    def launch(self, symbol, *figures, function=307, context=1, result=0):
        """Call the driver's ``function``, which runs a kernel for each of the figures."""
        self.ran += figures
        parameters = (ctypes.c_void_p * 1)()
        call = launches._Call(
            0, b"cuLaunch", parameters, ctypes.pointer(ctypes.c_int(result)), symbol, context
        )
        for call.site in (0, 1):
            if self.listener:
                self.listener(None, 1, function, ctypes.pointer(call))


@pytest.fixture
def library(monkeypatch):
    made = Cupti()
    for module in (cupti, launches):
        monkeypatch.setattr(module, "library", lambda: made)
        monkeypatch.setattr(module, "current", lambda: 1)
    return made


@pytest.fixture
def device(library):
    profiler = cupti.RangeProfiler(METRICS)
    context = SimpleNamespace(profiler=profiler, synchronize=lambda: None)
    return SimpleNamespace(models_traffic=False, count=lambda work: CudaContext.count(context, work))


def test_kernels_are_named_by_their_launches_in_order(library, device):
    def work():
        library.launch(b"a", 10)
        library.launch(b"_Z1bPf", 30, function=652)
        library.launch(b"a", 20)

    found = count_all(device, work, "it")
    assert {name: kernel.launches for name, kernel in found.kernels.items()} == {"a": 2, "b(float*)": 1}
    assert found.kernels["a"].global_load == GlobalTraffic(30, 30)
    assert (found.global_load, found.dram_bytes_read, found.launches) == (GlobalTraffic(60, 60), 60, 3)
    assert found.registers is None
    assert not found.modelled


def test_an_occupancy_is_the_mean_over_the_cycles(library, device):
    found = count_all(device, lambda: (library.launch(b"a", 10), library.launch(b"a", 30)), "it")
    assert found.occupancy == pytest.approx((10 * 0.1 + 30 * 0.3) / 40)


def test_there_is_room_for_as_many_kernels_as_are_launched(library, device):
    found = count_all(device, lambda: [library.launch(b"a", 1) for _ in range(200)], "it")
    assert (found.launches, library.room) == (200, 200)


def test_what_is_compiled_or_tuned_at_first_is_not_counted(library, device):
    tuned = []

    def work():
        if not tuned:
            tuned.append(library.launch(b"tuning", 1))
        library.launch(b"a", 1)

    assert count_all(device, work, "it").kernels.keys() == {"a"}


def test_a_failed_or_foreign_launch_has_no_kernel(library, device):
    def work():
        library.launch(b"refused", result=1)
        library.launch(b"elsewhere", context=2)
        library.launch(b"a", 1)

    assert count_all(device, work, "it").kernels.keys() == {"a"}


def test_graphs_are_counted_as_a_whole(library, device):
    def work():
        library.launch(None, 10, 20, 30, function=514)
        library.launch(None, 10, 20, 30, function=514)

    found = count_all(device, work, "it")
    assert {name: kernel.launches for name, kernel in found.kernels.items()} == {"CUDA graph": 2}
    assert found.global_load.sectors == 120
    assert library.passes == 4
    assert library.held == 0


def test_what_runs_beside_a_graph_is_in_its_sum(library, device):
    def work():
        library.launch(b"a", 1)
        library.launch(None, 10, 20, 30, function=514)

    found = count_all(device, work, "it")
    assert {name: kernel.launches for name, kernel in found.kernels.items()} == {
        "CUDA graph and other kernels": 2
    }
    assert found.global_load.sectors == 61


def test_launches_that_ran_no_kernel_are_refused(library, device):
    with pytest.raises(GpuperfError, match="made 2 launches and 1 kernels ran; capture a CUDA graph before"):
        count_all(device, lambda: (library.launch(b"captured"), library.launch(b"a", 1)), "it")


def test_nothing_to_count_is_refused(device):
    with pytest.raises(GpuperfError, match="it launched no kernel, so there is nothing to count"):
        count_all(device, lambda: None, "it")


def test_the_devices_counters_are_held_only_while_counting(library, device):
    held = []
    count_all(device, lambda: (library.launch(b"a", 1), held.append(library.held)), "it")
    assert (held[-1], library.held) == (1, 0)
    good_once = iter([1, 0])
    with pytest.raises(ZeroDivisionError):
        count_all(device, lambda: 1 / next(good_once), "it")
    assert library.held == 0


def test_another_sessions_count_is_waited_for(library, device):
    library.busy = 2
    assert count_all(device, lambda: library.launch(b"a", 10), "it").launches == 1


def test_counters_that_another_process_keeps_are_a_sentence(library, device, monkeypatch):
    monkeypatch.setattr(cupti, "_PATIENCE", 0)
    library.busy = 100
    with pytest.raises(Unavailable, match=r"another process holds the GPU's counters .*DCGM"):
        count_all(device, lambda: library.launch(b"a", 10), "it")
    assert library.held == 0


def test_another_profiler_in_the_process_is_named(library, device):
    library.subscribers = 1
    with pytest.raises(Unavailable, match="another profiler listens to CUPTI"):
        count_all(device, lambda: library.launch(b"a", 1), "it")


# --------------------------------------------------------------------------- CUPTI, on a GPU


def told(found) -> str:
    """Every figure, for whoever runs this by hand."""
    lines = [f"{found.launches} launches: {found.totals()}"]
    for name, kernel in found.kernels.items():
        figures = (kernel.dram_bytes_read, kernel.instructions, kernel.occupancy)
        lines.append(f"  {kernel.launches} x {name[:90]}: {kernel.totals()} {figures}")
    return "\n".join(lines)


@pytest.fixture(scope="module", params=BINDINGS)
def cuda(request):
    """A CUDA device that lets this user count, one for all."""
    backend = opened(request.param).device
    try:
        backend.profiler.count(lambda: None, backend.synchronize)
    except Unavailable as error:
        pytest.skip(str(error))
    yield backend
    backend.close()


@pytest.mark.gpu
def test_a_gpu_counts_what_the_model_does(cuda, project):
    result = project(SUMS, backend={"PyCUDA": "cuda"}.get(cuda.binding, "cuda-core"))
    result.assert_outcomes(passed=1)


@pytest.mark.gpu
def test_a_gpu_counts_torch(cuda):
    torch = pytest.importorskip("torch")
    a, b = (torch.rand(512, 512, device="cuda") for _ in range(2))
    found = count_all(cuda, lambda: torch.relu(a @ b), "it")
    print(told(found))
    assert found.launches >= 2
    assert len(found.kernels) >= 2
    (relu,) = (kernel for name, kernel in found.kernels.items() if "elementwise" in name)
    assert relu.global_load.sectors == relu.global_store.sectors == 512 * 512 * 4 / 32
    assert found.instructions == sum(kernel.instructions for kernel in found.kernels.values())


@pytest.mark.gpu
def test_a_gpu_counts_a_graph_of_torch(cuda):
    torch = pytest.importorskip("torch")
    a = torch.rand(1 << 20, device="cuda")
    side = torch.cuda.Stream()
    with torch.cuda.stream(side):
        torch.relu(a) * 2
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        torch.relu(a) * 2
    found = count_all(cuda, graph.replay, "it")
    print(told(found))
    assert found.kernels["CUDA graph"].launches == 1
    assert found.global_store.sectors == 2 * (1 << 20) * 4 / 32


@pytest.mark.gpu
def test_a_gpu_counts_cupy(cuda):
    cupy = pytest.importorskip("cupy")
    a = cupy.arange(1 << 20, dtype=cupy.float32)
    add = cupy.ElementwiseKernel("float32 x", "float32 y", "y = x + 1", "add_one")
    found = count_all(cuda, lambda: add(a), "it")
    print(told(found))
    assert found.kernels.keys() == {"add_one"}
    assert found.global_load.sectors == found.global_store.sectors == (1 << 20) * 4 / 32


@pytest.mark.gpu
def test_a_gpu_counts_triton(cuda):
    triton, torch = pytest.importorskip("triton"), pytest.importorskip("torch")
    import triton.language as tl

    globals()["tl"] = tl  # a kernel finds names in its module

    @triton.jit
    def scale(x, y, n, SIZE: tl.constexpr):
        at = tl.program_id(0) * SIZE + tl.arange(0, SIZE)
        tl.store(y + at, 2 * tl.load(x + at, at < n), at < n)

    x = torch.rand(1 << 20, device="cuda")
    y = torch.empty_like(x)
    found = count_all(cuda, lambda: scale[(1024,)](x, y, 1 << 20, SIZE=1024), "it")
    print(told(found))
    assert found.kernels.keys() == {"scale"}
    assert found.global_load.sectors == found.global_store.sectors == (1 << 20) * 4 / 32
    assert torch.equal(y, 2 * x)


@pytest.mark.gpu
def test_a_gpu_counts_two_hundred_launches(cuda, tmp_path):
    from pytest_gpuperf.backends.kernels import Kernels

    (tmp_path / "k.cu").write_text(KERNELS)
    file = Kernels(tmp_path, cuda)["k.cu"]
    src, dst = cuda.to_device(np.ones(1024, "f4")), cuda.to_device(np.ones(64, "f4"))

    def work():
        for _ in range(100):
            file.copy[1, 32](src, dst)
            file.apart[1, 64](src, dst)

    found = count_all(cuda, work, "it")
    print(told(found))
    assert {name: kernel.launches for name, kernel in found.kernels.items()} == {"copy": 100, "apart": 100}
    assert found.kernels["apart"].global_load == GlobalTraffic(200, 6400)
    assert found.kernels["copy"].global_load == GlobalTraffic(100, 400)
