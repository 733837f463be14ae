"""ONNX Runtime's TensorRT provider against stand-ins: options, cached engines, refusals."""

import fcntl
import sys
from collections import defaultdict
from pathlib import Path
from types import SimpleNamespace

import pytest
from labelled import Labelled
from test_mlperf_cuda_session import FakeRuntime, cudart, images  # noqa: F401  (a fixture)

from pytest_gpuperf.errors import GpuperfError, Unavailable
from pytest_gpuperf.mlperf import contracts, cuda_runtime, models, opening, session, tensorrt
from pytest_gpuperf.mlperf.fixtures import LoadGen
from pytest_gpuperf.mlperf.request import Request
from pytest_gpuperf.mlperf.session import TensorrtSession, open_session
from pytest_gpuperf.mlperf.settings import Scenario
from pytest_gpuperf.mlperf.sut import Sut

pytestmark = pytest.mark.usefixtures("cache")


@pytest.fixture
def model(tmp_path):
    (tmp_path / "m.onnx").write_bytes(b"the fake reads nothing")
    return models.Model("m", tmp_path / "m.onnx", "", Images, input_shape=(1,))


class Images(Labelled):
    every = range(3)


def runtime(**changes):
    return FakeRuntime(providers=[tensorrt.PROVIDER], **changes)


def test_each_batch_size_has_an_engine_built_before_any_phase(model, cache):
    first = runtime()
    opened = TensorrtSession(first, model, "fp32", (1, 8))
    assert [len(run) for run, _ in first.runs] == [1, 8]  # which builds the engines
    folders = []
    for entries, ((name, options),) in first.opened:
        assert name == "TensorrtExecutionProvider"
        assert entries["session.disable_cpu_ep_fallback"] == "1"
        assert options["trt_engine_cache_enable"] == options["trt_timing_cache_enable"] == "1"
        assert (options["trt_cuda_graph_enable"], options["trt_fp16_enable"]) == ("1", "0")
        assert options["trt_engine_cache_path"] == options["trt_timing_cache_path"]
        assert options["user_compute_stream"] == "7000"
        folders.append(Path(options["trt_engine_cache_path"]))
        assert folders[-1].is_dir()
        assert folders[-1].parent == cache / "engines"
    assert "cache" not in opened.description["provider_options"]  # a path is no property of a machine
    assert opened.run(images(5, 4, 3)).tolist() == [5, 4, 3]
    model.path.write_bytes(b"other weights")
    other = runtime()
    TensorrtSession(other, model, "fp32", (1,))
    ((_, ((_, options),)),) = other.opened
    assert len({*folders, Path(options["trt_engine_cache_path"])}) == 3


def test_one_process_builds_a_models_engines_while_others_wait(model, cache):
    """Every run that builds happens under the lock of the model's engines."""
    building, free = runtime(), []

    class Watched(building.InferenceSession):
        def run_with_iobinding(self, *given):
            (lock,) = (cache / "engines").glob("*.lock")
            with lock.open() as file, pytest.raises(BlockingIOError):
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            free.append(False)
            super().run_with_iobinding(*given)

    building.InferenceSession = Watched
    TensorrtSession(building, model, "fp32", (1, 8))
    assert free == [False, False]
    TensorrtSession(runtime(), model, "fp32", (1,))  # it is free again


def test_fp16_lets_tensorrt_choose_kernels_of_half_precision(model, monkeypatch):
    monkeypatch.setattr(models, "half_precision", lambda model, digest: model.path)
    opened = runtime(form="tensor(float16)")
    TensorrtSession(opened, model, "fp16", (1,))
    ((_, ((_, options),)),) = opened.opened
    assert options["trt_fp16_enable"] == "1"


def test_a_node_that_tensorrt_leaves_over_is_an_error(model):
    with pytest.raises(GpuperfError, match="1 of 3 nodes of m are not on TensorrtExecutionProvider"):
        TensorrtSession(runtime(elsewhere=["ArgMax"]), model, "fp32", (1,))


def test_the_cache_that_cannot_be_written_is_named(model, cache):
    cache.write_text("a file")
    with pytest.raises(Unavailable, match=r"cache .* cannot be written .*; point PYTEST_GPUPERF_CACHE"):
        TensorrtSession(runtime(), model, "fp32", (1,))


def installed(*providers):
    return SimpleNamespace(
        __version__="1.31.1", cuda_version="13.0", get_available_providers=lambda: list(providers)
    )


def test_what_is_missing_is_one_sentence(monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorrt", None)
    with pytest.raises(Unavailable, match=r'backend="tensorrt": this onnxruntime \(1.31.1\) has no Tensorrt'):
        tensorrt.require(installed("CUDAExecutionProvider"))
    loaded = []

    def load(name):
        loaded.append(name)
        if "parser" in name:
            raise OSError(name)

    with pytest.raises(
        Unavailable,
        match=r'tensorrt": libnvonnxparser.so.10 cannot be loaded: pip install "tensorrt-cu13<11"',
    ):
        tensorrt.require(installed(tensorrt.PROVIDER), load)
    assert loaded == ["libnvinfer.so.10", "libnvonnxparser.so.10"]
    tensorrt.require(installed(tensorrt.PROVIDER), lambda name: None)


def test_it_is_opened_only_with_cudas_and_tensorrts_libraries(model, monkeypatch):
    asked = []
    monkeypatch.setattr(session, "imported", lambda *names: runtime())
    monkeypatch.setattr(cuda_runtime, "require", lambda ort: asked.append("cuda"))
    monkeypatch.setattr(tensorrt, "require", lambda ort: asked.append("tensorrt"))
    opened = open_session(model, "tensorrt", batch_sizes=(1,))
    assert (type(opened), asked) == (TensorrtSession, ["cuda", "tensorrt"])
    detail = SimpleNamespace(values=defaultdict(int))
    monkeypatch.setattr(contracts.metadata, "version", lambda name: "5")
    contract = contracts.of(opened, Images(), Scenario.of("Offline"), detail)
    assert contract["backend"] == "tensorrt"  # its figures are compared with its like alone
    with pytest.raises(GpuperfError, match=r'int8 runs on the CPU: .*use precision="fp16"'):
        open_session(model, "tensorrt", "int8")


def test_a_test_asks_for_it_and_only_on_a_gpu(monkeypatch):
    opened = []
    monkeypatch.setattr(opening, "open_session", lambda *given: opened.append(given[:4]))
    given = {"scenario": "Offline", "mode": "performance", "precision": "fp16"}
    asked = Request.of(**given, backend="tensorrt")
    gpu = SimpleNamespace(expects_device=lambda: True, options=SimpleNamespace(active=False))
    for request in (asked, Request.of(**given)):
        LoadGen(gpu, None)._open("m", request)
    assert opened == [("m", "tensorrt", "fp16", [256]), ("m", "cuda", "fp16", [256])]
    with pytest.raises(GpuperfError, match="backend= are for ONNX models, not for a Sut"):
        LoadGen(gpu, None)._open(Sut(name="s", run=len, dataset=list), asked)
    cpu = SimpleNamespace(expects_device=lambda: False)
    for backend in ("tensorrt", "cuda"):  # neither becomes a run on the CPU
        with pytest.raises(GpuperfError, match="devices=, qsl= and backend= other than"):
            LoadGen(cpu, None)._open("m", Request.of(**given, backend=backend))
    with pytest.raises(GpuperfError, match='no backend "TensorRT"; did you mean "tensorrt"'):
        Request.of(**given, backend="TensorRT")
