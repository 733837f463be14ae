"""--gpuperf-against: tests judged against those of a git revision, measured here and now, in alternation."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import replace

import pytest

from pytest_gpuperf.errors import GpuperfError
from pytest_gpuperf.git import Revision, modified, toplevel
from pytest_gpuperf.judging import bounds, paired
from pytest_gpuperf.judging.quarantine import QUARANTINED
from pytest_gpuperf.judging.quarantine import excuse as quarantined
from pytest_gpuperf.measurement import Metric, Outcome, TestKey, Verdict
from pytest_gpuperf.options import test_options
from pytest_gpuperf.processes.comparison import Comparison, compare
from pytest_gpuperf.records import Cause, Payload, Record, Row
from pytest_gpuperf.session import JUDGED, GpuperfSession

_COMPARISON = pytest.StashKey[Comparison | GpuperfError]()
_NOT_COMPARED = (
    Outcome.NO_BASELINE,
    Outcome.CONTRACT_CHANGED,
    Outcome.MISSING,
    Outcome.UNMEASURED,
    Outcome.UNFIT,
)
_MEASURING = frozenset({"gpuperf", "counters", "benchmark", "loadgen"})


def measures(item: pytest.Item) -> bool:
    """Whether a test takes numbers, as far as its fixtures tell before it runs."""
    return bool(_MEASURING & set(getattr(item, "fixturenames", ())))


def own_reports(session: GpuperfSession, item: pytest.Item) -> list[pytest.TestReport]:
    """What this checkout's processes report of a test; the first test asked for has all of them measured.

    Raises GpuperfError where there is nothing to compare with.
    """
    comparison = _comparison(session, item.session.items)
    run = comparison.own(item.nodeid)
    reports = run.reports.get(item.nodeid, [])
    if trouble := run.trouble.get(item.nodeid):
        raise GpuperfError(f"this checkout {trouble}")
    if not reports:
        raise GpuperfError("the processes of this checkout did not report it; run it by itself to see why")
    return reports


def verdicts(session: GpuperfSession, item: pytest.Item, record: Record) -> tuple[str, Payload]:
    """The rows of a test, and where they fail it, the message and the cause."""
    from pytest_gpuperf.judging import gate
    from pytest_gpuperf.report.message import explain_compared

    comparison = _comparison(session, item.session.items)
    rows = _rows(session, item, comparison)
    failing = [(row, cause) for row in rows if (cause := cause_of(row, session.options.strict))]
    if not failing:
        return "", Payload(record, rows)
    processes = len(comparison.here) - 1
    texts = [explain_compared(row, record, str(comparison.revision), processes) for row, _ in failing]
    return "\n\n".join(texts), Payload(record, rows, gate.worst([cause for _, cause in failing]))


def cause_of(row: Row, strict: bool) -> Cause | None:
    """Why a row fails its test. What the revision lacks or asks otherwise is said, and is nobody's fault."""
    outcome = row.verdict.outcome
    if row.excuse:
        return None
    if outcome is Outcome.REGRESSED:
        return "wrong"
    if not strict:
        return None
    if outcome is Outcome.UNFIT:
        return "infrastructure"
    beyond = outcome is Outcome.INCONCLUSIVE and row.verdict.exceeds
    return "wrong" if beyond or outcome is Outcome.UNMEASURED else None


def close(session: GpuperfSession, revision: Revision) -> None:
    """The end of a run: what code was compared, and what strict cannot let pass."""
    top = toplevel(session.config.rootpath)
    if changed := modified(top):
        session.note(
            f"Compared with {revision}: this checkout as it lies, with {changed} file(s) not committed."
        )
    for row in session.rows:
        verdict = row.verdict
        if verdict.outcome in _NOT_COMPARED:
            # no red tells why, so that this line must; a reason that all metrics of a test share is said once
            session.note(f"{row.test}: {verdict.outcome}: {verdict.reason}")
    if session.options.strict and not any(row.verdict.outcome in JUDGED for row in session.rows):
        session.finding("setup", "nothing was judged in this run")


def judge_metric(comparison: Comparison, nodeid: str, metric: Metric, tolerance: float | None) -> Verdict:
    """One metric of a test that this checkout passes: the verdict, or why there is none."""
    revision = comparison.revision
    now = next(
        m.value for r in comparison.here if (c := r.record(nodeid)) and (m := c.measurement(metric.name))
    )
    if metric.kind == "shown":
        return Verdict(Outcome.SHOWN, now=now)
    if why := comparison.failure_there(nodeid):
        return Verdict(Outcome.NO_BASELINE, now=now, reason=f"{revision} {why}")
    if borrowed := comparison.borrowed(nodeid):
        reason = (
            f"the processes of {revision} imported {', '.join(borrowed[:3])} from this checkout, so that "
            "both sides ran the same code: put it on PYTHONPATH or the ini key pythonpath instead"
        )
        return Verdict(Outcome.UNMEASURED, now=now, reason=reason)
    noisy = metric.kind == "noisy"
    here, there = (comparison.series if noisy else comparison.every)(nodeid, metric.name)
    if not there:
        return Verdict(Outcome.NO_BASELINE, now=now, reason=f"{revision} does not measure it")
    decided = paired.judge(here, there, tolerance=tolerance)
    unfit = comparison.unfit(nodeid)
    if unfit and noisy and decided.outcome in (Outcome.REGRESSED, Outcome.INCONCLUSIVE):
        return replace(decided, outcome=Outcome.UNFIT, reason=f"the machine was not fit to measure: {unfit}")
    return decided


def _rows(session: GpuperfSession, item: pytest.Item, comparison: Comparison) -> tuple[Row, ...]:
    key, command = _key(session, item), _command(item, comparison.revision)
    record = comparison.here[0].record(item.nodeid)
    assert record is not None
    pool, marker = session.pool(record), test_options(item).tolerance
    uuid = str(record.environment.get("device_uuid"))
    excuse = QUARANTINED if quarantined(session, item.path, key, pool, [uuid]) else ""
    rows = []
    for m in record.measurements:
        tolerance = session.options.rules.tolerance(marker, m.metric, pool)
        decided = judge_metric(comparison, item.nodeid, m.metric, tolerance)
        here, _ = comparison.series(item.nodeid, m.metric.name)
        rows.append(Row(key, m.metric, bounds.judge(decided, m, here), m.details, command, excuse))
    old = comparison.there[0].record(item.nodeid)
    for lost in old.measurements if old else ():
        if lost.metric.kind != "shown" and record.measurement(lost.metric.name) is None:
            reason = f"{comparison.revision} measures it, and this checkout does not"
            rows.append(Row(key, lost.metric, Verdict(Outcome.MISSING, baseline=lost.value, reason=reason)))
    return tuple(rows)


def unforeseen(session: GpuperfSession, item: pytest.Item, record: Record) -> tuple[str, Payload]:
    """A test that measured in this process, since nothing told before it ran that it would."""
    reason = (
        "the test asks for its fixtures while it runs, so that it was not measured against the revision: "
        "name gpuperf, counters, benchmark or loadgen among its arguments"
    )
    rows = tuple(
        Row(_key(session, item), m.metric, Verdict(Outcome.UNMEASURED, now=m.value, reason=reason))
        for m in record.measurements
    )
    failing = [row for row in rows if cause_of(row, session.options.strict)]
    return (reason if failing else ""), Payload(record, rows, "wrong" if failing else None)


def _comparison(session: GpuperfSession, items: Sequence[pytest.Item]) -> Comparison:
    """The one comparison of this run, made when the first test needs it; its error, once and for all."""
    found = session.config.stash.get(_COMPARISON, None)
    if found is None:
        revisions = session.options.revisions
        assert revisions.against is not None
        try:
            measured = [item for item in items if measures(item)]
            found = compare(session, measured, revisions.against, revisions.blocks)
        except GpuperfError as error:
            found = error
        session.config.stash[_COMPARISON] = found
    if isinstance(found, GpuperfError):
        raise found
    return found


def _key(session: GpuperfSession, item: pytest.Item) -> TestKey:
    """The test's name; nothing is stored, so that a suite needs no folder of baselines above it."""
    try:
        return session.key(item.nodeid)
    except GpuperfError:
        suite, _, name = item.nodeid.partition("::")
        return TestKey(suite, name)


def _command(item: pytest.Item, revision: Revision) -> str:
    return f"pytest {shlex.quote(item.nodeid)} --gpuperf --gpuperf-against={shlex.quote(revision.name)}"
