"""What came back from a child pytest process, and how it ended."""

from __future__ import annotations

import re
import signal
from collections import defaultdict
from collections.abc import Collection, Sequence

import pytest

from pytest_gpuperf.records import payload_of

_ERROR = re.compile(r"(?:E +|ERROR: |INTERNALERROR> (?=\w+:)|.*: error: )(.*)")
_WORDS_KEPT = 400  # characters of a process's last words


class ChildResult:
    """The reports of a child; ``trouble`` says how it ended if it did not end well, after ``output``.

    ``collected`` are reports of collections that failed.
    """

    def __init__(self) -> None:
        self.reports: list[pytest.TestReport] = []
        self.collected: dict[str, pytest.TestReport] = {}
        self.trouble = ""
        self.output = ""
        self.returncode: int | None = None
        self._by_nodeid: dict[str, list[pytest.TestReport]] = defaultdict(list)

    def add(self, report: pytest.TestReport) -> None:
        if report.when == "collect":
            self.collected[report.nodeid] = report
            return
        self.reports.append(report)
        self._by_nodeid[report.nodeid].append(report)

    def of(self, nodeid: str) -> list[pytest.TestReport]:
        """Return a test's reports, in order."""
        return self._by_nodeid.get(nodeid, [])

    def crashed(self, nodeid: str) -> str:
        """Return how the process ended before a test's teardown was reported, "" if it was.

        Whatever the exit code: a C library's exit(0) in a test ends it as a segmentation fault does.
        """
        reports = self.of(nodeid)
        if any(report.when == "teardown" for report in reports):
            return ""
        where = "in the middle of it" if reports else "and reported nothing of it"
        return self.trouble or f"ended with exit code {self.returncode} {where}"

    @property
    def last_words(self) -> str:
        """Return a clause with the end of what a process printed: the error that pytest names, if it does."""
        lines = [line.strip() for line in self.output.splitlines() if line.strip()]
        errors = [found[1] for line in lines if (found := _ERROR.match(line))]
        words = errors[-1:] or [line for line in lines if not line.startswith(("inifile:", "rootdir:"))][-3:]
        return f"it printed last: {' / '.join(words)[-_WORDS_KEPT:]}" if words else "it printed nothing"

    @property
    def refusal(self) -> str:
        """Return why pytest did not take this process's options, "" if it did."""
        if self.returncode != pytest.ExitCode.USAGE_ERROR or self.reports or self.collected:
            return ""
        unknown = re.search(r"error: unrecognized arguments: (.*)", self.output)
        return (
            f"does not know {unknown[1].strip()}" if unknown else f"refuses its options ({self.last_words})"
        )

    def unfit(self) -> dict[str, str]:
        """Return the tests that were measured on an unfit machine, by node id, and why it was not fit."""
        records = ((report.nodeid, payload_of(report).record) for report in self.reports)
        return {nodeid: record.unfit for nodeid, record in records if record and record.unfit}

    def kept_from(self) -> dict[str, str]:
        """Return the tests that the machine kept from measuring, where a fresh process may do, and why."""
        again = {report.nodeid for report in self.reports if payload_of(report).again}
        return {nodeid: why for nodeid in again if (why := not_fit(self.of(nodeid)))}

    def replace(self, nodeids: Collection[str], again: ChildResult) -> ChildResult:
        """Return this result with the reports of ``nodeids``, and how it ended, from a repetition."""
        merged = ChildResult()
        merged.collected = self.collected | again.collected
        for report in self.reports:
            if report.nodeid not in nodeids:
                merged.add(report)
        for report in again.reports:
            merged.add(report)
        merged.trouble, merged.output, merged.returncode = again.trouble, again.output, again.returncode
        return merged


def not_fit(reports: Sequence[pytest.TestReport]) -> str:
    """Return why the machine did not let a test measure (lock not got, device lost); "" for other causes."""
    failed = [report for report in reports if report.failed]
    if any(payload_of(report).cause != "infrastructure" for report in failed):
        return ""
    return crash_line(failed[0]) if failed else ""


def crash_line(report: pytest.TestReport) -> str:
    """Return what a failed report says in one line."""
    crash = getattr(report.longrepr, "reprcrash", None)
    return (crash.message if crash else report.longreprtext).strip().partition("\n")[0]


def how_it_ended(returncode: int) -> str:
    """Return what an exit code other than pytest's own for a finished run says."""
    if returncode < 0:
        names = {int(each): each.name for each in signal.Signals}
        return f"died of {names.get(-returncode, f'signal {-returncode}')}"
    return f"ended with exit code {returncode} before it finished"
