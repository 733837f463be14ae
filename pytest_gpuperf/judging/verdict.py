"""Runs against baseline runs -> verdict: pure functions, no I/O.

A run is one process and its statistic the log of its median. Samples of one process share that
process's luck, so only processes count as replicates. docs/verdicts.md explains the rule to the
owner of runners and says where each constant comes from.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from pytest_gpuperf.errors import GpuperfError
from pytest_gpuperf.judging.differences import (
    compare_contracts,
    differences,
    environment_differences,
    question_changes,
)
from pytest_gpuperf.judging.estimate import ALPHA, MIN_RUNS, Estimate, RunsEstimate, bounded_exp, estimate
from pytest_gpuperf.judging.units import OWN_UNIT_BELOW, judged_runs
from pytest_gpuperf.measurement import Baseline, Measurement, Metric, Outcome, Run, Verdict

__all__ = ["compare_contracts", "environment_differences", "judge", "screen", "unseen_loss"]

EXACT_SLACK = 1e-9
"""Relative difference between exact values that is a float's representation and not a change."""


def screen(
    baseline: Baseline | None,
    measurement: Measurement,
    *,
    tolerance: float | None,
    place: Mapping[str, Any],
    device_uuid: str | None = None,
) -> bool:
    """Whether the test's own measurement is enough to judge it; False asks for replicas.

    Takes what ``judge`` takes. True where d <= log(1 + theta), where the absolute floor is not
    passed, and wherever no replica could matter: exact and shown metrics, nothing to compare with.
    Raises GpuperfError for samples or a tolerance that cannot be judged.
    """
    verdict = judge(baseline, measurement, tolerance=tolerance, place=place, device_uuid=device_uuid)
    return measurement.metric.kind != "noisy" or not verdict.exceeds


def judge(
    baseline: Baseline | None,
    screen: Measurement,
    replicas: Sequence[Measurement] = (),
    *,
    tolerance: float | None,
    place: Mapping[str, Any],
    device_uuid: str | None = None,
    alpha: float = ALPHA,
) -> Verdict:
    """Decides one metric of one test.

    ``screen`` is the test's own measurement. With ``replicas`` it is left out of the estimate,
    because they were taken only since it looked slow; without them it is the one run, and can show
    that the metric improved or is equal but never that it regressed. ``tolerance`` None means the
    instrument's own. ``place`` and ``device_uuid`` say where this session measured; runs of that GPU
    are what counts, where the baseline has enough of them (units.py).

    Raises GpuperfError for samples or a tolerance that cannot be judged.
    """
    metric = screen.metric
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
    runs = judged_runs(baseline.runs, device_uuid, theta)
    if not runs:
        reason = (
            f"a tolerance below {OWN_UNIT_BELOW:.0%} is judged against runs of the same GPU only, and the "
            f"baseline has none of {device_uuid or 'this machine'}: add some with --gpuperf-update=append"
        )
        return Verdict(Outcome.INCONCLUSIVE, now=screen.value, tolerance=theta, reason=reason)
    found = estimate(metric, baseline.prior_sd, runs, replicas or [screen], alpha)
    return _judge_noisy(metric, found, theta, replicated=bool(replicas), code=_code_note(runs, screen))


def unseen_loss(metric: Metric, verdict: Verdict) -> float | None:
    """How much of today's figure could be lost again without a red, while the old baseline stands.

    A fraction of ``verdict.now`` on the worse side: with a baseline of 10 ms, 8 ms now and a
    tolerance of 2 %, a later loss of 27.5 % passes. None where it is not a fraction (now is 0) or
    there is nothing to compare.
    """
    if verdict.baseline is None or verdict.tolerance is None or not verdict.now:
        return None
    worst = _worst_passing(metric, verdict.baseline, verdict.tolerance)
    loss = worst - verdict.now if metric.better == "lower" else verdict.now - worst
    return max(0.0, loss / abs(verdict.now))


def _judge_noisy(
    metric: Metric, found: RunsEstimate, theta: float, *, replicated: bool, code: str
) -> Verdict:
    """The outcome of an estimate.

    ``detectable`` is exp(log(1 + theta) + (t(1-alpha) + t(0.95)) s sqrt(1/R + 1/K)) - 1: a true
    worsening of that size is called regressed about 19 times in 20. It is a slowdown, as theta is
    (for a throughput, the factor it is divided by, less one), never less than the floor, and None
    where the baseline is too small for anything to be called regressed.
    """
    limit, floor = math.log1p(theta), metric.constants.floor
    change, half_width = found.change, found.half_width
    above_floor = abs(found.now - found.baseline) > floor
    reach = abs(change) + half_width
    enough = min(found.baseline_runs, len(found.each)) >= MIN_RUNS
    if enough and above_floor and change - half_width > limit and min(found.each) > limit:
        outcome, reason = Outcome.REGRESSED, code
    elif above_floor and change + half_width < -limit:
        outcome, reason = Outcome.IMPROVED, ""
    elif reach < limit or max(found.now, found.baseline) * (bounded_exp(reach) - 1) <= floor:
        outcome, reason = Outcome.EQUAL, ""
    else:
        outcome, reason = Outcome.INCONCLUSIVE, _why_inconclusive(metric, found, limit, replicated)
    return concluded(metric, found, theta, outcome, reason, detects=found.baseline_runs >= MIN_RUNS)


def concluded(
    metric: Metric, found: Estimate, theta: float, outcome: Outcome, reason: str, *, detects: bool
) -> Verdict:
    """An outcome with the estimate's figures; ``detects``: there are runs enough for a red."""
    limit, floor = math.log1p(theta), metric.constants.floor
    signed = found.change if metric.better == "lower" else -found.change
    detectable = max(bounded_exp(limit + found.margin) - 1, floor / found.baseline)
    return Verdict(
        outcome,
        now=found.now,
        baseline=found.baseline,
        change=bounded_exp(signed) - 1,
        interval=(bounded_exp(signed - found.half_width) - 1, bounded_exp(signed + found.half_width) - 1),
        tolerance=theta,
        detectable=detectable if detects else None,
        exceeds=abs(found.now - found.baseline) > floor and found.change > limit,
        reason=reason,
    )


def _why_inconclusive(metric: Metric, found: RunsEstimate, limit: float, replicated: bool) -> str:
    """The reason, where it is not plain noise (which ``detectable`` and ``interval`` tell)."""
    floor = metric.constants.floor
    if found.baseline_runs < MIN_RUNS:
        return (
            f"the baseline has {_count(found.baseline_runs, 'run')} and a red needs {MIN_RUNS}: "
            "add runs with --gpuperf-update=append"
        )
    if abs(found.change) > limit and abs(found.now - found.baseline) <= floor:
        return f"the change is below the {floor:g} {metric.unit} that {metric.instrument} can be held to"
    if found.change <= limit:
        return ""
    if not replicated:
        return "one run cannot confirm a regression, and the test was not measured again"
    if len(found.each) < MIN_RUNS:
        return f"only {_count(len(found.each), 'replica')} came back and a red needs {MIN_RUNS}"
    within = sum(change <= limit for change in found.each)
    return f"{within} of {len(found.each)} replicas stayed within the tolerance" if within else ""


def _judge_exact(baseline: Baseline, measured: Measurement, theta: float) -> Verdict:
    """Exact values are compared directly; theta is then a fraction of the baseline, not of a logarithm."""
    metric, old, new = measured.metric, baseline.value, measured.value
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


def _incomparable(
    baseline: Baseline | None,
    screen: Measurement,
    replicas: Sequence[Measurement],
    place: Mapping[str, Any],
    theta: float,
) -> Verdict | None:
    """The verdict where there is nothing to compare, or None."""
    for replica in replicas:
        if changed := question_changes(screen.metric, screen.contract, replica.metric, replica.contract):
            reason = f"a replica measured something else than the test did: {'; '.join(changed)}"
            return Verdict(Outcome.UNMEASURED, now=screen.value, tolerance=theta, reason=reason)
    if baseline is None or not baseline.runs:
        return Verdict(Outcome.NO_BASELINE, now=screen.value, tolerance=theta)
    if moved := [f"{k} {old}, here {new}" for k, old, new in differences(baseline.place, place)]:
        reason = f"the baseline was recorded with {'; '.join(moved)}"
        return Verdict(Outcome.NO_BASELINE, now=screen.value, tolerance=theta, reason=reason)
    if changed := question_changes(baseline.metric, baseline.contract, screen.metric, screen.contract):
        reason = f"not the question the baseline answers: {'; '.join(changed)}"
        return Verdict(Outcome.CONTRACT_CHANGED, now=screen.value, tolerance=theta, reason=reason)
    return None


def checked_tolerance(metric: Metric, tolerance: float | None) -> float:
    if tolerance is None:
        return 0.0 if metric.kind == "exact" else metric.constants.tolerance
    if not (math.isfinite(tolerance) and tolerance >= 0):
        raise GpuperfError(
            f"tolerance {tolerance!r} of {metric.name}: give a fraction of 0 or more, 0.03 for 3 %"
        )
    return float(tolerance)


def check_samples(metric: Metric, samples: Sequence[float], whose: str) -> None:
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
        return "machine code, geometry and scalars are the baseline's own: this code did not change"
    return ""


def _worst_passing(metric: Metric, baseline: float, theta: float) -> float:
    if metric.kind == "exact":
        slack = theta * abs(baseline)
        return baseline + slack if metric.better == "lower" else baseline - slack
    return baseline * (1 + theta) if metric.better == "lower" else baseline / (1 + theta)


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
