"""From a test's measurements to its verdicts: the screen, the replicas, and what fails the test."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import TypeVar

import pytest

from pytest_gpuperf import absent
from pytest_gpuperf.measurement import Baseline, Measurement, Outcome, TestKey, Verdict
from pytest_gpuperf.options import test_options
from pytest_gpuperf.records import Cause, Record, Row, payload_of
from pytest_gpuperf.replicas import run_child
from pytest_gpuperf.session import JUDGED, GpuperfSession

T = TypeVar("T")

STRICT_CAUSE: Mapping[Outcome, Cause] = {
    Outcome.REGRESSED: "wrong",
    Outcome.CONTRACT_CHANGED: "wrong",
    Outcome.UNMEASURED: "wrong",
    Outcome.MISSING: "wrong",
    Outcome.UNFIT: "infrastructure",
    Outcome.NO_BASELINE: "setup",
}


def judge(session: GpuperfSession, item: pytest.Item, record: Record) -> tuple[Row, ...]:
    """Every metric of one passed test, judged; measures again in replicas where the screen trips.

    The caller has given the test's memory and the device lock back: replicas need both.
    """
    from pytest_gpuperf import verdict

    key = session.key(item.nodeid)
    marker, pool, rules = test_options(item).tolerance, session.pool(record), session.options.rules
    stored = session.store(item.path).load(pool, key.suite).get(key.name, {})
    uuid = record.environment.get("device_uuid")

    def ask(function: Callable[..., T], measurement: Measurement, *replicas: list[Measurement]) -> T:
        place = record.place(measurement.metric)
        baseline = stored.get(measurement.metric.name)
        tolerance = rules.tolerance(marker, measurement.metric, pool)
        return function(baseline, measurement, *replicas, tolerance=tolerance, place=place, device_uuid=uuid)

    tripped = [m for m in record.measurements if not ask(verdict.screen, m)]
    replicas, trouble = _replicate(session, item, record) if tripped else ([], "")
    rows = []
    for measurement in record.measurements:
        metric = measurement.metric
        again = (
            [found for r in replicas if (found := r.measurement(metric.name))]
            if measurement in tripped
            else []
        )
        decided: Verdict = ask(verdict.judge, measurement, again)
        if measurement in tripped:
            decided = _with_circumstances(decided, trouble, [r.unfit for r in replicas] or [record.unfit])
        rows.append(Row(key, metric, decided, measurement.details, _command(session, item)))
    return (*rows, *_unmeasured(session, item, key, record, stored))


def _replicate(session: GpuperfSession, item: pytest.Item, record: Record) -> tuple[list[Record], str]:
    """The test measured again in fresh processes; the words of the first one that did not manage."""
    from pytest_gpuperf import verdict

    records: list[Record] = []
    session.free_memory()
    for _ in range(verdict.REPLICAS):
        result = run_child(session.config, session.options, [item], {item.nodeid: record.batches})
        reports = result.of(item.nodeid)
        found = next((p.record for r in reports if (p := payload_of(r)).record), None)
        if found is None or any(report.failed for report in reports):
            failed = next((_crash(report) for report in reports if report.failed), result.output[-400:])
            return records, result.trouble or f"failed: {failed}"
        records.append(found)
    return records, ""


def _crash(report: pytest.TestReport) -> str:
    """What a failed report says in one line."""
    crash = getattr(report.longrepr, "reprcrash", None)
    return (crash.message if crash else report.longreprtext).strip().partition("\n")[0]


def _with_circumstances(decided: Verdict, trouble: str, unfit: Sequence[str]) -> Verdict:
    """Only replicas that ran, on a machine fit to measure, clear or confirm a tripped screen."""
    if trouble:
        reason = f"measured worse once, and a process that measured it again {trouble}"
        return replace(decided, outcome=Outcome.UNMEASURED, reason=reason)
    causes = [why for why in unfit if why]
    if causes and decided.outcome in (Outcome.REGRESSED, Outcome.INCONCLUSIVE):
        return replace(
            decided, outcome=Outcome.UNFIT, reason=f"the machine was not fit to measure: {causes[0]}"
        )
    return decided


def _unmeasured(
    session: GpuperfSession, item: pytest.Item, key: TestKey, record: Record, stored: Mapping[str, Baseline]
) -> list[Row]:
    names = {measurement.metric.name for measurement in record.measurements}
    reason = "in the baseline, but this run of the test did not record it"
    return [
        Row(
            key,
            baseline.metric,
            Verdict(Outcome.UNMEASURED, baseline=baseline.value, reason=reason),
            command=_command(session, item),
        )
        for name, baseline in stored.items()
        if name not in names
    ]


def close(session: GpuperfSession, complete: bool) -> None:
    """The end of a run: what the baselines hold and nobody measured, and what strict cannot let pass."""
    if complete:
        session.rows += absent.rows(session)
    if not session.options.strict:
        return
    for row in session.rows:
        if row.verdict.outcome is Outcome.MISSING or (
            row.verdict.outcome is Outcome.UNMEASURED and not row.command
        ):
            session.finding(
                "wrong", f"{row.test}: {row.metric.name} {row.verdict.outcome}: {row.verdict.reason}"
            )
    for suite in _emulated_instead(session):
        session.finding(
            "setup", f"{suite} has CUDA baselines, but backend auto found no device and emulated it"
        )
    if not any(row.verdict.outcome in JUDGED for row in session.rows):
        session.finding("setup", "nothing was judged in this run")


def _emulated_instead(session: GpuperfSession) -> list[str]:
    """Suites that backend auto emulated although a real device's baselines exist for them."""
    if session.options.backend != "auto":
        return []
    emulated = {n for n, r in session.records.items() if r.device.get("backend") == "emulated"}
    found = set()
    for nodeid in emulated:
        key, store = session.key(nodeid), session.store(session.path(nodeid))
        for pool in store.pools():
            if pool != "emulated" and key.name in store.load(pool, key.suite):
                found.add(key.suite)
    return sorted(found)


def cause_of(row: Row, strict: bool) -> Cause | None:
    """Why a row fails its test; None where it does not."""
    verdict = row.verdict
    # an unconfirmed trip of the screen is no pass either
    if verdict.outcome is Outcome.REGRESSED or (verdict.outcome is Outcome.UNMEASURED and verdict.exceeds):
        return "wrong"
    if not strict:
        return None
    if verdict.outcome is Outcome.INCONCLUSIVE:
        return "wrong" if verdict.exceeds else None
    return STRICT_CAUSE.get(verdict.outcome)


def worst(causes: Sequence[Cause]) -> Cause:
    """The cause that decides the exit code: a fault of the change, before set-up, before the machine."""
    order: tuple[Cause, ...] = ("wrong", "setup", "infrastructure")
    return next(cause for cause in order if cause in causes)


def _command(session: GpuperfSession, item: pytest.Item) -> str:
    import shlex

    return f"pytest {shlex.quote(item.nodeid)} --gpuperf"
