"""Real models under LoadGen: the embedded one, one with a disturbed layer, MLPerf's by known answers."""

from importlib.util import find_spec

import pytest
from mlperf_child import shown

from pytest_gpuperf.mlperf import models

pytestmark = pytest.mark.skipif(
    find_spec("mlperf_loadgen") is None, reason="LoadGen is not installed: pip install mlcommons-loadgen"
)


@pytest.fixture(scope="module")
def embedded(tmp_path_factory):
    for module in ("onnx", "onnxruntime"):
        pytest.importorskip(module, reason="the embedded model is built with onnx and run with onnxruntime")
    return tmp_path_factory.mktemp("embedded")


def test_the_embedded_model_under_loadgen(embedded):
    found = shown(
        """
        s = session.open_session(models.resolve(), "cpu")
        a = loadgen.accuracy(s, log_dir=Path("accuracy"), count=40)
        r = loadgen.performance(s, "SingleStream", log_dir=Path("single"), seconds=0.5)
        show(correct=[a.correct, a.total], problems=a.problems(), p50=r.latency.p50,
             contract=dict(r.contract), environment=dict(r.environment))
        """,
        embedded,
        timeout=120,
    )
    assert found["correct"] == [40, 40]
    assert found["problems"] == []
    assert found["contract"]["model"] == "resnet50-digits"
    assert found["contract"]["recipe"] == models.digits_head().recipe
    assert found["environment"]["nodes"] == "122 of 122 on CPUExecutionProvider"
    assert found["p50"] > 0.001


def test_a_perturbed_layer_turns_accuracy_red(embedded):
    found = shown(
        """
        from dataclasses import replace
        import onnx
        from onnx import numpy_helper
        model = models.resolve()
        proto = onnx.load(str(model.path))
        layer = next(w for w in proto.graph.initializer if w.name == "stage1_block2_b_w")
        weights = numpy_helper.to_array(layer)
        noise = np.random.default_rng(0).standard_normal(weights.shape, np.float32) * weights.std()
        layer.CopyFrom(numpy_helper.from_array(weights + noise, layer.name))
        onnx.save(proto, "perturbed.onnx")
        s = session.open_session(replace(model, path=Path("perturbed.onnx")), "cpu")
        a = loadgen.accuracy(s, log_dir=Path("accuracy"), count=40)
        show(correct=a.correct, unexplained=a.measurements()[0].value, problems=a.problems())
        """,
        embedded,
        timeout=120,
    )
    assert found["unexplained"] > 0
    assert "of 40 images changed their class" in found["problems"][0]


def test_mlperfs_model_and_imagenet_by_known_answers(tmp_path):
    for module in ("onnx", "onnxruntime", "cv2"):
        pytest.importorskip(module, reason="MLPerf's path needs onnx, onnxruntime and OpenCV")
    found = shown(
        """
        import cv2, onnx
        from onnx import TensorProto, helper, numpy_helper
        # Class k of 1,001 is right where the image's red value is k - 1: argmax of 2(k-1)(x+mean) - (k-1)^2.
        k = np.arange(1001, dtype=np.float64) - 1
        weight = np.zeros((3, 1001), np.float32)
        weight[0] = 2 * k
        bias = (2 * k * 123.68 - k**2).astype(np.float32)
        nodes = [
            helper.make_node("GlobalAveragePool", ["input_tensor:0"], ["pooled"]),
            helper.make_node("Flatten", ["pooled"], ["flat"]),
            helper.make_node("Gemm", ["flat", "w", "b"], ["softmax_tensor:0"]),
            helper.make_node("ArgMax", ["softmax_tensor:0"], ["ArgMax:0"], axis=1, keepdims=0),
        ]
        graph = helper.make_graph(
            nodes, "known",
            [helper.make_tensor_value_info("input_tensor:0", TensorProto.FLOAT, ["N", 3, 224, 224])],
            [helper.make_tensor_value_info("ArgMax:0", TensorProto.INT64, ["N"]),
             helper.make_tensor_value_info("softmax_tensor:0", TensorProto.FLOAT, ["N", 1001])],
            [numpy_helper.from_array(weight, "w"), numpy_helper.from_array(bias, "b")])
        onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9),
                  "resnet50_v1.onnx")
        lines = []
        for i in range(20):
            cv2.imwrite(f"{i}.png", np.full((260, 300, 3), 12 * i, np.uint8))
            lines.append(f"{i}.png {12 * i if i % 5 else 999}")
        Path("val_map.txt").write_text("\\n".join(lines))
        here = Path(".")
        s = session.open_session(models.resolve(None, here, here), "cpu")
        a = loadgen.accuracy(s, log_dir=Path("logs"), scenario="MultiStream")
        Path("19.png").write_text("no image")  # which LoadGen would load last
        s.workers = s.run = None
        error = error_of(loadgen.accuracy, s, log_dir=Path("logs"), scenario="MultiStream")
        show(error=error, predictions=a.predictions.tolist(), correct=[a.correct, a.total],
             problems=a.problems(), accuracy=a.accuracy, model=a.contract["model"], notes=a.notes)
        """,
        tmp_path,
    )
    assert "19.png is missing or is no image" in found["error"]
    assert found["predictions"] == [12 * i for i in range(20)]
    assert found["correct"] == [16, 20]
    assert found["accuracy"] == 0.8
    assert found["model"] == "resnet50"
    assert found["problems"] == []
    assert found["notes"][0].startswith("20 of 50,000 images: at least ")
