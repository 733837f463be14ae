"""What the machine has to say to a red: a process on an unfit one is repeated, a bounded number of times."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from pytest_gpuperf.measurement import Baseline, Metric, Outcome, Verdict
from pytest_gpuperf.processes.replicas import ChildResult, run_child
from pytest_gpuperf.records import Record, payload_of
from pytest_gpuperf.session import GpuperfSession

if TYPE_CHECKING:
    from pytest_gpuperf.judging.confirm import Replicas

AGAIN = 3
"""How often a process on an unfit machine is repeated: with the pause between, time for heat to go or for a
neighbour to finish, and still an end where it does not."""


def run_fit(
    session: GpuperfSession, items: Sequence[pytest.Item], batches: Mapping[str, Mapping[str, int]]
) -> ChildResult:
    """``run_child``, repeated for the tests that were measured on an unfit machine, AGAIN times at most.

    What is still unfit then comes back as it is: its records say so.
    """
    end = session.budget.end if session.budget else None
    result = run_child(session.config, session.options, items, batches, end=end)
    for _ in range(AGAIN):
        unfit = _unfit(result)
        if not unfit or result.trouble or (session.budget and session.budget.spent):
            break
        why, pause = next(iter(unfit.values())), session.options.cooldown
        session.progress(f"gpuperf: {why}; measuring {len(unfit)} test(s) again in {pause:g} s")
        time.sleep(pause)
        repeated = [item for item in items if item.nodeid in unfit]
        again = run_child(session.config, session.options, repeated, batches, end=end)
        kept = [report for report in result.reports if report.nodeid not in unfit]
        result = ChildResult(kept + again.reports, again.trouble, again.output)
    return result


def _unfit(result: ChildResult) -> dict[str, str]:
    """Node ids of the tests whose machine was not fit, and why not."""
    records = ((report.nodeid, payload_of(report).record) for report in result.reports)
    return {nodeid: record.unfit for nodeid, record in records if record and record.unfit}


def with_circumstances(
    decided: Verdict, metric: Metric, baseline: Baseline | None, record: Record, replicas: Replicas
) -> Verdict:
    """Only replicas that ran, on a machine that was fit and has not moved, clear or confirm a tripped screen.

    ``record`` is the screen's, ``decided`` the verdict on the replicas.
    """
    if replicas.trouble:
        reason = f"measured worse once, and a process that measured it again {replicas.trouble}"
        return replace(decided, outcome=Outcome.UNMEASURED, reason=reason)
    if replicas.unfit:
        return replace(decided, outcome=Outcome.UNFIT, reason=replicas.unfit)
    if decided.outcome not in (Outcome.REGRESSED, Outcome.INCONCLUSIVE):
        return decided
    causes = [each.unfit for each in replicas.records or [record] if each.unfit]
    if causes:
        reason = f"the machine was not fit to measure: {causes[0]}"
        return replace(decided, outcome=Outcome.UNFIT, reason=reason)
    return _excused(decided, metric, baseline, replicas.records)


def _excused(
    decided: Verdict, metric: Metric, baseline: Baseline | None, replicas: Sequence[Record]
) -> Verdict:
    """`unfit` for a red of a device's own time that the sentinels may explain; a greater loss stands."""
    if metric.constants.where != "device" or not decided.exceeds or baseline is None or not replicas:
        return decided
    from pytest_gpuperf.judging.slower import slower

    environments = [replica.environment for replica in replicas]
    tolerance, uuid = decided.tolerance or 0.0, environments[0].get("device_uuid")
    machine = slower(baseline, environments, tolerance, uuid)
    if machine is None:
        return decided
    if decided.outcome is Outcome.REGRESSED and decided.interval and decided.baseline:
        excused = machine.excuses(metric, decided.baseline)
        if metric.least_loss(decided.interval) > (1 + tolerance) * (1 + excused) - 1:
            return decided.because(f"{machine.reason}; that excuses {100 * excused:.1f} % and no more")
    return replace(decided, outcome=Outcome.UNFIT, reason=machine.reason)
