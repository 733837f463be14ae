"""What a model's ONNX file takes and gives: names, types and sizes are the file's own."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from pytest_gpuperf.errors import GpuperfError
from pytest_gpuperf.figures import short
from pytest_gpuperf.mlperf.datasets import Arrays
from pytest_gpuperf.mlperf.models import Model, Precision
from pytest_gpuperf.mlperf.scores import Answers

TENSORS: Mapping[str, Any] = {
    "tensor(float)": np.float32,
    "tensor(float16)": np.float16,
    "tensor(double)": np.float64,
    "tensor(bool)": np.bool_,
    **{f"tensor({kind})": np.dtype(kind) for kind in ("int8", "int16", "int32", "int64")},
    **{f"tensor({kind})": np.dtype(kind) for kind in ("uint8", "uint16", "uint32", "uint64")},
}


# What ONNX Runtime says before the cause: its own error code, and the place in its source.
_INTERNAL = re.compile(
    r"\[ONNXRuntimeError\] : \d+ : [A-Z_]+ : |/onnxruntime_src/\S+:\d+ .*?\)(?: const)? (?=[A-Z])"
)


class Interface:
    """The inputs and outputs of a model's ONNX Runtime session, sorted by who gives and takes them.

    ``fed`` are the inputs that the dataset gives and their types; ``constants`` the arrays of those that are
    the same in every run; ``state`` the inputs that the last run gives, and by which outputs; ``outputs``
    the names of those that answer.
    Raises GpuperfError if they are not what the model says.
    """

    given: Answers | None = None  # the session's

    def __init__(self, session: Any, model: Model, precision: Precision) -> None:
        self._model = model
        self._inputs = {one.name: one for one in session.get_inputs()}
        self._outputs = {one.name: one for one in session.get_outputs()}
        self._require("inputs", [*model.inputs, *model.state], self._inputs)
        self._require("outputs", model.state.values(), self._outputs)
        self._require_types(precision)
        given = {*model.inputs, *model.state}
        self.fed = {name: TENSORS[one.type] for name, one in self._inputs.items() if name not in given}
        if not self.fed:
            raise GpuperfError(
                f"{model.path} takes {self._listed(self._inputs)}: none is left for the dataset"
            )
        if self.fixed_batch == 0:
            raise GpuperfError(f"{model.path} takes {self._listed(self.fed)}: a batch of no sample")
        self.constants = {name: self._constant(name, value) for name, value in model.inputs.items()}
        self.state: Mapping[str, str] = dict(model.state)
        self.outputs = self._answering()
        self._require_shape()

    def _require(self, what: str, names: Iterable[str], known: Mapping[str, Any]) -> None:
        for name in names:
            if name not in known:
                raise GpuperfError(
                    f'{self._model.path} has the {what} {", ".join(known)}; {self._model.name} names "{name}"'
                )

    def _require_types(self, precision: Precision) -> None:
        for name, one in self._inputs.items():
            if one.type not in TENSORS:
                raise GpuperfError(
                    f"{self._model.path}: input {name} is a {one.type}, not one of {', '.join(TENSORS)}"
                )
            if one.type == "tensor(float16)" and precision != "fp16":
                raise GpuperfError(f'{self._model.path}: input {name} is float16; pass precision="fp16"')

    def _constant(self, name: str, value: Any) -> np.ndarray:
        """Return the value as the file takes it; a plain number fills an input of any one size."""
        one = self._inputs[name]
        try:
            given = np.asarray(value)
            found = np.ascontiguousarray(np.asarray(value, TENSORS[one.type]))
            if given.dtype.kind not in "fiub":
                raise TypeError("it is no number")
            if found.dtype.kind != "f" and not (found == given).all():
                raise ValueError("nothing is rounded")
        except (TypeError, ValueError, OverflowError) as error:
            raise GpuperfError(
                f"{self._model.name}: inputs has {name}={short(value)}, which is no {one.type} ({error})"
            ) from None
        if np.ndim(value) == 0:
            found = np.full([size if isinstance(size, int) else 1 for size in one.shape], found)
        if not _fits(found.shape, one.shape):
            raise GpuperfError(
                f"{self._model.name}: inputs has {name} of the shape {list(found.shape)}; "
                f"{self._model.path} takes {self._listed([name])}"
            )
        return found

    def _answering(self) -> tuple[str, ...]:
        model, carried = self._model, set(self.state.values())
        if model.output is not None:
            named = (model.output,) if isinstance(model.output, str) else tuple(model.output)
        else:
            named = tuple(name for name in self._outputs if name not in carried)
        known = all(name in self._outputs for name in named)
        if not named or not known or (len(named) > 1 and model.score is None):
            lacks = f'Model.output is "{model.output}"'
            if model.output is None:
                lacks = "name one as Model.output, or give a score" if named else "none is left to answer"
            raise GpuperfError(
                f"{model.path} has the outputs {', '.join(self._outputs) or '(none)'}; {lacks}"
            )
        return named

    def _require_shape(self) -> None:
        wanted = self._model.input_shape
        if wanted is None:
            return
        (name, *others) = self.fed
        if others or not _fits((1, *wanted), ["N", *self._inputs[name].shape[1:]]):
            raise GpuperfError(
                f"{self._model.path} takes {self._listed(self._inputs)}; {self._model.name} is fed one "
                f"{self._inputs[name].type} [N, {', '.join(map(str, wanted))}]"
            )

    def _listed(self, names: Iterable[str]) -> str:
        ports = [self._inputs[name] for name in names]
        return ", ".join(f"{port.name} {port.type} {list(port.shape)}" for port in ports) or "no input"

    @property
    def dtype(self) -> Any:
        """Return the type of the dataset's array, or that of each name where it gives several."""
        return next(iter(self.fed.values())) if len(self.fed) == 1 else self.fed

    @property
    def fixed_batch(self) -> int | None:
        """Return the only batch size that the file takes, None if it takes any."""
        sizes = {size for name in self.fed for size in self._inputs[name].shape[:1] if isinstance(size, int)}
        return min(sizes) if sizes else None

    @property
    def is_plain(self) -> bool:
        """Say whether it is one array in and classes out, in batches of any size, and no other size open."""
        given = self.constants or self.state or self._model.score is not None
        return len(self.fed) == 1 and not given and self.fixed_batch is None and not self.is_open

    def arrays(self, batch: Any) -> dict[str, np.ndarray]:
        """Return the array of each input that the dataset gives."""
        return batch.arrays if isinstance(batch, Arrays) else {next(iter(self.fed)): batch}

    def first_state(self) -> dict[str, np.ndarray]:
        """Return zeros for the inputs that are state, for a batch of one."""
        return {
            name: np.zeros([n if isinstance(n, int) else 1 for n in one.shape], TENSORS[one.type])
            for name, one in self._inputs.items()
            if name in self.state
        }

    def sample_shapes(self, sample: Mapping[str, np.ndarray]) -> dict[str, tuple[int, ...]]:
        """Return the shapes of the dataset's inputs without the batch: the file's, or else a sample's."""
        return {
            name: tuple(self._inputs[name].shape[1:])
            if all(isinstance(n, int) for n in self._inputs[name].shape[1:])
            else sample[name].shape[1:]
            for name in self.fed
        }

    @property
    def is_open(self) -> bool:
        """Say whether the file leaves open a size other than the batch's, of an input or an output."""
        ports = [self._inputs[name] for name in self.fed]
        ports += [self._outputs[name] for name in (*self.outputs, *self.state.values())]
        return not all(isinstance(n, int) for port in ports for n in port.shape[1:])

    def output_dtype(self, name: str) -> Any:
        """Return the type of an output; raises GpuperfError for one that NumPy has not."""
        kind = self._outputs[name].type
        if kind not in TENSORS:
            raise GpuperfError(
                f"{self._model.path}: output {name} is a {kind}, not one of {', '.join(TENSORS)}"
            )
        return TENSORS[kind]

    def output_shape(self, name: str, size: int, found: Mapping[str, np.ndarray]) -> list[int]:
        """Return the shape of an output for a batch of ``size``, by the file or by what one sample gave."""
        rest = self._outputs[name].shape[1:]
        return [size, *(rest if all(isinstance(n, int) for n in rest) else found[name].shape[1:])]

    def answers(self, outputs: Sequence[np.ndarray], count: int, size: int) -> Any:
        """Return int64 classes of the ``count`` samples, or with a score what the file gave for each.

        They are the first of the ``size`` that were run. Raises GpuperfError unless an output has an entry
        for each of those: of all that was found in a batch nobody knows what belongs to which sample.
        """
        for name, output in zip(self.outputs, outputs, strict=True):
            if np.ndim(output) == 0 or len(output) != size:
                raise GpuperfError(
                    f"{self._model.path}: output {name} has the shape {list(np.shape(output))} for {size} "
                    "samples; its first size must be theirs: name others as Model.output, or use a Sut"
                )
        if self._model.score is None:
            return self.classes(outputs[0][:count])
        if len(self.outputs) == 1 and not _is_several(self._model.output):
            return list(outputs[0][:count])
        return [
            {name: output[at] for name, output in zip(self.outputs, outputs, strict=True)}
            for at in range(count)
        ]

    def classes(self, output: np.ndarray) -> np.ndarray:
        """Return int64 [n] from integer classes [n] or [n, 1], or from scores [n, classes] of two or more.

        Raises GpuperfError for any other form: the highest of one score is no class.
        """
        kind = output.dtype.kind if isinstance(output, np.ndarray) else ""
        whole, scores = kind in ("i", "u", "b"), kind == "f" and output.ndim > 1 and output.shape[-1] > 1
        found = output if whole else output.argmax(axis=-1) if scores else None
        if found is None or found.size != len(output):
            about = f"{output.dtype} {list(output.shape)}" if kind else short(output)
            raise GpuperfError(
                f"{self._model.path}: output {self.outputs[0]} is {about} for {len(output)} samples; a "
                "classifier gives whole numbers [n] or scores [n, classes] of two classes or more, and other "
                "answers need a score="
            )
        if scores and self.given and self.given.wanted and (none := int(np.isnan(output).any(axis=-1).sum())):
            raise GpuperfError(
                f"{self._model.path}: output {self.outputs[0]} has NaN among the scores of {none} of "
                f"{len(output)} samples, and so no class for them"
            )
        classes: np.ndarray = found.reshape(-1).astype(np.int64, copy=False) + self._model.label_offset
        return classes


def _is_several(output: Any) -> bool:
    return output is not None and not isinstance(output, str)


def _fits(found: Sequence[int], wanted: Sequence[Any]) -> bool:
    """Say whether a shape is one that the file takes, which has texts and None for what may be any size."""
    return len(found) == len(wanted) and all(
        not isinstance(size, int) or size == have for have, size in zip(found, wanted, strict=True)
    )


def failure(model: Model, doing: str, error: Exception) -> GpuperfError:
    """Put ONNX Runtime's exception into one sentence, by its text: its classes have no public base."""
    if isinstance(error, GpuperfError):
        return error
    text = _INTERNAL.sub("", " ".join(str(error).split()))
    if any(words in text.lower() for words in ("allocate memory", "out of memory", "alloc_failed")):
        return GpuperfError(
            f"{model.name} does not fit into memory while {doing}: use a smaller batch ({text[:300]})"
        )
    # As ONNX Runtime says of control flow, and CUDA of what waits or reserves memory within.
    graph = any(words in text.lower() for words in ("cuda graph", "graph capture", "capturing"))
    hint = " (on a GPU a batch is one CUDA graph, which this model may not allow: a Sut need not be one)"
    return GpuperfError(
        f"ONNX Runtime failed while {doing} ({model.name}, {model.path}): {text[:500]}{hint if graph else ''}"
    )
