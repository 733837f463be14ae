"""Judge against baselines: screen, ask the old code or confirm in replicas, decide."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import cache, cached_property, partial

import pytest

from pytest_gpuperf.backends import is_modelled
from pytest_gpuperf.modes.acquit import OldCode
from pytest_gpuperf.modes.case import case_of
from pytest_gpuperf.modes.confirm import Confirmer
from pytest_gpuperf.modes.missing import findings, missing_rows, scope_of
from pytest_gpuperf.modes.mode import Judged, Mode, conclude
from pytest_gpuperf.modes.terms import Accepted
from pytest_gpuperf.records import Record, Row
from pytest_gpuperf.report.command import measuring, targets
from pytest_gpuperf.rules.case import Case, Compared, Evidence, Replicas
from pytest_gpuperf.rules.decide import decide, screen
from pytest_gpuperf.rules.differences import other_unit
from pytest_gpuperf.rules.estimate import REPLICAS
from pytest_gpuperf.rules.old_code import answers, to_ask
from pytest_gpuperf.session import GpuperfSession
from pytest_gpuperf.text import counted
from pytest_gpuperf.unchanged import told


class Judging(Mode):
    """A run whose tests are compared with their baselines."""

    def __init__(self, session: GpuperfSession) -> None:
        super().__init__(session)
        self._budget = session.budget

    @cached_property
    def _confirmer(self) -> Confirmer:
        return Confirmer(self._session)

    @cached_property
    def _accepted(self) -> Accepted | None:
        with suppress(pytest.UsageError):  # of the revision's ini file, told at the end
            return Accepted(self._session) if self._options.accept else None
        return None

    @cached_property
    def _old_code(self) -> OldCode:
        return OldCode(self._session)

    def judge(self, item: pytest.Item, record: Record) -> Judged:
        """Judge every metric of a test, fetching the evidence that calls for: the old code, else replicas.

        The test's memory and the device lock have been given back: other processes need both.
        """
        case = case_of(item, record, self._project, self._options)
        if record.measurements:
            self._note_unknown_unit(case)
        confirm = cache(lambda: self._confirmer.confirm(item, record, self._left(item)))
        decided = partial(self._decided, item, record, confirm)
        judged = conclude(case, record, decided(case), self._project)
        if self._accepted is None or judged.payload.cause:
            return judged
        needed = self._accepted.needed(item, record, case, decided)
        return judged._replace(payload=replace(judged.payload, accepted=needed))

    def _decided(
        self, item: pytest.Item, record: Record, confirm: Callable[[], Replicas], case: Case
    ) -> tuple[Row, ...]:
        """Decide a case with the evidence that it calls for: the old code, else replicas."""
        tripped, replicas = screen(case, record).tripped, Replicas()
        found: Mapping[str, Compared | str] = {}
        if not self._spent:
            rows = decide(case, record)
            if asked := to_ask(case, record, rows):
                found, replicas = self._old_code.ask(item, record, asked)
            elif not tripped:
                return rows  # most tests: nothing more is to be known
        unanswered = any(not answers(found.get(name)) for name in tripped)
        if unanswered and len(replicas.records) < REPLICAS and not self._spent:
            replicas = confirm()
        left_out = item.nodeid in self._results.left_out
        evidence = Evidence(replicas=replicas, old_code=found, spent=self._spent, left_out=left_out)
        return decide(case, record, evidence)

    @property
    def _spent(self) -> str:
        """Return why nothing more may be measured, "" while the budget lasts or if there is none."""
        return str(self._budget) if self._budget and self._budget.spent else ""

    def _left(self, item: pytest.Item) -> Callable[[], Sequence[pytest.Item]]:
        """Return how to list the tests from ``item`` on."""
        items = item.session.items
        return lambda: items[items.index(item) :]

    def _note_unknown_unit(self, case: Case) -> None:
        """Say how to record runs of a GPU that the baselines, which name others, do not know."""
        noisy = [baseline for baseline in case.stored.values() if baseline.metric.kind == "noisy"]
        runs = [run for baseline in noisy for run in baseline.runs]
        if (
            case.unit is not None
            and any(r.environment.get("device_uuid") for r in runs)
            and other_unit(runs, case.unit)
        ):
            command = measuring(self._session.config, *targets(self._session.config))
            self._results.note(
                "This GPU has no baseline runs of its own (GPUs of one model can differ by 2 %).\n"
                f"  Record them with:\n  {command} --gpuperf-update=append"
            )

    # --------------------------------------------------------------------------- the end of the run

    def finish(self, items: Sequence[pytest.Item], complete: bool) -> None:
        """Add what the baselines hold and nobody measured, and find what strict cannot let pass."""
        results, strict = self._results, self._options.strict
        scope = scope_of(self._session, complete)
        missing = missing_rows(self._project, results, scope, strict, self._budget)
        results.rows += missing
        if self._accepted:
            for line in self._accepted.needed_absent(missing, scope):
                results.note(line)
        self._tell_left_out()
        for line in told(results.rows) if self._options.skip_unchanged else ():
            results.note(line)
        for cause, text in findings(missing):
            results.finding(cause, text)
        for suite in self._emulated_instead() if strict else ():
            results.finding(
                "setup", f"{suite} has CUDA baselines, but backend auto found no device and emulated it"
            )
        self._conclude_run(scope)

    def _tell_left_out(self) -> None:
        """Say how many tests the budget left unmeasured; strict does not let one of them pass."""
        results = self._results
        rows = {str(row.test) for row in results.rows if row.over_budget}
        others = {str(self._project.name(nodeid)) for nodeid in results.left_out} - rows
        if rows or others:
            count = len(rows | others)
            results.note(f"{counted(count, 'test')} could not be measured and judged: {self._budget}")
        for test in sorted(others) if self._options.strict else ():
            results.finding("setup", f"{test}: not measured: {self._budget}")

    def _emulated_instead(self) -> list[str]:
        """Return suites that backend auto emulated although there are baselines of a real device for them."""
        if self._options.backend != "auto":
            return []
        project, found = self._project, set()
        for nodeid, record in self._results.records.items():
            if is_modelled(record.device) and project.other_pools(nodeid, project.pool(record.device)):
                found.add(project.key(nodeid).suite)
        return sorted(found)
