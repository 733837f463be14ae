"""A model in int8: ONNX Runtime's static quantisation of its convolutions."""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from pytest_gpuperf.cache import cached
from pytest_gpuperf.errors import GpuperfError
from pytest_gpuperf.mlperf import datasets, imported, models

IMAGES = 32  # that the ranges are taken from
RECIPE = "conv-s8s8-per-channel-minmax-32"


def int8(model: models.Model, digest: str) -> Path:
    """Quantise the model's convolutions, once: cached by the model's digest and the recipe.

    The default recipe quantises everything, and left 8 of 100 digits right: the last layer and the residual
    sums need more than eight bits. With the convolutions alone, which are 99 % of the arithmetic, each
    channel of the weights has a scale of its own; 32 images that no test runs set the activations' ranges
    (of a model without such images, its dataset's first).
    """

    def convert() -> bytes:
        onnx = imported("onnx", f"converting {model.name} to int8 needs onnx")
        from onnxruntime import quantization

        graph = onnx.load(str(model.path), load_external_data=False).graph
        inputs = [
            each.name for each in graph.input if each.name not in {one.name for one in graph.initializer}
        ]
        if len(inputs) != 1:
            raise GpuperfError(
                f'{model.path} has the inputs {", ".join(inputs)}; precision="int8" is for models with one'
            )
        (name,) = inputs
        logging.getLogger().addFilter(_unasked)
        try:
            with tempfile.TemporaryDirectory() as folder:
                target = Path(folder) / "int8.onnx"
                quantization.quantize_static(
                    str(model.path),
                    str(target),
                    _Images(name, calibration_images(model)),
                    quant_format=quantization.QuantFormat.QDQ,
                    activation_type=quantization.QuantType.QInt8,
                    weight_type=quantization.QuantType.QInt8,
                    op_types_to_quantize=["Conv"],
                    per_channel=True,
                )
                made = onnx.load(str(target), load_external_data=False).graph
                if not any(node.op_type == "QuantizeLinear" for node in made.node):
                    raise GpuperfError(
                        f'{model.path}: precision="int8" quantises convolutions, and this model has none of '
                        "which it could: as it is it would run in fp32"
                    )
                return target.read_bytes()
        finally:
            logging.getLogger().removeFilter(_unasked)

    return cached(f"models/{digest}-{RECIPE}.onnx", convert)


def calibration_images(model: models.Model) -> np.ndarray:
    """Return float32 [n, *shape]: of the digits those that are not held out."""
    if model.name == models.DIGITS:
        pixels, _, held_out = datasets.load_digits()
        return datasets.enlarge(pixels[np.setdiff1d(np.arange(len(pixels)), held_out)[:IMAGES]])
    dataset = datasets.dataset_of(model, None)
    return np.asarray(dataset.images(range(min(IMAGES, len(dataset)))), np.float32)


def _unasked(record: logging.LogRecord) -> bool:
    """Leave out the advice that quantize_static logs: the graph has its constants folded already."""
    return "pre-processing before quantization" not in record.getMessage()


class _Images:
    """The reader that quantize_static takes: an image at a time."""

    def __init__(self, name: str, images: np.ndarray) -> None:
        self._next: Iterator[dict[str, Any]] = iter([{name: image[None]} for image in images])

    def get_next(self) -> dict[str, Any] | None:
        return next(self._next, None)
