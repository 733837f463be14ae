"""Measure one test in this process: hold the device, collect what was measured, finish its reports."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from pytest_gpuperf.errors import GpuperfError, NotFit, NotFree, Unavailable
from pytest_gpuperf.files import is_users
from pytest_gpuperf.marker import FIXTURES_OF_NUMBERS, fixtures_of, place_of, test_options
from pytest_gpuperf.measurement import Kind, Measurement, Metric
from pytest_gpuperf.processes.limits import paused
from pytest_gpuperf.records import Cause, Payload, Record, attach
from pytest_gpuperf.session import GpuperfSession, recorder_of

if TYPE_CHECKING:
    from pytest_gpuperf.backends.gpu import Gpu


@contextmanager
def measuring(session: GpuperfSession, item: pytest.Item) -> Iterator[None]:
    """Hold the device during the test and watch whether it is throttled."""
    options = session.options
    if options.trace is not None or options.sanitize is not None:
        _run_benchmarks_once(item)
    if not options.active:
        yield
        return
    gpu = session.gpu() if session.uses_device(item) else None
    if gpu:
        session.mark_memory()
    if "benchmark" in fixtures_of(item) and not session.measures(item):
        _run_benchmarks_once(item)
    if not _must_be_alone(session, item, gpu):
        yield
        return
    with ExitStack() as held:
        with paused(item.config):  # others may have the device, until they give it back
            held.enter_context(session.guard.measuring(gpu))
        yield
    recorder_of(item).unfit = session.guard.unfit


def _run_benchmarks_once(item: pytest.Item) -> None:
    """Have pytest-benchmark's fixture run its function once, untimed."""
    if "benchmark" in fixtures_of(item):
        item.funcargs["benchmark"].disabled = True  # type: ignore[attr-defined]


def _must_be_alone(session: GpuperfSession, item: pytest.Item, gpu: Gpu | None) -> bool:
    """Return whether others must wait meanwhile: on a real device, or a host whose times are judged."""
    if gpu and gpu.device.judges_times:
        return True
    return session.options.judge_host_times and bool(FIXTURES_OF_NUMBERS & fixtures_of(item))


def record_of(session: GpuperfSession, item: pytest.Item) -> Record | None:
    """Return what a test measured in this process, None if nothing."""
    recorder = recorder_of(item)
    _take_benchmark(session, item)
    if not recorder.measurements and not recorder.unchanged:
        return None
    from pytest_gpuperf.machine import environment

    # Another test may have opened the device: that must not move this one's figures to another pool.
    taken = (*recorder.measurements.values(), *recorder.unchanged.values())
    measured_there = any(m.metric.constants.where == "device" for m in taken)
    opened = session.opened
    device = opened.device if opened and (measured_there or session.uses_device(item)) else None
    sentinels = session.guard.sentinels
    return Record(
        measurements=tuple(recorder.measurements.values()),
        device=device.place() if device else {"backend": "cpu"},
        host=environment.host_place(),
        environment={
            **environment.describe(device, item.path.parent, session.options.baselines),
            **({"sentinels": sentinels} if sentinels else {}),
        },
        unfit=recorder.unfit,
        unchanged=tuple(recorder.unchanged.values()),
    )


def _take_benchmark(session: GpuperfSession, item: pytest.Item) -> None:
    """Record what a test measured by pytest-benchmark's fixture, to be judged like any other figure."""
    fixture = getattr(item, "funcargs", {}).get("benchmark")
    run = getattr(fixture, "stats", None)
    data = tuple(getattr(getattr(run, "stats", None), "data", ()))
    if not data:
        return
    kind: Kind = "noisy" if session.judges_host_time() else "shown"
    metric = Metric("benchmark", "s", "lower", kind, "host_time")
    contract = test_options(item).versioned({"timing": "pytest-benchmark"})
    iterations = {"iterations": n} if (n := getattr(run, "iterations", 1)) > 1 else {}
    recorder_of(item).add(Measurement(metric, contract, data, details=iterations))


def skip_elsewhere(session: GpuperfSession, item: pytest.Item) -> None:
    """Skip a test that is marked for a real GPU where there is none; nobody is to miss its figures here."""
    if test_options(item).backend is None:
        return
    # of a driver that does not start whoever asks for the device is told
    with contextlib.suppress(Unavailable):
        if session.stand_in is None and not session.expects_device():
            recorder_of(item).result = Payload(elsewhere=True)
            pytest.skip('needs a real GPU (backend="cuda"), and there is none here')


# --------------------------------------------------------------------------- its reports


def finish_report(
    session: GpuperfSession, item: pytest.Item, call: pytest.CallInfo[None], report: pytest.TestReport
) -> None:
    """Shorten our errors, skip tests whose requirements are missing, and attach the verdicts."""
    error = call.excinfo.value if call.excinfo else None
    kept = recorder_of(item).result
    payload = kept if report.when == "call" or kept.elsewhere else Payload()
    if kept.elsewhere and isinstance(report.longrepr, tuple):  # the test's line, not that of our skip
        path, line = place_of(item)
        report.longrepr = (str(path), line, report.longrepr[2])
    if isinstance(error, GpuperfError):
        if isinstance(error, Unavailable) and not _must_be_there(session):
            path, line = place_of(item)
            report.outcome, report.longrepr = "skipped", (str(path), line, f"Skipped: {error}")
            return
        from pytest_gpuperf.report.failure import failure

        path, line = _where(item, call)
        root = item.config.rootpath
        shown = path.relative_to(root) if path.is_relative_to(root) else path
        text = "\n".join((f"{shown}:{line}: {error}", *getattr(error, "__notes__", ())))
        report.outcome, report.longrepr = "failed", failure(text, str(error), path, line)
        again = isinstance(error, NotFit) and not isinstance(error, NotFree)
        payload = replace(payload, cause=_cause(error), again=again)
    if payload.cause and hasattr(report, "wasxfail"):
        # The mark was made for something else: what a verdict fails, expected= and until= may excuse.
        del report.wasxfail
        report.outcome = "failed"
    if report.failed and kept.cause and isinstance(error, pytest.fail.Exception):
        from pytest_gpuperf.report.failure import failure, why

        report.longrepr = failure(str(error), why(kept, str(error)), *place_of(item))
    if report.when == "call" and item.nodeid in session.results.left_out:
        payload = replace(payload, left_out=True)
    if payload != Payload():
        attach(report, payload)


def tear_down(session: GpuperfSession, item: pytest.Item, nextitem: pytest.Item | None) -> None:
    """Tear down what tests before ``item``, which ran elsewhere, left set up here for it and for others."""
    call = pytest.CallInfo.from_call(
        lambda: item.session._setupstate.teardown_exact(nextitem),
        when="teardown",
        reraise=(KeyboardInterrupt, pytest.exit.Exception),
    )
    if call.excinfo:
        # not by the hook: to pytest-rerunfailures, for one, a teardown's report is none without a setup's
        report = pytest.TestReport.from_item_and_call(item, call)
        finish_report(session, item, call, report)
        item.ihook.pytest_runtest_logreport(report=report)


def _must_be_there(session: GpuperfSession) -> bool:
    """Return whether a missing requirement is a fault: a GPU machine is then broken, others have less."""
    try:
        return session.options.strict or session.expects_device()
    except Unavailable:
        return True  # its driver does not start


def _cause(error: GpuperfError) -> Cause:
    if isinstance(error, Unavailable):
        return "setup"
    return "infrastructure" if isinstance(error, NotFit) else "wrong"


def _where(item: pytest.Item, call: pytest.CallInfo[None]) -> tuple[Path, int]:
    """Return the suite's line that met the error: the last one outside this package and its libraries."""
    assert call.excinfo is not None
    ours = [e for e in call.excinfo.traceback if is_users(Path(str(e.path)))]
    return (Path(str(ours[-1].path)), ours[-1].lineno + 1) if ours else place_of(item)
