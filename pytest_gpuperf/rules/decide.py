"""Decide what a test's figures mean. Every way a run can go, and the calibration, ends in these functions."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import median

from pytest_gpuperf.measurement import JUDGED, Baseline, Bounds, Measurement, Outcome, Verdict
from pytest_gpuperf.records import Cause, Record, Row
from pytest_gpuperf.rules import lacking, old_code
from pytest_gpuperf.rules.case import Case, Compared, Evidence
from pytest_gpuperf.rules.estimate import MIN_RUNS
from pytest_gpuperf.rules.machine import allow_for_machine
from pytest_gpuperf.rules.paired import judge_compared
from pytest_gpuperf.rules.stored import against_stored, excess
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
OWN_BOUND = "the test's own bound"
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
    beyond = {}
    for measured in record.measurements:
        if measured.metric.kind == "noisy":
            found = _judge(case, record, measured)
            if found.exceeds or (expected and found.outcome in JUDGED):
                beyond[measured.metric.name] = excess(measured, found)
    return Screened(frozenset(beyond), max(beyond.values(), default=0.0))


def decide(case: Case, record: Record, evidence: Evidence = NO_EVIDENCE) -> tuple[Row, ...]:
    """Return a row for each metric of a passed test, with the reason and the cause if it fails the test.

    ``record`` is the test's own measurement. Bounds, the machine, other units, the old code and waivers are
    all in it; asked again with more evidence, it decides again.
    """
    rows = _compared(case, record, evidence) if case.against else _judged(case, record, evidence)
    rows = [_with_processes(row, evidence) for row in rows]
    expected = case.waiver if isinstance(case.waiver, Expectation) else None
    caused = _with_causes(expected.excuse(rows, case.today) if expected else rows, case)
    # the other revision may have the regression too
    broken = expected.broken(rows, case.today) if expected and not case.against else ""
    if broken and not any(row.cause for row in caused):
        return fail_first(caused, broken)
    return caused


def _with_processes(row: Row, evidence: Evidence) -> Row:
    """Return the row with the values of the processes that it was decided by, beside the test's own."""
    name = row.metric.name
    found = evidence.compared.get(name) or evidence.old_code.get(name)
    replicas = [m for record in evidence.replicas.records if (m := record.measurement(name))]
    here, there = (found.here, found.there) if isinstance(found, Compared) else (replicas, ())
    return replace(row, here=tuple(m.value for m in here), there=tuple(m.value for m in there))


def absent(
    case: Case, metrics: Mapping[str, Baseline], outcome: Outcome, reason: str, over_budget: bool
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

    What the other revision lacks is told, and nobody's fault; what it judges and this checkout does not is
    the change's, unless a maintainer accepted that.
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
    nobodys = (Outcome.NO_BASELINE, *((Outcome.CONTRACT_CHANGED, Outcome.MISSING) if case.accepted else ()))
    if not case.strict or (case.against and decided.outcome in nobodys):
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
    """Judge every metric against its baseline; those that tripped by the old code or the replicas alone."""
    tripped = screen(case, record).tripped
    rows = []
    for measured in record.measurements:
        name = measured.metric.name
        asked = evidence.old_code.get(name)
        row = _by_stored_runs(case, record, measured, evidence, name in tripped, old_code.answers(asked))
        rows.append(old_code.review(case, record, row, asked))
    for reached in record.unchanged:
        same = Verdict(Outcome.UNCHANGED, baseline=case.stored[reached.metric.name].value)
        rows.append(Row(case.key, reached.metric, same, command=case.command, excuse=_excuse(case)))
    return [*rows, *_unseen(case, record, evidence)]


def _unseen(case: Case, record: Record, evidence: Evidence) -> Iterator[Row]:
    """Yield a row for each stored metric that a test which was measured did not record."""
    unchanged = {reached.metric.name for reached in record.unchanged}
    unseen = {n: old for n, old in case.due.items() if n not in unchanged and not record.measurement(n)}
    for name, old in tuple(unseen.items()):
        if better := lacking.gone(old.metric, old.contract, old.value, record):
            yield Row(case.key, old.metric, better, command=case.command, excuse=_excuse(case))
            del unseen[name]
    reason = "in the baseline, but this run of the test did not record it"
    if evidence.left_out:
        reason = f"not measured: {evidence.spent}"
    yield from absent(case, unseen, Outcome.UNMEASURED, reason, evidence.left_out)


def _by_stored_runs(
    case: Case, record: Record, measured: Measurement, evidence: Evidence, tripped: bool, answered: bool
) -> Row:
    """Judge one metric by its stored runs; what the old code ``answered`` needs no excuse of the machine."""
    name = measured.metric.name
    replicas = [m for r in evidence.replicas.records if (m := r.measurement(name))]
    exact = measured.metric.kind == "exact"
    decided = _judge(case, record, measured, replicas if tripped or exact else [])
    if tripped and not answered:
        decided = allow_for_machine(
            decided, measured.metric, case.stored.get(name), record, evidence.replicas
        )
    # replicas are missing because the run's time was up
    over = bool(tripped and evidence.spent and (evidence.replicas.trouble or not evidence.replicas.records))
    if over:
        reason = f"measured worse once, and {evidence.spent} before it was measured again"
        decided = replace(decided, outcome=Outcome.UNMEASURED, reason=reason)
    return Row(case.key, measured.metric, decided, measured.details, case.command, _excuse(case), over)


def _judge(
    case: Case, record: Record, measured: Measurement, replicas: Sequence[Measurement] = ()
) -> Verdict:
    return judge_bounds(against_stored(case, record, measured, replicas), measured, replicas)


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
    reason = f"{beyond}, {OWN_BOUND}"
    if decided.reason:
        reason += f"; {decided.reason}"
    return replace(decided, outcome=Outcome.REGRESSED, now=now, exceeds=True, reason=reason)
