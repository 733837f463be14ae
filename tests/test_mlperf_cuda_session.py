"""The CUDA session against a stand-in for ONNX Runtime: what it asks for, and that no node is on the CPU."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from pytest_gpuperf.errors import GpuperfError
from pytest_gpuperf.mlperf import cuda_runtime, models
from pytest_gpuperf.mlperf.session import CudaSession, open_session


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
        self.opened, self.runs = [], []
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
                return [part(cuda_runtime.PROVIDER, ["Conv", "Relu"]), on_cpu]

            def io_binding(self):
                return Binding()

            def run_with_iobinding(self, binding, options=None):
                if runtime.failure:
                    raise RuntimeError(runtime.failure)
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
    session = CudaSession(runtime, model, "fp32", (1, 8))
    assert len(runtime.opened) == 2
    for entries, providers in runtime.opened:
        assert entries["session.disable_cpu_ep_fallback"] == "1"
        ((name, options),) = providers
        assert name == "CUDAExecutionProvider"
        assert options["enable_cuda_graph"] == options["prefer_nhwc"] == options["fuse_conv_bias"] == "1"
    assert session.description["nodes"] == "2 of 2 on CUDAExecutionProvider"


@pytest.mark.parametrize(("precision", "switch"), [("fp32", "0"), ("fp16", "1")])
def test_fp32_is_float32_arithmetic_and_fp16_keeps_its_tensor_cores(model, monkeypatch, precision, switch):
    monkeypatch.setattr(models, "half_precision", lambda model: model.path)
    runtime = FakeRuntime(form={"fp32": "tensor(float)", "fp16": "tensor(float16)"}[precision])
    session = CudaSession(runtime, model, precision, (1,))
    ((_, ((_, options),)),) = runtime.opened
    assert options["use_tf32"] == switch
    assert f"use_tf32={switch}" in session.description["provider_options"]


def test_a_batch_runs_at_the_next_size_and_gives_only_its_own_classes(model):
    session = CudaSession(FakeRuntime(), model, "fp32", (1, 8))
    assert session.run(images(1, 2, 3, 4, 5, 6, 7, 8)).tolist() == [1, 2, 3, 4, 5, 6, 7, 8]
    assert session.run(images(9)).tolist() == [9]
    assert session.run(images(5, 4, 3)).tolist() == [5, 4, 3]
    with pytest.raises(GpuperfError, match=r"a batch of 9 was run, the session was opened for \[1, 8\]"):
        session.run(images(*range(9)))


def test_a_file_of_one_batch_size_has_one_lane_and_gets_its_batches_padded(model):
    runtime = FakeRuntime(batch=4)
    session = CudaSession(runtime, model, "fp32", (1, 8))
    assert session.batch_sizes == (4,)
    assert len(runtime.opened) == 1
    assert session.run(images(1, 2, 3, 4, 5)).tolist() == [1, 2, 3, 4, 5]
    assert [values for values, _ in runtime.runs] == [[1, 2, 3, 4], [5, 5, 5, 5]]
    assert session.run(images(7)).tolist() == [7]


def test_a_replay_is_the_largest_batch_and_waits_for_nothing(model):
    runtime = FakeRuntime()
    replay = CudaSession(runtime, model, "fp32", (1, 2)).replay(np.array([[4.0], [5.0]]))
    captured = len(runtime.runs)
    assert captured
    replay()
    replay()
    unsynchronised = {"disable_synchronize_execution_providers": "1"}
    assert runtime.runs[captured:] == [([4.0, 5.0], unsynchronised)] * 2
    assert all(options is None for _, options in runtime.runs[:captured])


def test_a_failed_replay_names_the_model(model):
    runtime = FakeRuntime()
    replay = CudaSession(runtime, model, "fp32", (1,)).replay(images(4))
    runtime.failure = "CUDA failure 700"
    with pytest.raises(GpuperfError, match=r"failed while enqueueing a batch of 1 \(m, .*CUDA failure 700"):
        replay()


def test_a_session_runs_on_the_stream_it_is_given(model):
    """Whose address is another in each process, and so nothing to compare environments by."""
    runtime = FakeRuntime()
    session = CudaSession(runtime, model, "fp32", (1,), stream=94_000)
    CudaSession(runtime, model, "fp32", (1,))
    streams = [options.get("user_compute_stream") for _, ((_, options),) in runtime.opened]
    assert streams == ["94000", None]
    assert "94000" not in session.description["provider_options"]


def test_a_node_on_the_cpu_is_an_error(model):
    with pytest.raises(
        GpuperfError, match=r"1 of 3 nodes of m are not on .*'ArgMax on CPUExecutionProvider'"
    ):
        CudaSession(FakeRuntime(elsewhere=["ArgMax"]), model, "fp32", (1,))


def test_another_provider_is_an_error(model):
    with pytest.raises(GpuperfError, match="was to run on CUDAExecutionProvider and got"):
        CudaSession(FakeRuntime(providers=["CPUExecutionProvider"]), model, "fp32", (1,))


def test_out_of_device_memory_says_to_use_a_smaller_batch(model):
    failure = "BFCArena::AllocateRawInternal Failed to allocate memory for requested buffer of size 12"
    session = CudaSession(FakeRuntime(failure=failure), model, "fp32", (8,))
    with pytest.raises(
        GpuperfError, match="m does not fit into memory while running a batch of 8: use a smaller"
    ):
        session.run(images(*range(8)))


class FakeCudart:
    """Knows which addresses are registered; refuses with ``code``."""

    def __init__(self, code=0):
        self.code, self.registered, self.cleared = code, {}, False

    def cudaHostRegister(self, address, size, flags):
        if not self.code:
            self.registered[address.value] = size.value
        return self.code

    def cudaHostUnregister(self, address):
        del self.registered[address.value]

    def cudaGetLastError(self):
        self.cleared = True


def test_pages_are_locked_until_released():
    cudart, array = FakeCudart(), np.zeros((4, 3), np.float16)
    release = cuda_runtime.page_lock(array, 13, {"libcudart.so.13": cudart}.__getitem__)
    assert cudart.registered == {array.ctypes.data: 24}
    release()
    assert cudart.registered == {}


def test_a_refused_lock_is_no_error_and_leaves_none_behind():
    cudart = FakeCudart(code=2)
    assert cuda_runtime.page_lock(np.zeros(4), 12, {"libcudart.so.12": cudart}.__getitem__) is None
    assert cudart.cleared


@pytest.mark.parametrize(("code", "said"), [(0, "page-locked"), (2, "pageable")])
def test_the_session_says_how_the_images_are_held(model, monkeypatch, code, said):
    cudart = FakeCudart(code)
    real = cuda_runtime.page_lock
    monkeypatch.setattr(
        cuda_runtime, "page_lock", lambda array, major: real(array, major, lambda name: cudart)
    )
    session = CudaSession(FakeRuntime(), model, "fp32", (1,))
    release = session.hold(np.zeros(8, np.float32))
    assert session.description["images"] == said
    release()
    assert cudart.registered == {}


@pytest.mark.gpu
def test_a_cpu_only_package_on_a_gpu_machine_is_refused():
    ort = pytest.importorskip("onnxruntime", reason="sessions need onnxruntime")
    if cuda_runtime.PROVIDER in ort.get_available_providers():
        pytest.skip("this onnxruntime has the CUDA provider")
    with pytest.raises(GpuperfError, match="built for the CPU"):
        open_session(models.Model("m", Path("m.onnx"), "", lambda count: None), "cuda")
