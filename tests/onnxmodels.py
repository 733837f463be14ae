"""Small ONNX files of shapes that a classifier of images has not: several inputs, constants, state."""

from pathlib import Path

import numpy as np


def _save(path, nodes, inputs, outputs, weights=()):
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    def port(name, kind, shape):
        return helper.make_tensor_value_info(name, getattr(TensorProto, kind), shape)

    graph = helper.make_graph(
        [helper.make_node(kind, list(given), [*made], **more) for kind, given, made, more in nodes],
        "small",
        [port(*one) for one in inputs],
        [port(*one) for one in outputs],
        [numpy_helper.from_array(array, name) for name, array in weights],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), str(path))
    return Path(path)


def pixels(array):
    """The class of a dataset of the images in ``array``, float32 [n, ...], each labelled by its number."""

    class Pixels:
        name, labels = "pixels", np.arange(len(array))

        def __init__(self, count=None):
            pass

        def __len__(self):
            return len(array)

        def images(self, indices):
            return array[list(indices)]

    return Pixels


def bert(path, batch="N", length=16, width=32, vocabulary=100):
    """BERT's shape with random weights: ids, mask and segments in, a start and an end for each token out."""
    random = np.random.default_rng(1)
    weights = [
        ("words", random.standard_normal((vocabulary, width), np.float32)),
        ("kinds", random.standard_normal((2, width), np.float32)),
        ("dense", random.standard_normal((width, width), np.float32) / width),
        ("head", random.standard_normal((width, 2), np.float32)),
        ("two", np.array([1, 1], np.int64)),
        ("last", np.array([2], np.int64)),
    ]
    nodes = [
        ("Gather", ("words", "input_ids"), ["w"], {}),
        ("Gather", ("kinds", "token_type_ids"), ["k"], {}),
        ("Add", ("w", "k"), ["e"], {}),
        ("Cast", ("attention_mask",), ["m0"], {"to": 1}),
        ("Unsqueeze", ("m0", "last"), ["m"], {}),
        ("Mul", ("e", "m"), ["x"], {}),
        ("Transpose", ("x",), ["xt"], {"perm": [0, 2, 1]}),
        ("MatMul", ("x", "xt"), ["a0"], {}),
        ("Softmax", ("a0",), ["a"], {"axis": -1}),
        ("MatMul", ("a", "x"), ["y"], {}),
        ("MatMul", ("y", "dense"), ["z"], {}),
        ("Relu", ("z",), ["r"], {}),
        ("MatMul", ("r", "head"), ["h"], {}),
        ("Split", ("h", "two"), ["s0", "e0"], {"axis": 2}),
        ("Squeeze", ("s0", "last"), ["start_logits"], {}),
        ("Squeeze", ("e0", "last"), ["end_logits"], {}),
    ]
    names = ("input_ids", "attention_mask", "token_type_ids")
    ins = [(name, "INT64", [batch, length]) for name in names]
    outs = [(name, "FLOAT", [batch, length]) for name in ("start_logits", "end_logits")]
    return _save(path, nodes, ins, outs, weights)


def scores(path):
    """Two scores of a number x: x and 1."""
    nodes = [("Sub", ("x", "x"), ["zero"], {}), ("Add", ("zero", "one"), ["o"], {})]
    nodes.append(("Concat", ("x", "o"), ["y"], {"axis": 1}))
    return _save(
        path,
        nodes,
        [("x", "FLOAT", ["N", 1])],
        [("y", "FLOAT", ["N", 2])],
        [("one", np.ones((1, 1), np.float32))],
    )


def running_sum(path, batch="N"):
    """The sum of all that came so far, times ``scale``: y = (x + sum) * scale, sumN = x + sum."""
    nodes = [
        ("Add", ("x", "sum"), ["sumN"], {}),
        ("Mul", ("sumN", "scale"), ["y"], {}),
    ]
    ins = [("x", "FLOAT", [batch, 1]), ("sum", "FLOAT", [batch, 1]), ("scale", "FLOAT", [])]
    return _save(path, nodes, ins, [("y", "FLOAT", [batch, 1]), ("sumN", "FLOAT", [batch, 1])])


def found(path):
    """Give the place of all that is above zero in a batch [N, 4], as a detector's boxes: [M, 2]."""
    nodes = [
        ("Relu", ["x"], ["above"], {}),
        ("NonZero", ["above"], ["places"], {}),
        ("Transpose", ["places"], ["boxes"], {"perm": [1, 0]}),
    ]
    return _save(path, nodes, [("x", "FLOAT", ["N", 4])], [("boxes", "INT64", ["M", 2])])


def channel(path, layout="NHWC"):
    """The class that the first channel of the first pixel says."""
    shape = ["N", 4, 4, 3] if layout == "NHWC" else ["N", 3, 4, 4]
    nodes = [
        ("Slice", ("x", "from", "to", "axes"), ["p"], {}),
        ("Reshape", ("p", "flat"), ["f"], {}),
        ("Cast", ("f",), ["class"], {"to": 7}),
    ]
    weights = [
        ("from", np.zeros(3, np.int64)),
        ("to", np.ones(3, np.int64)),
        ("axes", np.array([1, 2, 3], np.int64)),
        ("flat", np.array([-1], np.int64)),
    ]
    return _save(path, nodes, [("x", "FLOAT", shape)], [("class", "INT64", ["N"])], weights)
