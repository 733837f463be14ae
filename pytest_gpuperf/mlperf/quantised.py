"""A model in int8: ONNX Runtime's static quantisation of its convolutions."""

from __future__ import annotations

import hashlib
import logging
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from pytest_gpuperf.cache import cached
from pytest_gpuperf.errors import GpuperfError
from pytest_gpuperf.mlperf import datasets, imported, models
from pytest_gpuperf.mlperf.datasets import Arrays
from pytest_gpuperf.mlperf.library import SampleLibrary

IMAGES = 32  # that the ranges are taken from
RECIPE = "conv-s8s8-per-channel-minmax-32"


def int8(model: models.Model, digest: str) -> Path:
    """Quantise the model's convolutions, once: cached by the model's digest and the recipe.

    The default recipe quantises everything, and left 8 of 100 digits right: the last layer and the residual
    sums need more than eight bits. With the convolutions alone, which are 99 % of the arithmetic, each
    channel of the weights has a scale of its own; 32 images that no test runs set the activations' ranges
    (of a model without such images, its dataset's first).
    """

    images = calibration_images(model)
    ranges = hashlib.sha256()  # another dataset sets other ones
    for array in images.arrays.values() if isinstance(images, Arrays) else [images]:
        ranges.update(np.ascontiguousarray(array).data)

    def convert() -> bytes:
        onnx = imported("onnx", f"converting {model.name} to int8 needs onnx")
        from onnxruntime import quantization

        graph = onnx.load(str(model.path), load_external_data=False).graph
        inputs = [one for one in graph.input if one.name not in {each.name for each in graph.initializer}]
        if len(inputs) != 1 or isinstance(images, Arrays):
            names = ", ".join(each.name for each in inputs)
            raise GpuperfError(
                f'{model.path} has the inputs {names}; precision="int8" is for models with one, and images '
                "in one array"
            )
        logging.getLogger().addFilter(_unasked)
        try:
            with tempfile.TemporaryDirectory() as folder:
                target = Path(folder) / "int8.onnx"
                quantization.quantize_static(
                    str(model.path),
                    str(target),
                    _Images(inputs[0], images),
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

    return cached(f"models/{digest}-{RECIPE}-{ranges.hexdigest()[:16]}.onnx", convert)


def calibration_images(model: models.Model) -> Any:
    """Return an array [n, *shape], or several by name: of the digits those that are not held out."""
    if model.name == models.DIGITS:
        pixels, _, held_out = datasets.load_digits()
        return datasets.enlarge(pixels[np.setdiff1d(np.arange(len(pixels)), held_out)[:IMAGES]])
    dataset = datasets.dataset_of(model, None)
    library = SampleLibrary(dataset, None, lambda images: lambda: None)
    library.load(range(min(IMAGES, len(dataset))))
    return library.slice(0, min(IMAGES, len(dataset)))


def _unasked(record: logging.LogRecord) -> bool:
    """Leave out the advice that quantize_static logs: the graph has its constants folded already."""
    return "pre-processing before quantization" not in record.getMessage()


class _Images:
    """The reader that quantize_static takes: an image at a time, or as many as the file's batch has."""

    def __init__(self, port: Any, images: np.ndarray) -> None:
        from onnx.helper import tensor_dtype_to_np_dtype

        about = port.type.tensor_type
        size = max(1, about.shape.dim[0].dim_value) if about.shape.dim else 1
        given = images.astype(tensor_dtype_to_np_dtype(about.elem_type))
        places = (np.arange(start, start + size) % len(given) for start in range(0, len(given), size))
        self._next: Iterator[dict[str, Any]] = iter([{port.name: given[chosen]} for chosen in places])

    def get_next(self) -> dict[str, Any] | None:
        return next(self._next, None)
