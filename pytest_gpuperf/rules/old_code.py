"""Decide whether a loss is this change's or the machine's, by what the baseline's own code does now."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from pytest_gpuperf.figures import quantity
from pytest_gpuperf.measurement import Baseline, Outcome, Verdict
from pytest_gpuperf.records import Record, Row
from pytest_gpuperf.rules import paired
from pytest_gpuperf.rules.case import Case, Compared
from pytest_gpuperf.rules.differences import other_software, other_unit
from pytest_gpuperf.rules.stored import against_stored


def to_ask(case: Case, record: Record, rows: Sequence[Row]) -> dict[str, Baseline]:
    """Return the baselines, by metric, whose own code must be run here and now before ``rows`` stand.

    ``rows`` are those of the test's own measurement. Every noisy metric beyond its tolerance is asked about:
    no failure is spoken on stored runs alone, since a session's clock, one slow SM or another host move a
    known GPU too. An exact metric is where the software or the GPU is not the baseline's.
    """
    if not case.acquits:
        return {}
    names = [row.metric.name for row in rows if not row.excuse and _in_question(case, record, row)]
    return {name: case.stored[name] for name in names}


def _in_question(case: Case, record: Record, row: Row) -> bool:
    measured, name = record.measurement(row.metric.name), row.metric.name
    if measured is None or name not in case.stored or not row.verdict.exceeds:
        return False
    found = against_stored(case, record, measured)
    if row.metric.kind == "noisy":
        return found.exceeds  # and not beyond its own bound alone
    if measured.bounds.passed_by(measured.value):
        return False  # its own bound holds on whatever software
    return found.outcome is Outcome.REGRESSED and _other_machine(case, record, row)


def answers(compared: Compared | str | None) -> bool:
    """Return whether the old code could be compared, so that stored runs need not decide alone."""
    return isinstance(compared, Compared) and not compared.no_answer


def review(case: Case, record: Record, row: Row, asked: Compared | str | None) -> Row:
    """Return the row as ``asked``, what the baseline's own code does now or why it was not run, leaves it.

    A loss against the old code is this change's. Where there is none, and this checkout's processes are worse
    than the stored runs all the same, it is the machine's: what an unknown GPU measures is then as the
    comparison says, on other software it is `environment moved`, and else `unfit`, since a GPU that the
    baseline knows, with the software that it knows, is slower than it was.
    """
    measured = record.measurement(row.metric.name)
    if asked is None or row.excuse or measured is None:
        return row
    why_not = asked if isinstance(asked, str) else asked.no_answer
    if isinstance(asked, str) or why_not:
        unclear = row.verdict.outcome is Outcome.INCONCLUSIVE and row.verdict.exceeds
        if row.verdict.outcome is not Outcome.REGRESSED and not unclear:
            return row
        told = row.verdict.because(f"not compared with the baseline's own code: {why_not}")
        return replace(row, verdict=told)
    found = paired.judge_compared(measured, asked, case.tolerances.get(row.metric.name))
    if found.outcome in (Outcome.UNMEASURED, Outcome.CONTRACT_CHANGED):
        return replace(row, verdict=row.verdict.because(found.reason))
    if measured.bounds.passed_by(row.verdict.now or measured.value) and not found.exceeds:
        return row  # beyond its own bound, which no old code excuses
    return replace(row, verdict=_decided(case, record, row, asked, found))


def _decided(case: Case, record: Record, row: Row, asked: Compared, found: Verdict) -> Verdict:
    if asked.there:
        found = replace(found, old_code=asked.revision, processes=len(asked.there))
    if found.exceeds or found.outcome is Outcome.UNFIT or row.verdict.outcome is not Outcome.REGRESSED:
        return found
    if row.metric.kind == "noisy" and _unknown_unit(case, record, row):
        return found
    took = quantity(found.baseline, row.metric.unit)
    reason = f"the baseline's own code, commit {asked.revision}, is as slow here and now: {took}"
    moved = Outcome.ENVIRONMENT_MOVED if _other_machine(case, record, row) else Outcome.UNFIT
    return replace(row.verdict, outcome=moved).because(reason)


def _unknown_unit(case: Case, record: Record, row: Row) -> bool:
    return other_unit(case.stored[row.metric.name].runs, record.environment.get("device_uuid"))


def _other_machine(case: Case, record: Record, row: Row) -> bool:
    """Return whether other software, or of an exact metric another GPU, may have moved a figure."""
    baseline, measured = case.stored[row.metric.name], record.measurement(row.metric.name)
    assert measured is not None
    # No unit may compute anything else: an exact metric fares there as on other software.
    exact = row.metric.kind == "exact" and _unknown_unit(case, record, row)
    return exact or other_software(measured, baseline.runs, record.environment)
