"""Decide whether a regression is this change's or the machine's, by what the baseline's own code does now."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Literal, NamedTuple

from pytest_gpuperf.measurement import Baseline, Measurement, Outcome, Verdict, quantity
from pytest_gpuperf.records import Record, Row
from pytest_gpuperf.rules import paired, verdict
from pytest_gpuperf.rules.case import Case, Compared
from pytest_gpuperf.rules.differences import other_software, other_unit

Suspect = Literal["software", "unit", "host"]
"""What may have moved a figure: other software, another GPU alone, or a host that drifts."""


class Question(NamedTuple):
    """A regression that may not be this change's. ``same_code``: the launch is the baseline's to the bit."""

    measured: Measurement
    baseline: Baseline
    suspect: Suspect | None
    same_code: bool


def to_ask(case: Case, record: Record, rows: Sequence[Row]) -> dict[str, Baseline]:
    """Return the baselines, by metric, whose own code must be run here and now before ``rows`` stand.

    A test that regressed against software that is not the baseline's, on a GPU that the baseline does not
    know, or by the host's clock; not where the launch itself is the baseline's own to the bit.
    """
    found = {row.metric.name: _question(case, record, row) for row in rows} if case.acquits else {}
    return {name: q.baseline for name, q in found.items() if q and q.suspect and not q.same_code}


def review(case: Case, record: Record, row: Row, asked: Compared | str | None) -> Row:
    """Return the row as ``asked``, what the baseline's own code does now or why it was not run, leaves it.

    A launch that is the baseline's own to the bit was not made slower by a commit: `environment moved`, or on
    a GPU that the baseline does not know `inconclusive` (no loss, but not `equal`). Otherwise the old code
    decides (``_decide``).
    """
    question = _question(case, record, row)
    if question is None:
        return row
    if question.same_code and question.suspect == "unit":
        unknown = replace(row.verdict, outcome=Outcome.INCONCLUSIVE, exceeds=False)
        return replace(row, verdict=unknown.because("the baseline has no runs of this GPU"))
    if question.same_code:
        return replace(row, verdict=replace(row.verdict, outcome=Outcome.ENVIRONMENT_MOVED))
    if question.suspect is None or asked is None:
        return row
    found = asked if isinstance(asked, str) else _decide(case, record, row.verdict, question, asked)
    if isinstance(found, str):
        found = row.verdict.because(f"not run again with the baseline's own code: {found}")
    return replace(row, verdict=found)


def _question(case: Case, record: Record, row: Row) -> Question | None:
    """Return what may excuse a row; None if it did not regress, is waived, or broke the test's own bound."""
    baseline, measured = case.stored.get(row.metric.name), record.measurement(row.metric.name)
    if row.verdict.outcome is not Outcome.REGRESSED or row.excuse or baseline is None or measured is None:
        return None
    if row.verdict.now is not None and measured.bounds.passed_by(row.verdict.now):
        return None  # its own bound holds on whatever software
    same_code = baseline.metric.instrument == "device_time" and measured.same_code(baseline.runs)
    return Question(measured, baseline, _suspect(measured, baseline, record), same_code)


def _suspect(measured: Measurement, baseline: Baseline, record: Record) -> Suspect | None:
    noisy = baseline.metric.kind == "noisy"
    if other_software(measured, baseline.runs, record.environment):
        return "software"
    if other_unit(baseline.runs, record.environment.get("device_uuid")):
        # No unit may compute anything else: an exact metric fares there as on other software.
        return "unit" if noisy else "software"
    return "host" if noisy and baseline.metric.constants.where == "host" else None


def _decide(
    case: Case, record: Record, regressed: Verdict, question: Question, asked: Compared
) -> Verdict | str:
    """Decide by the old code, or say why it cannot be known.

    On other software the regression is `environment moved` if the old code is worse than its baseline today
    and this checkout no worse than it. On another GPU the comparison's own verdict then counts. A host that
    drifts is `unfit` if the old code is beyond the tolerance too and the comparison finds no loss: with the
    noise of such a host neither is often confirmed.
    """
    metric, tolerance = question.baseline.metric, case.tolerances.get(question.baseline.metric.name)
    found = paired.judge_compared(question.measured, asked, tolerance)
    if found.baseline is None or found.outcome is Outcome.UNMEASURED:
        return found.reason or f"{asked.revision} was not measured"
    old = verdict.judge(
        question.baseline,
        asked.there[0],
        asked.there if metric.kind == "noisy" else (),
        tolerance=tolerance,
        place=record.place(metric),
        device_uuid=record.environment.get("device_uuid"),
    )
    took = f"{quantity(found.baseline, metric.unit)} here and now ({_processes(asked.there)})"
    reason = f"the baseline's own code, commit {asked.revision}, is worse too: {took}"
    if question.suspect == "host" and old.exceeds and found.outcome is not Outcome.REGRESSED:
        return replace(regressed, outcome=Outcome.UNFIT).because(reason)
    if old.outcome is Outcome.REGRESSED and found.outcome in (Outcome.EQUAL, Outcome.IMPROVED):
        moved = replace(regressed, outcome=Outcome.ENVIRONMENT_MOVED)
        return (found if question.suspect == "unit" else moved).because(reason)
    return regressed.because(
        f"not the machine's: the baseline's own code, commit {asked.revision}, has {took}"
    )


def _processes(there: Sequence[Measurement]) -> str:
    if len(there) < paired.PER_BLOCK * paired.MIN_BLOCKS:
        return f"{len(there)} process(es)"
    return f"{len(there)} processes, alternating with as many of this checkout"
