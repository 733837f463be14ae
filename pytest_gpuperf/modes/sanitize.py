"""Run the tests that use the GPU in processes under compute-sanitizer; what it finds fails them."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from functools import cached_property
from pathlib import Path

import pytest

from pytest_gpuperf.errors import GpuperfError, Unavailable
from pytest_gpuperf.marker import place_of
from pytest_gpuperf.modes.mode import Mode, failed
from pytest_gpuperf.processes.sanitizer import LOG, Sanitizer, find, reader
from pytest_gpuperf.records import attach, payload_of
from pytest_gpuperf.session import GpuperfSession
from pytest_gpuperf.text import counted, inert

_EMULATED = (
    "Emulated: --gpuperf-sanitize starts nothing: the emulator checks every launch's\n"
    "  accesses, barriers and races itself."
)
Reports = list[pytest.TestReport]


class Sanitizing(Mode):
    """A run whose tests run in children, once under each tool; the others run here, as ever."""

    def __init__(self, session: GpuperfSession) -> None:
        super().__init__(session)
        self._under: dict[str, dict[str, Reports]] = {}

    @cached_property
    def _real(self) -> bool:
        return self._session.expects_device()

    def check(self, asked: Sequence[Path]) -> None:
        """Check that there is a compute-sanitizer, where there is a GPU; raises GpuperfError."""
        try:
            if self._real:
                find()
        except Unavailable as error:
            raise GpuperfError(f"--gpuperf-sanitize: {error}") from None

    def run(self, item: pytest.Item, nextitem: pytest.Item | None) -> bool | None:
        if not (self._real and self._session.uses_device(item)):
            return super().run(item, nextitem)
        item.ihook.pytest_runtest_logstart(nodeid=item.nodeid, location=item.location)
        self.pass_on(item, self._found(item))
        return True

    def _found(self, item: pytest.Item) -> Reports:
        """Return a test's reports: those of the first tool under which it failed, with what others found."""
        by_tool = {tool: reports[item.nodeid] for tool, reports in self._reports(item.session.items).items()}
        failing = {tool: text for tool, reports in by_tool.items() if (text := _failure(reports))}
        first = next(iter(failing or by_tool))
        for tool, text in failing.items():
            if text != failing[first]:
                last = next(report for report in by_tool[first] if report.failed)
                last.sections.append((f"compute-sanitizer {tool}", text))
        return by_tool[first]

    def _reports(self, items: Sequence[pytest.Item]) -> dict[str, dict[str, Reports]]:
        """Run all tests under all tools, when the first is asked for."""
        if not self._under:
            ours = [item for item in items if self._session.uses_device(item)]
            for tool in self._options.sanitize or ():
                self._session.children.stage(f"{counted(len(ours), 'test')} under compute-sanitizer's {tool}")
                self._under[tool] = self._run(tool, ours)
        return self._under

    def _run(self, tool: str, items: Sequence[pytest.Item]) -> dict[str, Reports]:
        """Return the tests' reports; a process ends after a finding, and the next one goes on behind it."""
        found: dict[str, Reports] = {}
        left = list(items)
        while left:
            with tempfile.TemporaryDirectory() as folder:
                sanitizer = Sanitizer(find(), tool, Path(folder) / "log")
                result = self._session.children.run(left, active=False, sanitizer=sanitizer)
                troubles = sanitizer.troubles()
            done = [item for item in left if not result.crashed(item.nodeid)]
            found |= {item.nodeid: _checked(item, result.of(item.nodeid), tool, troubles) for item in done}
            left = [item for item in left if item.nodeid not in found]
            if left and not (done and _failure(found[done[-1].nodeid])):
                why = result.trouble or result.crashed(left[0].nodeid)
                why += f" (compute-sanitizer: {troubles})" if troubles else ""
                text = f"The process of this test under {tool} {why}. It printed last:\n{result.output}"
                # A tool that does not start would not for the next test either.
                over = left if troubles and not result.reports else left[:1]
                found |= {item.nodeid: [failed(item, text)] for item in over}
                left = left[len(over) :]
        return found

    def tell(self, reporter: pytest.TerminalReporter) -> None:
        """Say what was checked."""
        tests = len(next(iter(self._under.values()), {}))
        if (self._real and not tests) or reporter.config.option.collectonly:
            return
        tools = ", ".join(self._options.sanitize or ())
        reporter.write_sep("=", "gpuperf: compute-sanitizer")
        checked = f"{tools} checked {counted(tests, 'test')} on the GPU; nothing was measured"
        for line in (checked if self._real else _EMULATED, *self._results.notes, *self._results.findings):
            reporter.write_line(inert(line))


def _checked(item: pytest.Item, reports: Reports, tool: str, troubles: str) -> Reports:
    """Return a test's reports, or a failure if the tool did not watch its process."""
    if not troubles:
        return reports
    text = f"compute-sanitizer's {tool} did not watch the process of this test: {troubles}"
    return [failed(item, f"{text}. Nothing was checked.")]


def _failure(reports: Reports) -> str:
    """Return what the reports of a failed test say, "" if it did not fail."""
    return next((report.longreprtext for report in reports if report.failed), "")


class Sanitized(Mode):
    """The child's side: each phase of a test fails by what the tool has found meanwhile."""

    def __init__(self, session: GpuperfSession) -> None:
        super().__init__(session)
        self._read = reader(Path(os.environ.get(LOG, os.devnull)))
        self._over = False

    def review(self, item: pytest.Item, call: pytest.CallInfo[None], report: pytest.TestReport) -> None:
        """Fail a test, however it went, for what the tool has found since the last report.

        That is what its launches did: the tool has written it when the device is idle. The process ends with
        the test then, since the tool prints so many findings a process, and a kernel that was ended has left
        half of its work.
        """
        session = self._session
        with suppress(GpuperfError):  # of a broken context: what broke it has been found
            session.settle_device()
        if found := self._read():
            from pytest_gpuperf.report.failure import failure

            (tool,) = self._options.sanitize or ("",)
            text = "\n".join(f"{sentence} [{tool}]" for sentence in found)
            if report.failed:
                text += f"\n{report.longreprtext}"
            vars(report).pop("wasxfail", None)
            report.outcome, report.longrepr = "failed", failure(text, found[0], *place_of(item))
            attach(report, replace(payload_of(report), cause="wrong"))
        self._over |= bool(found) or session.lost
        if self._over and report.when == "teardown":
            item.session.shouldfail = "compute-sanitizer has found something"
