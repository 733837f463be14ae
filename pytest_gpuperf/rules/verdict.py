"""Judge today's runs of one metric against its baseline's.

A run is one process, and its statistic the log of its median. Samples of one process share that
process's luck, so only processes count as replicates. docs/verdicts.md explains the rule to the
owner of runners and says where each constant comes from.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pytest_gpuperf.errors import GpuperfError
from pytest_gpuperf.measurement import Baseline, Measurement, Metric, Outcome, Run, Verdict
from pytest_gpuperf.rules.differences import differences, question_changes
from pytest_gpuperf.rules.tolerances import default_tolerance

ALPHA = 0.005
"""The chance, one-sided, of calling a metric regressed that sits exactly at its tolerance."""
PRIOR_DF = 4
"""How many degrees of freedom the instrument's own standard deviation counts for (Smyth 2004's d0)."""
MIN_RUNS = 3
"""Runs that each side needs before anything is called regressed: fewer do not show a second mode."""
OWN_UNIT_BELOW = 0.01
"""Tolerances below this are judged on the same GPU only: of three H200s two agreed within 0.2 % on 13
kernels, and the third was 2.2 % faster on one and 1.6 % slower on another."""
REPLICAS = 4
"""Fresh processes that confirm or clear a test whose own measurement looked worse."""
POWER = 0.95
_MAX_EXPONENT = 709.0
EXACT_SLACK = 1e-9
"""Relative difference between exact values that is a float's representation and not a change."""


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
    """Decide one metric of one test against its baseline.

    ``screen`` is the test's own measurement. With ``replicas`` it is left out of the estimate, since they
    were taken only because it looked slow; without them it is the one run, which can show that the metric
    improved or is equal but never that it regressed. ``tolerance`` None means the instrument's own.
    ``place`` and ``device_uuid`` say where this session measured: runs of that GPU alone count if the
    baseline has enough of them (``judged_runs``).

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


def _judge_noisy(
    metric: Metric, found: RunsEstimate, theta: float, *, replicated: bool, code: str
) -> Verdict:
    limit = math.log1p(theta)
    detects = found.baseline_runs >= MIN_RUNS
    confirmed = detects and len(found.each) >= MIN_RUNS and min(found.each) > limit
    unclear = _why_inconclusive(found, limit, replicated)
    return conclude(metric, found, theta, code, unclear, confirmed=confirmed, detects=detects)


def conclude(
    metric: Metric, found: Estimate, theta: float, code: str, unclear: str, *, confirmed: bool, detects: bool
) -> Verdict:
    """Turn an estimate into a verdict; nothing regresses unless it is ``confirmed``.

    ``code`` and ``unclear`` are the reasons of what regressed and of what is inconclusive. ``detectable`` is
    exp(log(1 + theta) + (t(1-alpha) + t(0.95)) s sqrt(1/R + 1/K)) - 1: a true worsening of that size is
    called regressed about 19 times in 20. It is a slowdown, as theta is (for a throughput, the factor it is
    divided by, less one), never less than the floor, and None unless ``detects``: with too few runs for
    anything to be called regressed.
    """
    limit, floor = math.log1p(theta), metric.constants.floor
    change, half_width = found.change, found.half_width
    above_floor = abs(found.now - found.baseline) > floor
    reach = abs(change) + half_width
    outcome, reason = Outcome.INCONCLUSIVE, unclear
    if confirmed and above_floor and change - half_width > limit:
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


def _why_inconclusive(found: RunsEstimate, limit: float, replicated: bool) -> str:
    """Explain an inconclusive outcome that is not plain noise (``detectable`` and ``interval`` show that)."""
    if found.baseline_runs < MIN_RUNS:
        return (
            f"the baseline has {_count(found.baseline_runs, 'run')} and a regression needs {MIN_RUNS}: "
            "add runs with --gpuperf-update=append"
        )
    if found.change <= limit:
        return ""
    if not replicated:
        return "one run cannot confirm a regression, and the test was not measured again"
    if len(found.each) < MIN_RUNS:
        return f"only {_count(len(found.each), 'replica')} came back and a regression needs {MIN_RUNS}"
    within = sum(change <= limit for change in found.each)
    return f"{within} of {len(found.each)} replicas stayed within the tolerance" if within else ""


def _judge_exact(baseline: Baseline, measured: Measurement, theta: float) -> Verdict:
    """Compare exact values directly; theta is then a fraction of the baseline, not of a logarithm."""
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
    if changed := question_changes(baseline.metric, baseline.contract, screen.metric, screen.contract):
        reason = f"the test no longer measures what the baseline recorded: {'; '.join(changed)}"
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
        return "machine code, geometry and scalars are the baseline's own: this code did not change"
    return ""


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


# --------------------------------------------------------------------------- the estimate


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """A noisy metric's change, in logs where positive is worse, with both figures in the metric's unit.

    ``change`` is d, ``half_width`` h; ``margin`` is what a change needs beyond the limit to clear it
    with probability 95 %, if the spread is the one seen.
    """

    baseline: float
    now: float
    change: float
    half_width: float
    margin: float


@dataclass(frozen=True, slots=True, kw_only=True)
class RunsEstimate(Estimate):
    """The moderated t statistic; ``each`` are the runs' own d."""

    each: tuple[float, ...]
    baseline_runs: int


def judged_runs(runs: Sequence[Run], unit: str | None, tolerance: float = OWN_UNIT_BELOW) -> tuple[Run, ...]:
    """Select the runs that the GPU ``unit`` is held to: its own if there are MIN_RUNS of them, else all.

    Below a tolerance of OWN_UNIT_BELOW never others'. Its own runs say most: another unit's offset would
    hide a loss or look like one.
    """
    own = tuple(run for run in runs if unit and run.environment.get("device_uuid") == unit)
    return own if len(own) >= MIN_RUNS or tolerance < OWN_UNIT_BELOW else tuple(runs)


def estimate(
    metric: Metric, prior_sd: float, runs: Sequence[Run], now: Sequence[Measurement], alpha: float
) -> RunsEstimate:
    """Estimate the change; the instrument moderates its spread (Smyth 2004, doi:10.2202/1544-6115.1027).

    s^2 = (d0 s0^2 + (R-1) s_b^2 + (K-1) s_c^2) / (d0 + R + K - 2), h = t(1-alpha) s sqrt(1/R + 1/K).
    """
    from scipy.special import stdtrit

    sign = 1.0 if metric.better == "lower" else -1.0
    old_logs = [math.log(run.value) for run in runs]
    new_logs = [math.log(measurement.value) for measurement in now]
    old_mean, new_mean = math.fsum(old_logs) / len(old_logs), math.fsum(new_logs) / len(new_logs)
    squares = math.fsum((y - old_mean) ** 2 for y in old_logs)
    squares += math.fsum((y - new_mean) ** 2 for y in new_logs)
    freedom = PRIOR_DF + len(old_logs) + len(new_logs) - 2
    spread = math.sqrt((PRIOR_DF * prior_sd**2 + squares) / freedom)

    # What could have been detected depends on the replicas that a slower measurement would have called for.
    confirming = len(new_logs) if len(new_logs) > 1 else REPLICAS
    confirming_freedom = PRIOR_DF + len(old_logs) + confirming - 2
    quantiles = float(stdtrit(confirming_freedom, 1 - alpha)) + float(stdtrit(confirming_freedom, POWER))
    return RunsEstimate(
        baseline=bounded_exp(old_mean),
        now=bounded_exp(new_mean),
        change=sign * (new_mean - old_mean),
        each=tuple(sign * (y - old_mean) for y in new_logs),
        half_width=float(stdtrit(freedom, 1 - alpha))
        * spread
        * math.sqrt(1 / len(old_logs) + 1 / len(new_logs)),
        margin=quantiles * spread * math.sqrt(1 / len(old_logs) + 1 / confirming),
        baseline_runs=len(old_logs),
    )


def bounded_exp(exponent: float) -> float:
    """Return e ** exponent, at most what a float can hold: absurd but finite input must not overflow."""
    return math.exp(min(exponent, _MAX_EXPONENT))
