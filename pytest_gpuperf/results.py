"""What the tests of a run came to: what this process and its workers heard of them, and the exit code."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import pytest

from pytest_gpuperf.processes.result import crash_line
from pytest_gpuperf.records import Cause, Keeper, Record, Row, detach, payload_of

if TYPE_CHECKING:
    from pytest_gpuperf.traces import Trace

EXIT_INFRASTRUCTURE = 20
EXIT_ENVIRONMENT = 21
EXIT_SETUP = 22
EXIT_TO_MEASURE = 23


class Results:
    """The results of a run's tests, wherever they ran; by node id unless said otherwise.

    ``collected`` are the tests that files were found to hold, before anything took some out again;
    ``collections`` is how each file's collection ended, with the reason of a skip.
    ``left_out`` are tests that were not measured in full because the budget was spent. ``findings`` are
    failures of the run as a whole, ``notes`` lines for the summary, ``status`` is the exit code at its end.
    ``failed`` is where each failed test stands, and why it failed in one line.
    Of a metric's ``samples`` so many are kept, for what is written at the end.
    """

    def __init__(self, samples: int) -> None:
        self.rows: list[Row] = []
        self.records: dict[str, Record] = {}
        self.traces: dict[str, Trace] = {}
        self.outcomes: dict[str, str] = {}
        self.skipped: dict[str, str] = {}
        self.failed: dict[str, tuple[str, int, str]] = {}
        self.collected: set[str] = set()
        self.collections: dict[str, tuple[str, str]] = {}
        self.causes: set[Cause] = set()
        self.findings: list[str] = []
        self.notes: dict[str, None] = {}
        self.left_out: set[str] = set()
        self.elsewhere: set[str] = set()
        self.deselected = False
        self.status = 0
        self._keep = Keeper(samples)
        self._failures = 0
        self._seen: list[pytest.TestReport] = []

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Take in a report, from this process, a worker or a child."""
        self._seen.append(report)
        if str(report.outcome) == "rerun":  # by pytest-rerunfailures: what the last attempt finds counts
            # of an attempt whose teardown failed its call has been taken in
            self.rows = [row for row in self.rows if row.nodeid != report.nodeid]
            self.records.pop(report.nodeid, None)
            return
        payload = payload_of(report)
        self.rows.extend(self._keep.row(row, report.nodeid) for row in payload.rows)
        for line in payload.accepted:
            self.note(line)
        for row in payload.rows:
            for line in row.details.get("notes", ()):
                self.note(f"{row.test}: {line}")
        if payload.left_out:
            self.left_out.add(report.nodeid)
        if payload.elsewhere:
            self.elsewhere.add(report.nodeid)
        if payload.record:
            self.records[report.nodeid] = self._keep.record(payload.record)
        if payload.trace:
            self.traces[report.nodeid] = payload.trace
        if report.when == "call" or report.outcome != "passed":
            self.outcomes[report.nodeid] = report.outcome
        if report.skipped and isinstance(report.longrepr, tuple):
            self.skipped[report.nodeid] = _why_skipped(report)
        if report.failed:
            self._failures += not hasattr(report, "wasxfail")
            self.causes.add(payload.cause or "wrong")
            self.failed[report.nodeid] = report.location[0], (report.location[1] or 0) + 1, crash_line(report)

    @pytest.hookimpl(trylast=True)
    def pytest_runtest_logfinish(self) -> None:
        """Free what is on reports, which pytest keeps; by now it is taken in, or sent to the parent."""
        for report in self._seen:
            detach(report)
        self._seen.clear()

    def pytest_itemcollected(self, item: pytest.Item) -> None:
        self.collected.add(item.nodeid)

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        self.collections[report.nodeid] = report.outcome, _why_skipped(report)

    def told(self, items: Sequence[pytest.Item]) -> dict[str, Any]:
        """Return what a worker of xdist tells its controller: what it collected and does not run."""
        run = {item.nodeid for item in items}
        files = {nodeid: end for nodeid, end in self.collections.items() if "::" not in nodeid}
        return {"left": sorted(self.collected - run), "files": files, "deselected": self.deselected}

    def hear(self, told: Mapping[str, Any]) -> None:
        """Take in, in the controller, what a worker ``told``."""
        self.collected.update(told["left"])
        self.collections |= {nodeid: tuple(end) for nodeid, end in told["files"].items()}
        self.deselected |= told["deselected"]

    def finding(self, cause: Cause, text: str) -> None:
        """Fail the run for what no single test can fail for: it decides the exit code and is printed."""
        self.causes.add(cause)
        if text not in self.findings:
            self.findings.append(text)

    def note(self, text: str) -> None:
        """Say something once at the end, however often it came up; nothing if it is empty."""
        if text:
            self.notes[text] = None

    def passed(self, items: Sequence[pytest.Item]) -> list[pytest.Item]:
        """Return the items that passed and measured something."""
        return [i for i in items if i.nodeid in self.records and self.outcomes[i.nodeid] == "passed"]

    def why_failed(self) -> dict[str, str]:
        """Return each failed test's reason, in one line."""
        return {nodeid: why for nodeid, (_, _, why) in self.failed.items()}

    def exit_status(self, status: int, failed: int) -> int:
        """Return pytest's own status, or ours if every failure has one of our causes.

        ``failed`` is what pytest counted: more than the failed reports where a file could not be collected,
        or another plugin failed the run, such as for its coverage.
        """
        if failed > self._failures:
            self.causes.add("wrong")
        ours = status in (pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED)
        if not ours or not self.causes:
            return status
        if "wrong" in self.causes:
            return int(pytest.ExitCode.TESTS_FAILED)
        if "setup" in self.causes:
            return EXIT_SETUP
        return EXIT_ENVIRONMENT if "environment" in self.causes else EXIT_INFRASTRUCTURE


def _why_skipped(report: pytest.CollectReport | pytest.TestReport) -> str:
    """Return the reason of a skip, "" for any other report."""
    return report.longrepr[2].removeprefix("Skipped: ") if isinstance(report.longrepr, tuple) else ""
