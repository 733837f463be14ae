"""The base of all modes: run tests in processes of their own, and put verdicts on their reports."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import pytest

from pytest_gpuperf.errors import GpuperfError
from pytest_gpuperf.marker import FIXTURES_OF_NUMBERS, fixtures_of, isolates, place_of
from pytest_gpuperf.measurement import JUDGED
from pytest_gpuperf.records import Payload, Record, Row, attach, payload_of
from pytest_gpuperf.report.junit import properties
from pytest_gpuperf.session import GpuperfSession
from pytest_gpuperf.text import inert

if TYPE_CHECKING:
    from pytest_gpuperf.modes.missing import Scope
    from pytest_gpuperf.rules.case import Case
    from pytest_gpuperf.storage.project import Project

Phase = Literal["call", "teardown"]


class Judged(NamedTuple):
    """A test's verdicts, and the text of its failure or, without a cause, of its xfail; "" if it passes."""

    payload: Payload
    text: str = ""


def conclude(
    case: Case, record: Record, rows: tuple[Row, ...], project: Project, processes: int = 0
) -> Judged:
    """Say what its rows mean for a test; ``processes`` of each side were compared, if any."""
    failing = [row for row in rows if row.cause]
    if failing or case.refused:
        from pytest_gpuperf.report.message import explain
        from pytest_gpuperf.rules.decide import worst

        texts = [f"not accepted: {case.refused}\n  again     {case.again}"] if case.refused else []
        if failing:
            texts.append(explain(failing, case, record, processes, project.since))
        return Judged(Payload(record, rows, "wrong" if case.refused else worst(rows)), "\n\n".join(texts))
    from pytest_gpuperf.rules.waivers import EXPECTED

    expected = any(row.excuse == EXPECTED for row in rows)
    return Judged(Payload(record, rows), str(case.waiver) if expected else "")


class Mode:
    """Run tests and judge nothing, as without --gpuperf or in a child process; the base of all others."""

    def __init__(self, session: GpuperfSession) -> None:
        self._session = session
        self._options, self._project, self._results = session.options, session.project, session.results

    def check(self, asked: Sequence[Path]) -> None:
        """Check the quarantine files of the folders and files that were asked for; raises GpuperfError."""
        here = self._session.config.invocation_params.dir
        paths = [here / path for path in asked]
        suites = [path / "suite.py" if path.is_dir() else path for path in paths]
        if self._options.active and self._options.child is None:
            from pytest_gpuperf.modes import quarantine

            quarantine.check(self._project, suites)

    def prepare(self, items: list[pytest.Item]) -> None:
        """Check the quarantine files and sort the tests before the first one; raises GpuperfError."""
        self._project.learn(items)
        if self._options.active and self._options.child is None:
            from pytest_gpuperf.modes import quarantine

            quarantine.check(self._project, {item.path for item in items})

    def run(self, item: pytest.Item, nextitem: pytest.Item | None) -> bool | None:
        """Run a test in a process of its own if it asks for one, or if this one lost the device.

        None leaves it to pytest.
        """
        afresh = self._session.lost and self._session.uses_device(item)
        if self._options.child is not None or not (isolates(item) or afresh):
            return None
        item.ihook.pytest_runtest_logstart(nodeid=item.nodeid, location=item.location)
        self.pass_on(item, self.child_reports(item))
        return True

    def select(self, items: list[pytest.Item]) -> None:
        """Take out of the tests that were selected those that this run does not need; raises GpuperfError."""

    def begin(self, item: pytest.Item) -> None:
        """Begin a test, before its fixtures are set up."""

    def review(self, item: pytest.Item, call: pytest.CallInfo[None], report: pytest.TestReport) -> None:
        """Change a report of a test that ran here, once it is finished otherwise."""

    def status(self, status: int) -> int:
        """Return the run's exit code, given what failed."""
        return status

    def tell(self, reporter: pytest.TerminalReporter) -> None:
        """Print what a run that measures nothing has found; of one that measures, the summary tells."""
        for line in () if self._options.active else self._results.notes:
            reporter.write_line(inert(line))

    def judge_call(self, item: pytest.Item, record: Record) -> Judged:
        """Judge a test that passed in this process, at the end of its call."""
        return self.judge(item, record)

    def judge(self, item: pytest.Item, record: Record) -> Judged:
        """Judge what a passed test measured, wherever it ran; raises GpuperfError."""
        return Judged(Payload(record))

    def finish(self, items: Sequence[pytest.Item], complete: bool) -> None:
        """End a run whose tests have all been run; ``complete``: none was cut off by -x or a signal."""

    def settle(self, interrupted: bool = False) -> None:
        """Report the tests that were held back."""

    def _conclude_run(self, scope: Scope) -> None:
        """Name the quarantines that mattered, and under strict find a run that judged nothing."""
        from pytest_gpuperf.modes import quarantine, terms

        results = self._results
        lines = quarantine.summary_lines(self._project, results, scope)
        for line in (*lines, *terms.own_keys(self._session), *terms.unmatched(self._session, scope)):
            results.note(line)
        judged = any(row.verdict.outcome in JUDGED for row in results.rows)
        judged |= bool(results.elsewhere) and results.elsewhere >= results.outcomes.keys()
        # where only the machine was at fault, that is why
        if self._options.strict and not judged and "infrastructure" not in results.causes:
            results.finding("setup", "nothing was judged in this run")

    # --------------------------------------------------------------------------- tests that ran elsewhere

    def child_reports(self, item: pytest.Item) -> list[pytest.TestReport]:
        """Run a test in a process of its own; only for its correctness if nothing is measured now."""
        session = self._session
        takes_numbers = fixtures_of(item) & FIXTURES_OF_NUMBERS
        active = session.measures(item) if takes_numbers else session.options.active
        result = session.children.run([item], active=active, of_the_test=True)
        reports = result.of(item.nodeid)
        if item.nodeid in self._results.left_out:
            for report in reports:
                attach(report, replace(payload_of(report), left_out=True))
        if trouble := result.trouble or result.crashed(item.nodeid):
            text = f"The process of this test {trouble}. It printed last:\n{result.output}"
            reports = [r for r in reports if r.when != "teardown"]
            ended_in: Phase = "teardown" if any(r.when == "call" for r in reports) else "call"
            reports.append(failed(item, text, ended_in))
        return reports

    def pass_on(self, item: pytest.Item, reports: Sequence[pytest.TestReport]) -> None:
        """Report a test that ran in another process as if it had run here, judged."""
        for report in reports:
            if report.when == "call" and report.passed:
                self._judge_report(item, report)
                found = properties(payload_of(report).rows)
                for each in reports:
                    each.user_properties += found
            item.ihook.pytest_runtest_logreport(report=report)
        item.ihook.pytest_runtest_logfinish(nodeid=item.nodeid, location=item.location)

    def _judge_report(self, item: pytest.Item, report: pytest.TestReport) -> None:
        record = payload_of(report).record
        if record is None:
            return
        try:
            payload, text = self.judge(item, record)
        except GpuperfError as error:
            payload, text = Payload(record, cause="wrong"), str(error)
        attach(report, replace(payload, left_out=item.nodeid in self._results.left_out))
        if payload.cause:
            vars(report).pop("wasxfail", None)  # of a mark that was made for something else
            from pytest_gpuperf.report.failure import failure, why

            report.outcome, report.longrepr = "failed", failure(text, why(payload, text), *place_of(item))
        elif text:
            report.outcome, report.wasxfail = "skipped", f"reason: {text}"


def failed(item: pytest.Item, text: str, when: Phase = "call") -> pytest.TestReport:
    """Return the report of a test that failed outside its own process's reports."""
    keywords: dict[str, Any] = dict.fromkeys(item.keywords, 1)
    return pytest.TestReport(item.nodeid, item.location, keywords, "failed", text, when)
