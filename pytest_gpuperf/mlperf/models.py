"""Models: the embedded ``resnet50-digits``, MLPerf's ``resnet50``, or a file of the suite's own."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np

from pytest_gpuperf.cache import cached
from pytest_gpuperf.errors import GpuperfError
from pytest_gpuperf.figures import short
from pytest_gpuperf.mlperf import imported, resnet50
from pytest_gpuperf.mlperf.accuracy import Gate, Reference, StoredPredictions
from pytest_gpuperf.mlperf.datasets import LAYOUTS, Dataset, Digits, dataset_of, shipped
from pytest_gpuperf.mlperf.imagenet import ImageNetAt
from pytest_gpuperf.mlperf.scores import Score
from pytest_gpuperf.mlperf.settings import Scenario
from pytest_gpuperf.mlperf.sut import Sut, require_texts

Precision = Literal["fp32", "fp16", "int8"]
DTYPES: Mapping[str, type[np.floating[Any]]] = {
    "fp32": np.float32,
    "fp16": np.float16,
    "int8": np.float32,  # the images: what is quantised is inside
}

LFS_POINTER = b"version https://git-lfs.github.com/spec/"
DIGITS = "resnet50-digits"
IMAGENET = "resnet50"
SEED = 1


@dataclass(frozen=True, slots=True)
class Model:
    """A model in an ONNX file, with its dataset and what its answers must be.

    ``recipe`` says how the weights were made, and is part of the contract; the file's bytes are judged and
    are not. ``dataset(count)`` gives the first ``count`` samples (None: all): an array, or for a file with
    several inputs an array for each of their names. ``inputs`` are inputs that are the same in every run;
    ``state`` names for an input the output that it gets from the query before, beginning with zeros.

    ``output`` names the output to use (None: the only one that is no state): integer classes [n], or scores
    [n, classes]. ``label_offset`` is added to the class: -1 where class 0 means background. Without a
    ``reference`` no prediction is wrong, and all of them are held to those that the baseline recorded. With
    ``score(answers, labels)``, as a ``Sut`` has it, an answer is what the file gives for a sample: an array,
    or an array for each name if ``output`` names several, or none where there are several.

    ``input_shape``, without the batch, is the file's unless that leaves it open; ``data_format`` "NHWC"
    says that the file takes images so, which the dataset gives otherwise.
    """

    name: str
    path: Path
    recipe: str
    dataset: Callable[[int | None], Dataset]
    input_shape: tuple[int, ...] | None = None
    output: str | Sequence[str] | None = None
    label_offset: int = 0
    reference: Reference | None = None
    inputs: Mapping[str, Any] = field(default_factory=dict)
    state: Mapping[str, str] = field(default_factory=dict)
    score: Score | None = None
    data_format: str | None = None

    def __post_init__(self) -> None:
        if isinstance(self.path, str):
            object.__setattr__(self, "path", Path(self.path))

    def require_usable(self) -> None:
        """Raise GpuperfError unless the file is there and every field is what it must be."""
        require_texts(self, "name", "recipe")
        require_file(self)
        for name in ("inputs", "state"):
            given = getattr(self, name)
            if not isinstance(given, Mapping) or not all(isinstance(each, str) for each in given):
                raise GpuperfError(f"{self.name}: {name}={short(given)}; give a dict of input names")
        if not (self.score is None or callable(self.score)):
            raise GpuperfError(f"{self.name}: score={short(self.score)}; give a callable")
        if self.score is not None and (self.label_offset or self.reference is not None):
            raise GpuperfError(f"{self.name}: label_offset and reference are for classes, not with a score")
        if self.reference is not None and not callable(getattr(self.reference, "problems", None)):
            raise GpuperfError(
                f"{self.name}: reference={short(self.reference)}; give StoredPredictions or none"
            )
        if not isinstance(self.output, str | Sequence | None):
            raise GpuperfError(f"{self.name}: output={short(self.output)}; give an output's name, or several")
        if self.score is None and not (self.output is None or isinstance(self.output, str)):
            raise GpuperfError(
                f"{self.name}: output={short(self.output)}; several outputs need a score, classes are one"
            )
        if type(self.label_offset) is not int or abs(self.label_offset) >= 1 << 31:
            raise GpuperfError(f"{self.name}: label_offset={short(self.label_offset)}; give a whole number")
        shape = () if self.input_shape is None else self.input_shape
        if not isinstance(shape, tuple | list) or not all(type(size) is int and size > 0 for size in shape):
            raise GpuperfError(f"{self.name}: input_shape={short(shape)}; give the sizes without the batch's")
        if self.data_format not in (None, *LAYOUTS):
            raise GpuperfError(f'{self.name}: data_format={short(self.data_format)}; give "NCHW" or "NHWC"')


def require_usable(model: Any, count: int | None = None, scenario: Scenario | None = None) -> None:
    """Raise GpuperfError unless ``model`` is one, its file is there and its dataset has ``count`` samples."""
    if not isinstance(model, Model | Sut):
        raise GpuperfError(
            f"loadgen: {short(model)} is no model; give a Model or a Sut of pytest_gpuperf.mlperf, "
            "or the fixture resnet50"
        )
    model.require_usable()
    if scenario is not None:
        require_scenario(model, scenario)
    dataset_of(model, count)


def with_list(model: Any, listing: Any) -> Any:
    """Return the model with the images of another list; raises GpuperfError unless its dataset has lists."""
    if not isinstance(listing, str | Path):
        raise GpuperfError(
            f"loadgen: dataset_list={short(listing)}; give the path of a file like val_map.txt"
        )
    if not hasattr(getattr(model, "dataset", None), "listed"):
        name = getattr(model, "name", short(model))
        raise GpuperfError(f"loadgen: dataset_list= is for resnet50 on ImageNet; {name} has another dataset")
    return replace(model, dataset=model.dataset.listed(Path(listing)))


def require_scenario(model: Any, scenario: Scenario) -> None:
    """Raise GpuperfError if the model carries state from query to query and the scenario is no stream."""
    if getattr(model, "state", None) and scenario.name != "SingleStream":
        raise GpuperfError(
            f"{model.name} carries {', '.join(model.state)} from query to query, in the dataset's order; "
            f'that is for SingleStream, not for {scenario.name}: pass "SingleStream"'
        )


def require_file(model: Model) -> None:
    """Raise GpuperfError unless the model's file is there."""
    if not isinstance(model.path, Path):
        raise GpuperfError(f'{model.name}: path={short(model.path)}; give a Path, such as Path("model.onnx")')
    if not model.path.is_file():
        why = "is no file" if model.path.exists() else "does not exist"
        raise GpuperfError(f"{model.path} {why}; {model.name} must be an ONNX file")
    try:
        str(model.path).encode()
    except UnicodeEncodeError:
        raise GpuperfError(f"{str(model.path)!a} is no name in UTF-8, as ONNX Runtime needs one") from None
    with model.path.open("rb") as file:
        begin = file.read(len(LFS_POINTER))
    if not begin:
        raise GpuperfError(f"{model.path} is empty; {model.name} must be an ONNX file")
    if begin == LFS_POINTER:
        raise GpuperfError(f"{model.path} is a pointer of Git LFS, not the file itself: git lfs pull")


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
    if not data_dir.is_dir():
        raise GpuperfError(f"{data_dir} is no folder; DATA_DIR must hold ImageNet with its labels")
    return Model(
        IMAGENET,
        path,
        recipe="MLPerf resnet50_v1.onnx",
        dataset=ImageNetAt(data_dir),
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


def half_precision(model: Model, digest: str) -> Path:
    """Convert the model's weights, inputs and activations to fp16, once: cached by the model's digest."""

    def convert() -> bytes:
        onnx = imported("onnx", f"converting {model.name} to fp16 needs onnx")
        from onnxruntime.transformers.float16 import convert_float_to_float16

        return bytes(convert_float_to_float16(onnx.load(str(model.path))).SerializeToString())

    return cached(f"models/{digest}-fp16.onnx", convert)
