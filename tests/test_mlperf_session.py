"""Sessions on the CPU, models that do not fit, and what stands in the way of the CUDA provider."""

import sys
from dataclasses import replace
from importlib import metadata
from types import SimpleNamespace

import numpy as np
import onnxmodels
import pytest

from pytest_gpuperf.errors import GpuperfError, Unavailable
from pytest_gpuperf.mlperf import cuda_runtime, models
from pytest_gpuperf.mlperf.session import open_session


def classifier(path, shape=("N", 3), classes=5, arg_max=False, outputs=1, cast=None):
    """Writes a model that says the class nearest to the first input value: argmax of 2kx - k^2."""
    onnx = pytest.importorskip("onnx", reason="the model under test is written with onnx")
    from onnx import TensorProto, helper, numpy_helper

    weight = np.zeros((3, classes), np.float32)
    weight[0] = 2 * np.arange(classes)
    bias = -(np.arange(classes, dtype=np.float32) ** 2)
    nodes = [helper.make_node("Gemm", ["x", "w", "b"], ["scores"])]
    if cast:  # the input is of whole numbers
        nodes[0].input[0] = "floats"
        nodes.insert(0, helper.make_node("Cast", ["x"], ["floats"], to=TensorProto.FLOAT))
    results = [helper.make_tensor_value_info("scores", TensorProto.FLOAT, [shape[0], classes])]
    if arg_max:
        nodes.append(helper.make_node("ArgMax", ["scores"], ["class"], axis=1, keepdims=0))
        results.append(helper.make_tensor_value_info("class", TensorProto.INT64, [shape[0]]))
    graph = helper.make_graph(
        nodes,
        "nearest",
        [helper.make_tensor_value_info("x", getattr(TensorProto, cast or "FLOAT"), shape)],
        results[-outputs:],
        [numpy_helper.from_array(weight, "w"), numpy_helper.from_array(bias, "b")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    onnx.save(model, str(path))
    return models.Model("nearest", path, "by hand", lambda count: None, input_shape=(3,))


pytestmark = pytest.mark.usefixtures("cache")


@pytest.fixture
def ort():
    return pytest.importorskip("onnxruntime", reason="sessions need onnxruntime")


def values(*numbers):
    return np.array([[n, 9, 9] for n in numbers], np.float32)


@pytest.mark.parametrize("arg_max", [False, True])
def test_classes_from_scores_or_from_the_models_own_argmax(tmp_path, ort, arg_max):
    session = open_session(classifier(tmp_path / "m.onnx", arg_max=arg_max), "cpu")
    classes = session.run(values(3.2, 0.1, 4))
    assert (classes.tolist(), classes.dtype) == ([3, 0, 4], np.int64)


@pytest.mark.parametrize("size", [1, 2, 8])
@pytest.mark.parametrize("count", [1, 3, 8])
def test_a_file_of_one_batch_size_gets_its_batches_padded(tmp_path, ort, size, count):
    session = open_session(classifier(tmp_path / "m.onnx", shape=(size, 3)), "cpu")
    numbers = [4, 0, 3, 1, 2, 2, 0, 1][:count]
    assert session.run(values(*numbers)).tolist() == numbers
    assert session.description["fixed_batch"] == size


@pytest.mark.parametrize(("name", "dtype"), [("INT32", np.int32), ("INT64", np.int64), ("UINT8", np.uint8)])
@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_whole_numbers_are_fed_as_the_file_takes_them(tmp_path, ort, name, dtype, precision):
    model = classifier(tmp_path / "m.onnx", cast=name)
    session = open_session(model, "cpu", precision)
    assert session.dtype == dtype
    assert session.run(values(3, 1).astype(dtype)).tolist() == [3, 1]


def test_one_thread_computes_where_one_is_asked_for(tmp_path, ort, monkeypatch):
    seen, made = [], ort.InferenceSession

    def opened(path, options, **named):
        seen.append(options.intra_op_num_threads)
        return made(path, options, **named)

    monkeypatch.setattr(ort, "InferenceSession", opened)
    assert open_session(classifier(tmp_path / "m.onnx"), "cpu", threads=1).run(values(3)).tolist() == [3]
    open_session(classifier(tmp_path / "m.onnx"), "cpu")
    assert seen == [1, 0]  # 0 is ONNX Runtime's choice


def test_the_label_offset_is_added(tmp_path, ort):
    model = replace(classifier(tmp_path / "m.onnx"), label_offset=-1)
    assert open_session(model, "cpu").run(values(3)).tolist() == [2]


def test_fp16_runs_a_converted_model_and_leaves_the_file(tmp_path, ort):
    model = classifier(tmp_path / "m.onnx")
    before = model.path.read_bytes()
    session = open_session(model, "cpu", "fp16")
    assert session.dtype == np.float16
    assert session.run(values(3, 1).astype(np.float16)).tolist() == [3, 1]
    assert model.path.read_bytes() == before


def pixel_classifier(path, batch="N", kind="FLOAT"):
    """A convolution that picks one of three pixels, and a product that makes classes of it."""
    onnx = pytest.importorskip("onnx", reason="the model under test is written with onnx")
    from onnx import TensorProto, helper, numpy_helper

    pick = np.array([[[[1.0, 0, 0]]], [[[0, 1.0, 0]]], [[[0, 0, 1.0]]]], np.float32)
    nodes = [
        helper.make_node("Cast", ["x"], ["floats"], to=TensorProto.FLOAT),
        helper.make_node("Conv", ["floats", "k"], ["picked"]),
        helper.make_node("Flatten", ["picked"], ["flat"]),
        helper.make_node("MatMul", ["flat", "w"], ["scores"]),
    ]
    graph = helper.make_graph(
        nodes,
        "pixels",
        [helper.make_tensor_value_info("x", getattr(TensorProto, kind), [batch, 1, 1, 3])],
        [helper.make_tensor_value_info("scores", TensorProto.FLOAT, [batch, 3])],
        [numpy_helper.from_array(pick, "k"), numpy_helper.from_array(np.eye(3, dtype=np.float32), "w")],
    )
    opset = [helper.make_opsetid("", 17)]
    onnx.save(helper.make_model(graph, opset_imports=opset, ir_version=9), str(path))
    return models.Model("pixels", path, "by hand", onnxmodels.pixels(PIXELS), input_shape=(1, 1, 3))


PIXELS = np.eye(3, dtype=np.float32)[:, None, None, :]


@pytest.mark.parametrize(("batch", "kind"), [(1, "FLOAT"), (4, "FLOAT"), ("N", "UINT8"), (2, "DOUBLE")])
def test_int8_of_any_batch_and_type_that_a_file_takes(tmp_path, ort, batch, kind):
    session = open_session(pixel_classifier(tmp_path / "m.onnx", batch, kind), "cpu", "int8")
    assert session.run(PIXELS.astype(session.dtype)).tolist() == [0, 1, 2]


def test_int8_is_made_anew_of_other_images(tmp_path, ort):
    model = pixel_classifier(tmp_path / "m.onnx")
    first = open_session(model, "cpu", "int8").path
    assert open_session(model, "cpu", "int8").path == first
    large = replace(model, dataset=onnxmodels.pixels(100 * PIXELS))
    assert open_session(large, "cpu", "int8").run(100 * PIXELS).tolist() == [0, 1, 2]
    assert open_session(large, "cpu", "int8").path.read_bytes() != first.read_bytes()
    with pytest.raises(GpuperfError, match=r"^pixels: images\(\) gave images of several shapes"):
        open_session(replace(model, dataset=onnxmodels.pixels(Ragged())), "cpu", "int8")


class Ragged(list):
    def __init__(self):
        super().__init__([0, 1])

    def __getitem__(self, indices):
        return [np.zeros(1 + index) for index in range(2)]


def test_int8_quantises_the_convolutions_and_nothing_else(tmp_path, ort, caplog):
    onnx = pytest.importorskip("onnx", reason="the model under test is written with onnx")
    from onnx import TensorProto

    model = pixel_classifier(tmp_path / "m.onnx")
    session = open_session(model, "cpu", "int8")
    assert session.run(PIXELS).tolist() == [0, 1, 2]
    quantised = onnx.load(str(session.path)).graph
    makers = {output: node.op_type for node in quantised.node for output in node.output}
    sources = {node.op_type: [makers.get(name) for name in node.input] for node in quantised.node}
    assert sources["Conv"][:2] == ["DequantizeLinear"] * 2
    assert set(sources["MatMul"]) == {"Flatten", None}
    kinds = {weight.name: weight.data_type for weight in quantised.initializer}
    assert kinds["k_quantized"] == TensorProto.INT8
    assert "pre-processing" not in caplog.text


def test_the_description_says_what_ran_where(tmp_path, ort):
    description = open_session(classifier(tmp_path / "m.onnx"), "cpu", batch_sizes=(8, 1)).description
    assert description["provider"] == "CPUExecutionProvider"
    assert description["nodes"] == "1 of 1 on CPUExecutionProvider"
    assert description["batch_sizes"] == "1 8"
    assert description["onnxruntime"] == ort.__version__


@pytest.mark.parametrize(
    ("arguments", "change", "said"),
    [
        ({}, {"input_shape": (4,)}, r"takes x .*float\) \['N', 3\]; nearest is fed one .*float\) \[N, 4\]"),
        ({}, {"input_shape": (3, 1)}, r"\['N', 3\]; nearest is fed one .* \[N, 3, 1\]"),
        ({"arg_max": True, "outputs": 2}, {}, "the outputs scores, class; name one as Model.output, or give"),
        ({}, {"output": "logits"}, 'has the outputs scores; Model.output is "logits"'),
    ],
)
def test_a_model_that_does_not_fit(tmp_path, ort, arguments, change, said):
    model = classifier(tmp_path / "m.onnx", **arguments)
    with pytest.raises(GpuperfError, match=said) as error:
        open_session(replace(model, **change), "cpu")
    assert "m.onnx" in str(error.value)


@pytest.mark.parametrize(
    ("output", "found"),
    [
        (np.zeros((1, 40, 6625), np.float32), r"float32 \[1, 40, 6625\]"),
        (np.zeros((1, 1), np.float32), r"float32 \[1, 1\]"),  # one score: its highest is always the first
        (np.zeros(1, np.float32), r"float32 \[1\]"),  # as well of a single sample
        (np.array(["3"], object), r"object \[1\]"),
        (np.zeros((1, 2), np.int64), r"int64 \[1, 2\]"),
        ([{0: 0.5, 1: 0.5}], r"\[{0: 0.5, 1: 0.5}\]"),
    ],
)
def test_an_output_that_is_no_class_is_one_sentence(tmp_path, ort, output, found):
    session = open_session(classifier(tmp_path / "m.onnx"), "cpu")
    session._session = SimpleNamespace(run=lambda *given: [output])
    with pytest.raises(
        GpuperfError, match=f"output scores is {found} for 1 samples; a classifier .* need a score="
    ):
        session.run(values(3))


def test_a_file_that_is_no_model(tmp_path, ort):
    (tmp_path / "m.onnx").write_bytes(b"no model")
    model = models.Model("broken", tmp_path / "m.onnx", "", lambda count: None)
    with pytest.raises(GpuperfError, match=r"loading the graph \(broken, .*m\.onnx\)"):
        open_session(model, "cpu")


def test_a_failing_run_is_one_sentence(tmp_path, ort):
    session = open_session(classifier(tmp_path / "m.onnx"), "cpu")
    with pytest.raises(GpuperfError, match="failed while running a batch of 2 ") as error:
        session.run(np.zeros((2, 5), np.float32))
    assert "\n" not in str(error.value)


def test_a_missing_file_is_named_before_anything_reads_it(tmp_path, ort):
    with pytest.raises(GpuperfError, match=r"m\.onnx does not exist; m must be an ONNX file"):
        open_session(models.Model("m", tmp_path / "m.onnx", "", lambda count: None), "cpu")


def test_bad_precision_and_batch_sizes(tmp_path, ort):
    model = models.Model("m", tmp_path / "m.onnx", "", lambda count: None)
    with pytest.raises(GpuperfError, match='no precision "int4"; use fp32 or fp16 or int8'):
        open_session(model, "cpu", "int4")
    with pytest.raises(GpuperfError, match=r"int8 runs on the CPU: .*CUDA provider"):
        open_session(model, "cuda", "int8")
    with pytest.raises(GpuperfError, match=r"batch sizes \[0\]"):
        open_session(model, "cpu", batch_sizes=[0])


@pytest.mark.parametrize("backend", ["cpu", "cuda"])
def test_without_onnxruntime_the_extra_is_named(tmp_path, monkeypatch, backend):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    model = models.Model("m", tmp_path / "m.onnx", "", lambda count: None)
    with pytest.raises(Unavailable, match=rf"pip install 'pytest-gpuperf\[{backend}\]'"):
        open_session(model, backend)


def test_a_cpu_onnxruntime_never_serves_cuda(tmp_path, ort):
    if cuda_runtime.PROVIDER in ort.get_available_providers():
        pytest.skip("this onnxruntime has the CUDA provider")
    model = models.Model("m", tmp_path / "m.onnx", "", lambda count: None)
    with pytest.raises(Unavailable, match=r"built for the CPU .*pip install 'onnxruntime-gpu\[cuda,cudnn\]'"):
        open_session(model, "cuda")


class FakeDriver:
    """libcuda.so.1 of a driver that supports CUDA ``version`` (13000 is 13.0)."""

    def __init__(self, version=13000, init=0):
        self.version, self.init = version, init

    def cuInit(self, flags):
        return self.init

    def cuDriverGetVersion(self, pointer):
        pointer._obj.value = self.version
        return 0

    def cuGetErrorName(self, error, pointer):
        pointer._obj.value = b"CUDA_ERROR_SYSTEM_DRIVER_MISMATCH"


def loader(driver, missing=()):
    def load(name):
        if name in missing or (name == "libcuda.so.1" and driver is None):
            raise OSError(f"{name}: cannot open shared object file")
        return driver

    return load


def fake_ort(providers=("CUDAExecutionProvider", "CPUExecutionProvider"), cuda="13.0", chatter=""):
    return SimpleNamespace(
        __file__=__file__,
        __version__="1.31.1",
        cuda_version=cuda,
        get_available_providers=lambda: list(providers),
        preload_dlls=lambda: print(chatter),
    )


@pytest.fixture
def only_gpu_package(monkeypatch):
    monkeypatch.setattr(cuda_runtime, "installed_packages", lambda folder: {"onnxruntime-gpu"})


def test_a_complete_installation_passes_and_stays_silent(only_gpu_package, capsys):
    cuda_runtime.require(fake_ort(chatter="Failed to load libfoo"), loader(FakeDriver()))
    cuda_runtime.require(fake_ort(cuda="12.8"), loader(FakeDriver(13000)))
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
    ("ort_arguments", "load", "said"),
    [
        ({"providers": ["CPUExecutionProvider"]}, loader(FakeDriver()), "built for the CPU"),
        ({"cuda": ""}, loader(FakeDriver()), 'built for CUDA "", which is no version'),
        ({"cuda": "14.0"}, loader(FakeDriver(14000)), "built for CUDA 14, known are 12, 13"),
        ({}, loader(None), "no NVIDIA driver is installed"),
        ({}, loader(FakeDriver(init=100)), r"no usable device \(CUDA error 100\)"),
        ({}, loader(FakeDriver(init=803)), "driver does not start: CUDA_ERROR_SYSTEM_DRIVER_MISMATCH"),
        ({}, loader(FakeDriver(12040)), r"supports CUDA 12.4, this onnxruntime needs 13: .*<1.27"),
        (
            {},
            loader(FakeDriver(), ["libcudnn.so.9"]),
            r"libcudnn.so.9 cannot be loaded: pip install nvidia-cudnn-cu13, or",
        ),
        (
            {},
            loader(FakeDriver(), ["libcublas.so.13", "libcublasLt.so.13"]),
            r"libcublas.so.13, libcublasLt.so.13 cannot be loaded: pip install nvidia-cublas, or",
        ),
        ({"cuda": "12.8"}, loader(FakeDriver(), ["libcufft.so.11"]), "pip install nvidia-cufft-cu12, or"),
    ],
)
def test_what_is_missing_is_named_with_its_remedy(only_gpu_package, ort_arguments, load, said):
    with pytest.raises(GpuperfError, match=said):
        cuda_runtime.require(fake_ort(**ort_arguments), load)


def test_both_packages_installed(monkeypatch):
    both = {"onnxruntime", "onnxruntime-gpu"}
    monkeypatch.setattr(cuda_runtime, "installed_packages", lambda folder: both)
    with pytest.raises(GpuperfError, match=r"both installed .*pip uninstall -y onnxruntime onnxruntime-gpu"):
        cuda_runtime.require(fake_ort(), loader(FakeDriver()))


@pytest.mark.parametrize(
    ("folder", "found"),
    [
        (None, {"onnxruntime-gpu"}),
        ("elsewhere", {"onnxruntime-gpu"}),  # hidden by the one that is imported: it overwrites nothing
        ("here", {"onnxruntime", "onnxruntime-gpu"}),
    ],
)
def test_only_packages_in_the_folder_of_the_imported_one_count(monkeypatch, tmp_path, folder, found):
    folders = {"onnxruntime-gpu": "here"} | ({"onnxruntime": folder} if folder else {})

    def distribution(name):
        if name not in folders:
            raise metadata.PackageNotFoundError(name)
        return SimpleNamespace(locate_file=lambda file: tmp_path / folders[name] / file)

    monkeypatch.setattr(metadata, "distribution", distribution)
    assert cuda_runtime.installed_packages(tmp_path / "here" / "onnxruntime") == found
