"""The data types: what was measured, what makes two measurements comparable, and what was decided.

Everything here is frozen and depends on the standard library alone.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from statistics import median
from typing import Any, Literal

from pytest_gpuperf.constants import INSTRUMENTS, Instrument
from pytest_gpuperf.errors import GpuperfError
from pytest_gpuperf.figures import number, short

Kind = Literal["noisy", "exact", "shown"]
Better = Literal["lower", "higher"]


@dataclass(frozen=True, slots=True)
class Metric:
    """A number's name in its test, its unit (SI, "1" for ratios) and which way is better.

    ``kind``: "noisy" numbers are judged over several processes, "exact" ones compared directly,
    "shown" ones neither judged nor stored.
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
        """Return the log change from ``baseline`` to ``now`` (both > 0), positive if ``now`` is worse."""
        change = math.log(now / baseline)
        return change if self.better == "lower" else -change

    def least_loss(self, interval: tuple[float, float]) -> float:
        """Return the smallest slowdown in a change's interval, as a fraction like a tolerance."""
        low, high = interval
        return low if self.better == "lower" else 1 / (1 + high) - 1


@dataclass(frozen=True, slots=True)
class Bounds:
    """A metric's absolute limits, in its unit; None is no limit."""

    min: float | None = None
    max: float | None = None

    @classmethod
    def of(cls, call: str, minimum: float | None, maximum: float | None, kind: Kind = "noisy") -> Bounds:
        """Check the bounds given to ``call``; raises GpuperfError for bounds that no figure could keep."""
        low, high = (None if given is None else number(given) for given in (minimum, maximum))
        for name, given, value in (("min", minimum, low), ("max", maximum, high)):
            if given is not None and (value is None or not math.isfinite(value)):
                shown = short(given if value is None else value)
                raise GpuperfError(
                    f"{call}: {name}={shown} is not a valid bound; give a number in the metric's unit"
                )
        if low is not None and high is not None and low > high:
            raise GpuperfError(f"{call}: min={low:g} is above max={high:g}; no figure lies between them")
        if kind == "shown" and (low, high) != (None, None):
            raise GpuperfError(f'{call}: a number of kind "shown" is never judged; leave out its bounds')
        return cls(low, high)

    def passed_by(self, value: float) -> str:
        """Name the bound that ``value`` is beyond; "" if it is within both."""
        if self.max is not None and value > self.max:
            return f"above max={self.max:g}"
        if self.min is not None and value < self.min:
            return f"below min={self.min:g}"
        return ""

    def excess(self, value: float) -> float:
        """Return how far ``value`` > 0 is beyond its bounds, in logs; negative infinity if it is within."""
        if self.max is not None and value > self.max:
            return math.log(value / self.max) if self.max > 0 else math.inf
        if self.min is not None and value < self.min:
            return math.log(self.min / value)
        return -math.inf


@dataclass(frozen=True, slots=True)
class Measurement:
    """One metric of one test in one process.

    ``samples`` are in the metric's unit; an exact metric has one. ``contract`` says what was measured
    (timing mode, arguments' dtypes and shapes, the test's version, ...), a flat mapping of names to JSON
    scalars: only equal contracts are compared. ``code`` is the hash of all that a launch tells the device,
    if it has machine code, with "?" at its end where its inputs are not known. ``details`` are figures for
    display (bytes moved per launch, a warning). ``bounds`` are the test's own, and not part of the contract.
    """

    metric: Metric
    contract: Mapping[str, Any]
    samples: tuple[float, ...]
    code: str | None = None
    details: Mapping[str, Any] = field(default_factory=dict)
    bounds: Bounds = Bounds()

    @property
    def value(self) -> float:
        """Return the run's statistic, the median sample."""
        return median(self.samples)

    @property
    def divided(self) -> int:
        """Return by how many launches or calls a sample was divided, 1 if by none."""
        launches = self.contract.get("batch") if self.contract.get("timing") == "events" else None
        return int(launches or self.details.get("iterations") or 1)

    def same_code(self, runs: Sequence[Run]) -> bool:
        """Return whether all of ``runs`` did exactly this work: code, geometry, scalars, inputs' contents."""
        known = self.code is not None and not self.code.endswith("?")
        return known and all(run.code == self.code for run in runs)


@dataclass(frozen=True, slots=True)
class Run:
    """One process that took samples, as a baseline keeps it, with the ``environment`` it ran in."""

    samples: tuple[float, ...]
    environment: Mapping[str, Any]
    code: str | None = None

    @property
    def value(self) -> float:
        return median(self.samples)


@dataclass(frozen=True, slots=True)
class Milestone:
    """A value that a baseline once had, with the date and the commit it was measured at; "" if unknown."""

    value: float
    date: str = ""
    commit: str = ""


@dataclass(frozen=True, slots=True)
class Baseline:
    """The stored runs of one metric of one test.

    ``place`` is the kind of machine it is valid for (backend, GPU model, memory, power limit, ...);
    ``prior_sd`` the instrument's constant when it was recorded. ``origin`` and ``best`` are its first value
    and the best so far, None where no update has written them yet. ``left_out`` are runs that were too far
    from the others, kept to be seen and not judged by.
    """

    metric: Metric
    contract: Mapping[str, Any]
    place: Mapping[str, Any]
    prior_sd: float
    runs: tuple[Run, ...]
    origin: Milestone | None = None
    best: Milestone | None = None
    left_out: tuple[Run, ...] = ()

    @property
    def value(self) -> float:
        """Return the geometric mean of the runs' medians if the metric is noisy, else the run's value."""
        if self.metric.kind == "exact":
            return self.runs[-1].value
        return math.exp(sum(math.log(run.value) for run in self.runs) / len(self.runs))


class Outcome(StrEnum):
    """The decision on one metric, in the order of the summary: failures first."""

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
    UNCHANGED = "unchanged"
    SHOWN = "shown"


JUDGED = (
    Outcome.REGRESSED,
    Outcome.ENVIRONMENT_MOVED,
    Outcome.IMPROVED,
    Outcome.EQUAL,
    Outcome.INCONCLUSIVE,
    Outcome.UNCHANGED,
)
"""Outcomes of a metric that was compared with something, if only by its work."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """The decision on one metric, with the figures that led to it.

    ``baseline`` and ``now`` are in the metric's unit. ``change`` is now / baseline - 1 (so +0.05 is
    5 % more time, or 5 % more throughput), ``interval`` its bounds at the verdict's confidence,
    ``tolerance`` theta, ``detectable`` the smallest worsening (a fraction, positive) that this
    baseline and this many runs could have called regressed. ``exceeds`` is true where the estimate
    itself is beyond the tolerance on the worse side, whatever the interval says. ``reason`` explains
    the outcome to people, where the figures do not. ``old_code`` names the baseline's commit if ``baseline``
    is what that took here and now, in as many ``processes`` as this checkout's, "" if it is the stored runs'.
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
    old_code: str = ""
    processes: int = 0

    def because(self, reason: str) -> Verdict:
        """Return this verdict with one more reason after those it has; "" adds none."""
        return replace(self, reason="; ".join(text for text in (self.reason, reason) if text))


@dataclass(frozen=True, slots=True, order=True)
class TestKey:
    """A test's lasting name: its suite file, relative to the folder that holds the baselines, and its name.

    pytest's own node ids change with rootdir; these do not.
    """

    __test__ = False

    suite: str
    name: str

    def __str__(self) -> str:
        return f"{self.suite}::{self.name}"
