"""Judge --gpuperf-against: tests and those of a git revision, measured here and now in alternation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pytest

from pytest_gpuperf.errors import GpuperfError
from pytest_gpuperf.git import modified, toplevel
from pytest_gpuperf.marker import takes_numbers
from pytest_gpuperf.measurement import Outcome
from pytest_gpuperf.modes.case import case_of
from pytest_gpuperf.modes.comparison import Comparison, compare
from pytest_gpuperf.modes.missing import scope_of
from pytest_gpuperf.modes.mode import Judged, Mode, conclude, failed
from pytest_gpuperf.records import Record
from pytest_gpuperf.rules.case import Evidence
from pytest_gpuperf.rules.decide import decide
from pytest_gpuperf.session import GpuperfSession
from pytest_gpuperf.text import counted

_NOT_COMPARED = (
    Outcome.CONTRACT_CHANGED,
    Outcome.MISSING,
    Outcome.UNMEASURED,
    Outcome.UNFIT,
)


class Against(Mode):
    """A run whose tests that take numbers are measured in processes of this checkout and of a revision."""

    def __init__(self, session: GpuperfSession) -> None:
        super().__init__(session)
        assert session.options.against
        self._revision = session.options.against
        self._found: Comparison | GpuperfError | None = None

    def run(self, item: pytest.Item, nextitem: pytest.Item | None) -> bool | None:
        """Report a test that takes numbers from this checkout's processes; others run as ever."""
        if not takes_numbers(item):
            return super().run(item, nextitem)
        item.ihook.pytest_runtest_logstart(nodeid=item.nodeid, location=item.location)
        try:
            reports = self._own_reports(item)
        except GpuperfError as error:
            reports = [failed(item, str(error))]
        self.pass_on(item, reports)
        return True

    def judge(self, item: pytest.Item, record: Record) -> Judged:
        """Judge every metric of a test by the comparison."""
        if not takes_numbers(item):
            return self.judge_call(item, record)
        comparison = self._comparison(item.session.items)
        evidence = Evidence(
            compared={m.metric.name: comparison.of(item.nodeid, m.metric) for m in record.measurements},
            lost=comparison.lost(item.nodeid, record),
        )
        case = case_of(item, record, self._project, self._options)
        return conclude(
            case,
            record,
            decide(case, record, evidence),
            self._project,
            comparison.processes(item.nodeid),
        )

    def judge_call(self, item: pytest.Item, record: Record) -> Judged:
        """Judge a test that requested its fixtures dynamically, so it could not be compared."""
        case = case_of(item, record, self._project, self._options)
        return conclude(case, record, decide(case, record), self._project)

    def _own_reports(self, item: pytest.Item) -> list[pytest.TestReport]:
        """Return what this checkout's processes report of a test; the first call has all tests measured.

        Raises GpuperfError if there is nothing to compare with.
        """
        run = self._comparison(item.session.items).own(item.nodeid)
        reports = run.reports.get(item.nodeid, [])
        if trouble := run.trouble.get(item.nodeid):
            raise GpuperfError(f"this checkout {trouble}")
        if not reports:
            raise GpuperfError(
                "the processes of this checkout did not report it; run it by itself to see why"
            )
        return reports

    def _comparison(self, items: Sequence[pytest.Item]) -> Comparison:
        """Return the one comparison of this run, made when the first test needs it; or raise its error."""
        if self._found is None:
            session = self._session
            try:
                measured = [item for item in items if takes_numbers(item)]
                found = Comparison(self._revision, session.options.blocks)
                compare(session.children, measured, found, self._tolerances)
                self._found = found
            except GpuperfError as error:
                self._found = error
        if isinstance(self._found, GpuperfError):
            raise self._found
        return self._found

    def _tolerances(self, item: pytest.Item, record: Record) -> Mapping[str, float]:
        return case_of(item, record, self._project, self._options).tolerances

    def finish(self, items: Sequence[pytest.Item], complete: bool) -> None:
        """Say what code was compared, and find what strict cannot let pass."""
        results = self._results
        if changed := modified(toplevel(self._session.config.rootpath)):
            files = counted(changed, "uncommitted file")
            results.note(f"Compared the working tree ({files}) with {self._revision}.")
        for row in results.rows:
            if row.verdict.outcome in _NOT_COMPARED and not row.cause:
                # No failure says why, so this line must; metrics of a test that share a reason have one line.
                results.note(f"{row.test}: {row.verdict.outcome}: {row.verdict.reason}")
        self._conclude_run(scope_of(self._session, complete))
