"""What the pytest hooks do in a session with GPU tests; each a few lines that call the mode of the run."""

from __future__ import annotations

import os
import sys
from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from pytest_gpuperf.errors import GpuperfError
from pytest_gpuperf.instruments import ranges
from pytest_gpuperf.marker import test_options
from pytest_gpuperf.modes import mode_of
from pytest_gpuperf.modes.measure import finish_report, measuring, record_of, skip_elsewhere, tear_down
from pytest_gpuperf.modes.mode import Mode
from pytest_gpuperf.options import read_options
from pytest_gpuperf.processes.limits import limit_time, paused
from pytest_gpuperf.records import Payload, Recorder, without_ours
from pytest_gpuperf.report.junit import properties
from pytest_gpuperf.session import RECORDER, GpuperfSession, check_workers, recorder_of
from pytest_gpuperf.text import counted
from pytest_gpuperf.waking import SESSION

MODE = pytest.StashKey[Mode]()
_TOLD = "gpuperf"
_OVER = Recorder()
_OVER.closed = True


def start(config: pytest.Config) -> None:
    """Read the options and choose the mode; raises pytest.UsageError."""
    options = read_options(config)
    check_workers(config, options)
    if options.calibrate is not None:
        from pytest_gpuperf.modes.calibrate import check_count

        check_count(options)
    session = config.stash[SESSION] = GpuperfSession(config, options)
    config.stash[MODE] = mode_of(session)
    config.pluginmanager.register(session.results, "gpuperf-collector")
    limit_time(config, options)
    if options.active:
        _warm_benchmarks(config)
    if options.child is not None:
        from pytest_gpuperf.processes.reporter import ChildReporter

        reporter = ChildReporter(config, options.child)
        config.pluginmanager.register(reporter, "gpuperf-child")
        session.batches = reporter.batches
        session.guard.wanted = reporter.repeats


def _warm_benchmarks(config: pytest.Config) -> None:
    """Have pytest-benchmark call a function once more before it decides how often to time it.

    It goes by the first call, and after one that compiles a kernel it would time five.
    """
    if not getattr(config.option, "benchmark_warmup", True):
        config.option.benchmark_warmup, config.option.benchmark_warmup_iterations = True, 1


def report_header(config: pytest.Config) -> list[str] | None:
    session = config.stash[SESSION]
    if not _leads(session):
        return None
    from pytest_gpuperf.modes.calibrate import header
    from pytest_gpuperf.report.summary import settings

    return [settings(session.options), *header(session)]


def collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    for item in items:
        test_options(item)  # a wrong marker stops the run before anything is measured
    with _usage_errors():
        config.stash[MODE].prepare(items)


def collection_finish(session: pytest.Session) -> None:
    with _usage_errors():
        session.config.stash[MODE].select(session.items)


def sessionstart(session: pytest.Session) -> None:
    """Check before xdist starts workers, in which an error would be one of xdist's own."""
    with _usage_errors():
        session.config.stash[MODE].check([Path(arg.partition("::")[0]) for arg in session.config.args])
        ours = session.config.stash[SESSION]
        if ours.options.reports or ours.options.markdown:
            from pytest_gpuperf import publish

            publish.check(ours)


@contextmanager
def _usage_errors() -> Iterator[None]:
    try:
        yield
    except GpuperfError as error:
        raise pytest.UsageError(str(error)) from None


def deselected(items: Sequence[pytest.Item]) -> None:
    if items:
        items[0].config.stash[SESSION].results.deselected = True


def runtest_protocol(item: pytest.Item, nextitem: pytest.Item | None) -> bool | None:
    done = item.config.stash[MODE].run(item, nextitem)
    if done:
        tear_down(item.config.stash[SESSION], item, nextitem)
    return done


def runtest_setup(item: pytest.Item) -> None:
    item.stash[RECORDER] = Recorder()  # a rerun measures afresh
    item.config.stash[SESSION].results.note(ranges.begin(item.nodeid))
    item.config.stash[MODE].begin(item)
    skip_elsewhere(item.config.stash[SESSION], item)


def runtest_call(item: pytest.Item) -> Generator[None, Any, Any]:
    session = item.config.stash[SESSION]
    with session.live, measuring(session, item):
        try:
            result = yield
        except BaseException:
            with suppress(GpuperfError):
                session.settle_device()  # what it broke is its own all the same
            raise
        session.settle_device()
    record, recorder = record_of(session, item) if session.options.active else None, recorder_of(item)
    recorder.closed = True
    if record is not None:
        recorder.result = Payload(record)
        with paused(item.config):
            payload, text = item.config.stash[MODE].judge_call(item, record)
        recorder.result = payload
        item.user_properties += properties(payload.rows)
        if payload.cause:
            pytest.fail(text, pytrace=False)
        if text:
            pytest.xfail(text)
    return result


def runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    session = item.config.stash[SESSION]
    finish_report(session, item, call, report)
    item.config.stash[MODE].review(item, call, report)
    if session.stuck and call.when == "teardown":
        item.session.shouldfail = session.opened.device.lost  # type: ignore[union-attr]
    if report.when == "teardown":
        ranges.end()
        item.user_properties = without_ours(item.user_properties)
        item.stash[RECORDER] = _OVER  # items live as long as the session, and samples are many
    return report


def runtestloop(session: pytest.Session) -> Generator[None, Any, Any]:
    mode, ours = session.config.stash[MODE], session.config.stash[SESSION]
    try:
        result = yield
    except BaseException as error:
        if ours.options.strict and isinstance(error, pytest.exit.Exception) and error.returncode == 0:
            ours.results.finding("setup", "pytest.exit ended the session before all of its tests had run")
        if ours.stuck:
            left = len(session.items) - len(ours.results.outcomes)
            ours.results.note(f"{counted(left, 'test')} not run: {session.shouldfail}")
        mode.settle(interrupted=True)
        raise
    mode.settle()
    if not ours.in_worker and not session.config.option.collectonly:
        try:
            mode.finish(session.items, complete=not (session.shouldstop or session.shouldfail))
        except GpuperfError as error:
            ours.results.finding("wrong", str(error))
    return result


def sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    ours = session.config.stash[SESSION]
    if ours.options.child is None:  # a child's parent decides
        mode = session.config.stash[MODE]

        def decide() -> None:
            status = ours.results.exit_status(exitstatus, session.testsfailed)
            session.exitstatus = ours.results.status = mode.status(status)

        decide()
        if ours.options.reports:
            from pytest_gpuperf import publish

            publish.write(ours)
        decide()  # a report that could not be written fails the run
    if ours.in_worker:
        session.config.workeroutput[_TOLD] = ours.results.told(session.items)  # type: ignore[attr-defined]
    ours.close()


def testnodedown(node: Any) -> None:
    """Take in what a worker of xdist has told; one that crashed has told nothing."""
    if told := getattr(node, "workeroutput", {}).get(_TOLD):
        node.config.stash[SESSION].results.hear(told)


def terminal_summary(
    terminalreporter: pytest.TerminalReporter, exitstatus: int, config: pytest.Config
) -> None:
    session = config.stash[SESSION]
    config.stash[MODE].tell(terminalreporter)
    if _leads(session):
        from pytest_gpuperf.report.command import measuring, targets
        from pytest_gpuperf.report.summary import exit_code, next_steps, summarise, title

        results, records = session.results, session.results.records.values()
        steps = next_steps(
            results.rows,
            records,
            session.options,
            lambda *tests: measuring(config, *(tests or targets(config))),
        )
        lines = (
            *results.notes,
            *results.findings,
            *steps,
            *exit_code(results.status, exitstatus, bool(results.failed)),
        )
        if config.option.collectonly and not results.rows and not results.findings:
            return
        summarise(
            terminalreporter,
            title(records),
            results.rows,
            lines,
            verbosity=config.option.verbose,
            against=bool(session.options.against),
        )
        _tell_the_pull_request(terminalreporter, session, title(records), lines)


def _tell_the_pull_request(
    reporter: pytest.TerminalReporter, session: GpuperfSession, title: str, lines: Sequence[str]
) -> None:
    """Write the Markdown that was asked for, and annotate the failed tests' lines under GitHub Actions."""
    results, config = session.results, session.config
    if session.options.markdown or os.environ.get("GITHUB_STEP_SUMMARY"):
        from pytest_gpuperf.report.command import judging
        from pytest_gpuperf.report.markdown import markdown, write

        try:
            reasons, judged_by = results.why_failed(), judging(config)
            text = markdown(title, results.rows, lines, results.status, reasons, judged_by)
            write(text, session.options.markdown, config.invocation_params.dir)
        except OSError as error:
            reporter.write_line(f"gpuperf: {error.filename}: cannot be written ({error.strerror})")
    others = config.pluginmanager.has_plugin("pytest_github_actions_annotate_failures")
    if os.environ.get("GITHUB_ACTIONS") == "true" and not others:
        from pytest_gpuperf.report.markdown import annotation

        top = os.environ.get("GITHUB_WORKSPACE") or config.rootpath
        for nodeid, (file, line, why) in results.failed.items():
            path = os.path.relpath(config.rootpath / file, top)
            reporter.write_line(annotation(path, line, nodeid, why))


def unconfigure(config: pytest.Config) -> None:
    """End a process at once whose kernel does not: everything has been reported."""
    session = config.stash.get(SESSION, None)
    if session is not None and session.stuck:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(session.results.status or int(pytest.ExitCode.TESTS_FAILED))


def _leads(session: GpuperfSession) -> bool:
    """Return whether this process measures and tells a person about it."""
    return session.options.active and session.options.child is None
