"""Decide what a test's figures mean. Every way a run can go, and the calibration, ends in these functions."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import median

from pytest_gpuperf.measurement import JUDGED, Baseline, Bounds, Measurement, Outcome, Verdict
from pytest_gpuperf.records import Cause, Record, Row
from pytest_gpuperf.rules import lacking, old_code, verdict
from pytest_gpuperf.rules.case import Case, Compared, Evidence
from pytest_gpuperf.rules.machine import allow_for_machine
from pytest_gpuperf.rules.paired import judge_compared
from pytest_gpuperf.rules.verdict import MIN_RUNS
from pytest_gpuperf.rules.waivers import QUARANTINED, Expectation, Quarantine, fail_first

_STRICT_CAUSE: Mapping[Outcome, Cause] = {
    Outcome.CONTRACT_CHANGED: "wrong",
    Outcome.UNMEASURED: "wrong",
    Outcome.MISSING: "wrong",
    Outcome.UNFIT: "infrastructure",
    Outcome.NO_BASELINE: "setup",
}
_UNFORESEEN = (
    "the test asks for its fixtures while it runs, so that it was not measured against the revision: "
    "name gpuperf, counters, benchmark or loadgen among its arguments"
)
_NOT_COMPARED = (
    "strict lets no judged metric lose its comparison: make this change by itself, and accept it with "
    "--gpuperf-accept"
)
NO_EVIDENCE = Evidence()


@dataclass(frozen=True, slots=True)
class Screened:
    """The metrics whose first measurement needs replicas, and how far the worst is beyond what is allowed.

    ``excess`` is in logs, 0 where nothing tripped.
    """

    tripped: frozenset[str] = frozenset()
    excess: float = 0.0


def screen(case: Case, record: Record) -> Screened:
    """Return what replicas must measure again: what looks worse, and whatever was expected to be.

    Nothing of a quarantined test, which no replica could fail.
    """
    if isinstance(case.waiver, Quarantine) or case.against:
        return Screened()
    expected = isinstance(case.waiver, Expectation)
    excess = {}
    for measured in record.measurements:
        if measured.metric.kind == "noisy":
            found = _judge(case, record, measured)
            if found.exceeds or (expected and found.outcome in JUDGED):
                excess[measured.metric.name] = _excess(measured, found)
    return Screened(frozenset(excess), max(excess.values(), default=0.0))


def decide(case: Case, record: Record, evidence: Evidence = NO_EVIDENCE) -> tuple[Row, ...]:
    """Return a row for each metric of a passed test, with the reason and the cause if it fails the test.

    ``record`` is the test's own measurement. Bounds, the machine, other units, the old code and waivers are
    all in it; asked again with more evidence, it decides again.
    """
    rows = _compared(case, record, evidence) if case.against else _judged(case, record, evidence)
    expected = case.waiver if isinstance(case.waiver, Expectation) else None
    reviewed = expected.excuse(rows, case.today) if expected else tuple(rows)
    if case.acquits and not evidence.spent:
        reviewed = tuple(
            old_code.review(case, record, row, evidence.old_code.get(row.metric.name)) for row in reviewed
        )
    caused = _with_causes(reviewed, case)
    # the other revision may have the regression too
    broken = expected.broken(rows, case.today) if expected and not case.against else ""
    if broken and not any(row.cause for row in caused):
        return fail_first(caused, broken)
    return caused


def absent(
    case: Case, metrics: Mapping[str, Baseline], outcome: Outcome, reason: str, over_budget: bool = False
) -> tuple[Row, ...]:
    """Return a row for each stored metric of a test that was not measured in this run at all."""
    rows = [
        Row(
            case.key,
            baseline.metric,
            Verdict(outcome, baseline=baseline.value, reason=reason),
            command=case.command,
            excuse=_excuse(case),
            over_budget=over_budget,
        )
        for baseline in metrics.values()
    ]
    return _with_causes(rows, case)


def _with_causes(rows: Sequence[Row], case: Case) -> tuple[Row, ...]:
    return tuple(replace(row, cause=cause_of(row, case)) for row in rows)


def cause_of(row: Row, case: Case) -> Cause | None:
    """Return why a row fails its test; None if it does not.

    What the other revision lacks is told, and nobody's fault.
    """
    decided = row.verdict
    if row.excuse:
        return None
    if row.over_budget:
        return "setup" if case.strict else None
    # a worse measurement that could not be confirmed is no pass either
    if decided.outcome is Outcome.REGRESSED or (decided.outcome is Outcome.UNMEASURED and decided.exceeds):
        return "wrong"
    if decided.outcome is Outcome.ENVIRONMENT_MOVED:
        return "environment"
    if not case.strict or (case.against and decided.outcome is Outcome.NO_BASELINE):
        return None
    if decided.outcome is Outcome.INCONCLUSIVE:
        return "wrong" if decided.exceeds else None
    return _STRICT_CAUSE.get(decided.outcome)


def worst(rows: Sequence[Row]) -> Cause | None:
    """Return the cause that decides the exit code: the change, before set-up, software and machine."""
    order: tuple[Cause, ...] = ("wrong", "setup", "environment", "infrastructure")
    causes = {row.cause for row in rows}
    return next((cause for cause in order if cause in causes), None)


# --------------------------------------------------------------------------- against stored runs


def _judged(case: Case, record: Record, evidence: Evidence) -> list[Row]:
    """Judge every metric against its baseline; those that tripped by the replicas alone."""
    tripped = screen(case, record).tripped
    rows = []
    for measured in record.measurements:
        name = measured.metric.name
        confirmed = name in tripped
        replicas = [m for r in evidence.replicas.records if (m := r.measurement(name))]
        exact = measured.metric.kind == "exact"
        decided = _judge(case, record, measured, replicas if confirmed or exact else [])
        if confirmed:
            decided = allow_for_machine(
                decided, measured.metric, case.stored.get(name), record, evidence.replicas
            )
        # replicas are missing because the run's time was up
        over = bool(
            confirmed and evidence.spent and (evidence.replicas.trouble or not evidence.replicas.records)
        )
        if over:
            reason = f"measured worse once, and {evidence.spent} before it was measured again"
            decided = replace(decided, outcome=Outcome.UNMEASURED, reason=reason)
        rows.append(
            Row(case.key, measured.metric, decided, measured.details, case.command, _excuse(case), over)
        )
    return [*rows, *_unseen(case, record, evidence)]


def _unseen(case: Case, record: Record, evidence: Evidence) -> Iterator[Row]:
    """Yield a row for each stored metric that a test which was measured did not record."""
    unseen = {name: baseline for name, baseline in case.due.items() if not record.measurement(name)}
    for name, old in tuple(unseen.items()):
        if better := lacking.gone(old.metric, old.contract, old.value, record):
            yield Row(case.key, old.metric, better, command=case.command, excuse=_excuse(case))
            del unseen[name]
    reason = "in the baseline, but this run of the test did not record it"
    if evidence.left_out:
        reason = f"not measured: {evidence.spent}"
    yield from absent(case, unseen, Outcome.UNMEASURED, reason, evidence.left_out)


def _judge(
    case: Case, record: Record, measured: Measurement, replicas: Sequence[Measurement] = ()
) -> Verdict:
    name = measured.metric.name
    held = lacking.held_to_compiler(case.stored.get(name), record.environment)
    decided = lacking.incomparable(case.stored, held, measured, record) or verdict.judge(
        held,
        measured,
        replicas if measured.metric.kind == "noisy" else (),
        tolerance=case.tolerances.get(name),
        place=record.place(measured.metric),
        device_uuid=case.unit,
    )
    if decided.outcome is Outcome.NO_BASELINE and not decided.reason:
        decided = replace(decided, reason=lacking.appeared(measured, case.stored))
    if measured.metric.kind == "exact" and (differ := lacking.disagreement(measured, replicas)):
        worse = decided.outcome is Outcome.REGRESSED
        decided = replace(decided, outcome=Outcome.UNMEASURED, exceeds=worse, reason=differ)
    return judge_bounds(decided, measured, replicas)


def _excess(measured: Measurement, found: Verdict) -> float:
    """Return how far a metric is beyond its bounds or its tolerance, whichever is more, in logs."""
    beyond = [measured.bounds.excess(measured.value)]
    if found.baseline and found.now and found.change is not None and found.tolerance is not None:
        change = measured.metric.worse(found.baseline, found.now)
        beyond.append(change - math.log1p(found.tolerance))
    return max(beyond)


def _excuse(case: Case) -> str:
    return QUARANTINED if isinstance(case.waiver, Quarantine) else ""


# --------------------------------------------------------------------------- against a revision


def _compared(case: Case, record: Record, evidence: Evidence) -> list[Row]:
    """Judge every metric against the other revision's processes, and name what only that measures."""
    there = {name for name, found in evidence.compared.items() if found.there}
    there |= {lost.metric.name for lost in evidence.lost}
    rows = []
    for measured in record.measurements:
        found = evidence.compared.get(measured.metric.name)
        if found:
            decided = _judge_compared(case, measured, found)
            if decided.outcome is Outcome.NO_BASELINE and not found.why_not:
                decided = decided.because(lacking.appeared(measured, there))
            decided = judge_bounds(decided, measured, found.here)
        else:
            decided = Verdict(Outcome.UNMEASURED, now=measured.value, reason=_UNFORESEEN)
        rows.append(Row(case.key, measured.metric, decided, measured.details, case.command, _excuse(case)))
    for lost in evidence.lost:
        reason = f"{case.against} measures it, and this checkout does not"
        missing = Verdict(Outcome.MISSING, baseline=lost.value, reason=f"{reason}; {_NOT_COMPARED}")
        decided = lacking.gone(lost.metric, lost.contract, lost.value, record) or missing
        rows.append(Row(case.key, lost.metric, decided, command=case.command, excuse=_excuse(case)))
    return rows


def _judge_compared(case: Case, measured: Measurement, found: Compared) -> Verdict:
    """Judge a metric against the other revision's; where only one side judges it, say so."""
    decided = judge_compared(measured, found, case.tolerances.get(measured.metric.name))
    shown = {m.metric.kind == "shown" for m in found.there}
    if found.there and measured.metric.kind == "shown" and False in shown:
        reason = f"the test only shows it here, and {found.revision} judges it"
        decided = Verdict(Outcome.CONTRACT_CHANGED, now=measured.value, reason=reason)
    elif measured.metric.kind != "shown" and True in shown:
        reason = f"{found.revision} only shows it"
        return Verdict(Outcome.NO_BASELINE, now=measured.value, reason=reason)
    return decided.because(_NOT_COMPARED) if decided.outcome is Outcome.CONTRACT_CHANGED else decided


# --------------------------------------------------------------------------- bounds


def judge_bounds(decided: Verdict, screen: Measurement, replicas: Sequence[Measurement] = ()) -> Verdict:
    """Judge a metric's bounds; ``decided`` is the verdict against its baseline.

    One that is only shown is not held to them, which its row says. An exact value beyond a bound has
    regressed at once. A noisy one has if every replica is beyond it and there are MIN_RUNS of them; before
    that it is inconclusive, and ``exceeds`` asks for replicas. A metric exactly on its bound fails so once in
    2^5 = 32 runs.
    """
    beyond = screen.bounds.passed_by(screen.value)
    if decided.outcome is Outcome.SHOWN and screen.bounds != Bounds():
        return decided.because("bound not judged here" + (f" (now {beyond})" if beyond else ""))
    if beyond and screen.metric.kind == "exact":
        return _broken(decided, screen.value, beyond)
    if not beyond or screen.metric.kind == "shown" or decided.outcome is Outcome.UNMEASURED:
        return decided
    values = [replica.value for replica in replicas]
    inside = sum(not screen.bounds.passed_by(value) for value in values)
    if len(values) >= MIN_RUNS and not inside:
        return _broken(decided, median(values), screen.bounds.passed_by(median(values)))
    if decided.outcome is Outcome.REGRESSED or (values and not screen.bounds.passed_by(median(values))):
        return decided
    reason = f"{inside} of {len(values)} replicas were not {beyond}" if values else f"measured once {beyond}"
    return replace(decided, outcome=Outcome.INCONCLUSIVE, exceeds=True, reason=reason)


def _broken(decided: Verdict, now: float, beyond: str) -> Verdict:
    reason = f"{beyond}, the test's own bound"
    if decided.reason:
        reason += f"; {decided.reason}"
    return replace(decided, outcome=Outcome.REGRESSED, now=now, exceeds=True, reason=reason)
