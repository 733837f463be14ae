"""Answers of any kind: kept in an accuracy phase, and scored by the user's own function."""

from __future__ import annotations

import copy
import hashlib
import json
import math
import threading
from collections.abc import Callable, ItemsView, Mapping, Sequence, Set
from dataclasses import dataclass, fields, is_dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pytest_gpuperf.errors import GpuperfError
from pytest_gpuperf.figures import number, short
from pytest_gpuperf.measurement import Measurement, Metric
from pytest_gpuperf.mlperf.accuracy import fingerprint
from pytest_gpuperf.mlperf.raised import described
from pytest_gpuperf.storage.documents import LARGEST, SMALLEST

Score = Callable[[Sequence[Any], Sequence[Any]], Any]
NO_SEQUENCE = (str, bytes, bytearray, Mapping, Set)  # their parts are none, or in no order
_ROUNDED: Any = {}  # the form of an answer that another machine may round; that of a dict is never empty


class Answers:
    """The answers of a phase that wants them, in the order given.

    They are of any kind, and LoadGen takes bytes: it gets their places here.
    """

    def __init__(self) -> None:
        self._kept: list[Any] | None = None
        self._one_at_a_time = threading.Lock()

    def keep(self, wanted: bool) -> None:
        """Forget what was kept, and keep from now on if that is ``wanted``."""
        self._kept = [] if wanted else None

    @property
    def wanted(self) -> bool:
        """Say whether a phase of accuracy is under way, or one whose answers are sampled."""
        return self._kept is not None

    def places(self, answers: Sequence[Any]) -> np.ndarray:
        """Keep the answers and return their places, int64; zeros if none are wanted."""
        if self._kept is None:
            return np.zeros(len(answers), np.int64)
        with self._one_at_a_time:
            first, owned = len(self._kept), list(map(_own, answers))
            if len(owned) != len(answers):  # a table has columns
                raise GpuperfError(
                    f"{type(answers).__name__} is no sequence of answers: it has {len(answers)}, and going "
                    f"through it gives {len(owned)}; return a list or an array with one for each sample"
                )
            self._kept.extend(owned)
        return np.arange(first, first + len(answers))

    def at(self, places: np.ndarray) -> tuple[Any, ...]:
        """Return the answers that are kept at these places."""
        kept = self._kept or []
        return tuple(kept[place] for place in places)


@dataclass(frozen=True, slots=True)
class ScoreResult:
    """An accuracy phase with a score: its answers in the dataset's order, and their score.

    ``scores`` are those of each answer; empty if the score is one for all.
    """

    model: Any
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
        """Return the score, and the answers' fingerprint unless another machine rounds them."""
        metric = Metric("score", "1", "higher", "exact", "accuracy")
        details = {"total": self.total}
        taken = [Measurement(metric, self.contract, (self.score,), details=details)]
        if (found := _print_of(self.answers)) is not None:
            metric = Metric("answers", "1", "higher", "exact", "answers")
            taken.append(Measurement(metric, self.contract, (found,), details=details))
        return taken


def scored(
    session: Any,
    places: np.ndarray,
    labels: Sequence[Any],
    contract: Mapping[str, Any],
    log_dir: Path,
    notes: tuple[str, ...],
) -> ScoreResult:
    """Score the answers of an accuracy phase; raises GpuperfError if the score is no number, or fails."""
    answers = session.answers.at(places)
    score, scores = score_of(session.model, answers, labels)
    return ScoreResult(session.model, score, scores, answers, contract, session.description, log_dir, notes)


def score_of(model: Any, answers: Sequence[Any], labels: Sequence[Any]) -> tuple[float, tuple[float, ...]]:
    """Return the score of answers, and that of each if the model gives those; without one what part is right.

    Raises GpuperfError if the score is no number, or fails.
    """
    if getattr(model, "score", None) is None:
        return float(np.mean(np.asarray(answers) == np.asarray(labels))), ()
    try:
        given = model.score(answers, labels)
        one = _value(given)
        parts = () if isinstance(given, NO_SEQUENCE) or not hasattr(given, "__iter__") else given
        each = [] if one is not None else list(map(_value, parts))
    except Exception as error:  # of a generator, too
        raise GpuperfError(f"{model.name}: score() failed: {described(error)}") from error
    values = [one] if one is not None else each
    if None in values or not values or (one is None and len(values) != len(answers)):
        raise GpuperfError(
            f"{model.name}: score() returned {short(given)}; it must return a number for each of the "
            f"{len(answers)} answers, or one for all"
        )
    try:
        score = math.fsum(value for value in values if value is not None) / len(values)
    except (OverflowError, ValueError):  # of a sum beyond floats, or of both infinities
        score = math.nan
    if not math.isfinite(score):
        raise GpuperfError(f"{model.name}: score() returned {short(given)}, which is not finite")
    if score and not SMALLEST <= abs(score) <= LARGEST:  # no baseline could hold it, nor its file's others
        raise GpuperfError(
            f"{model.name}: score() comes to {score:g}; give one of another scale, 0 or from {SMALLEST:g} to "
            f"{LARGEST:g}"
        )
    scores = tuple(value for value in each if value is not None)
    return score, scores


def _own(answer: Any) -> Any:
    """Return an answer with its arrays copied: the next batch may come in the same buffers."""
    if isinstance(answer, np.ndarray | np.void | bytearray):
        return answer.copy()
    if isinstance(answer, dict):
        return {name: _own(part) for name, part in answer.items()}
    if type(answer) in (list, tuple):
        return type(answer)(map(_own, answer))
    if isinstance(answer, tuple) and hasattr(answer, "_make"):  # a named one
        return answer._make(map(_own, answer))
    if is_dataclass(answer) and not isinstance(answer, type):
        mine = copy.copy(answer)
        for name, part in _fields(answer).items():
            object.__setattr__(mine, name, _own(part))  # of a frozen one, too
        return mine
    return answer.clone() if hasattr(answer, "clone") else answer  # a torch tensor


def _fields(answer: Any) -> dict[str, Any]:
    return {field.name: getattr(answer, field.name) for field in fields(answer)}


def same(one: Any, other: Any) -> bool:
    """Say whether two answers are the same, of whatever kind; NaN is the same as NaN."""
    if is_dataclass(one) and type(one) is type(other):
        return same(_fields(one), _fields(other))
    if isinstance(one, Mapping) and isinstance(other, Mapping):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    if isinstance(one, list | tuple) and isinstance(other, list | tuple):
        return len(one) == len(other) and all(map(same, one, other))
    try:
        return bool(np.array_equal(one, other, equal_nan=True))
    except TypeError:  # of a type that has no NaN
        return bool(np.array_equal(one, other))


def _value(given: Any) -> float | None:
    return float(given) if isinstance(given, bool | np.bool_) else number(given)


def _print_of(answers: Sequence[Any]) -> float | None:
    """Return a number that any other answers change; None for answers that another machine rounds.

    Where it may round some of them, those that are texts or bytes alone count, and the others as one and the
    same: a text that becomes NaN is another answer, and 1 among fractions may be 0.99 elsewhere.
    """
    forms = [_form(answer, numbers=True) for answer in answers]
    if _ROUNDED in forms:
        forms = [_form(answer, numbers=False) for answer in answers]
    if all(form == _ROUNDED for form in forms):
        return None
    return fingerprint(np.frombuffer(hashlib.sha256(json.dumps(forms).encode()).digest(), np.uint8))


def _form(answer: Any, numbers: bool) -> Any:
    """Return what JSON has for an answer, _ROUNDED if it is not of texts, bytes, and whole ``numbers``."""
    try:
        return _plain(answer, numbers)
    except TypeError:
        return _ROUNDED


def _plain(value: Any, numbers: bool) -> Any:
    if isinstance(value, bytes | bytearray):
        return value.hex()
    plain = value.tolist() if hasattr(value, "tolist") else value
    if isinstance(plain, str) or (numbers and isinstance(plain, int | None)):
        return plain
    several = plain.items() if isinstance(plain, Mapping) else plain
    if not isinstance(several, list | tuple | ItemsView) or not (several or numbers):
        raise TypeError
    parts = [_plain(part, numbers) for part in several]
    return {"of": sorted(parts, key=json.dumps)} if isinstance(plain, Mapping) else parts
