"""The nouns: what was measured, what makes two measurements comparable, and what was decided.

Everything here is frozen and depends on the standard library alone, so that every room can use it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from statistics import median
from typing import Any, Literal


@dataclass(frozen=True, slots=True)
class Instrument:
    """How a number is taken, with the constants the verdict needs for it (docs/verdicts.md has their source).

    ``prior_sd`` is the expected standard deviation of the log median between fresh processes;
    ``tolerance`` the default theta, a fraction; ``floor`` the smallest absolute change, in the
    metric's unit, worth a red; ``where`` says whose clock it is: a device metric depends on the
    GPU alone, a host metric on the CPU as well.
    """

    name: str
    prior_sd: float
    tolerance: float
    floor: float
    where: Literal["device", "host"]


INSTRUMENTS: Mapping[str, Instrument] = {
    instrument.name: instrument
    for instrument in (
        Instrument("device_time", prior_sd=0.0006, tolerance=0.02, floor=1e-7, where="device"),
        Instrument("host_time", prior_sd=0.02, tolerance=0.05, floor=1e-6, where="host"),
        Instrument("record", prior_sd=0.02, tolerance=0.05, floor=0.0, where="host"),
        Instrument("counters", prior_sd=0.0, tolerance=0.0, floor=0.0, where="device"),
        Instrument("loadgen", prior_sd=0.007, tolerance=0.05, floor=0.0, where="host"),
        Instrument("loadgen_tail", prior_sd=0.03, tolerance=0.10, floor=0.0, where="host"),
        Instrument("accuracy", prior_sd=0.0, tolerance=0.0, floor=0.0, where="device"),
    )
}

SENTINELS: Mapping[str, str] = {"bandwidth_s": "memory", "compute_s": "arithmetic"}
"""The times of kernels that never change (machine/sentinels.py), by what bounds them."""

Kind = Literal["noisy", "exact", "shown"]
Better = Literal["lower", "higher"]


@dataclass(frozen=True, slots=True)
class Metric:
    """What a number is: its name in the test, its unit (SI, "1" for ratios) and which way is better.

    ``kind``: "noisy" numbers are judged over several processes, "exact" ones compared directly,
    "shown" ones never judged and never stored.
    """

    name: str
    unit: str
    better: Better
    kind: Kind
    instrument: str

    @property
    def constants(self) -> Instrument:
        return INSTRUMENTS[self.instrument]

    def worse(self, baseline: float, now: float) -> float:
        """The log change from baseline to now, positive where now is worse (both values > 0)."""
        change = math.log(now / baseline)
        return change if self.better == "lower" else -change

    def least_loss(self, interval: tuple[float, float]) -> float:
        """The smallest slowdown (a fraction, as a tolerance is) of a change's interval."""
        low, high = interval
        return low if self.better == "lower" else 1 / (1 + high) - 1


@dataclass(frozen=True, slots=True)
class Bounds:
    """What a test says a metric must never pass, in the metric's unit; None is no bound."""

    min: float | None = None
    max: float | None = None

    def passed_by(self, value: float) -> str:
        """Which bound ``value`` lies beyond, in words; "" where it lies within them."""
        if self.max is not None and value > self.max:
            return f"above max={self.max:g}"
        if self.min is not None and value < self.min:
            return f"below min={self.min:g}"
        return ""


@dataclass(frozen=True, slots=True)
class Measurement:
    """One metric of one test in one process.

    ``samples`` are in the metric's unit; an exact metric has one. ``contract`` says which question
    the number answers (DESIGN: metric, timing mode, arguments' dtypes and shapes, ...), a flat
    mapping of names to JSON scalars. ``code`` is the hash of the kernel's machine code, where there
    is one. ``details`` are figures derived for display (bytes moved per launch, a warning). ``bounds``
    are the test's own, and no part of the question.
    """

    metric: Metric
    contract: Mapping[str, Any]
    samples: tuple[float, ...]
    code: str | None = None
    details: Mapping[str, Any] = field(default_factory=dict)
    bounds: Bounds = Bounds()

    @property
    def value(self) -> float:
        """The run's statistic: the median sample."""
        return median(self.samples)

    def same_code(self, runs: Sequence[Run]) -> bool:
        """Whether what was launched is what all of ``runs`` launched, to the bit."""
        return self.code is not None and all(run.code == self.code for run in runs)


@dataclass(frozen=True, slots=True)
class Run:
    """One process that took samples, as a baseline keeps it: ``environment`` is what surrounded it."""

    samples: tuple[float, ...]
    environment: Mapping[str, Any]
    code: str | None = None

    @property
    def value(self) -> float:
        return median(self.samples)


@dataclass(frozen=True, slots=True)
class Baseline:
    """What a baseline file says of one metric of one test.

    ``place`` is the kind of machine it holds for (backend, GPU model, memory, power limit, ...);
    ``prior_sd`` the instrument's constant when it was recorded.
    """

    metric: Metric
    contract: Mapping[str, Any]
    place: Mapping[str, Any]
    prior_sd: float
    runs: tuple[Run, ...]

    @property
    def value(self) -> float:
        """The geometric mean of the runs' medians for a noisy metric, else the run's value."""
        if self.metric.kind == "exact":
            return self.runs[-1].value
        return math.exp(sum(math.log(run.value) for run in self.runs) / len(self.runs))


class Outcome(StrEnum):
    """What was decided of one metric; the order is the order of the summary, red first."""

    REGRESSED = "regressed"
    ENVIRONMENT_MOVED = "environment moved"
    MISSING = "missing"
    UNMEASURED = "unmeasured"
    CONTRACT_CHANGED = "contract changed"
    UNFIT = "unfit"
    INCONCLUSIVE = "inconclusive"
    NO_BASELINE = "no baseline"
    IMPROVED = "improved"
    EQUAL = "equal"
    SHOWN = "shown"


@dataclass(frozen=True, slots=True)
class Verdict:
    """The decision on one metric, with the figures that led to it.

    ``baseline`` and ``now`` are in the metric's unit. ``change`` is now / baseline - 1 (so +0.05 is
    5 % more time, or 5 % more throughput), ``interval`` its bounds at the verdict's confidence,
    ``tolerance`` theta, ``detectable`` the smallest worsening (a fraction, positive) that this
    baseline and this many runs could have called regressed. ``exceeds`` is true where the estimate
    itself lies beyond the tolerance on the worse side, whatever the interval says. ``reason`` is
    for people: why this outcome, where the figures do not say it.
    """

    outcome: Outcome
    now: float | None = None
    baseline: float | None = None
    change: float | None = None
    interval: tuple[float, float] | None = None
    tolerance: float | None = None
    detectable: float | None = None
    exceeds: bool = False
    reason: str = ""

    def because(self, reason: str) -> Verdict:
        """The same with one more reason, after those that it has; "" adds none."""
        return replace(self, reason="; ".join(text for text in (self.reason, reason) if text))


@dataclass(frozen=True, slots=True, order=True)
class TestKey:
    """A test's lasting name: its suite file and its name there, from the folder that owns the baselines.

    pytest's own node ids change with rootdir; these do not.
    """

    __test__ = False

    suite: str
    name: str

    def __str__(self) -> str:
        return f"{self.suite}::{self.name}"
