"""Judge one metric that two revisions measured in alternation on one machine.

Processes run in blocks of this - other - other - this, so that a machine that grows slower or faster
steadily moves both sides of a block alike. After some blocks, fixed in advance, one looks and stops where the
answer is plain; docs/verdicts.md explains the rule and says where its constants come from.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

from pytest_gpuperf.measurement import Baseline, Measurement, Outcome, Run, Verdict
from pytest_gpuperf.rules.case import BLOCKS, Compared
from pytest_gpuperf.rules.differences import question_changes
from pytest_gpuperf.rules.estimate import POWER, Estimate, bounded_exp, prior_sd
from pytest_gpuperf.rules.student import noncentrality, quantile
from pytest_gpuperf.rules.verdict import check_samples, checked_tolerance, conclude
from pytest_gpuperf.rules.verdict import judge as judge_against_baseline
from pytest_gpuperf.text import counted

PER_BLOCK = 2
"""Processes of each side in a block."""
LOOK_ALPHA = 0.0015
"""The chance, one-sided, of a red at one look for a metric exactly at its tolerance: at most 0.5 % over all
four, by simulation (tests/test_paired.py)."""
GREEN_ALPHA = 0.01
"""The chance, one-sided, of calling a metric exactly at its tolerance no loss at one look."""
LAST_ALPHA = 0.05
"""The chance by which an unchanged metric beyond its tolerance after the last look is called inconclusive
rather than the machine unfit."""

_NOT_FIT = "the machine was not fit to measure: "


def looks(blocks: int) -> tuple[int, ...]:
    """Return the numbers of blocks after which one looks, the last being ``blocks``."""
    return (*(number for number in (2, 3, 4) if number < blocks), blocks)


def judge_compared(measured: Measurement, found: Compared, tolerance: float | None) -> Verdict:
    """Decide one metric of a test that this checkout passes; ``measured`` is its first figure here."""
    metric, now = measured.metric, measured.value
    if metric.kind == "shown":
        return Verdict(Outcome.SHOWN, now=now)
    if found.no_answer:
        borrowed = found.borrowed and not found.why_not
        outcome = Outcome.UNMEASURED if borrowed else Outcome.NO_BASELINE
        return Verdict(outcome, now=now, reason=found.no_answer)
    if not (found.here and found.there):
        return Verdict(Outcome.UNFIT, now=now, reason=_NOT_FIT + found.kept_from)
    result = judge(found.here, found.there, tolerance=tolerance, blocks=found.blocks)
    undecided = result.outcome is Outcome.INCONCLUSIVE
    unfit = found.unfit if undecided or result.outcome is Outcome.REGRESSED else ""
    if metric.kind == "noisy" and (unfit or (undecided and found.kept_from)):
        return replace(result, outcome=Outcome.UNFIT, reason=_NOT_FIT + (unfit or found.kept_from))
    return result


def judge(
    here: Sequence[Measurement],
    there: Sequence[Measurement],
    *,
    tolerance: float | None,
    blocks: int = BLOCKS,
) -> Verdict:
    """Decide one metric of one test, measured by this checkout (``here``) and by another (``there``).

    Both in the order of time, ``PER_BLOCK`` a block, of complete blocks only; an exact metric needs one
    of each. The first look that decides counts, and ``blocks`` is the last one; with fewer blocks than it the
    verdict of an undecided metric is `inconclusive`. ``Verdict.baseline`` is the other side's figure.
    ``tolerance`` None means the instrument's own. Raises GpuperfError for samples or a tolerance that cannot
    be judged, ValueError where the sides do not have the same blocks.
    """
    metric = here[0].metric
    if metric.kind == "shown":
        return Verdict(Outcome.SHOWN, now=here[0].value)
    theta = checked_tolerance(metric, tolerance)
    for measurement in (*here, *there):
        check_samples(metric, measurement.samples, "measured")
    if changed := _changed(here, there):
        return Verdict(Outcome.CONTRACT_CHANGED, now=here[0].value, tolerance=theta, reason=changed)
    if metric.kind == "exact":
        return _judge_exact(here, there, theta)
    if len(here) != len(there) or len(here) % PER_BLOCK:
        raise ValueError(f"{len(here)} and {len(there)} processes are not the same complete blocks")
    if found := _first_decision(here, there, theta, blocks):
        return found
    count = min(len(here), blocks * PER_BLOCK)
    return _after_last_look(here[:count], there[:count], theta, blocks)


def decided(found: Compared, tolerance: float | None) -> bool:
    """Return whether no further block could change what is said of a metric.

    ``found`` has the blocks so far; of what cannot be judged none is waited for.
    """
    if found.why_not or found.borrowed:
        return True
    had, blocks = len(found.here) // PER_BLOCK, found.blocks
    if had >= blocks:
        return True
    if had not in looks(blocks):
        return False
    if len(found.here) != len(found.there) or _changed(found.here, found.there):
        return True
    theta = checked_tolerance(found.here[0].metric, tolerance)
    return _first_decision(found.here, found.there, theta, blocks) is not None


def _first_decision(
    here: Sequence[Measurement], there: Sequence[Measurement], theta: float, blocks: int
) -> Verdict | None:
    """Return the verdict of the first look that decides; None if more blocks are needed to tell."""
    for count in (look * PER_BLOCK for look in looks(blocks)):
        if count <= len(here) and (found := _look(here[:count], there[:count], theta, blocks)):
            return found
    return None


def _look(
    here: Sequence[Measurement], there: Sequence[Measurement], theta: float, blocks: int
) -> Verdict | None:
    estimate = _estimate(here, there, LOOK_ALPHA, blocks)
    red = _conclude(here, there, theta, estimate, confirmed=True)
    if red.outcome is Outcome.REGRESSED:
        return red
    estimate = _estimate(here, there, GREEN_ALPHA, blocks)
    green = _conclude(here, there, theta, estimate)
    within = estimate.change + estimate.half_width < math.log1p(theta)
    return green if within or green.outcome is Outcome.EQUAL else None


def _after_last_look(
    here: Sequence[Measurement], there: Sequence[Measurement], theta: float, blocks: int
) -> Verdict:
    """Say what a metric comes to that no look decided."""
    had = len(here) // PER_BLOCK
    if had < blocks:
        undecided = _conclude(here, there, theta, _estimate(here, there, LOOK_ALPHA, blocks))
        reason = f"{counted(had, 'complete block')}, and no verdict after them"
        return replace(undecided, outcome=Outcome.INCONCLUSIVE, reason=reason)
    found = _estimate(here, there, LAST_ALPHA, blocks)
    last = _conclude(here, there, theta, found)
    if last.exceeds and found.change - found.half_width <= 0:
        reason = f"after {had} blocks, processes of one code still differ by more than the two sides do"
        return replace(last, outcome=Outcome.UNFIT, reason=reason)
    return last


def _conclude(
    here: Sequence[Measurement],
    there: Sequence[Measurement],
    theta: float,
    estimate: Estimate,
    *,
    confirmed: bool = False,
) -> Verdict:
    return conclude(here[0], estimate, theta, _code_note(here, there), "", confirmed=confirmed, detects=True)


def block_differences(here: Sequence[Measurement], there: Sequence[Measurement]) -> list[float]:
    """Return each block's difference of mean log medians, positive where this checkout is worse."""
    return [
        math.fsum(a) / PER_BLOCK - math.fsum(b) / PER_BLOCK
        for a, b in zip(_blocks(here), _blocks(there), strict=True)
    ]


def _blocks(side: Sequence[Measurement]) -> list[list[float]]:
    sign = 1.0 if side[0].metric.better == "lower" else -1.0
    logs = [sign * math.log(measurement.value) for measurement in side]
    return [logs[start : start + PER_BLOCK] for start in range(0, len(logs), PER_BLOCK)]


def _estimate(
    here: Sequence[Measurement], there: Sequence[Measurement], alpha: float, blocks: int
) -> Estimate:
    """Estimate the difference over N blocks, never more surely than the instrument's own spread allows.

    D_j is a block's difference, W_j = ((A4-A1)^2 + (B3-B2)^2) / 2 what its sides vary within themselves, and
    Q = sum (D_j - D)^2 + sum W_j has 3N - 1 degrees of freedom. The instrument's d0 s0^2 guards against
    processes that agree by luck; on a machine that is noisier than the instrument it would make the interval
    too narrow, so that Student's own counts where it is the wider one:
    h = max(t(3N-1) sqrt(Q/(3N-1)), t(d0+3N-1) sqrt((d0 s0^2 + Q)/(d0+3N-1))) / sqrt N.
    """
    metric, each = here[0].metric, block_differences(here, there)
    count, change = len(each), math.fsum(each) / len(each)
    squares = math.fsum((d - change) ** 2 for d in each)
    squares += math.fsum((last - first) ** 2 / 2 for side in (here, there) for first, last in _blocks(side))
    baseline, now = _centre(there), _centre(here)
    prior = metric.constants.prior_df * prior_sd(metric, baseline, here[0].divided) ** 2
    freedom, prior_df = 3 * count - 1, metric.constants.prior_df
    spreads = {
        0: math.sqrt(squares / freedom),
        prior_df: math.sqrt((prior + squares) / (freedom + prior_df)),
    }
    half_width = max(
        quantile(freedom + extra, 1 - alpha) * spread / math.sqrt(count) for extra, spread in spreads.items()
    )
    last = 3 * blocks - 1
    margin = max(
        # Few blocks make h itself so uncertain that only the noncentral t says what it lets through.
        noncentrality(last + extra, 1 - POWER, quantile(last + extra, 1 - LOOK_ALPHA))
        * spread
        / math.sqrt(blocks)
        for extra, spread in spreads.items()
    )
    return Estimate(
        baseline=baseline,
        now=now,
        change=change,
        half_width=half_width,
        noise=half_width,
        margin=margin,
    )


def _judge_exact(here: Sequence[Measurement], there: Sequence[Measurement], theta: float) -> Verdict:
    for measurements, whose in ((here, "this checkout"), (there, "the other revision")):
        values = sorted({measurement.value for measurement in measurements})
        if len(values) > 1:
            reason = f"it is exact, and the processes of {whose} differ: {values}"
            return Verdict(Outcome.UNMEASURED, now=here[0].value, tolerance=theta, reason=reason)
    runs = tuple(Run(measurement.samples, {}, measurement.code) for measurement in there)
    other = Baseline(here[0].metric, here[0].contract, {}, 0.0, runs)
    return judge_against_baseline(other, here[0], tolerance=theta, place={})


def _changed(here: Sequence[Measurement], there: Sequence[Measurement]) -> str:
    for first, *again in (here, there):
        for other in again:
            if changed := question_changes(first.metric, first.contract, other.metric, other.contract):
                return f"processes of the same revision measured different things: {'; '.join(changed)}"
    old, new = there[0], here[0]
    if changed := question_changes(old.metric, old.contract, new.metric, new.contract):
        return f"the other revision's test measures something else: {'; '.join(changed)}"
    return ""


def _code_note(here: Sequence[Measurement], there: Sequence[Measurement]) -> str:
    runs = tuple(Run(m.samples, {}, m.code) for m in (*here, *there))
    if here[0].same_code(runs):
        return "machine code, geometry, scalars and inputs are the same in both revisions"
    return ""


def _centre(measurements: Sequence[Measurement]) -> float:
    return bounded_exp(math.fsum(math.log(m.value) for m in measurements) / len(measurements))
