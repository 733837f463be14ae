"""Judge today's runs of one metric against its baseline's. docs/verdicts.md explains the rule."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from pytest_gpuperf.errors import GpuperfError
from pytest_gpuperf.measurement import Baseline, Measurement, Metric, Outcome, Run, Verdict
from pytest_gpuperf.rules.differences import another_question, differences, question_changes
from pytest_gpuperf.rules.estimate import (
    ALPHA,
    MIN_RUNS,
    Estimate,
    RunsEstimate,
    bounded_exp,
    estimate,
    judged_runs,
)
from pytest_gpuperf.rules.tolerances import default_tolerance
from pytest_gpuperf.text import counted

EXACT_SLACK = 1e-9
"""Relative difference between exact values that is a float's representation and not a change."""


def judge(
    baseline: Baseline | None,
    screen: Measurement,
    replicas: Sequence[Measurement] = (),
    *,
    tolerance: float | None,
    place: Mapping[str, Any],
    environment: Mapping[str, Any] | None = None,
    alpha: float = ALPHA,
) -> Verdict:
    """Decide one metric of one test against its baseline.

    ``screen`` is the test's own measurement. With ``replicas`` it is left out of the estimate, since they
    were taken only because it looked slow; without them it is the one run, which can show that the metric
    improved or is equal but never that it regressed. ``tolerance`` None means the instrument's own.
    ``place`` and ``environment`` say where this session measured, and with what: they choose the runs that
    count (``judged_runs``).

    Raises GpuperfError for samples or a tolerance that cannot be judged.
    """
    metric, surrounds = screen.metric, environment or {}
    if metric.kind == "shown":
        return Verdict(Outcome.SHOWN, now=screen.value if screen.samples else None)
    theta = checked_tolerance(metric, tolerance)
    for measurement in (screen, *replicas):
        check_samples(metric, measurement.samples, "measured")
    if incomparable := _incomparable(baseline, screen, replicas, place, theta):
        return incomparable
    assert baseline is not None
    for run in baseline.runs:
        check_samples(metric, run.samples, "baseline")
    if metric.kind == "exact":
        return _judge_exact(baseline, screen, theta)
    runs = judged_runs(screen, baseline.runs, surrounds)
    found = estimate(replicas or [screen], runs, surrounds, alpha)
    return _judge_noisy(screen, found, theta, replicated=bool(replicas), code=_code_note(runs, screen))


def _judge_noisy(
    screen: Measurement, found: RunsEstimate, theta: float, *, replicated: bool, code: str
) -> Verdict:
    limit = math.log1p(theta)
    detects = found.baseline_runs >= MIN_RUNS
    confirmed = detects and len(found.each) >= MIN_RUNS and min(found.each) > limit
    unclear = _why_inconclusive(screen.metric, found, limit, replicated)
    return conclude(screen, found, theta, code, unclear, confirmed=confirmed, detects=detects)


def floor_of(measured: Measurement) -> float:
    """Return the smallest change of a figure that its instrument can be held to, in the metric's unit.

    It holds for what was timed: a time that was divided by its iterations has that part of the floor.
    """
    return measured.metric.constants.floor / measured.divided


def conclude(
    measured: Measurement,
    found: Estimate,
    theta: float,
    code: str,
    unclear: str,
    *,
    confirmed: bool,
    detects: bool,
) -> Verdict:
    """Turn an estimate into a verdict; nothing regresses unless it is ``confirmed``.

    ``code`` and ``unclear`` are the reasons of what regressed and of what is inconclusive. A regression must
    pass the floor with its interval's lower end, not with its estimate alone. What is `equal` is so by the
    runs' own noise: an unknown unit widens what may be called worse or better, not what is the same.
    ``detectable`` is exp(log(1 + theta) + margin) - 1: a true worsening of that size is called regressed
    about 19 times in 20. It is a slowdown, as theta is (for a throughput, the factor it is divided by, less
    one), never less than the floor, and None unless ``detects``: with too few runs for anything to be called
    regressed.
    """
    metric = measured.metric
    limit, floor = math.log1p(theta), floor_of(measured)
    change, half_width = found.change, found.half_width

    def in_unit(change: float) -> float:
        return found.baseline * (bounded_exp(change) - 1)

    above_floor = abs(found.now - found.baseline) > floor
    reach = abs(change) + found.noise
    outcome, reason = Outcome.INCONCLUSIVE, unclear
    if confirmed and change - half_width > limit and in_unit(change - half_width) > floor:
        outcome, reason = Outcome.REGRESSED, code
    elif above_floor and change + half_width < -limit:
        outcome, reason = Outcome.IMPROVED, ""
    elif reach < limit or max(found.now, found.baseline) * (bounded_exp(reach) - 1) <= floor:
        outcome, reason = Outcome.EQUAL, ""
    elif detects and abs(change) > limit and not above_floor:
        reason = f"the change is below the {floor:g} {metric.unit} that {metric.instrument} can be held to"
    signed = change if metric.better == "lower" else -change
    detectable = max(bounded_exp(limit + found.margin) - 1, floor / found.baseline)
    return Verdict(
        outcome,
        now=found.now,
        baseline=found.baseline,
        change=bounded_exp(signed) - 1,
        interval=(bounded_exp(signed - half_width) - 1, bounded_exp(signed + half_width) - 1),
        tolerance=theta,
        detectable=detectable if detects else None,
        exceeds=above_floor and change > limit,
        reason=reason,
    )


def _why_inconclusive(metric: Metric, found: RunsEstimate, limit: float, replicated: bool) -> str:
    """Explain an inconclusive outcome that is not plain noise (``detectable`` and ``interval`` show that)."""
    if found.baseline_runs < MIN_RUNS:
        return (
            f"the baseline has {counted(found.baseline_runs, 'run')} and a regression needs {MIN_RUNS}: "
            "add runs with --gpuperf-update=append"
        )
    if found.change <= limit:
        return ""
    if not replicated:
        return "one run cannot confirm a regression, and the test was not measured again"
    if len(found.each) < MIN_RUNS:
        return f"only {counted(len(found.each), 'replica')} came back and a regression needs {MIN_RUNS}"
    if within := sum(change <= limit for change in found.each):
        return f"{within} of {len(found.each)} replicas stayed within the tolerance"
    if found.change - found.noise <= limit:
        return ""
    differs = 100 * (bounded_exp(found.half_width) - 1)
    if metric.constants.where == "host":
        return f"by the stored runs alone: a host's clock may differ by {differs:.1f} % between days"
    return (
        f"the baseline has {counted(found.own, 'run')} of this GPU, and units of one model may differ by "
        f"{differs:.1f} %: add runs with --gpuperf-update=append"
    )


def _judge_exact(baseline: Baseline, measured: Measurement, theta: float) -> Verdict:
    """Compare exact values directly; theta is then a fraction of the baseline, not of a logarithm."""
    metric, old, new = measured.metric, baseline.value, measured.value
    if metric.constants.identity:
        return _judge_identity(baseline, measured)
    worse = new - old if metric.better == "lower" else old - new
    allowed = theta * abs(old) + EXACT_SLACK * max(abs(old), abs(new))
    reason = ""
    if worse > allowed:
        outcome, reason = Outcome.REGRESSED, _code_note(baseline.runs[-1:], measured)
    else:
        outcome = Outcome.IMPROVED if -worse > allowed else Outcome.EQUAL
    change = (new - old) / abs(old) if old else (0.0 if new == old else None)
    return Verdict(
        outcome,
        now=new,
        baseline=old,
        change=change,
        tolerance=theta,
        detectable=theta,
        exceeds=outcome is Outcome.REGRESSED,
        reason=reason,
    )


def _judge_identity(baseline: Baseline, measured: Measurement) -> Verdict:
    """Compare what only names a finding: a difference has no size, and no tolerance covers it."""
    old, new = baseline.value, measured.value
    if new == old:
        return Verdict(Outcome.EQUAL, now=new, baseline=old, change=0.0, tolerance=0.0, detectable=0.0)
    reason = (
        f"not the {measured.metric.name} that the baseline recorded, however many are right: "
        "if they are meant to be others, record them with --gpuperf-update"
    )
    return Verdict(
        Outcome.REGRESSED, now=new, baseline=old, tolerance=0.0, detectable=0.0, exceeds=True, reason=reason
    )


def _incomparable(
    baseline: Baseline | None,
    screen: Measurement,
    replicas: Sequence[Measurement],
    place: Mapping[str, Any],
    theta: float,
) -> Verdict | None:
    """Return the verdict if there is nothing to compare, else None."""
    for replica in replicas:
        if changed := question_changes(screen.metric, screen.contract, replica.metric, replica.contract):
            reason = f"a replica measured something else than the test did: {'; '.join(changed)}"
            return Verdict(Outcome.UNMEASURED, now=screen.value, tolerance=theta, reason=reason)
    if baseline is None or not baseline.runs:
        return Verdict(Outcome.NO_BASELINE, now=screen.value, tolerance=theta)
    if moved := [f"{k} {old}, here {new}" for k, old, new in differences(baseline.place, place)]:
        reason = f"the baseline was recorded with {'; '.join(moved)}"
        return Verdict(Outcome.NO_BASELINE, now=screen.value, tolerance=theta, reason=reason)
    if reason := another_question(baseline, screen):
        return Verdict(Outcome.CONTRACT_CHANGED, now=screen.value, tolerance=theta, reason=reason)
    return None


def checked_tolerance(metric: Metric, tolerance: float | None) -> float:
    """Return the tolerance, or the instrument's own for None; raises GpuperfError for an impossible one."""
    if tolerance is None:
        return default_tolerance(metric)
    if not (math.isfinite(tolerance) and tolerance >= 0):
        raise GpuperfError(
            f"tolerance {tolerance!r} of {metric.name}: give a fraction of 0 or more, 0.03 for 3 %"
        )
    return float(tolerance)


def check_samples(metric: Metric, samples: Sequence[float], whose: str) -> None:
    """Raise GpuperfError for samples that cannot be judged."""
    if not samples:
        raise GpuperfError(f"{metric.name} has no {whose} samples: have the test record at least one")
    low = 0.0 if metric.kind == "noisy" else -math.inf
    bad = next((sample for sample in samples if not (low < sample < math.inf)), None)
    if bad is not None:
        need = "finite samples above zero" if metric.kind == "noisy" else "a finite value"
        raise GpuperfError(
            f"{metric.name} has a {whose} sample of {bad} {metric.unit}: "
            f"a {metric.kind} metric needs {need}; check what the test recorded"
        )


def _code_note(runs: Sequence[Run], measured: Measurement) -> str:
    if measured.same_code(runs):
        return "machine code, geometry, scalars and inputs are the baseline's own: this code did not change"
    return ""
