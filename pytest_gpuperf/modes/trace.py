"""Record what each test asks of CUDA and what the device does of it; nothing is measured."""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest

from pytest_gpuperf.backends.tracing import tracer
from pytest_gpuperf.errors import GpuperfError, Unavailable
from pytest_gpuperf.files import check_output, replace_file
from pytest_gpuperf.flags import flag_of
from pytest_gpuperf.modes.mode import Mode
from pytest_gpuperf.records import attach, payload_of
from pytest_gpuperf.session import GpuperfSession
from pytest_gpuperf.text import inert
from pytest_gpuperf.traces import Trace, trace_of

_NAME = "gpuperf-trace.json"


class Tracing(Mode):
    """A run whose tests are traced, here, in workers of xdist, and in the children that some run in."""

    def __init__(self, session: GpuperfSession) -> None:
        super().__init__(session)
        self._start: int | None = None
        self._given = session.config.invocation_params.dir / str(self._options.trace)
        self._file = self._given / _NAME if self._given.is_dir() else self._given

    def check(self, asked: Sequence[Path]) -> None:
        """Check that something records here, and that the file can be written; raises GpuperfError."""
        from pytest_gpuperf.report.perfetto import BEGINNING

        flag = f"--gpuperf-trace={self._options.trace}"
        check_output(flag, "trace", self._file, BEGINNING, self._holds_tests(asked))
        for report in self._options.reports:
            path = str(getattr(self._options, report))
            if os.path.realpath(self._session.config.invocation_params.dir / path) == os.path.realpath(
                self._file
            ):
                raise GpuperfError(f"{flag} and {flag_of(report)}={path} name one file: give each its own")
        try:
            tracer(self._options.backend)
        except Unavailable as error:
            raise GpuperfError(f"--gpuperf-trace: {error}") from None

    def _holds_tests(self, asked: Sequence[Path]) -> bool:
        """Say whether a folder was given where a suite was meant: a part of all that runs then."""
        config = self._session.config
        if self._options.child is not None or config.args_source is config.ArgsSource.ARGS:
            return False
        known = [config.invocation_params.dir / path for path in asked]
        meant = self._given.is_dir() and not any(path.is_relative_to(self._given) for path in known)
        return meant and any(self._given.rglob("test_*.py"))

    def begin(self, item: pytest.Item) -> None:
        """Begin a test's trace before its fixtures are set up; what came between tests is nobody's."""
        session = self._session
        if session.tracer is None:
            tracing = tracer(self._options.backend)
            tracing.start()
            session.tracer = tracing
        session.tracer.take()
        self._start = session.tracer.now()

    def review(self, item: pytest.Item, call: pytest.CallInfo[None], report: pytest.TestReport) -> None:
        """Put the test's trace on its last report."""
        tracing, start = self._session.tracer, self._start
        if report.when != "teardown" or tracing is None or start is None:
            return
        self._start, end = None, tracing.now()
        with suppress(GpuperfError):  # of a kernel that broke the context, which its test has said
            self._session.settle_device()
        events = [event for event in tracing.take() if event.start < end]
        trace = trace_of(events, start, end, os.getpid())
        attach(report, replace(payload_of(report), trace=trace))

    # --------------------------------------------------------------------------- the end of the run

    @property
    def _traces(self) -> dict[str, Trace]:
        return self._results.traces

    def finish(self, items: Sequence[pytest.Item], complete: bool) -> None:
        """Write the file; a child's traces are the parent's."""
        if self._options.child is not None:
            return
        from pytest_gpuperf.report.perfetto import render

        try:
            replace_file(self._file, render(self._traces))
        except OSError as error:
            self._results.finding("setup", f"{self._file}: cannot be written ({error.strerror or error})")

    def tell(self, reporter: pytest.TerminalReporter) -> None:
        """Print the table, and where the file is."""
        from pytest_gpuperf.report.trace import notes, table

        if not self._traces and not self._results.findings:
            return
        reporter.write_sep("=", "gpuperf: trace")
        lines = table(self._traces) if reporter.config.option.verbose >= 0 else ()
        file = os.path.relpath(self._file, self._session.config.invocation_params.dir)
        told = notes(self._traces, file, self._session.expects_device())
        for line in (*lines, *told, *self._results.notes, *self._results.findings):
            reporter.write_line(inert(line))
