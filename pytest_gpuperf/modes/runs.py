"""Take runs in fresh processes, and make baselines of what they recorded."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

import pytest

from pytest_gpuperf.marker import by_process
from pytest_gpuperf.measurement import Baseline, Measurement, Run
from pytest_gpuperf.records import Cause, Record, payload_of
from pytest_gpuperf.rules.differences import question_changes
from pytest_gpuperf.session import GpuperfSession
from pytest_gpuperf.text import counted


class NotRecorded(Exception):
    """Raised for measurements that cannot become a baseline, with the cause for the exit code."""

    def __init__(self, why: str, cause: Cause = "wrong") -> None:
        super().__init__(why)
        self.cause: Cause = cause


def fresh_runs(
    session: GpuperfSession, items: Sequence[pytest.Item], count: int, keep: Callable[[Record], Record]
) -> Iterator[dict[str, Record]]:
    """Yield what to ``keep`` of the records of ``count`` runs of ``items`` by node id, each run as it ends.

    Tests that ask for it get a process of their own. What fails becomes a finding.
    """
    results = session.results
    batches = by_process(items)
    tests = counted(len(items), "test")
    for number in range(1, count + 1 if items else 1):
        session.children.stage(f"recording run {number} of {count}, {tests}", number - 1, count)
        found: dict[str, Record] = {}
        for batch in batches:
            settled = {item.nodeid: results.records[item.nodeid].batches for item in batch}
            result = session.children.run_fit(batch, settled)
            for report in result.reports:
                payload = payload_of(report)
                if payload.record and report.passed and not result.crashed(report.nodeid):
                    found[report.nodeid] = keep(payload.record)
                elif report.failed:
                    text = f"failed in run {number}: {report.nodeid}: {report.longreprtext}"
                    results.finding(payload.cause or "wrong", text)
            crashes = (why for item in batch if (why := result.crashed(item.nodeid)))
            if trouble := result.trouble or next(crashes, ""):
                results.finding("wrong", f"run {number}: the process {trouble}; {result.last_words}")
        session.children.live.clear()
        yield found


def baselines_of(first: Record, replicas: Sequence[Record], wanted: int) -> dict[str, Baseline]:
    """Return a test's baselines by metric: what ``wanted`` processes recorded of ``first``'s metrics.

    Raises NotRecorded if they lack a noisy metric or have another, differ in an exact one, or were not fit.
    """
    found = {}
    names = [m.metric.name for r in replicas for m in r.measurements if m.metric.kind != "shown"]
    if more := [name for name in names if not first.measurement(name)]:
        times = names.count(more[0])
        raise NotRecorded(f"{more[0]} was measured in {times} of {wanted} processes, and not at first")
    for measurement in first.measurements:
        metric = measurement.metric
        if metric.kind == "shown":
            continue
        again = [m for r in replicas if (m := r.measurement(metric.name))]
        if others := [changes for m in again if (changes := _changes(measurement, m))]:
            raise NotRecorded(f"{metric.name} is another figure in another process: {', '.join(others[0])}")
        if metric.kind == "exact":
            if any(m.value != measurement.value for m in again):
                values = sorted({measurement.value, *(m.value for m in again)})
                raise NotRecorded(f"{metric.name} is exact, and processes differ: {values}")
            kept = [_run(measurement, first)]
        else:
            _check(measurement, again, replicas, wanted)
            kept = [_run(m, r) for m, r in zip(again, replicas, strict=True)]
        found[metric.name] = Baseline(
            metric, measurement.contract, first.place(metric), metric.constants.prior_sd, tuple(kept)
        )
    return found


def _changes(first: Measurement, other: Measurement) -> list[str]:
    """List what a process measured otherwise; the host's gaps in a time in one of them are no matter."""
    theirs = replace(other.metric, instrument=first.metric.instrument)
    return question_changes(first.metric, first.contract, theirs, other.contract)


def _check(first: Measurement, again: Sequence[Measurement], replicas: Sequence[Record], wanted: int) -> None:
    if len(again) < wanted or len(again) != len(replicas):
        # a process that failed is a finding with a cause of its own already
        cause: Cause = "wrong" if len(again) != len(replicas) else "infrastructure"
        raise NotRecorded(f"{first.metric.name} was measured in {len(again)} of {wanted} processes", cause)
    if unfit := [record.unfit for record in replicas if record.unfit]:
        raise NotRecorded(f"the machine was not fit to measure: {unfit[0]}", "infrastructure")


def _run(measurement: Measurement, record: Record) -> Run:
    return Run(measurement.samples, record.environment, measurement.code)
