"""A model of any kind: a Python callable under LoadGen, with a dataset and a score of the user's."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from pytest_gpuperf.errors import GpuperfError
from pytest_gpuperf.figures import is_text, number, short
from pytest_gpuperf.mlperf.datasets import Arrays, Dataset
from pytest_gpuperf.mlperf.scores import NO_SEQUENCE, Answers, Score

MANY = 1 << 20  # samples at a time, of which each has its place in memory
LOOKED_AT = 8  # of the loaded samples, the first among them, which every warm-up runs


def require_texts(model: Any, *names: str) -> None:
    """Raise GpuperfError unless the fields are texts of one line: baselines have them. A recipe may be ""."""
    for name in names:
        value = getattr(model, name)
        if not is_text(value) and (name, value) != ("recipe", ""):
            raise GpuperfError(f"{type(model).__name__}: {name}={short(value)}; give a text of one line")


@dataclass(frozen=True, slots=True, kw_only=True)
class Sut:
    """A system under test that is no ONNX file: whatever ``run`` calls.

    ``run(batch)`` gets an array of samples, one or up to ``max_batchsize`` of them as the scenario has it,
    and returns an answer for each, when it has them: a device must be waited for. The samples must stay as
    they are. ``dataset(count)`` gives
    the first ``count`` samples (None: all), with labels of any kind. ``score(answers, labels)`` returns a
    number for each answer, or one for all, more being better; without it an answer is right if it equals its
    label, and both are whole numbers. ``recipe`` and ``precision`` say what is run, and are part of the
    contract. With ``on_device`` it computes on a GPU, and is warmed up as long as one.
    """

    name: str
    run: Callable[[Any], Any]
    dataset: Callable[[int | None], Dataset]
    score: Score | None = None
    recipe: str = ""
    precision: str = "fp32"
    max_batchsize: int = 32
    on_device: bool = False
    reference: None = None

    def require_usable(self) -> None:
        """Raise GpuperfError unless every field is what it must be; the dataset is opened elsewhere."""
        require_texts(self, "name", "recipe", "precision")
        if not callable(self.run) or not (self.score is None or callable(self.score)):
            raise GpuperfError(f"{self.name}: run and score must be callables")
        size = number(self.max_batchsize)
        if size is None or not 1 <= size <= MANY or size != int(size):
            given = short(self.max_batchsize)
            raise GpuperfError(f"{self.name}: max_batchsize={given}; give a whole number of 1 to {MANY:,}")


class SutSession:
    """A ``Sut`` as LoadGen's callbacks see it: batches of the one size, and it gets ``most`` at a time."""

    dtype: Any = None
    batch_sizes: tuple[int, ...]

    def __init__(self, sut: Sut, size: int, most: int | None = None) -> None:
        self.model, self.batch_sizes, self._most = sut, (size,), most or size
        self.precision, self.on_device = sut.precision, sut.on_device
        self.description: Mapping[str, Any] = {"provider": "callable"}
        self.answers = Answers()

    def run(self, batch: Any) -> np.ndarray:
        if len(batch) > self._most:  # a query of MultiStream
            starts = range(0, len(batch), self._most)
            return np.concatenate([self._run(batch[start : start + self._most]) for start in starts])
        return self._run(batch)

    def _run(self, batch: Any) -> np.ndarray:
        answers = self.model.run(batch.arrays if isinstance(batch, Arrays) else batch)
        try:
            count = len(answers)
            if isinstance(answers, NO_SEQUENCE):
                raise TypeError
        except TypeError:
            raise GpuperfError(
                f"{self.model.name}: run() returned {short(answers)} for {len(batch)} samples; "
                "it must return a sequence with an answer for each"
            ) from None
        if count != len(batch):
            raise GpuperfError(
                f"{self.model.name}: run() returned {count} answers for {len(batch)} samples; "
                "it must return one for each"
            )
        return self._classes(answers) if self.model.score is None else self.answers.places(answers)

    def _classes(self, answers: Any) -> np.ndarray:
        classes = np.asarray(answers)
        if classes.ndim != 1 or classes.dtype.kind not in "iu":
            raise GpuperfError(
                f"{self.model.name}: run() returned {classes.dtype} {list(classes.shape)}; without a score= "
                "an answer is a whole number, compared with its label"
            )
        return classes.astype(np.int64, copy=False)

    def hold(self, images: Any) -> Callable[[], None]:
        """Remember some of the samples, so that a ``run`` that changes its batch is found out at the end."""
        places = range(0, len(images), -(-len(images) // LOOKED_AT))
        before = [_bytes(images, place) for place in places]

        def release() -> None:
            if before != [_bytes(images, place) for place in places]:
                raise GpuperfError(
                    f"{self.model.name}: run() changed its batch, which is the loaded samples themselves, so "
                    "that later queries get others: let it work on a copy"
                )

        return release


def _bytes(images: Any, place: int) -> list[bytes]:
    arrays = images.arrays.values() if isinstance(images, Arrays) else (images,)
    return [array[place].tobytes() for array in arrays]
