"""``mode="graph"``: what is captured, what its replays are, and what cannot be captured."""

from __future__ import annotations

import sys
from contextlib import contextmanager
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest
from test_backend_protocol import FakeBackend
from test_device_time import US

from pytest_gpuperf.backends import libraries, select
from pytest_gpuperf.backends.base import Graph
from pytest_gpuperf.backends.cuda import graph
from pytest_gpuperf.backends.cuda.context import CudaContext
from pytest_gpuperf.backends.geometry import Geometry
from pytest_gpuperf.backends.gpu import Gpu
from pytest_gpuperf.backends.kernels import Kernels
from pytest_gpuperf.errors import GpuperfError, KernelError
from pytest_gpuperf.instruments.callables import mode_of
from pytest_gpuperf.instruments.device_time import Settings, measure

QUICK = Settings(seconds=0.05, warmup=0.0)


class GraphDevice(FakeBackend):
    """Graphs whose replays take 40 us, of so many works."""

    def __init__(self, works=1, refusal=""):
        super().__init__()
        self.works, self.refusal, self.captured = works, refusal, 0

    def capture(self, work):
        work()
        result = work()
        self.captured += 1
        if self.refusal:
            raise KernelError(self.refusal)
        replay = self._device.kernel(40 * US)
        return Graph(lambda: (replay(), result)[1], self.works)


def two_kernels(device):
    kernel = device._device.kernel(30 * US)
    return lambda: (kernel(), kernel(), "captured")[2]


def test_replays_are_timed_and_the_check_gets_what_was_captured():
    device, checked = GraphDevice(works=2), []
    timing = measure(
        Gpu(device), two_kernels(device), settings=QUICK, name="two", check=checked.append, graph=True
    )
    assert timing.median == pytest.approx(40.5 * US, rel=0.02)  # launches would be 60
    assert timing.details["works"] == 2
    assert checked == ["captured"]
    assert device.captured == 1


def test_what_a_graph_does_not_hold_is_refused():
    device = GraphDevice(works=1)
    with pytest.raises(KernelError, match=r"two runs 2 kernels and copies when it is called, and its graph "):
        measure(Gpu(device), two_kernels(device), settings=QUICK, name="two", graph=True)
    device.works = 0  # not known
    assert measure(Gpu(device), two_kernels(device), settings=QUICK, name="two", graph=True)


def test_a_launch_is_captured_anew_for_each_place(tmp_path):
    device = GraphDevice()
    gpu = Gpu(device)
    (tmp_path / "scale.cu").write_text('extern "C" __global__ void scale(float* x, int n) {}\n')
    kernel = Kernels(tmp_path, gpu)["scale.cu"].scale
    array = gpu.random(1024)
    timing = measure(gpu, kernel[2, 32], (array, 1024), QUICK, name="scale", graph=True)
    assert timing.details["moved"] is True
    assert device.captured == 1 + len(timing.samples)
    assert timing.median == pytest.approx(40 * US, rel=0.02)
    with pytest.raises(KernelError, match=r"^scale is launched on a stream of its own; a graph is captured"):
        measure(gpu, kernel[2, 32, 0, 7], (array, 1024), QUICK, name="scale", graph=True)


def test_what_cannot_be_captured_is_refused_in_a_sentence():
    device = GraphDevice(refusal="RuntimeError: operation not permitted when stream is capturing.")

    def waits():
        two_kernels(device)()

    with pytest.raises(KernelError) as refused:
        measure(Gpu(device), waits, settings=QUICK, name="waits graph_time", graph=True)
    assert str(refused.value).startswith(
        "waits cannot be captured in a CUDA graph: RuntimeError: operation not permitted when stream is "
        "capturing. It must not wait for the device, and enqueue"
    )


def test_emulated_a_replay_is_the_call_itself():
    calls = []
    device = SimpleNamespace(judges_times=False, synchronize=lambda: None, capture=Graph)
    timing = measure(Gpu(device), lambda: calls.append(1), check=calls.append, graph=True)
    assert timing.details == {"emulated": True}
    assert calls == [1, 1, None]


# --------------------------------------------------------------------------- the word mode


def resize(x, scale, mode="nearest"):
    return x, scale, mode


def test_another_word_is_the_callables():
    assert mode_of(resize, "graph", {"scale": 2}) == ("graph", {"scale": 2})
    assert mode_of(resize, None, {"scale": 2}) == (None, {"scale": 2})
    assert mode_of(resize, "bilinear", {"scale": 2}) == (None, {"scale": 2, "mode": "bilinear"})
    assert mode_of(lambda **rest: rest, "fast", {}) == (None, {"mode": "fast"})
    assert mode_of(max, 3, {}) == (None, {"mode": 3})  # a function in C


@pytest.mark.parametrize("function", [lambda x: x, SimpleNamespace(bind=None, geometry=Geometry.of(1, 1))])
def test_a_mode_of_nobody(function):
    with pytest.raises(GpuperfError, match=r"mode='grahp'; say \"launch\" or \"graph\""):
        mode_of(function, "grahp", {})


# --------------------------------------------------------------------------- the driver's capture


class Driver:
    """libcuda as far as a capture sees it: nodes are numbers, and ``inside`` a child graph's."""

    def __init__(self, nodes=(0,), inside=(0, 2), ended=0, made=0):
        self.graphs = {1: nodes, 2: inside}
        self.ended, self.made, self.calls, self.launched = ended, made, [], 0

    def cuStreamBeginCapture_v2(self, stream, mode):
        self.calls.append(("begin", stream.value, mode.value))
        return 0

    def cuStreamEndCapture(self, stream, graph):
        graph._obj.value = 0 if self.ended else 1
        self.calls.append("end")
        return self.ended

    def cuGraphGetNodes(self, graph, nodes, count):
        kinds = self.graphs[graph.value]
        if nodes is not None and not kinds:
            return 1
        count._obj.value = len(kinds)
        if nodes is not None:
            nodes[:] = [10 * graph.value + number for number in range(len(kinds))]
        return 0

    def cuGraphNodeGetType(self, node, kind):
        which, number = divmod(node.value, 10) if node.value else (0, 0)
        kind._obj.value = self.graphs[which][number]
        return 0

    def cuGraphChildGraphNodeGetGraph(self, node, graph):
        graph._obj.value = 2
        return 0

    def cuGraphInstantiateWithFlags(self, executable, graph, flags):
        executable._obj.value = 7
        return self.made

    def cuGraphLaunch(self, executable, stream):
        self.launched += 1
        return 0

    def cuGraphDestroy(self, graph):
        self.calls.append("destroy")
        return 0

    def cuGraphExecDestroy(self, executable):
        self.calls.append(("destroy", executable.value))
        return 0

    def cuGetErrorString(self, result, said):
        said._obj.value = f"error {result} in words".encode()
        return 0


@pytest.fixture
def capturing(monkeypatch):
    """capturing(work, **how): the graph of a stand-in driver, which is returned beside it."""
    context = SimpleNamespace(
        synchronize=lambda: None,
        capturing=False,
        stuck=False,
        last_launch="",
        explain=lambda error, doing: KernelError(f"{doing}: {error}"),
    )

    def capture(work, on=99, **how):
        driver = Driver(**how)
        monkeypatch.setattr(graph, "driver", lambda: driver)
        return driver, context, lambda: graph.capture(context, on, lambda: work(context))

    return capture


def test_a_capture_is_of_the_second_call(capturing):
    seen = []
    driver, context, capture = capturing(lambda context: seen.append(context.capturing) or len(seen))
    made = capture()
    assert seen == [False, True]
    assert driver.calls == [("begin", 99, 2), "end", "destroy"]
    assert (made.works, made.launch(), made.launch()) == (1, 2, 2)
    assert driver.launched == 2
    del made
    assert driver.calls[-1] == ("destroy", 7)
    assert context.last_launch == "a CUDA graph"


class CUstream:
    """A handle as cuda.bindings has it: no int, but it turns into one."""

    def __int__(self):
        return 99


class Stream:
    handle = CUstream()


class SpeakingStream:
    def __cuda_stream__(self):
        return 0, CUstream()


@pytest.mark.parametrize("on", [Stream(), SpeakingStream()])
def test_a_capture_is_on_any_bindings_stream(capturing, on):
    driver, _, capture = capturing(lambda context: None, on)
    capture()
    assert driver.calls[0] == ("begin", 99, 2)


@pytest.mark.parametrize(("nodes", "works"), [((0, 1, 2), 3), ((0, 4, 5, 6, 3), 3), ((0, 13), 0)])
def test_works_of_a_graph_are_counted_also_inside(capturing, nodes, works):
    _, _, capture = capturing(lambda context: None, nodes=nodes)
    assert capture().works == works


def fails_when_captured(context):
    if context.capturing:
        raise RuntimeError("operation not permitted\nwith a backtrace")


@pytest.mark.parametrize(
    ("work", "how", "said"),
    [
        (fails_when_captured, {"ended": 901}, "RuntimeError: operation not permitted"),
        (lambda context: None, {"ended": 904}, "error 904 in words"),
        (lambda context: None, {"nodes": ()}, "it enqueues nothing on gpu.stream"),
        (lambda context: None, {"made": 801}, "error 801 in words"),
    ],
)
def test_why_a_capture_fails_and_that_nothing_is_left_of_it(capturing, work, how, said):
    driver, context, capture = capturing(work, **how)
    with pytest.raises(KernelError) as refused:
        capture()
    assert str(refused.value) == said
    assert not context.capturing
    assert driver.calls.count("end") == 1
    assert driver.calls.count("destroy") == (0 if "ended" in how else 1)


def test_an_array_is_not_made_while_its_use_is_captured():
    context = object.__new__(CudaContext)
    context.capturing = True
    with pytest.raises(KernelError, match="it makes an array of gpu, which is to be made before"):
        context.empty((8,), "f4")


@pytest.fixture
def stand_ins(monkeypatch):
    """torch and CuPy, whose current stream is ``stream`` and whose allocators count."""
    current = SimpleNamespace(torch=0, cupy=0, allocated=1000, most=5000)

    @contextmanager
    def on(library, handle):
        setattr(current, library, handle)
        yield
        setattr(current, library, 0)

    torch, cupy = ModuleType("torch"), ModuleType("cupy")

    def reset():
        current.most = current.allocated

    torch.cuda = SimpleNamespace(
        is_initialized=lambda: True,
        ExternalStream=lambda handle: handle,
        stream=lambda handle: on("torch", handle),
        get_allocator_backend=lambda: "native",
        memory_allocated=lambda: current.allocated,
        reset_peak_memory_stats=reset,
        max_memory_allocated=lambda: current.most,
    )

    class MemoryHook:
        def __enter__(self):
            current.hook = self

        def __exit__(self, *_):
            current.hook = None

    cupy.cuda = SimpleNamespace(ExternalStream=lambda handle: on("cupy", handle), MemoryHook=MemoryHook)
    monkeypatch.setitem(sys.modules, "torch", torch)
    monkeypatch.setitem(sys.modules, "cupy", cupy)
    return current


def test_libraries_work_on_the_stream_that_is_captured(capturing, stand_ins):
    seen = []
    _, _, capture = capturing(lambda context: seen.append((stand_ins.torch, stand_ins.cupy)))
    capture()
    assert seen == [(99, 99), (99, 99)]
    assert (stand_ins.torch, stand_ins.cupy) == (0, 0)


def test_the_most_in_use_is_both_libraries(stand_ins):
    with libraries.most_in_use() as found:
        stand_ins.most = 1700
        stand_ins.hook.malloc_postprocess(mem_ptr=1, mem_size=512, size=500)
        stand_ins.hook.free_preprocess(mem_ptr=1, mem_size=512)
        stand_ins.hook.malloc_postprocess(mem_ptr=2, mem_size=256, size=256)
        stand_ins.hook.free_preprocess(mem_ptr=3, mem_size=9999)  # from before
        assert found() == 700 + 512
    sys.modules["torch"].cuda.get_allocator_backend = lambda: "cudaMallocAsync"
    with libraries.most_in_use() as found:
        assert found() == 0


# --------------------------------------------------------------------------- on a GPU


@pytest.fixture
def device():
    gpu = Gpu(select("cuda"))
    yield gpu
    gpu.close()


SCALE = 'extern "C" __global__ void scale(float* x, int n, float by) { int i = blockIdx.x * blockDim.x + '
SCALE += "threadIdx.x; if (i < n) x[i] *= by; }\n"


@pytest.mark.gpu
def test_gpu_a_launch_is_replayed_and_leaves_one_launchs_result(device, tmp_path):
    (tmp_path / "scale.cu").write_text(SCALE)
    launch = Kernels(tmp_path, device)["scale.cu"].scale[4096, 256]
    x = device.to_device(np.full(1 << 20, 3, np.float32))
    args = (x, 1 << 20, np.float32(2))
    launched = measure(device, launch, args, QUICK, name="scale")
    x = device.to_device(np.full(1 << 20, 3, np.float32))
    replayed = measure(device, launch, (x, *args[1:]), QUICK, name="scale", graph=True)
    print(f"launch {launched.median * 1e6:.2f} us, graph {replayed.median * 1e6:.2f} us: {replayed.details}")
    assert replayed.details["moved"] is True
    assert replayed.details["gated"] is True
    assert 0.5 < replayed.median / launched.median < 2
    assert np.all(x.get() == 6)


@pytest.mark.gpu
def test_gpu_torchs_and_cupys_work_is_captured(device):
    torch, cupy = pytest.importorskip("torch"), pytest.importorskip("cupy")
    a = torch.rand(1024, 1024, device="cuda")
    b = cupy.random.rand(1024, 1024, dtype=cupy.float32)
    for call in (lambda: torch.softmax(a @ a, dim=1) + 1, lambda: cupy.exp(b + 1) * 2):
        want, got = call(), []
        timing = measure(device, call, settings=QUICK, name="call", check=got.append, graph=True)
        print(f"{timing.median * 1e6:.2f} us: {timing.details}")
        assert timing.details.get("works", 3) >= 2
        assert abs(got[0] - want).max() == 0


@pytest.mark.gpu
def test_gpu_a_refused_capture_leaves_the_device_fine(device):
    torch = pytest.importorskip("torch")
    a = torch.rand(64, device="cuda")
    array = device.empty(64)

    def on_the_default_stream():
        with torch.cuda.stream(torch.cuda.default_stream()):
            return a + 1

    makes = lambda: device.empty(64)  # noqa: E731
    for call in (lambda: (a + 1).sum().item(), array.get, on_the_default_stream, lambda: None, makes):
        with pytest.raises(KernelError) as refused:
            device.device.capture(call)
        print(refused.value)
        device.synchronize()
    assert not device.device.lost
    assert float((a + 1).sum()) > 64
