"""--gpuperf-update: fresh processes measure what the session measured, and the baselines are written."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import pytest

from pytest_gpuperf.errors import BaselineError
from pytest_gpuperf.judging.circumstances import run_fit
from pytest_gpuperf.measurement import Baseline, Measurement, Run
from pytest_gpuperf.records import Cause, Record, payload_of
from pytest_gpuperf.session import GpuperfSession, isolates


def record(session: GpuperfSession, items: Sequence[pytest.Item]) -> None:
    """Records a baseline of each metric that the selected tests measured, and says what was and was not.

    This session was the first process, which is not kept: on a cold machine it is slower than the
    rest. An exact metric needs one run, and every process must agree on it.
    """
    measured = [i for i in items if i.nodeid in session.records and session.outcomes[i.nodeid] == "passed"]
    noisy = [item for item in measured if _is_noisy(session.records[item.nodeid])]
    runs = list(fresh_runs(session, noisy, session.options.runs))
    updates: dict[tuple[Path, str, str], dict[str, dict[str, Baseline]]] = defaultdict(dict)
    for item in measured:
        first = session.records[item.nodeid]
        try:
            records = [run[item.nodeid] for run in runs if item.nodeid in run]
            baselines = baselines_of(first, records, len(runs))
        except NotRecorded as reason:
            session.finding(reason.cause, f"not recorded: {item.nodeid}: {reason}")
            continue
        if baselines:
            key = session.key(item.nodeid)
            updates[session.path(item.nodeid), session.pool(first), key.suite][key.name] = baselines
    if session.options.update == "replace":
        _drop_vanished(session, updates)
    for (path, pool, suite), tests in updates.items():
        _write(session, path, pool, suite, tests)
    if not updates and "infrastructure" not in session.causes:  # which is why, then
        session.finding("setup", "nothing was measured that a baseline could keep")


def _drop_vanished(
    session: GpuperfSession, updates: dict[tuple[Path, str, str], dict[str, dict[str, Baseline]]]
) -> None:
    """A full run that replaces drops the entries of tests that are no longer there, and says so."""
    from pytest_gpuperf.judging.absent import vanished

    for entry in vanished(session):
        updates[entry.path, entry.pool, entry.key.suite][entry.key.name] = {}
        session.note(f"Dropped the baseline of {entry.key}, which is no longer there")


class NotRecorded(Exception):
    """Why a test's measurements cannot become a baseline, and whose fault that is."""

    def __init__(self, why: str, cause: Cause = "wrong") -> None:
        super().__init__(why)
        self.cause: Cause = cause


def _is_noisy(record: Record) -> bool:
    return any(measurement.metric.kind == "noisy" for measurement in record.measurements)


def fresh_runs(
    session: GpuperfSession, items: Sequence[pytest.Item], count: int
) -> Iterator[dict[str, Record]]:
    """Node ids to records, one mapping a run, as each ends; tests that ask for it get their own process."""
    together = [item for item in items if not isolates(item)]
    batches = [batch for batch in (together, *([item] for item in items if isolates(item))) if batch]
    for number in range(1, count + 1 if items else 1):
        session.progress(f"gpuperf: recording run {number} of {count}, {len(items)} tests")
        found: dict[str, Record] = {}
        for batch in batches:
            settled = {item.nodeid: session.records[item.nodeid].batches for item in batch}
            result = run_fit(session, batch, settled)
            for report in result.reports:
                payload = payload_of(report)
                if payload.record and report.passed:
                    found[report.nodeid] = payload.record
                elif report.failed:
                    text = f"failed in run {number}: {report.nodeid}: {report.longreprtext}"
                    session.finding(payload.cause or "wrong", text)
            if result.trouble:
                session.finding(
                    "wrong", f"run {number}: the process {result.trouble}: {result.output[-500:]}"
                )
        yield found


def baselines_of(first: Record, replicas: Sequence[Record], wanted: int) -> dict[str, Baseline]:
    """A test's baselines by metric: what ``wanted`` processes recorded, of ``first``'s metrics.

    Raises NotRecorded where they lack a noisy metric, differ in an exact one, or were not fit.
    """
    found = {}
    for measurement in first.measurements:
        metric = measurement.metric
        if metric.kind == "shown":
            continue
        again = [m for r in replicas if (m := r.measurement(metric.name))]
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


def _check(first: Measurement, again: Sequence[Measurement], replicas: Sequence[Record], wanted: int) -> None:
    if len(again) < wanted or len(again) != len(replicas):
        # a process that failed is a finding with a cause of its own already
        cause: Cause = "wrong" if len(again) != len(replicas) else "infrastructure"
        raise NotRecorded(f"{first.metric.name} was measured in {len(again)} of {wanted} processes", cause)
    if any(dict(m.contract) != dict(first.contract) for m in again):
        raise NotRecorded(f"{first.metric.name} has another contract in another process")
    if unfit := [record.unfit for record in replicas if record.unfit]:
        raise NotRecorded(f"the machine was not fit to measure: {unfit[0]}", "infrastructure")


def _run(measurement: Measurement, record: Record) -> Run:
    return Run(measurement.samples, record.environment, measurement.code)


def _write(
    session: GpuperfSession, path: Path, pool: str, suite: str, tests: dict[str, dict[str, Baseline]]
) -> None:
    mode, keep = session.options.update or "replace", session.options.rules.max_runs
    try:
        dropped = _beyond(session.store(path).load(pool, suite), tests, keep) if mode == "append" else 0
        written = session.store(path).save(pool, suite, tests, mode=mode, keep=keep)
    except BaselineError as error:
        session.finding("wrong", f"not recorded: {error}")
        return
    if written is None:
        session.note(f"nothing new to record in {pool}/{suite}")
        return
    metrics = sum(len(metrics) for metrics in tests.values())
    tests = {name: kept for name, kept in tests.items() if kept}
    session.note(f"Recorded {metrics} metric(s) of {len(tests)} test(s) in {_relative(session, written)}")
    if dropped:
        session.note(
            f"Dropped the oldest runs of {dropped} metric(s) there: a baseline keeps {keep} "
            "(ini key gpuperf_max_runs)"
        )


def _beyond(
    stored: Mapping[str, Mapping[str, Baseline]], tests: Mapping[str, Mapping[str, Baseline]], keep: int
) -> int:
    """How many metrics would have more runs than a baseline keeps."""
    counts = [
        len(old.runs) + len(baseline.runs)
        for test, metrics in tests.items()
        for name, baseline in metrics.items()
        if (old := stored.get(test, {}).get(name))
    ]
    return sum(count > keep for count in counts)


def _relative(session: GpuperfSession, path: Path) -> Path:
    here = session.config.invocation_params.dir
    return path.relative_to(here) if path.is_relative_to(here) else path
