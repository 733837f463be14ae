"""From a test's measurements to its verdicts: the screen, the replicas, and what fails the test."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace

import pytest

from pytest_gpuperf.backends import is_modelled, pool_name
from pytest_gpuperf.judging import absent, bounds, budget, quarantine, units
from pytest_gpuperf.judging.circumstances import with_circumstances
from pytest_gpuperf.judging.confirm import Confirmer, Replicas
from pytest_gpuperf.judging.expected import expectation
from pytest_gpuperf.measurement import Measurement, Outcome, Verdict
from pytest_gpuperf.options import test_options
from pytest_gpuperf.records import Cause, Record, Row
from pytest_gpuperf.session import JUDGED, GpuperfSession

CONFIRMER = pytest.StashKey[Confirmer]()

STRICT_CAUSE: Mapping[Outcome, Cause] = {
    Outcome.REGRESSED: "wrong",
    Outcome.CONTRACT_CHANGED: "wrong",
    Outcome.UNMEASURED: "wrong",
    Outcome.MISSING: "wrong",
    Outcome.UNFIT: "infrastructure",
    Outcome.NO_BASELINE: "setup",
}


class Case:
    """One passed test, what it measured, and what that is judged against."""

    def __init__(self, session: GpuperfSession, item: pytest.Item, record: Record) -> None:
        self.session, self.item, self.record = session, item, record
        self.key, self.pool = session.key(item.nodeid), session.pool(record)
        self.stored = units.stored(session, item, record)
        self._due = session.store(item.path).due(self.pool, self.key.suite).get(self.key.name, {})
        self._uuid = record.environment.get("device_uuid")
        if units.strange(self.stored, self._uuid):
            session.note(
                f"No baseline has runs of {self._uuid},\n  and units of one model differ by some percent. "
                f"To add its own:\n  pytest {' '.join(session.config.args)} --gpuperf --gpuperf-update=append"
            )
        entry = quarantine.excuse(session, item.path, self.key, self.pool, [str(self._uuid)])
        self.excuse = quarantine.QUARANTINED if entry else ""
        self.tripped = self._tripped()

    def verdict(self, measurement: Measurement, replicas: Sequence[Measurement] = ()) -> Verdict:
        from pytest_gpuperf.judging import verdict

        metric = measurement.metric
        tolerance = self.session.options.rules.tolerance(test_options(self.item).tolerance, metric, self.pool)
        decided = verdict.judge(
            self.stored.get(metric.name),
            measurement,
            replicas,
            tolerance=tolerance,
            place=self.record.place(metric),
            device_uuid=self._uuid,
        )
        return bounds.judge(decided, measurement, replicas)

    def _tripped(self) -> tuple[Measurement, ...]:
        """What replicas must measure again: what looks worse, and whatever was expected to."""
        if self.excuse:
            return ()  # no replica could make it red
        noisy = [(m, self.verdict(m)) for m in self.record.measurements if m.metric.kind == "noisy"]
        expected = expectation(self.item) is not None
        return tuple(m for m, found in noisy if found.exceeds or (expected and found.outcome in JUDGED))

    def rows(self, replicas: Replicas) -> tuple[Row, ...]:
        """Every metric, judged; those that had tripped by ``replicas`` alone."""
        rows = []
        for measurement in self.record.measurements:
            tripped = measurement in self.tripped
            name = measurement.metric.name
            again = [found for r in replicas.records if (found := r.measurement(name))] if tripped else []
            decided = self.verdict(measurement, again)
            if tripped:
                stored = self.stored.get(name)
                decided = with_circumstances(decided, measurement.metric, stored, self.record, replicas)
            over = tripped and self._over_budget(replicas)
            if over:
                reason = f"measured worse once, and {self.session.budget} before it was measured again"
                decided = replace(decided, outcome=Outcome.UNMEASURED, reason=reason)
            details, command = measurement.details, self._command
            rows.append(Row(self.key, measurement.metric, decided, details, command, self.excuse, over))
        return (*rows, *self._unmeasured())

    def _over_budget(self, replicas: Replicas) -> bool:
        """Whether the replicas are missing because the run's time was up."""
        budget = self.session.budget
        return budget is not None and budget.spent and (bool(replicas.trouble) or not replicas.records)

    def _unmeasured(self) -> list[Row]:
        names = {measurement.metric.name for measurement in self.record.measurements}
        reason = "in the baseline, but this run of the test did not record it"
        over = self.item.nodeid in self.session.left_out
        if over:
            reason = f"not measured: {self.session.budget}"
        return [
            Row(
                self.key,
                baseline.metric,
                Verdict(Outcome.UNMEASURED, baseline=baseline.value, reason=reason),
                command=self._command,
                excuse=self.excuse,
                over_budget=over,
            )
            for name, baseline in self._due.items()
            if name not in names
        ]

    @property
    def excess(self) -> float:
        """How far the worst tripped metric lies beyond what is allowed, in logs."""
        return max((self._excess(measurement) for measurement in self.tripped), default=0.0)

    def _excess(self, measurement: Measurement) -> float:
        found = self.verdict(measurement)
        beyond = [bounds.excess(measurement.bounds, measurement.value)]
        if found.baseline and found.now and found.change is not None and found.tolerance is not None:
            change = measurement.metric.worse(found.baseline, found.now)
            beyond.append(change - math.log1p(found.tolerance))
        return max(beyond)

    @property
    def _command(self) -> str:
        import shlex

        return f"pytest {shlex.quote(self.item.nodeid)} --gpuperf"


def judge(session: GpuperfSession, item: pytest.Item, record: Record) -> tuple[Row, ...]:
    """Every metric of one passed test, judged; measures again in replicas where the screen trips.

    The caller has given the test's memory and the device lock back: replicas need both.
    """
    case = Case(session, item, record)
    if not case.tripped:
        return case.rows(Replicas())
    budget, items = session.budget, item.session.items
    if budget is not None and budget.spent:
        return case.rows(Replicas())
    left = budget.left if budget is not None else items[items.index(item) :]
    return case.rows(confirmer(session).confirm(item, record, left))


def confirmer(session: GpuperfSession) -> Confirmer:
    return session.config.stash.setdefault(CONFIRMER, Confirmer(session))


def close(session: GpuperfSession, complete: bool) -> None:
    """The end of a run: what the baselines hold and nobody measured, and what strict cannot let pass."""
    if complete:
        session.rows += absent.rows(session)
    for line in quarantine.told(session, complete and absent.whole(session)):
        session.note(line)
    budget.tell(session)
    if not session.options.strict:
        return
    for row in session.rows:
        if row.excuse:
            continue
        if row.verdict.outcome is Outcome.MISSING or (
            row.verdict.outcome is Outcome.UNMEASURED and not row.command
        ):
            cause: Cause = "setup" if row.over_budget else "wrong"
            text = f"{row.test}: {row.metric.name} {row.verdict.outcome}: {row.verdict.reason}"
            session.finding(cause, text)
    for suite in _emulated_instead(session):
        session.finding(
            "setup", f"{suite} has CUDA baselines, but backend auto found no device and emulated it"
        )
    judged = any(row.verdict.outcome in JUDGED for row in session.rows)
    if not judged and "infrastructure" not in session.causes:  # which is why, then
        session.finding("setup", "nothing was judged in this run")


def _emulated_instead(session: GpuperfSession) -> list[str]:
    """Suites that backend auto emulated although a real device's baselines exist for them."""
    if session.options.backend != "auto":
        return []
    emulated = {n: pool_name(r.device) for n, r in session.records.items() if is_modelled(r.device)}
    found = set()
    for nodeid, own in emulated.items():
        key, store = session.key(nodeid), session.store(session.path(nodeid))
        for pool in store.pools():
            if pool != own and key.name in store.load(pool, key.suite):
                found.add(key.suite)
    return sorted(found)


def cause_of(row: Row, strict: bool) -> Cause | None:
    """Why a row fails its test; None where it does not."""
    verdict = row.verdict
    if row.excuse:
        return None
    if row.over_budget:
        return "setup" if strict else None
    # an unconfirmed trip of the screen is no pass either
    if verdict.outcome is Outcome.REGRESSED or (verdict.outcome is Outcome.UNMEASURED and verdict.exceeds):
        return "wrong"
    if verdict.outcome is Outcome.ENVIRONMENT_MOVED:
        return "environment"
    if not strict:
        return None
    if verdict.outcome is Outcome.INCONCLUSIVE:
        return "wrong" if verdict.exceeds else None
    return STRICT_CAUSE.get(verdict.outcome)


def worst(causes: Sequence[Cause]) -> Cause:
    """The cause that decides the exit code: a fault of the change, before set-up, before the machine."""
    order: tuple[Cause, ...] = ("wrong", "setup", "environment", "infrastructure")
    return next(cause for cause in order if cause in causes)
