"""ResNet-50 v1.5 (stride 2 in the 3x3 convolutions) as an ONNX graph with seeded weights.

The architecture is He et al., "Deep Residual Learning for Image Recognition" (2015), table 1, with the
stride moved as in MLPerf's resnet50_v1.onnx; batch normalisation is folded into the convolutions, as
inference runtimes do. The weights are random: what makes the network classify is the head (see fit_head).
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

BLOCKS = (3, 4, 6, 3)
WIDTHS = (64, 128, 256, 512)
FEATURES = 2048
OPSET = 17
# Shrinks the last convolution of every block, so that sixteen residual sums stay far below fp16's 65,504.
RESIDUAL_SCALE = 0.35


@dataclass(frozen=True, slots=True)
class Conv:
    """One convolution, ``kernel`` square, padded by kernel // 2; ``gain`` is He's (2 before a ReLU)."""

    name: str
    source: str
    inputs: int
    outputs: int
    kernel: int
    stride: int
    relu: bool = True
    gain: float = 2.0
    scale: float = 1.0

    @property
    def shape(self) -> tuple[int, int, int, int]:
        return (self.outputs, self.inputs, self.kernel, self.kernel)

    @property
    def result(self) -> str:
        return f"{self.name}_relu" if self.relu else self.name

    def weights(self, seed: int) -> np.ndarray:
        """The same bits on every machine and NumPy: raw PCG64 output (which NumPy promises to keep, as it
        does not for its distributions), scaled to a uniform of variance scale^2 * gain / fan_in.
        """
        identity = [seed, *self.name.encode()]
        generator = np.random.PCG64(np.random.SeedSequence(identity))
        count = math.prod(self.shape)
        raw = generator.random_raw((count + 1) // 2)
        words = np.stack([raw & np.uint64(0xFFFFFFFF), raw >> np.uint64(32)], axis=1).reshape(-1)[:count]
        signed = (words >> np.uint64(8)).astype(np.float32) - np.float32(2**23)
        fan_in = self.inputs * self.kernel * self.kernel
        bound = math.sqrt(3.0 * self.gain / fan_in) * self.scale
        return (signed * np.float32(bound / 2**23)).reshape(self.shape)


STEM = Conv("stem", "input", 3, 64, kernel=7, stride=2)


@dataclass(frozen=True, slots=True)
class Block:
    """A bottleneck: 1x1, 3x3, 1x1 and, where the shape changes, a 1x1 projection of the shortcut."""

    name: str
    source: str
    convs: tuple[Conv, ...]
    shortcut: Conv | None


def bottlenecks(blocks: Sequence[int] = BLOCKS) -> Iterator[Block]:
    """The residual blocks in order; ``blocks`` counts those of each of the four stages."""
    source, inputs = "pool", 64
    for stage, (count, width) in enumerate(zip(blocks, WIDTHS, strict=True)):
        for index in range(count):
            stride = 2 if index == 0 and stage > 0 else 1
            name = f"stage{stage}_block{index}"
            reduce = Conv(f"{name}_a", source, inputs, width, 1, 1)
            spatial = Conv(f"{name}_b", reduce.result, width, width, 3, stride)
            expand = Conv(
                f"{name}_c",
                spatial.result,
                width,
                4 * width,
                1,
                1,
                relu=False,
                gain=1.0,
                scale=RESIDUAL_SCALE,
            )
            shortcut = None
            if index == 0:
                shortcut = Conv(f"{name}_d", source, inputs, 4 * width, 1, stride, relu=False, gain=1.0)
            yield Block(name, source, (reduce, spatial, expand), shortcut)
            source, inputs = name, 4 * width


def convolutions(blocks: Sequence[int] = BLOCKS) -> Iterator[Conv]:
    yield STEM
    for block in bottlenecks(blocks):
        yield from block.convs
        if block.shortcut is not None:
            yield block.shortcut


def checksum(seed: int, blocks: Sequence[int] = BLOCKS) -> str:
    """SHA-256 over the little-endian float32 weights of every convolution in graph order (0.3 s)."""
    digest = hashlib.sha256()
    for conv in convolutions(blocks):
        digest.update(conv.weights(seed).astype("<f4").tobytes())
    return digest.hexdigest()


def build(
    seed: int,
    head: tuple[np.ndarray, np.ndarray] | None = None,
    blocks: Sequence[int] = BLOCKS,
) -> Any:
    """The ``onnx.ModelProto``: "input" float32 [N, 3, 224, 224] to "logits" [N, classes], or, without a
    ``head`` (weight [2048, classes] and bias [classes]), to "features" [N, 2048].
    """
    from onnx import TensorProto, helper, numpy_helper

    nodes: list[Any] = []
    weights: list[Any] = []

    def add(conv: Conv) -> str:
        weights.append(numpy_helper.from_array(conv.weights(seed), f"{conv.name}_w"))
        weights.append(numpy_helper.from_array(np.zeros(conv.outputs, np.float32), f"{conv.name}_b"))
        pads = [conv.kernel // 2] * 4
        attributes = {"kernel_shape": [conv.kernel] * 2, "strides": [conv.stride] * 2, "pads": pads}
        inputs = [conv.source, f"{conv.name}_w", f"{conv.name}_b"]
        nodes.append(helper.make_node("Conv", inputs, [conv.name], **attributes))
        if conv.relu:
            nodes.append(helper.make_node("Relu", [conv.name], [conv.result]))
        return conv.result

    pooling = {"kernel_shape": [3, 3], "strides": [2, 2], "pads": [1] * 4}
    nodes_input = add(STEM)
    nodes.append(helper.make_node("MaxPool", [nodes_input], ["pool"], **pooling))
    last = "pool"
    for block in bottlenecks(blocks):
        for conv in block.convs:
            last = add(conv)
        shortcut = add(block.shortcut) if block.shortcut is not None else block.source
        nodes.append(helper.make_node("Add", [last, shortcut], [f"{block.name}_sum"]))
        nodes.append(helper.make_node("Relu", [f"{block.name}_sum"], [block.name]))
        last = block.name
    nodes.append(helper.make_node("GlobalAveragePool", [last], ["pooled"]))
    nodes.append(helper.make_node("Flatten", ["pooled"], ["features"]))
    output, width = "features", FEATURES
    if head is not None:
        weight, bias = head
        weights += [numpy_helper.from_array(weight, "head_w"), numpy_helper.from_array(bias, "head_b")]
        nodes.append(helper.make_node("Gemm", ["features", "head_w", "head_b"], ["logits"]))
        output, width = "logits", weight.shape[1]
    graph = helper.make_graph(
        nodes,
        "resnet50",
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, ["N", 3, 224, 224])],
        [helper.make_tensor_value_info(output, TensorProto.FLOAT, ["N", width])],
        weights,
    )
    # IR 9 is the newest that every ONNX Runtime this package supports (1.20 and later) reads.
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=9)


def save(path: Path, **recipe: Any) -> None:
    """Builds (the arguments are ``build``'s) and writes the model, for a planted regression or a study."""
    import onnx

    onnx.save(build(**recipe), str(path))
