"""The result of one phase of LoadGen: latency and throughput, or accuracy, never both."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pytest_gpuperf.constants import PERCENTILES
from pytest_gpuperf.measurement import Better, Kind, Measurement, Metric
from pytest_gpuperf.mlperf import accuracy
from pytest_gpuperf.mlperf.models import Model
from pytest_gpuperf.mlperf.settings import Scenario


def queries_needed(fraction: float) -> int:
    """Return how many queries MLPerf's early stopping asks for, at 99 % confidence and tolerance 0.

    It is the smallest n at which a system whose true percentile is too slow would, with a probability of at
    most 1 %, show no more than one query beyond it: P(Binomial(n, 1 - fraction) <= 1) <= 0.01. Gives MLPerf's
    64 for p90, 662 for p99 and 6,636 for p99.9 (loadgen/early_stopping.cc).
    """
    n = 1
    while fraction**n + n * (1 - fraction) * fraction ** (n - 1) > 0.01:
        n += 1
    return n


class Percentile(float):
    """A latency in seconds that knows how many queries stand behind it.

    ``enough`` says whether they are as many as MLPerf's early stopping asks for (``needed``); a percentile
    without enough is shown and not judged.
    """

    queries: int
    needed: int

    def __new__(cls, seconds: float, fraction: float, queries: int) -> Percentile:
        self = super().__new__(cls, seconds)
        self.queries, self.needed = queries, queries_needed(fraction)
        return self

    @property
    def enough(self) -> bool:
        return self.queries >= self.needed


@dataclass(frozen=True, slots=True)
class Latency:
    """Seconds from scheduled to complete; percentiles are LoadGen's, the sorted value at floor(n * fraction).

    In Offline all samples belong to one query: its percentiles only tell how far the work was, and none has
    enough queries.
    """

    p50: Percentile
    p80: Percentile
    p90: Percentile
    p95: Percentile
    p99: Percentile
    p99_9: Percentile
    mean: float

    @classmethod
    def of(cls, seconds: np.ndarray, queries: int) -> Latency:
        """Take the percentiles and the mean of ``seconds`` [n], which stand for so many queries."""
        ordered = np.sort(seconds)
        found = {
            name: Percentile(float(ordered[int(len(ordered) * fraction)]), fraction, queries)
            for name, fraction in PERCENTILES.items()
        }
        return cls(**found, mean=float(ordered.mean()))

    def __getitem__(self, name: str) -> Percentile:
        """Return the percentile called "p99.9" or "p99_9"; raises KeyError."""
        key = name.replace(".", "_")
        if key not in PERCENTILES:
            raise KeyError(f"{name}: the percentiles are {', '.join(PERCENTILES)}")
        return self.percentiles()[key]

    def percentiles(self) -> dict[str, Percentile]:
        return {name: getattr(self, name) for name in PERCENTILES}


@dataclass(frozen=True, slots=True)
class PerformanceResult:
    """A valid performance phase.

    ``samples_per_second`` and ``qps`` are rates over the whole phase, first issue to last completion;
    ``duration`` that time in seconds. ``notes`` are sentences worth showing (an audit.config that was left
    alone). ``early_stopping`` is MLPerf's own metric of a stream, in seconds: a bound on its target
    percentile (p50 of a "short" phase, p90 and p99 of a "valid" one) with 99 % confidence. ``energy`` are
    the joules that the devices took, and the seconds to which the counter's span is known. ``answered`` are
    the samples a second of most batches: pauses of the host do not count. It is 0 for fewer than two batches.
    """

    scenario: str
    latency: Latency
    queries: int
    samples: int
    duration: float
    contract: Mapping[str, Any]
    environment: Mapping[str, Any]
    log_dir: Path
    notes: tuple[str, ...] = ()
    early_stopping: float | None = None
    energy: tuple[float, float] | None = None
    answered: float = 0.0

    @property
    def samples_per_second(self) -> float:
        return self.samples / self.duration

    @property
    def qps(self) -> float:
        """Return queries per second; AttributeError in Offline, which has one query and so no such rate."""
        if Scenario.of(self.scenario).one_query:
            raise AttributeError(
                f"{self.scenario} has one query and so no QPS; its rate is samples_per_second"
            )
        return self.queries / self.duration

    def measurements(self, kind: Kind = "noisy", tails: Sequence[str] = ()) -> list[Measurement]:
        """Return what is stored and judged: p50 latency (not in Offline), throughput, the ``tails`` named.

        In Server the rate is what was asked for and is shown; p99 is a tail that is always named.
        ``kind`` is "shown" for a machine whose times are not judged; a tail, such as "p99", without enough
        queries always is.
        """
        asked = Scenario.of(self.scenario)
        if asked.one_query:
            taken = [self._measurement("samples_per_second", "1/s", self.samples_per_second, kind)]
        else:
            shown = {name: [float(value), value.enough] for name, value in self.latency.percentiles().items()}
            taken = [
                self._measurement("latency_p50", "s", self.latency.p50, kind, percentiles=shown),
                self._measurement("qps", "1/s", self.qps, "shown" if asked.server else kind),
            ]
            tails = tuple(dict.fromkeys(["p99", *tails] if asked.server else tails))
        for name in tails:
            value = self.latency[name]
            label = f"latency_{name.replace('.', '_')}"
            judged = kind if value.enough else "shown"
            taken.append(self._measurement(label, "s", value, judged, "loadgen_tail"))
        return [*taken, *self._energy(asked)]

    def _energy(self, asked: Scenario) -> list[Measurement]:
        """Return the joules of a query, or of Offline's of a sample, which are shown."""
        if self.energy is None:
            return []
        (joules, step), count = self.energy, self.samples if asked.one_query else self.queries
        name = "energy_per_sample" if asked.one_query else "energy_per_query"
        metric = Metric(name, "J", "lower", "shown", "loadgen")
        details = {"joules": joules, "step": f"{step:.3g} s of {self.duration:.3g} s"}
        return [Measurement(metric, self.contract, (joules / count,), details=details)]

    def _measurement(
        self, name: str, unit: str, value: float, kind: Kind, instrument: str = "loadgen", **more: Any
    ) -> Measurement:
        details: dict[str, Any] = {"queries": self.queries, "samples": self.samples}
        if isinstance(value, Percentile) and not value.enough:
            details["warning"] = f"{self.queries} queries; this percentile needs {value.needed}"
        metric = Metric(name, unit, "lower" if unit == "s" else "higher", kind, instrument)
        return Measurement(metric, self.contract, (float(value),), details={**details, **more})


@dataclass(frozen=True, slots=True)
class AccuracyResult:
    """An accuracy phase: a class for each image, int64 [n] in the dataset's order, beside its label."""

    model: Model
    precision: str
    predictions: np.ndarray
    labels: np.ndarray
    contract: Mapping[str, Any]
    environment: Mapping[str, Any]
    log_dir: Path
    notes: tuple[str, ...] = ()

    @property
    def correct(self) -> int:
        return accuracy.correct(self.predictions, self.labels)

    @property
    def total(self) -> int:
        return len(self.labels)

    @property
    def accuracy(self) -> float:
        """Return the fraction correct, 0..1."""
        return self.correct / self.total

    def problems(self) -> list[str]:
        """Return a sentence for each way in which the predictions differ from the model's reference."""
        if self.model.reference is None:
            return []
        return self.model.reference.problems(self.predictions, self.labels, self.precision)

    def check(self) -> None:
        """Raise AssertionError with ``problems`` if there are any."""
        __tracebackhide__ = True  # the failure shows the test's line, not this one
        if problems := self.problems():
            hint = accuracy.shifted(self.predictions, self.labels)
            told = "; ".join(filter(None, [*problems, hint]))
            raise AssertionError(f"{self.model.name} in {self.precision}: {told}")

    def measurements(self) -> list[Measurement]:
        """Return the exact metrics to store, and what is shown.

        With a reference it is how many predictions differ from it more than the precision explains (0 if
        nothing is wrong); the number of correct ones is shown. Without one it is that number, and the
        fingerprint of the answers: as many other wrong ones are another result.
        """
        details = {"correct": self.correct, "total": self.total}

        def exact(name: str, better: Better, value: float, kind: Kind = "exact") -> Measurement:
            instrument = "answers" if name == "answers" else "accuracy"
            metric = Metric(name, "1", better, kind, instrument)
            return Measurement(metric, self.contract, (float(value),), details=details)

        reference = self.model.reference
        if reference is None:
            answers = accuracy.fingerprint(self.predictions)
            return [exact("correct", "higher", self.correct), exact("answers", "higher", answers)]
        wrong = reference.unexplained(self.predictions, self.labels, self.precision)
        return [
            exact("unexplained_predictions", "lower", wrong),
            exact("correct", "higher", self.correct, "shown"),
        ]
