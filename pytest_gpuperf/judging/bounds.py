"""Absolute bounds of a metric, ``max=`` and ``min=``: judged beside a baseline, and without one."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from statistics import median

from pytest_gpuperf.errors import GpuperfError
from pytest_gpuperf.judging.estimate import MIN_RUNS
from pytest_gpuperf.measurement import Bounds, Kind, Measurement, Outcome, Verdict


def checked(call: str, minimum: float | None, maximum: float | None, kind: Kind = "noisy") -> Bounds:
    """The bounds that ``call`` was given; raises GpuperfError for what no figure could keep."""
    for name, value in (("min", minimum), ("max", maximum)):
        if value is not None and not (
            isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
        ):
            raise GpuperfError(f"{call}: {name}={value!r} is no bound; give a number in the metric's unit")
    if minimum is not None and maximum is not None and minimum > maximum:
        raise GpuperfError(f"{call}: min={minimum:g} is above max={maximum:g}; no figure lies between them")
    if kind == "shown" and (minimum, maximum) != (None, None):
        raise GpuperfError(f'{call}: a number of kind "shown" is never judged; leave out its bounds')
    return Bounds(minimum, maximum)


def judge(decided: Verdict, screen: Measurement, replicas: Sequence[Measurement] = ()) -> Verdict:
    """The verdict on a metric with its bounds beside ``decided``, which its baseline (or none) led to.

    An exact value beyond a bound has regressed at once. A noisy one has where every replica lies
    beyond it, and there are as many as any red needs; before that it is inconclusive, and ``exceeds``
    asks for replicas. A metric that sits exactly on its bound is so red once in 2^5 = 32 runs.
    """
    beyond = screen.bounds.passed_by(screen.value)
    if not beyond or decided.outcome in (Outcome.SHOWN, Outcome.UNMEASURED):
        return decided
    if screen.metric.kind == "exact":
        return _broken(decided, screen.value, beyond)
    values = [replica.value for replica in replicas]
    inside = sum(not screen.bounds.passed_by(value) for value in values)
    if len(values) >= MIN_RUNS and not inside:
        return _broken(decided, median(values), screen.bounds.passed_by(median(values)))
    if decided.outcome is Outcome.REGRESSED:
        return decided
    if values and not screen.bounds.passed_by(median(values)):
        return decided
    reason = f"{inside} of {len(values)} replicas were not {beyond}" if values else f"measured once {beyond}"
    return replace(decided, outcome=Outcome.INCONCLUSIVE, exceeds=True, reason=reason)


def _broken(decided: Verdict, now: float, beyond: str) -> Verdict:
    reason = f"{beyond}, the test's own bound"
    if decided.reason:
        reason += f"; {decided.reason}"
    return replace(decided, outcome=Outcome.REGRESSED, now=now, exceeds=True, reason=reason)


def excess(bounds: Bounds, value: float) -> float:
    """How far ``value`` > 0 lies beyond its bounds, in logs; negative infinity where it does not."""
    if bounds.max is not None and value > bounds.max:
        return math.log(value / bounds.max) if bounds.max > 0 else math.inf
    if bounds.min is not None and value < bounds.min:
        return math.log(bounds.min / value)
    return -math.inf
