"""Judge one metric that two revisions measured in alternation on one machine.

Processes run in blocks of this - other - other - this, so that a machine that grows slower or faster
steadily moves both sides of a block alike. A block's difference of mean log medians is one replicate;
docs/verdicts.md explains the rule and says where its constants come from.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

from pytest_gpuperf.measurement import Baseline, Measurement, Metric, Outcome, Run, Verdict
from pytest_gpuperf.rules.case import Compared
from pytest_gpuperf.rules.differences import question_changes
from pytest_gpuperf.rules.verdict import (
    ALPHA,
    POWER,
    PRIOR_DF,
    Estimate,
    bounded_exp,
    check_samples,
    checked_tolerance,
    conclude,
)
from pytest_gpuperf.rules.verdict import judge as judge_against_baseline

PER_BLOCK = 2
"""Processes of each side in a block."""
MIN_BLOCKS = 4
"""Blocks that a regression needs. With three, a code that runs in two modes could be confirmed by luck in
up to 1/64 of its runs (three blocks in which one process more was slow here: at most 1/4 each), with four in
1/256, which is below ALPHA."""


def judge_compared(measured: Measurement, found: Compared, tolerance: float | None) -> Verdict:
    """Decide one metric of a test that this checkout passes; ``measured`` is its first figure here."""
    metric, now = measured.metric, measured.value
    if metric.kind == "shown":
        return Verdict(Outcome.SHOWN, now=now)
    if found.why_not:
        return Verdict(Outcome.NO_BASELINE, now=now, reason=f"{found.revision} {found.why_not}")
    if found.borrowed:
        reason = (
            f"the processes of {found.revision} imported {', '.join(found.borrowed[:3])} from this checkout, "
            "so both sides ran the same code: put it on PYTHONPATH or the ini key pythonpath instead"
        )
        return Verdict(Outcome.UNMEASURED, now=now, reason=reason)
    if not found.there:
        return Verdict(Outcome.NO_BASELINE, now=now, reason=f"{found.revision} does not measure it")
    decided = judge(found.here, found.there, tolerance=tolerance)
    undecided = decided.outcome in (Outcome.REGRESSED, Outcome.INCONCLUSIVE)
    if found.unfit and metric.kind == "noisy" and undecided:
        reason = f"the machine was not fit to measure: {found.unfit}"
        return replace(decided, outcome=Outcome.UNFIT, reason=reason)
    return decided


def judge(
    here: Sequence[Measurement],
    there: Sequence[Measurement],
    *,
    tolerance: float | None,
    alpha: float = ALPHA,
) -> Verdict:
    """Decide one metric of one test, measured by this checkout (``here``) and by another (``there``).

    Both in the order of time, ``PER_BLOCK`` a block, of complete blocks only; an exact metric needs one
    of each. ``Verdict.baseline`` is the other side's figure. ``tolerance`` None means the instrument's
    own. Raises GpuperfError for samples or a tolerance that cannot be judged, ValueError where the sides
    do not have the same blocks.
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
    blocks = len(here) // PER_BLOCK
    enough, code = blocks >= MIN_BLOCKS, _code_note(here, there)
    found = _estimate(metric, here, there, alpha)
    decided = conclude(metric, found, theta, code, "", confirmed=enough, detects=enough)
    if enough:
        return decided
    reason = f"{blocks} complete block(s), and a verdict needs {MIN_BLOCKS}"
    return replace(decided, outcome=Outcome.INCONCLUSIVE, reason=reason)


def block_differences(here: Sequence[Measurement], there: Sequence[Measurement]) -> list[float]:
    """Return each block's difference of mean log medians, positive where this checkout is worse."""
    sign = 1.0 if here[0].metric.better == "lower" else -1.0
    logs = [math.log(h.value) - math.log(t.value) for h, t in zip(here, there, strict=True)]
    blocks = [logs[start : start + PER_BLOCK] for start in range(0, len(logs), PER_BLOCK)]
    return [sign * math.fsum(block) / PER_BLOCK for block in blocks]


def _estimate(
    metric: Metric, here: Sequence[Measurement], there: Sequence[Measurement], alpha: float
) -> Estimate:
    """Estimate the paired t interval over blocks, never narrower than the instrument's own spread makes it.

    Two processes a side make a block's standard deviation s0, that of one process. The moderated spread
    s^2 = (d0 s0^2 + (N-1) s_d^2) / (d0 + N-1) guards against blocks that agree by luck; on a machine that
    is noisier than the instrument it would be too small, so that Student's own interval counts where it is
    the wider one. h = max(t(1-alpha; N-1) s_d, t(1-alpha; d0+N-1) s) / sqrt(N).
    """
    from scipy.special import nctdtrinc, stdtrit

    each = block_differences(here, there)
    count, change = len(each), math.fsum(each) / len(each)
    squares = math.fsum((d - change) ** 2 for d in each)
    prior = PRIOR_DF * metric.constants.prior_sd**2
    candidates = [(PRIOR_DF + count - 1, (prior + squares) / (PRIOR_DF + count - 1))]
    if count > 1:
        candidates.append((count - 1, squares / (count - 1)))
    widths = []
    for freedom, variance in candidates:
        error = math.sqrt(variance / count)
        quantile = float(stdtrit(freedom, 1 - alpha))
        # Few blocks make h itself so uncertain that only the noncentral t says what it lets through.
        widths.append((quantile * error, float(nctdtrinc(freedom, 1 - POWER, quantile)) * error))
    half_width, margin = max(widths)
    baseline, now = _centre(there), _centre(here)
    return Estimate(baseline=baseline, now=now, change=change, half_width=half_width, margin=margin)


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
    if here[0].code is not None and len({m.code for m in (*here, *there)}) == 1:
        return "the kernel's machine code is the same in both revisions: this code did not change"
    return ""


def _centre(measurements: Sequence[Measurement]) -> float:
    return bounded_exp(math.fsum(math.log(m.value) for m in measurements) / len(measurements))
