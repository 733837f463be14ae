"""The CUDA session against a stand-in for ONNX Runtime: what it asks for, and that no node is on the CPU."""

import ctypes
import gc
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from pytest_gpuperf.errors import GpuperfError
from pytest_gpuperf.mlperf import cuda_lane, cuda_runtime, cuda_session, models, weights
from pytest_gpuperf.mlperf.cuda_copies import Copies
from pytest_gpuperf.mlperf.session import CudaSession, Team, open_session


class Value:
    """An OrtValue: a fixed buffer on the device."""

    def __init__(self, array):
        self.array = array

    def update_inplace(self, array):
        if array.shape != self.array.shape or array.dtype != self.array.dtype:
            raise RuntimeError("The input tensor's shape or type differs")
        self.array[...] = array

    def numpy(self):
        return self.array.copy()

    def data_ptr(self):
        return self.array.ctypes.data


class Binding:
    def bind_ortvalue_input(self, name, value):
        self.input = value

    def bind_ortvalue_output(self, name, value):
        self.output = value


class FakeRuntime:
    """As much of onnxruntime as a CUDA session uses; the model's classes are the images' values."""

    __version__ = "1.31.1"
    cuda_version = "13.0"

    def __init__(
        self, elsewhere=(), providers=(cuda_runtime.PROVIDER,), failure=None, form="tensor(float)", batch="N"
    ):
        self.elsewhere, self.providers, self.failure = list(elsewhere), list(providers), failure
        self.opened, self.runs, self.planned = [], [], []
        runtime = self

        class SessionOptions:
            def __init__(self):
                self.entries = {}

            def add_session_config_entry(self, key, value):
                self.entries[key] = value

        class RunOptions(SessionOptions):
            add_run_config_entry = SessionOptions.add_session_config_entry

        class InferenceSession:
            def __init__(self, path, options, providers):
                runtime.opened.append((options.entries, providers))

            def disable_fallback(self):
                pass

            def get_providers(self):
                return runtime.providers

            def get_inputs(self):
                return [SimpleNamespace(name="x", type=form, shape=[batch, 1])]

            def get_outputs(self):
                return [SimpleNamespace(name="class", type="tensor(int64)", shape=["N"])]

            def get_provider_graph_assignment_info(self):
                def part(provider, kinds):
                    nodes = [SimpleNamespace(op_type=kind) for kind in kinds]
                    return SimpleNamespace(ep_name=provider, get_nodes=lambda: nodes)

                on_cpu = part("CPUExecutionProvider", runtime.elsewhere)
                return [part(runtime.providers[0], ["Conv", "Relu"]), on_cpu]

            def io_binding(self):
                return Binding()

            def run_with_iobinding(self, binding, options=None):
                if runtime.failure:
                    raise RuntimeError(runtime.failure)
                if options and options.entries == {"gpu_graph_id": "-1"}:  # without a graph
                    runtime.planned.append(len(binding.input.array))
                    return
                runtime.runs.append((binding.input.array[:, 0].tolist(), options and options.entries))
                binding.output.array[...] = binding.input.array[:, 0]

        class OrtValue:
            @staticmethod
            def ortvalue_from_numpy(array, device, index):
                return Value(array.copy())

            @staticmethod
            def ortvalue_from_shape_and_type(shape, dtype, device, index):
                return Value(np.zeros(shape, dtype))

        self.SessionOptions, self.RunOptions = SessionOptions, RunOptions
        self.InferenceSession, self.OrtValue = InferenceSession, OrtValue


@pytest.fixture
def model(tmp_path):
    (tmp_path / "m.onnx").write_bytes(b"the fake reads nothing")
    return models.Model("m", tmp_path / "m.onnx", "", lambda count: None, input_shape=(1,))


def images(*values):
    return np.array(values, np.float32)[:, None]


def test_each_batch_size_has_a_session_that_may_not_fall_back(model):
    runtime = FakeRuntime()
    opened = CudaSession(runtime, model, "fp32", (1, 8))
    assert len(runtime.opened) == 2
    for entries, providers in runtime.opened:
        assert entries["session.disable_cpu_ep_fallback"] == "1"
        ((name, options),) = providers
        assert name == "CUDAExecutionProvider"
        assert options["enable_cuda_graph"] == options["prefer_nhwc"] == options["fuse_conv_bias"] == "1"
    assert opened.description["nodes"] == "2 of 2 on CUDAExecutionProvider"


@pytest.mark.parametrize(("precision", "switch"), [("fp32", "0"), ("fp16", "1")])
def test_fp32_is_float32_and_fp16_keeps_its_tensor_cores(model, monkeypatch, precision, switch):
    monkeypatch.setattr(models, "half_precision", lambda model, digest: model.path)
    runtime = FakeRuntime(form={"fp32": "tensor(float)", "fp16": "tensor(float16)"}[precision])
    opened = CudaSession(runtime, model, precision, (1,))
    ((_, ((_, options),)),) = runtime.opened
    assert options["use_tf32"] == switch
    assert f"use_tf32={switch}" in opened.description["provider_options"]


def test_the_models_file_is_read_through_once(model, monkeypatch):
    read = []
    monkeypatch.setattr(weights, "digest", lambda path: read.append(path) or "0123456789abcdef")
    monkeypatch.setattr(models, "cached", lambda name, make: Path(name))
    opened = CudaSession(FakeRuntime(form="tensor(float16)"), model, "fp16", (1,))
    assert opened.path == Path("models/0123456789abcdef-fp16.onnx")
    assert opened.description["model_sha256"] == "0123456789abcdef"
    assert read == [model.path]


def test_a_batch_runs_at_the_next_size_with_its_own_classes(model):
    opened = CudaSession(FakeRuntime(), model, "fp32", (1, 8))
    assert opened.run(images(1, 2, 3, 4, 5, 6, 7, 8)).tolist() == [1, 2, 3, 4, 5, 6, 7, 8]
    assert opened.run(images(9)).tolist() == [9]
    assert opened.run(images(5, 4, 3)).tolist() == [5, 4, 3]
    with pytest.raises(GpuperfError, match=r"a batch of 9 was run, the session was opened for \[1, 8\]"):
        opened.run(images(*range(9)))


def test_a_file_of_one_batch_size_gets_padded_batches(model):
    runtime = FakeRuntime(batch=4)
    opened = CudaSession(runtime, model, "fp32", (1, 8))
    assert opened.batch_sizes == (4,)
    assert len(runtime.opened) == 1
    assert opened.run(images(1, 2, 3, 4, 5)).tolist() == [1, 2, 3, 4, 5]
    assert [values for values, _ in runtime.runs] == [[1, 2, 3, 4], [5, 5, 5, 5]]
    assert opened.run(images(7)).tolist() == [7]
    release = opened.hold(images(1, 2))
    assert opened.description["images"] == "page-locked"
    release()
    runtime.runs.clear()
    opened.replay()()
    assert runtime.runs[-1] == ([7, 0, 0, 0], {"disable_synchronize_execution_providers": "1"})


@pytest.mark.parametrize("team", [Team(streams=2), Team(qsl="device")])
def test_several_streams_are_for_a_plain_model(model, team):
    with pytest.raises(
        GpuperfError, match=r"^m: streams=, devices= and qsl= are on a GPU for models with one"
    ):
        CudaSession(FakeRuntime(batch=4), model, "fp32", (1, 8), team=team)


def test_a_worker_captures_the_graph_of_each_of_its_sizes(model):
    runtime = FakeRuntime()
    opened = CudaSession(runtime, model, "fp32", (1, 4), team=Team(streams=2))
    assert (sorted(runtime.planned), runtime.runs) == ([1, 1, 4, 4], [])
    for worker in opened.workers:
        del runtime.runs[:]
        for capture in worker.captures:
            capture()
        assert [(len(values), entries) for values, entries in runtime.runs] == [(1, None), (4, None)]
    runtime.failure = "CUDA failure 900"
    with pytest.raises(GpuperfError, match=r"failed while capturing a batch of 1 \(m, .*CUDA failure 900"):
        opened.workers[0].captures[0]()


def test_a_single_session_is_planned_by_its_capture(model):
    runtime = FakeRuntime()
    opened = CudaSession(runtime, model, "fp32", (8,))
    assert (runtime.planned, runtime.runs) == ([], [])
    (capture,) = opened.workers[0].captures
    capture()
    assert len(runtime.runs) == 1


def test_images_of_another_shape_are_not_copied(model, cudart):
    opened = CudaSession(FakeRuntime(), model, "fp32", (1,))
    before = dict(cudart.registered)
    with pytest.raises(GpuperfError, match=r"samples of the shape \[1\]; the dataset of m gave \[2\]"):
        opened.hold(np.zeros((8, 2), np.float32))
    assert cudart.registered == before


def test_a_replay_waits_for_nothing_after_the_largest_batch(model, cudart):
    runtime = FakeRuntime()
    opened = CudaSession(runtime, model, "fp32", (1, 2))
    opened.run(images(4, 5))
    opened.run(images(6))
    replay = opened.replay()
    del cudart.calls[:], runtime.runs[:]
    replay()
    replay()
    unsynchronised = {"disable_synchronize_execution_providers": "1"}
    assert runtime.runs == [([4.0, 5.0], unsynchronised)] * 2
    assert cudart.calls == []


def test_a_failed_replay_names_the_model(model):
    runtime = FakeRuntime()
    replay = CudaSession(runtime, model, "fp32", (1,)).replay()
    runtime.failure = "CUDA failure 700"
    with pytest.raises(GpuperfError, match=r"failed while enqueueing a batch of 1 \(m, .*CUDA failure 700"):
        replay()


def test_a_session_runs_on_the_stream_it_is_given(model):
    """Whose address is another in each process, and so nothing to compare environments by."""
    runtime = FakeRuntime()
    opened = CudaSession(runtime, model, "fp32", (1,), stream=94_000)
    CudaSession(runtime, model, "fp32", (1,))
    streams = [options.get("user_compute_stream") for _, ((_, options),) in runtime.opened]
    assert streams == ["94000", "7000"]  # the other has one of its own
    assert "94000" not in opened.description["provider_options"]


def test_a_node_on_the_cpu_is_an_error(model):
    with pytest.raises(
        GpuperfError, match=r"1 of 3 nodes of m are not on .*'ArgMax on CPUExecutionProvider'"
    ):
        CudaSession(FakeRuntime(elsewhere=["ArgMax"]), model, "fp32", (1,))


def test_another_provider_is_an_error(model):
    with pytest.raises(GpuperfError, match="was to run on CUDAExecutionProvider and got"):
        CudaSession(FakeRuntime(providers=["CPUExecutionProvider"]), model, "fp32", (1,))


@pytest.mark.parametrize(
    "failure",
    [
        "BFCArena::AllocateRawInternal Failed to allocate memory for requested buffer of size 12",
        "CUDNN failure 4001: CUDNN_STATUS_ALLOC_FAILED ; GPU=0",
        "CUBLAS failure 3: CUBLAS_STATUS_ALLOC_FAILED ; GPU=0",
    ],
)
def test_out_of_device_memory_says_to_use_a_smaller_batch(model, failure):
    runtime, said = FakeRuntime(), "m does not fit into memory while {} a batch of {}: use a smaller"
    opened = CudaSession(runtime, model, "fp32", (8,))
    runtime.failure = failure
    with pytest.raises(GpuperfError, match=said.format("planning", 1)):
        CudaSession(runtime, model, "fp32", (1, 8))
    with pytest.raises(GpuperfError, match=said.format("capturing", 8)):
        opened.workers[0].captures[0]()
    with pytest.raises(GpuperfError, match="fit into memory while running a batch of 8: use a smaller"):
        opened.run(images(*range(8)))


@pytest.mark.parametrize(
    "failure",
    [
        "This session cannot use the graph capture feature as requested: the model has control flow",
        "CUDA failure 900: operation not permitted when stream is capturing ; GPU=0",
    ],
)
def test_a_model_that_no_graph_can_be_captured_of_is_told(model, failure):
    with pytest.raises(GpuperfError, match=f"{failure[:30]}.* a batch is one CUDA graph, .* a Sut need not"):
        CudaSession(FakeRuntime(failure=failure), model, "fp32", (1, 8))
    with pytest.raises(GpuperfError, match=r"broke\Z"):
        CudaSession(FakeRuntime(failure="broke"), model, "fp32", (1, 8))


class FakeCudart:
    """CUDA's runtime over host memory: what is copied is there at once. ``code`` refuses memory."""

    def __init__(self, code=0, devices=1):
        self.code, self.registered, self.cleared = code, {}, False
        self.count, self.current, self.calls, self.streams, self.memory = devices, 0, [], {}, {}

    def __getattr__(self, name):
        """A function that takes argtypes, and forgets them."""
        if not name.startswith("cuda"):
            raise AttributeError(name)
        call = getattr(type(self), f"_{name}")

        class Function:
            argtypes = restype = None

            def __call__(_, *arguments):
                return call(self, *arguments) or 0

        setattr(self, name, Function())
        return getattr(self, name)

    def _cudaGetDeviceCount(self, count):
        count._obj.value = self.count

    def _cudaGetDevice(self, device):
        device._obj.value = self.current

    def _cudaSetDevice(self, device):
        self.current = device.value

    def _cudaStreamCreateWithFlags(self, stream, flags):
        stream._obj.value = 7000 + len(self.streams)
        self.streams[7000 + len(self.streams)] = self.current

    def _cudaMemcpyAsync(self, target, source, size, kind, stream):
        self.calls.append(({1: "put", 2: "fetch", 3: "move"}[kind], stream, size))
        ctypes.memmove(target, source, size)

    def _cudaStreamSynchronize(self, stream):
        self.calls.append(("wait", stream, 0))

    def _cudaMalloc(self, address, size):
        buffer = ctypes.create_string_buffer(size.value)
        address._obj.value = ctypes.addressof(buffer)
        self.memory[ctypes.addressof(buffer)] = self.current, buffer
        return self.code

    def _cudaFree(self, address):
        del self.memory[address.value]

    def _cudaHostRegister(self, address, size, flags):
        if not self.code:
            self.registered[address.value] = size.value
        return self.code

    def _cudaHostUnregister(self, address):
        del self.registered[address.value]

    def _cudaGetLastError(self):
        self.cleared = True

    def _cudaGetErrorString(self, code):
        return b"out of memory"

    def _cudaDeviceGetPCIBusId(self, text, size, device):
        text.value = b"0000:1B:00.%d" % device.value


@pytest.fixture(autouse=True)
def cudart(monkeypatch):
    made = FakeCudart()
    monkeypatch.setattr(cuda_session, "Copies", lambda major: Copies(major, lambda name: made, None))
    return made


def test_pages_are_locked_until_released():
    cudart, array = FakeCudart(), np.zeros((4, 3), np.float16)
    release = Copies(13, {"libcudart.so.13": cudart}.__getitem__, None).page_lock(array)
    assert cudart.registered == {array.ctypes.data: 24}
    release()
    assert cudart.registered == {}


def test_a_refused_lock_is_no_error_and_leaves_none_behind():
    cudart = FakeCudart(code=2)
    assert Copies(12, {"libcudart.so.12": cudart}.__getitem__, None).page_lock(np.zeros(4)) is None
    assert cudart.cleared


@pytest.mark.parametrize(("code", "said"), [(0, "page-locked"), (2, "pageable")])
def test_the_session_says_how_the_images_are_held(model, cudart, code, said):
    cudart.code = code
    opened = CudaSession(FakeRuntime(), model, "fp32", (1,))
    before = dict(cudart.registered)
    release = opened.hold(np.zeros((8, 1), np.float32))
    assert opened.description["images"] == said
    release()
    assert cudart.registered == before


def test_a_lane_that_goes_unlocks_its_pages(model, cudart):
    opened = CudaSession(FakeRuntime(), model, "fp32", (1, 8))
    assert len(cudart.registered) == 2
    del opened
    gc.collect()
    assert cudart.registered == {}


def test_a_small_batch_is_waited_for_after_each_step(model, cudart):
    runtime = FakeRuntime()
    CudaSession(runtime, model, "fp32", (1,), stream=9).run(images(3))
    assert cudart.calls == [("put", 9, 4), ("wait", 9, 0), ("fetch", 9, 8), ("wait", 9, 0)]
    assert runtime.runs == [([3.0], None)]


def test_a_run_is_enqueued_as_a_whole_and_waited_for_once(model, cudart, monkeypatch):
    """The copies are on the graph's own stream, and a gathered batch is copied image by image."""
    monkeypatch.setattr(cuda_lane, "APART", 0)
    runtime = FakeRuntime()
    opened = CudaSession(runtime, model, "fp32", (1, 4), stream=9)
    held = images(10, 11, 12, 13, 14)
    release = opened.hold(held)
    (worker,) = opened.workers
    assert worker.run_held([(3, 1)]).tolist() == [13]
    assert cudart.calls == [("put", 9, 4), ("fetch", 9, 8), ("wait", 9, 0)]
    del cudart.calls[:]
    assert worker.run_held([(4, 1), (0, 2)]).tolist() == [14, 10, 11]
    assert cudart.calls == [("put", 9, 4), ("put", 9, 8), ("fetch", 9, 24), ("wait", 9, 0)]
    assert all(entries == {"disable_synchronize_execution_providers": "1"} for _, entries in runtime.runs)
    release()


def test_images_may_lie_on_the_device(model, cudart):
    cudart.count = 2
    team = Team(streams=2, devices=2, qsl="device")
    opened = CudaSession(FakeRuntime(), model, "fp32", (1, 2), team=team)
    held = images(5, 6, 7)
    release = opened.hold(held)
    held[:] = 0  # nothing is read from the host any more
    del cudart.calls[:]
    assert [worker.run_held([(1, 2)]).tolist() for worker in opened.workers] == [[6, 7]] * 4
    assert {kind for kind, _, _ in cudart.calls} == {"move", "fetch", "wait"}
    assert [device for device, _ in cudart.memory.values()] == [0, 1]
    assert opened.description["images"] == "on the device"
    release()
    assert cudart.memory == {}
    assert cudart.current == 0  # of the thread's own


def test_each_stream_of_a_device_is_a_worker_with_own_sessions(model, cudart):
    cudart.count = 2
    runtime = FakeRuntime()
    opened = CudaSession(runtime, model, "fp32", (1, 8), stream=9, team=Team(streams=2, devices=2))
    assert len(opened.workers) == 4
    places = [(options["device_id"], options["user_compute_stream"]) for _, ((_, options),) in runtime.opened]
    assert places == [("0", "9")] * 2 + [("0", "7000")] * 2 + [("1", "7001")] * 2 + [("1", "7002")] * 2
    assert cudart.streams == {7000: 0, 7001: 1, 7002: 1}
    assert opened.addresses() == ["0000:1b:00.0", "0000:1b:00.1"]


def test_more_devices_than_there_are_is_one_sentence(model, cudart):
    with pytest.raises(GpuperfError, match="devices=2, and this process sees 1; a worker of pytest-xdist"):
        CudaSession(FakeRuntime(), model, "fp32", (1,), team=Team(devices=2))


def test_images_that_do_not_fit_on_the_device_are_one_sentence(model, cudart):
    opened = CudaSession(FakeRuntime(), model, "fp32", (1,), team=Team(qsl="device"))
    cudart.code = 2
    with pytest.raises(GpuperfError, match=r"reserving 0 MiB for images .*of memory \(2\): use a smaller"):
        opened.hold(images(1))


@pytest.mark.parametrize("fails", ["_cudaMalloc", "_cudaMemcpyAsync"])
def test_what_was_held_is_let_go_where_the_rest_cannot_be(model, cudart, monkeypatch, fails):
    """On the second of two devices: a page that stays locked would break later copies at its address."""
    cudart.count = 2
    works = getattr(FakeCudart, fails)

    def refused(self, *arguments):
        return 2 if self.current == 1 else works(self, *arguments)

    monkeypatch.setattr(FakeCudart, fails, refused)
    opened = CudaSession(FakeRuntime(), model, "fp32", (1,), team=Team(devices=2, qsl="device"))
    before = dict(cudart.registered)
    with pytest.raises(GpuperfError, match=r"out of memory \(2\)"):
        opened.hold(images(1, 2))
    assert cudart.memory == {}
    assert cudart.registered == before


@pytest.mark.gpu
def test_a_cpu_only_package_on_a_gpu_machine_is_refused():
    ort = pytest.importorskip("onnxruntime", reason="sessions need onnxruntime")
    if cuda_runtime.PROVIDER in ort.get_available_providers():
        pytest.skip("this onnxruntime has the CUDA provider")
    with pytest.raises(GpuperfError, match="built for the CPU"):
        open_session(models.Model("m", Path("m.onnx"), "", lambda count: None), "cuda")
