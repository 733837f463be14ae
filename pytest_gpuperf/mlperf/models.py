"""Models: the embedded ``resnet50-digits``, MLPerf's ``resnet50``, or a file of the suite's own."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np

from pytest_gpuperf.errors import GpuperfError
from pytest_gpuperf.figures import short
from pytest_gpuperf.files import cached, sha256
from pytest_gpuperf.mlperf import imported, resnet50
from pytest_gpuperf.mlperf.accuracy import Gate, Reference, StoredPredictions
from pytest_gpuperf.mlperf.datasets import Dataset, Digits, ImageNet, open_dataset, shipped
from pytest_gpuperf.mlperf.sut import Sut

Precision = Literal["fp32", "fp16", "int8"]
DTYPES: Mapping[str, type[np.floating[Any]]] = {
    "fp32": np.float32,
    "fp16": np.float16,
    "int8": np.float32,  # the images: what is quantised is inside
}
INPUTS = {"fp32": "tensor(float)", "fp16": "tensor(float16)", "int8": "tensor(float)"}
INTEGERS: Mapping[str, Any] = {  # inputs that no precision changes, such as bytes or tokens
    "tensor(int64)": np.int64,
    "tensor(int32)": np.int32,
    "tensor(uint8)": np.uint8,
}
OUTPUTS: Mapping[str, Any] = {
    "tensor(float)": np.float32,
    "tensor(float16)": np.float16,
    "tensor(int64)": np.int64,
    "tensor(int32)": np.int32,
}

DIGITS = "resnet50-digits"
IMAGENET = "resnet50"
SEED = 1


@dataclass(frozen=True, slots=True)
class Model:
    """A classifier in an ONNX file, with its dataset and what its predictions must be.

    ``recipe`` says how the weights were made, and is part of the contract; the file's bytes are judged and
    are not. ``dataset(count)`` gives the first ``count`` images (None: all). ``output`` names the output to
    use (None: the only one): integer classes [n], or scores [n, classes]. ``label_offset`` is added to the
    class: -1 where class 0 means background. Without a ``reference`` no prediction is wrong, and all of
    them are held to those that the baseline recorded.
    """

    name: str
    path: Path
    recipe: str
    dataset: Callable[[int | None], Dataset]
    input_shape: tuple[int, ...] = (3, 224, 224)
    output: str | None = None
    label_offset: int = 0
    reference: Reference | None = None

    def __post_init__(self) -> None:
        if isinstance(self.path, str):
            object.__setattr__(self, "path", Path(self.path))


def require_usable(model: Any, count: int | None = None) -> None:
    """Raise GpuperfError unless ``model`` is one, its file is there and its dataset has ``count`` images."""
    if isinstance(model, Sut):
        model.require_usable()
        open_dataset(model.name, model.dataset, count, classes=model.score is None)
        return
    if not isinstance(model, Model):
        raise GpuperfError(
            f"loadgen: {short(model)} is no model; give a Model or a Sut of pytest_gpuperf.mlperf, "
            "or the fixture resnet50"
        )
    require_file(model)
    open_dataset(model.name, model.dataset, count)


def require_file(model: Model) -> None:
    """Raise GpuperfError unless the model's file is there."""
    if not isinstance(model.path, Path):
        raise GpuperfError(f'{model.name}: path={short(model.path)}; give a Path, such as Path("model.onnx")')
    if not model.path.is_file():
        why = "is no file" if model.path.exists() else "does not exist"
        raise GpuperfError(f"{model.path} {why}; {model.name} must be an ONNX file")


class Interface:
    """The input and the output in use of a model's ONNX Runtime session: ``input`` and ``output`` name them.

    ``dtype`` is what the input takes: whole numbers, or floats of the precision.
    Raises GpuperfError if they are not what the model's dataset gives and ``Model.output`` says.
    """

    def __init__(self, session: Any, model: Model, precision: Precision) -> None:
        expected, inputs = INPUTS[precision], session.get_inputs()
        found = ", ".join(f"{i.name} {i.type} {list(i.shape)}" for i in inputs)
        shape = list(inputs[0].shape[1:]) if inputs else []
        fits = len(shape) == len(model.input_shape) and all(
            not isinstance(size, int) or size == wanted
            for size, wanted in zip(shape, model.input_shape, strict=True)
        )
        kind = inputs[0].type if inputs else ""
        if len(inputs) != 1 or kind not in (expected, *INTEGERS) or not fits:
            raise GpuperfError(
                f"{model.path} takes {found or 'no input'}; {model.name} is fed one {expected} "
                f"[N, {', '.join(map(str, model.input_shape))}]"
            )
        outputs = {output.name: output for output in session.get_outputs()}
        name = model.output or next(iter(outputs))
        if name not in outputs or (model.output is None and len(outputs) > 1):
            raise GpuperfError(
                f'{model.path} has the outputs {", ".join(outputs)}; Model.output is "{model.output}"'
            )
        self.input, self.output = inputs[0].name, name
        self.dtype: Any = INTEGERS.get(kind) or DTYPES[precision]
        self._model, self._batch, self._found = model, inputs[0].shape[0], outputs[name]

    @property
    def fixed_batch(self) -> int | None:
        """Return the only batch size that the file takes, None if it takes any."""
        return self._batch if isinstance(self._batch, int) else None

    def require_batch(self, size: int) -> None:
        """Raise GpuperfError if the file's batch size is fixed and another one."""
        if isinstance(self._batch, int) and self._batch != size:
            raise GpuperfError(
                f"{self._model.path} only takes batches of {self._batch}; {size} was asked for"
            )

    def output_form(self, size: int) -> tuple[list[int], Any]:
        """Return the output's shape and dtype for a batch of ``size``.

        Raises GpuperfError if the file leaves them open: a CUDA graph needs its buffers before the first run.
        """
        output = self._found
        rest = list(output.shape[1:])
        if not all(isinstance(n, int) for n in rest):
            raise GpuperfError(
                f"{self._model.path}: output {output.name} has the shape {output.shape}, "
                "of which only the first size may be open"
            )
        if output.type not in OUTPUTS:
            raise GpuperfError(
                f"{self._model.path}: output {output.name} is a {output.type}, not one of {list(OUTPUTS)}"
            )
        return [size, *rest], OUTPUTS[output.type]

    def classes(self, output: np.ndarray) -> np.ndarray:
        """Return int64 [n] from integer classes [n] or [n, 1], or from scores [n, classes].

        Raises GpuperfError for any other form.
        """
        found = output if np.issubdtype(output.dtype, np.integer) else output.argmax(axis=-1)
        classes = found.reshape(-1).astype(np.int64, copy=False) + self._model.label_offset
        if len(classes) != len(output):
            raise GpuperfError(
                f"{self._model.path}: output {self.output} has the shape {list(output.shape)} for "
                f"{len(output)} images; a classifier gives classes [n] or scores [n, classes]"
            )
        return classes


def resolve(name: str | None = None, model_dir: Path | None = None, data_dir: Path | None = None) -> Model:
    """Return the model called ``name``; None means MLPerf's if ``model_dir`` is given, else the embedded one.

    Raises GpuperfError if a file is missing or the name is unknown, Unavailable without onnx.
    """
    if name is None:
        name = IMAGENET if model_dir is not None else DIGITS
    if name == DIGITS:
        return digits_model()
    if name != IMAGENET:
        raise GpuperfError(f'there is no model "{name}"; use "{DIGITS}" or "{IMAGENET}"')
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
    """The head that tools/fit_head.py wrote, what the network then predicts, and its weights' checksum."""

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
    """Read the shipped head."""
    arrays = shipped("resnet50_digits.npz")
    return DigitsHead(checksum=str(arrays.pop("checksum")), **arrays)


def digits_model() -> Model:
    """Return ``resnet50-digits``, built once and cached; raises Unavailable without onnx."""
    head = digits_head()
    digest = hashlib.sha256(f"{head.recipe} opset {resnet50.OPSET}".encode()).hexdigest()[:16]

    def build() -> bytes:
        imported("onnx", f"building {DIGITS} needs onnx")
        found = resnet50.checksum(SEED)
        if found != head.checksum:
            raise GpuperfError(
                f"the weights generated for {DIGITS} have checksum {found[:12]}, expected "
                f"{head.checksum[:12]}: this NumPy's PCG64 differs; please report its version"
            )
        return bytes(resnet50.build(SEED, (head.weight, head.bias)).SerializeToString())

    path = cached(f"models/{DIGITS}-{digest}.onnx", build)
    stored = StoredPredictions(head.predictions, head.margins)
    return Model(DIGITS, path, head.recipe, dataset=Digits, output="logits", reference=stored)


def half_precision(model: Model) -> Path:
    """Convert the model's weights, inputs and activations to fp16, once: cached by the file's checksum."""
    digest = sha256(model.path)[:16]

    def convert() -> bytes:
        onnx = imported("onnx", f"converting {model.name} to fp16 needs onnx")
        from onnxruntime.transformers.float16 import convert_float_to_float16

        return bytes(convert_float_to_float16(onnx.load(str(model.path))).SerializeToString())

    return cached(f"models/{digest}-fp16.onnx", convert)
