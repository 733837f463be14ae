"""ResNet-50 v1.5 (stride 2 in the 3x3 convolutions) as an ONNX graph with seeded weights.

The architecture is He et al., "Deep Residual Learning for Image Recognition" (2015), table 1, with the
stride moved as in MLPerf's resnet50_v1.onnx; batch normalisation is folded into the convolutions, as
inference runtimes do. The weights are random; the head that tools/fit_head.py fitted makes it classify.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
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
    """One convolution, ``kernel`` square, padded by kernel // 2."""

    name: str
    source: str
    inputs: int
    outputs: int
    kernel: int
    stride: int
    relu: bool = True
    scale: float = 1.0

    @property
    def shape(self) -> tuple[int, int, int, int]:
        return (self.outputs, self.inputs, self.kernel, self.kernel)

    @property
    def result(self) -> str:
        return f"{self.name}_relu" if self.relu else self.name

    def weights(self, seed: int) -> np.ndarray:
        """Return float32 ``shape``, uniform with variance scale^2 * gain / fan_in.

        They have the same bits on every machine: raw PCG64 output, which NumPy promises not to change
        (it promises nothing of its distributions).
        """
        generator = np.random.PCG64(np.random.SeedSequence([seed, *self.name.encode()]))
        count = math.prod(self.shape)
        raw = generator.random_raw((count + 1) // 2)
        words = np.stack([raw & np.uint64(0xFFFFFFFF), raw >> np.uint64(32)], axis=1).reshape(-1)[:count]
        signed = (words >> np.uint64(8)).astype(np.float32) - np.float32(2**23)
        fan_in = self.inputs * self.kernel * self.kernel
        gain = 2.0 if self.relu else 1.0  # He's
        bound = math.sqrt(3.0 * gain / fan_in) * self.scale
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
    """Yield the residual blocks in order; ``blocks`` counts those of each of the four stages."""
    source, inputs = "pool", 64
    for stage, (count, width) in enumerate(zip(blocks, WIDTHS, strict=True)):
        for index in range(count):
            stride = 2 if index == 0 and stage > 0 else 1
            name = f"stage{stage}_block{index}"
            reduce = Conv(f"{name}_a", source, inputs, width, 1, 1)
            spatial = Conv(f"{name}_b", reduce.result, width, width, 3, stride)
            expand = Conv(
                f"{name}_c", spatial.result, width, 4 * width, 1, 1, relu=False, scale=RESIDUAL_SCALE
            )
            shortcut = None
            if index == 0:
                shortcut = Conv(f"{name}_d", source, inputs, 4 * width, 1, stride, relu=False)
            yield Block(name, source, (reduce, spatial, expand), shortcut)
            source, inputs = name, 4 * width


def convolutions(blocks: Sequence[int] = BLOCKS) -> Iterator[Conv]:
    """Yield every convolution in the graph's order."""
    yield STEM
    for block in bottlenecks(blocks):
        yield from block.convs
        if block.shortcut is not None:
            yield block.shortcut


def checksum(seed: int) -> str:
    """Return SHA-256 over the little-endian float32 weights of every convolution in order (takes 0.3 s)."""
    digest = hashlib.sha256()
    for conv in convolutions():
        digest.update(conv.weights(seed).astype("<f4").tobytes())
    return digest.hexdigest()


def build(
    seed: int, head: tuple[np.ndarray, np.ndarray] | None = None, blocks: Sequence[int] = BLOCKS
) -> Any:
    """Build the ``onnx.ModelProto`` from "input" float32 [N, 3, 224, 224] to "logits" [N, classes].

    Without a ``head`` (weight [2048, classes] and bias [classes]) it ends in "features" [N, 2048].
    """
    from onnx import TensorProto, helper

    graph = _Graph(seed)
    pooling = {"kernel_shape": [3, 3], "strides": [2, 2], "pads": [1] * 4}
    last = graph.node("MaxPool", [graph.conv(STEM)], "pool", **pooling)
    for block in bottlenecks(blocks):
        for conv in block.convs:
            last = graph.conv(conv)
        shortcut = graph.conv(block.shortcut) if block.shortcut is not None else block.source
        total = graph.node("Add", [last, shortcut], f"{block.name}_sum")
        last = graph.node("Relu", [total], block.name)
    pooled = graph.node("GlobalAveragePool", [last], "pooled")
    output, width = graph.node("Flatten", [pooled], "features"), FEATURES
    if head is not None:
        weight, bias = head
        parameters = [graph.weight("head_w", weight), graph.weight("head_b", bias)]
        output, width = graph.node("Gemm", [output, *parameters], "logits"), weight.shape[1]
    made = helper.make_graph(
        graph.nodes,
        "resnet50",
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, ["N", 3, 224, 224])],
        [helper.make_tensor_value_info(output, TensorProto.FLOAT, ["N", width])],
        graph.weights,
    )
    # IR 9 is the newest that every ONNX Runtime this package supports (1.20 and later) reads.
    return helper.make_model(made, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=9)


@dataclass(frozen=True, slots=True)
class _Graph:
    """The nodes and weights added so far; every method returns the name of what it added."""

    seed: int
    nodes: list[Any] = field(default_factory=list)
    weights: list[Any] = field(default_factory=list)

    def node(self, kind: str, inputs: Sequence[str], output: str, **attributes: Any) -> str:
        from onnx import helper

        self.nodes.append(helper.make_node(kind, inputs, [output], **attributes))
        return output

    def weight(self, name: str, values: np.ndarray) -> str:
        from onnx import numpy_helper

        self.weights.append(numpy_helper.from_array(values, name))
        return name

    def conv(self, conv: Conv) -> str:
        """Add a convolution with its weights, a bias of zeros and its ReLU."""
        weights = self.weight(f"{conv.name}_w", conv.weights(self.seed))
        bias = self.weight(f"{conv.name}_b", np.zeros(conv.outputs, np.float32))
        pads = [conv.kernel // 2] * 4
        attributes = {"kernel_shape": [conv.kernel] * 2, "strides": [conv.stride] * 2, "pads": pads}
        self.node("Conv", [conv.source, weights, bias], conv.name, **attributes)
        return self.node("Relu", [conv.name], conv.result) if conv.relu else conv.name
