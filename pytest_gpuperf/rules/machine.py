"""Decide what the machine explains: unfit replicas, and a device that its sentinels show to be slower now."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from statistics import median
from typing import Any, NamedTuple

from pytest_gpuperf.measurement import SENTINELS, Baseline, Measurement, Metric, Outcome, Run, Verdict
from pytest_gpuperf.records import Record
from pytest_gpuperf.rules.case import Replicas
from pytest_gpuperf.rules.verdict import judge

EXCUSED = 2
"""Times what the sentinels lost: a kernel may be hit harder than they are. A choice: on H100s in machines
with two of them the sentinel of memory takes 1.6 % longer, and thirteen kernels from -0.6 to +1.6 %."""


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
    environments = [replica.environment for replica in replicas]
    tolerance, uuid = decided.tolerance or 0.0, environments[0].get("device_uuid")
    machine = slowdown(baseline, environments, tolerance, uuid)
    if machine is None:
        return decided
    if decided.outcome is Outcome.REGRESSED and decided.interval and decided.baseline:
        excused = machine.excuses(metric, decided.baseline)
        if metric.least_loss(decided.interval) > (1 + tolerance) * (1 + excused) - 1:
            return decided.because(f"{machine.reason}; that excuses {100 * excused:.1f} % and no more")
    return replace(decided, outcome=Outcome.UNFIT, reason=machine.reason)


class Slowdown(NamedTuple):
    """The largest sentinel slowdown, as a fraction (``share``) and in ``seconds``."""

    reason: str
    share: float
    seconds: float

    def excuses(self, metric: Metric, baseline: float) -> float:
        """Return the greatest loss from ``baseline`` that may be the machine's, a fraction.

        EXCUSED times what the sentinels lost: as a share, as a lower clock costs, or in seconds, as a
        longer way to the first instruction does, whichever is more.
        """
        in_seconds = self.seconds / baseline if metric.unit == "s" else 0.0
        return EXCUSED * max(self.share, in_seconds)


def slowdown(
    baseline: Baseline,
    replicas: Sequence[Mapping[str, Any]],
    tolerance: float,
    device_uuid: str | None = None,
) -> Slowdown | None:
    """Return how much slower the machine is than it was for ``baseline``; None if no sentinel is slower.

    ``replicas`` are the environments of the processes that confirmed a regression. A sentinel got slower if
    d - h > log(1 + tolerance / 2), with d and h as in the verdict, from the same runs: half the tolerance,
    so that the machine alone cannot make a regression. One that got faster excuses nothing. Sentinels of
    other machine code (another nvcc compiled them) cannot be compared and are left out.
    """
    every = (_slowdown(name, baseline, replicas, tolerance, device_uuid) for name in SENTINELS)
    found = [each for each in every if each]
    if not found:
        return None
    most = max(found, key=lambda each: each.share)
    return most._replace(seconds=max(each.seconds for each in found))


def _slowdown(
    name: str, baseline: Baseline, replicas: Sequence[Mapping[str, Any]], tolerance: float, uuid: str | None
) -> Slowdown | None:
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
    stored = Baseline(metric, {}, {}, metric.constants.prior_sd, tuple(old))
    found = judge(stored, measured[0], measured, tolerance=tolerance, place={}, device_uuid=uuid)
    if found.interval is None or found.change is None or found.baseline is None:
        return None  # below OWN_UNIT_BELOW, and the baseline has no runs of this GPU
    low, high = found.interval
    if low <= tolerance / 2:
        return None
    reason = (
        f"the machine moved: a kernel that never changes, bound by {SENTINELS[name]}, takes "
        f"{100 * found.change:+.2f} % against the baseline's runs{_clocks(old, now)}"
    )
    return Slowdown(reason, high, high * found.baseline)


def _clocks(old: Sequence[Run], now: Sequence[Mapping[str, Any]]) -> str:
    """Name the SM clock then and now, if it was read: the usual cause."""
    then = [clock for run in old if (clock := run.environment["sentinels"].get("sm_mhz"))]
    today = [clock for taken in now if (clock := taken.get("sm_mhz"))]
    if not then or not today:
        return ""
    return f" (SM clock {median(then):.0f} MHz then, {median(today):.0f} MHz now)"
