"""Which model: the embedded ``resnet50-digits``, MLPerf's ``resnet50``, or a file of the suite's own."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from importlib.resources import as_file, files
from pathlib import Path
from typing import Any

import numpy as np

from pytest_gpuperf.errors import GpuperfError, Unavailable
from pytest_gpuperf.files import cached, sha256
from pytest_gpuperf.mlperf import resnet50
from pytest_gpuperf.mlperf.accuracy import Gate, Reference, StoredPredictions
from pytest_gpuperf.mlperf.datasets import Dataset, Digits, ImageNet

DIGITS = "resnet50-digits"
IMAGENET = "resnet50"
SEED = 1


@dataclass(frozen=True, slots=True)
class Model:
    """A classifier in an ONNX file, with what it is fed and held against.

    ``recipe`` says how the weights came to be, for the contract; a file's bytes are what is being judged
    and are no part of it. ``dataset(count)`` gives the first ``count`` images (None: all). ``output`` names
    the output to use (None: the only one): integer classes [n], or scores [n, classes]. ``label_offset`` is
    added to the class: -1 where class 0 means background. ``reference`` is None where nothing says what is
    accurate.
    """

    name: str
    path: Path
    recipe: str
    dataset: Callable[[int | None], Dataset]
    input_shape: tuple[int, ...] = (3, 224, 224)
    output: str | None = None
    label_offset: int = 0
    reference: Reference | None = None


def resolve(name: str | None = None, model_dir: Path | None = None, data_dir: Path | None = None) -> Model:
    """The model called ``name``; None means MLPerf's where ``model_dir`` is given, else the embedded one.

    Raises GpuperfError where a file is missing or the name is unknown, Unavailable where onnx is not
    installed.
    """
    if name is None:
        name = IMAGENET if model_dir is not None else DIGITS
    if name == DIGITS:
        return digits_model()
    if name == IMAGENET:
        return imagenet_model(model_dir, data_dir)
    raise GpuperfError(f'there is no model "{name}"; use "{DIGITS}" or "{IMAGENET}"')


def imagenet_model(model_dir: Path | None, data_dir: Path | None) -> Model:
    if model_dir is None or data_dir is None:
        raise GpuperfError(
            'the model "resnet50" needs MODEL_DIR (with resnet50_v1.onnx) '
            "and DATA_DIR (ImageNet with val_map.txt)"
        )
    path = model_dir / "resnet50_v1.onnx"
    if not path.is_file():
        raise GpuperfError(f"{path} does not exist; MODEL_DIR must hold MLPerf's resnet50_v1.onnx")
    if not (data_dir / "val_map.txt").is_file():
        raise GpuperfError(
            f"{data_dir / 'val_map.txt'} does not exist; DATA_DIR must hold ImageNet with its labels"
        )
    return Model(
        IMAGENET,
        path,
        recipe="MLPerf resnet50_v1.onnx",
        dataset=partial(ImageNet, data_dir),
        output="ArgMax:0",
        label_offset=-1,  # the model was trained with class 0 as background: 1,001 classes
        reference=Gate(),
    )


@dataclass(frozen=True, slots=True)
class DigitsHead:
    """What fit_head wrote: the head, what the network then predicts, and the checksum of its weights."""

    weight: np.ndarray
    bias: np.ndarray
    predictions: np.ndarray
    margins: np.ndarray
    checksum: str

    @property
    def recipe(self) -> str:
        head = hashlib.sha256(self.weight.astype("<f4").tobytes() + self.bias.astype("<f4").tobytes())
        return f"seed {SEED}, weights {self.checksum[:12]}, head {head.hexdigest()[:12]}"


def digits_head() -> DigitsHead:
    with (
        as_file(files("pytest_gpuperf.mlperf") / "data" / "resnet50_digits.npz") as path,
        np.load(path, allow_pickle=False) as stored,
    ):
        arrays = {key: stored[key] for key in ("weight", "bias", "predictions", "margins")}
        return DigitsHead(**arrays, checksum=str(stored["checksum"]))


def digits_model() -> Model:
    head = digits_head()
    digest = hashlib.sha256(f"{head.recipe} opset {resnet50.OPSET}".encode()).hexdigest()[:16]
    path = cached(f"models/{DIGITS}-{digest}.onnx", partial(_digits_bytes, head))
    return Model(
        DIGITS,
        path,
        recipe=head.recipe,
        dataset=Digits,
        output="logits",
        reference=StoredPredictions(head.predictions, head.margins),
    )


def _digits_bytes(head: DigitsHead) -> bytes:
    onnx_module(f"building {DIGITS}")
    found = resnet50.checksum(SEED)
    if found != head.checksum:
        raise GpuperfError(
            f"the weights generated for {DIGITS} have checksum {found[:12]}, expected {head.checksum[:12]}: "
            "this NumPy's PCG64 differs; please report its version"
        )
    return bytes(resnet50.build(SEED, (head.weight, head.bias)).SerializeToString())


def half_precision(model: Model) -> Path:
    """The model with fp16 weights, inputs and activations, converted once and cached by the file's
    checksum.
    """
    digest = sha256(model.path)[:16]

    def convert() -> bytes:
        onnx = onnx_module(f"converting {model.name} to fp16")
        from onnxruntime.transformers.float16 import convert_float_to_float16

        return bytes(convert_float_to_float16(onnx.load(str(model.path))).SerializeToString())

    return cached(f"models/{model.name}-{digest}-fp16.onnx", convert)


def onnx_module(purpose: str) -> Any:
    try:
        import onnx
    except ImportError as error:
        raise Unavailable(f"{purpose} needs onnx ({error}): pip install 'pytest-gpuperf[mlperf]'") from error
    return onnx
