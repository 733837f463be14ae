"""A model of any kind: a Python callable under LoadGen, with a dataset and a score of the user's."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pytest_gpuperf.errors import GpuperfError
from pytest_gpuperf.figures import number, short
from pytest_gpuperf.measurement import Measurement, Metric
from pytest_gpuperf.mlperf.accuracy import fingerprint
from pytest_gpuperf.mlperf.datasets import Dataset

Score = Callable[[Sequence[Any], Sequence[Any]], Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Sut:
    """A system under test that is no ONNX file: whatever ``run`` calls.

    ``run(batch)`` gets an array of samples, one or up to ``max_batchsize`` of them as the scenario has it,
    and returns an answer for each, when it has them: a device must be waited for. ``dataset(count)`` gives
    the first ``count`` samples (None: all), with labels of any kind. ``score(answers, labels)`` returns a
    number for each answer, or one for all, more being better; without it an answer is right if it equals its
    label, and both are whole numbers. ``recipe`` and ``precision`` say what is run, and are part of the
    contract. With ``on_device`` it computes on a GPU, and is warmed up as long as one.
    """

    name: str
    run: Callable[[np.ndarray], Any]
    dataset: Callable[[int | None], Dataset]
    score: Score | None = None
    recipe: str = ""
    precision: str = "fp32"
    max_batchsize: int = 32
    on_device: bool = False
    reference: None = None

    def require_usable(self) -> None:
        """Raise GpuperfError unless every field is what it must be; the dataset is opened elsewhere."""
        for name in ("name", "recipe", "precision"):
            if not isinstance(getattr(self, name), str):
                raise GpuperfError(f"Sut: {name}={short(getattr(self, name))}; give a text")
        if not callable(self.run) or not (self.score is None or callable(self.score)):
            raise GpuperfError(f"{self.name}: run and score must be callables")
        if isinstance(self.max_batchsize, bool) or not isinstance(self.max_batchsize, int):
            raise GpuperfError(f"{self.name}: max_batchsize={short(self.max_batchsize)}; give a whole number")
        if self.max_batchsize < 1:
            raise GpuperfError(f"{self.name}: max_batchsize={self.max_batchsize}; give at least 1")


class SutSession:
    """A ``Sut`` as LoadGen's callbacks see it, in batches of the one size.

    Answers that are scored are of any kind, and LoadGen takes bytes: in an accuracy phase (``collect``) they
    are kept in ``answers``, and LoadGen gets their places in it.
    """

    dtype: Any = None
    batch_sizes: tuple[int, ...]

    def __init__(self, sut: Sut, size: int) -> None:
        self.model, self.batch_sizes = sut, (size,)
        self.precision, self.on_device = sut.precision, sut.on_device
        self.description: Mapping[str, Any] = {"provider": "callable"}
        self.collect = False
        self.answers: list[Any] = []

    def run(self, batch: np.ndarray) -> np.ndarray:
        answers = self.model.run(batch)
        try:
            count = len(answers)
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
        if self.model.score is None:
            return self._classes(answers)
        if not self.collect:
            return np.zeros(count, np.int64)
        first = len(self.answers)
        self.answers.extend(answers)
        return np.arange(first, first + count)

    def _classes(self, answers: Any) -> np.ndarray:
        classes = np.asarray(answers)
        if classes.ndim != 1 or classes.dtype.kind not in "iu":
            raise GpuperfError(
                f"{self.model.name}: run() returned {classes.dtype} {list(classes.shape)}; without a score= "
                "an answer is a whole number, compared with its label"
            )
        return classes.astype(np.int64, copy=False)

    def hold(self, images: np.ndarray) -> Callable[[], None]:
        return lambda: None


@dataclass(frozen=True, slots=True)
class ScoreResult:
    """An accuracy phase of a ``Sut`` with a score: its answers in the dataset's order, and their score.

    ``scores`` are those of each answer; empty if the score is one for all.
    """

    model: Sut
    score: float
    scores: tuple[float, ...]
    answers: tuple[Any, ...]
    contract: Mapping[str, Any]
    environment: Mapping[str, Any]
    log_dir: Path
    notes: tuple[str, ...] = ()

    @property
    def total(self) -> int:
        return len(self.answers)

    def check(self) -> None:
        """Do nothing: what is a good score is for the test to say, and a loss is for the baseline."""

    def measurements(self) -> list[Measurement]:
        """Return the score, and the answers' fingerprint if they are text, bytes or whole numbers."""
        metric = Metric("score", "1", "higher", "exact", "accuracy")
        details = {"total": self.total}
        taken = [Measurement(metric, self.contract, (self.score,), details=details)]
        if (found := _print_of(self.answers)) is not None:
            metric = Metric("answers", "1", "higher", "exact", "answers")
            taken.append(Measurement(metric, self.contract, (found,), details=details))
        return taken


def scored(
    session: SutSession,
    places: np.ndarray,
    labels: Sequence[Any],
    contract: Mapping[str, Any],
    log_dir: Path,
    notes: tuple[str, ...],
) -> ScoreResult:
    """Score the answers of an accuracy phase; raises GpuperfError if the score is no number, or fails."""
    sut, answers = session.model, tuple(session.answers[place] for place in places)
    assert sut.score is not None
    try:
        given = sut.score(answers, labels)
    except Exception as error:
        raise GpuperfError(f"{sut.name}: score() failed: {type(error).__name__}: {error}") from error
    one = _value(given)
    each = [] if one is not None or not hasattr(given, "__iter__") else list(map(_value, given))
    values = [one] if one is not None else each
    if None in values or not values or (one is None and len(values) != len(answers)):
        raise GpuperfError(
            f"{sut.name}: score() returned {short(given)}; it must return a number for each of the "
            f"{len(answers)} answers, or one for all"
        )
    score = math.fsum(value for value in values if value is not None) / len(values)
    if not math.isfinite(score):
        raise GpuperfError(f"{sut.name}: score() returned {short(given)}, which is not finite")
    scores = tuple(value for value in each if value is not None)
    return ScoreResult(sut, score, scores, answers, contract, session.description, log_dir, notes)


def _value(given: Any) -> float | None:
    return float(given) if isinstance(given, bool | np.bool_) else number(given)


def _print_of(answers: Sequence[Any]) -> float | None:
    """Return a number that any other answers change; None for answers that another machine rounds."""
    plain = [each.tolist() if hasattr(each, "tolist") else each for each in answers]
    texts = [each.hex() if isinstance(each, bytes) else each for each in plain]
    if not _is_exact(texts):
        return None
    digest = hashlib.sha256(json.dumps(texts).encode()).digest()
    return fingerprint(np.frombuffer(digest, np.uint8))


def _is_exact(value: Any) -> bool:
    if isinstance(value, list | tuple):
        return all(map(_is_exact, value))
    return isinstance(value, str | int)
