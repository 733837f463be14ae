"""The ``Sut``s of other frameworks in docs/mlperf.md, where the framework can be imported."""

import re
from pathlib import Path

import numpy as np
import pytest
from labelled import Labelled

from pytest_gpuperf.mlperf import Sut, models

PAGE = Path(__file__).parents[1] / "docs" / "mlperf.md"
BATCH = np.eye(10, dtype=np.float32)[[3, 1, 4]]


class Numbers(Labelled):
    def images(self, indices):
        return np.eye(10, dtype=np.float32)[list(indices)]


def documented(name, *arguments):
    """What the page's function of that name returns."""
    (found,) = re.findall(rf"^def {name}\(.*?\n(?=\n|```)", PAGE.read_text(), re.M | re.S)
    there = {"Sut": Sut}
    exec(found, there)
    sut = there[name](*arguments, Numbers)
    models.require_usable(sut)
    return sut


def answers(sut):
    return [list(sut.run(batch)) for batch in (BATCH, BATCH[:1], BATCH)]  # MultiStream's last is smaller


def needed(*names):
    return [pytest.importorskip(name, reason=f"{name} is not installed") for name in names]


def tensorflow_module(tf):
    class Same(tf.Module):
        @tf.function(input_signature=[tf.TensorSpec([None, 10], tf.float32)])
        def __call__(self, x):
            return {"scores": 2.0 * x}

    return Same()


def test_a_saved_model_of_tensorflow(tmp_path):
    (tf,) = needed("tensorflow")
    module = tensorflow_module(tf)
    tf.saved_model.save(module, str(tmp_path), signatures=module.__call__)
    assert answers(documented("tensorflow_sut", tmp_path)) == [[3, 1, 4], [3], [3, 1, 4]]


def test_a_file_of_tensorflow_lite(tmp_path):
    tf, _ = needed("tensorflow", "ai_edge_litert")
    module = tensorflow_module(tf)
    function = module.__call__.get_concrete_function()
    converter = tf.lite.TFLiteConverter.from_concrete_functions([function], module)
    (tmp_path / "m.tflite").write_bytes(converter.convert())
    assert answers(documented("tflite_sut", tmp_path / "m.tflite")) == [[3, 1, 4], [3], [3, 1, 4]]


def test_an_onnx_file_in_tvm(tmp_path):
    onnx, _ = needed("onnx", "tvm")
    graph = onnx.helper.make_graph(
        [onnx.helper.make_node("Add", ["x", "x"], ["y"])],
        "double",
        [onnx.helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, ["n", 10])],
        [onnx.helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, ["n", 10])],
    )
    opset = onnx.helper.make_opsetid("", 17)
    onnx.save(onnx.helper.make_model(graph, opset_imports=[opset], ir_version=9), tmp_path / "m.onnx")
    assert answers(documented("tvm_sut", tmp_path / "m.onnx")) == [[3, 1, 4], [3], [3, 1, 4]]
