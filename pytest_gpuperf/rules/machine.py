"""Decide what the machine explains: unfit replicas, and a device that its sentinels show to be slower now."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from statistics import median
from typing import Any, NamedTuple

from pytest_gpuperf.constants import LAUNCH_SENTINEL, SENTINELS
from pytest_gpuperf.measurement import Baseline, Measurement, Metric, Outcome, Run, Verdict
from pytest_gpuperf.records import Record
from pytest_gpuperf.rules.case import Replicas
from pytest_gpuperf.rules.estimate import RunsEstimate, bounded_exp, estimate

MOVED = 1 / 8
"""The part of a metric's tolerance by which a sentinel must be slower, with its whole interval, to excuse
anything. A choice: what several small shifts add up to then stays below the tolerance."""


def allow_for_machine(
    decided: Verdict, metric: Metric, baseline: Baseline | None, record: Record, replicas: Replicas
) -> Verdict:
    """Return the verdict on a test that was measured again, as far as the machine lets it stand.

    ``record`` is the test's own measurement, ``decided`` the verdict on the replicas. Only replicas that
    ran, on a machine that was fit and is no slower than it was, confirm or clear a regression.
    """
    if replicas.trouble:
        reason = f"measured worse once, and a process that measured it again {replicas.trouble}"
        return replace(decided, outcome=Outcome.UNMEASURED, reason=reason)
    if replicas.unfit:
        return replace(decided, outcome=Outcome.UNFIT, reason=replicas.unfit)
    if decided.outcome not in (Outcome.REGRESSED, Outcome.INCONCLUSIVE):
        return decided
    if causes := [each.unfit for each in replicas.records or [record] if each.unfit]:
        reason = f"the machine was not fit to measure: {causes[0]}"
        return replace(decided, outcome=Outcome.UNFIT, reason=reason)
    return _excused(decided, metric, baseline, replicas.records)


def _excused(
    decided: Verdict, metric: Metric, baseline: Baseline | None, replicas: Sequence[Record]
) -> Verdict:
    """Turn a device's own time into `unfit` if the sentinels may explain its loss; a greater loss stands."""
    if metric.constants.where != "device" or not decided.exceeds or baseline is None or not replicas:
        return decided
    if not decided.baseline or not decided.interval:
        return decided
    environments, tolerance = [replica.environment for replica in replicas], decided.tolerance or 0.0
    seconds = decided.baseline if metric.unit == "s" else math.inf
    machine = slowdown(baseline, environments, tolerance, seconds)
    if machine is None:
        return decided
    if decided.outcome is Outcome.REGRESSED:
        least = math.log1p(metric.least_loss(decided.interval))
        if least > math.log1p(tolerance) + math.log1p(machine.share):
            excused = f"{machine.reason}; that excuses {100 * machine.share:.1f} % and no more"
            return decided.because(excused)
    return replace(decided, outcome=Outcome.UNFIT, reason=machine.reason)


class Slowdown(NamedTuple):
    """How much longer the machine may have made a metric's time, as a fraction (``share``)."""

    reason: str
    share: float


class _Sentinel(NamedTuple):
    """A sentinel's change: its estimate, and the medians then and now."""

    name: str
    found: RunsEstimate
    clocks: str

    def loss(self, offset: float) -> tuple[float, float]:
        """Return the lower and the upper end of its loss as a fraction, without ``offset`` seconds of it."""
        change, width = self.found.change, self.found.noise
        part = offset / self.found.baseline
        return bounded_exp(change - width) - 1 - part, bounded_exp(change + width) - 1 - part


def slowdown(
    baseline: Baseline, replicas: Sequence[Mapping[str, Any]], tolerance: float, seconds: float
) -> Slowdown | None:
    """Return what the machine's slowdown costs a metric of ``seconds``; None if no sentinel got slower.

    ``replicas`` are the environments of the processes that confirmed a regression. A launch that starts
    later costs every kernel the same seconds, a lower clock the same share: so the loss of the empty launch
    (O, in seconds) is taken out of the other two first, the larger of their shares is S, and the metric may
    have lost S + O / seconds. Each counts at its interval's upper end if the lower one is beyond MOVED of the
    tolerance. A sentinel that got faster excuses nothing, nor does one of other machine code (another nvcc
    compiled it) or one that the baseline's runs lack.
    """
    least = MOVED * tolerance
    offset, most = _launch_offset(baseline, replicas, least * seconds)
    every = [found for name in SENTINELS if (found := _sentinel(name, baseline, replicas))]
    slower = [each for each in every if each.loss(offset)[0] > least]
    if not slower and not most:
        return None
    share = max((each.loss(offset)[1] for each in slower), default=0.0)
    reasons = [
        f"a kernel that never changes, bound by {SENTINELS[each.name]}, takes "
        f"{100 * (bounded_exp(each.found.change) - 1):+.2f} % against the baseline's runs{each.clocks}"
        for each in slower
    ]
    if most:
        reasons.append(f"a launch takes {1e6 * offset:+.2f} µs against the baseline's runs")
    return Slowdown(f"the machine moved: {'; '.join(reasons)}", share + most / seconds)


def _launch_offset(
    baseline: Baseline, replicas: Sequence[Mapping[str, Any]], least: float
) -> tuple[float, float]:
    """Return how many seconds later a launch starts, and what that may excuse: 0 below ``least`` seconds."""
    launch = _sentinel(LAUNCH_SENTINEL, baseline, replicas)
    if launch is None:
        return 0.0, 0.0
    reference, low_and_high = launch.found.baseline, launch.loss(0.0)
    low, high = (reference * share for share in low_and_high)
    offset = max(0.0, reference * (bounded_exp(launch.found.change) - 1))
    return offset, high if low > least else 0.0


def _sentinel(name: str, baseline: Baseline, replicas: Sequence[Mapping[str, Any]]) -> _Sentinel | None:
    metric = Metric(f"sentinel {name}", "s", "lower", "noisy", "device_time")
    now = [taken for environment in replicas if name in (taken := environment.get("sentinels", {}))]
    codes = {taken.get("code") for taken in now}
    old = [
        Run((taken[name],), run.environment)
        for run in baseline.runs
        if name in (taken := run.environment.get("sentinels", {})) and {taken.get("code")} == codes
    ]
    if not old or len(now) < len(replicas):
        return None
    measured = [Measurement(metric, {}, (taken[name],)) for taken in now]
    return _Sentinel(name, estimate(measured, old, replicas[0]), _clocks(old, now))


def _clocks(old: Sequence[Run], now: Sequence[Mapping[str, Any]]) -> str:
    """Name the SM clock then and now, if it was read: the usual cause."""
    then = [clock for run in old if (clock := run.environment["sentinels"].get("sm_mhz"))]
    today = [clock for taken in now if (clock := taken.get("sm_mhz"))]
    if not then or not today:
        return ""
    return f" (SM clock {median(then):.0f} MHz then, {median(today):.0f} MHz now)"
