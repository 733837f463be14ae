"""What the hooks do with one test: measured, judged, reported."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from pytest_gpuperf.errors import GpuperfError, NotFit, Unavailable
from pytest_gpuperf.measurement import Kind, Measurement, Metric
from pytest_gpuperf.options import test_options
from pytest_gpuperf.records import Cause, Payload, Record, Row, attach, payload_of
from pytest_gpuperf.session import GpuperfSession, isolates, recorder_of, with_payload

if TYPE_CHECKING:
    from pytest_gpuperf.backends.gpu import Gpu

Decide = Callable[[GpuperfSession, pytest.Item, Record], tuple[str, Payload]]

RESULT = pytest.StashKey[Payload]()
UNFIT = pytest.StashKey[str]()
_DEVICE_FIXTURES = {"gpu", "kernels", "counters"}
_NUMBER_FIXTURES = {
    "gpuperf",
    "benchmark",
    "loadgen",
}  # these take host numbers too, and need no device for them
_PACKAGE = Path(__file__).parent


@contextmanager
def measuring(session: GpuperfSession, item: pytest.Item) -> Iterator[None]:
    """Around a test's call: what it measures on is ours, and we look whether it stays fit to measure."""
    gpu = session.gpu() if session.options.active and _uses_device(session, item) else None
    if gpu:
        session.mark_memory()
    if "benchmark" in _fixtures(item) and session.options.active and not session.measures(item):
        item.funcargs["benchmark"].disabled = True  # type: ignore[attr-defined]  # it then runs once, untimed
    if not session.options.active or not _measures(session, item, gpu):
        yield
        return
    with session.guard.measuring(gpu):
        yield
    item.stash[UNFIT] = session.guard.unfit


def _measures(session: GpuperfSession, item: pytest.Item, gpu: Gpu | None) -> bool:
    """Whether nobody else may measure meanwhile: on a CUDA device, or on a host whose times are judged."""
    if gpu and gpu.device.judges_times:
        return True
    return session.options.judge_host_times and bool(_NUMBER_FIXTURES & _fixtures(item))


def _uses_device(session: GpuperfSession, item: pytest.Item) -> bool:
    names = _fixtures(item)
    if names & _DEVICE_FIXTURES or not names & _NUMBER_FIXTURES:
        return bool(names & _DEVICE_FIXTURES)
    return session.expects_cuda()


def _fixtures(item: pytest.Item) -> set[str]:
    return set(getattr(item, "fixturenames", ()))


def judge_item(session: GpuperfSession, item: pytest.Item) -> None:
    """At the end of a passed test's call: judges what it measured, and fails it where that calls for it."""
    if not session.options.active:
        return
    record = _record(session, item)
    if record is None:
        return
    item.stash[RESULT] = Payload(record=record)
    # under a budget the test is judged from its report, after others have had their screens
    if session.options.child is None and not session.options.only_records and session.budget is None:
        text, payload = _deciding(session)(session, item, record)
        item.stash[RESULT] = payload
        item.user_properties += _properties(payload.rows)
        if payload.cause:
            pytest.fail(text, pytrace=False)
        if text:
            pytest.xfail(text)


def _deciding(session: GpuperfSession) -> Decide:
    if session.options.revisions.against is None:
        return verdicts
    from pytest_gpuperf.processes import against

    return against.unforeseen


def verdicts(session: GpuperfSession, item: pytest.Item, record: Record) -> tuple[str, Payload]:
    """The rows of a test; where they fail it the message and the cause; a message alone makes it an xfail."""
    from pytest_gpuperf.judging import expected, gate, units
    from pytest_gpuperf.judging.verdict import environment_differences
    from pytest_gpuperf.processes import acquittal
    from pytest_gpuperf.report.message import explain

    rows, broken, xfail = expected.settle(item, gate.judge(session, item, record))
    if session.budget is None or not session.budget.spent:
        rows = acquittal.review(session, item, record, rows)
    failing = [(row, cause) for row in rows if (cause := gate.cause_of(row, session.options.strict))]
    if not failing:
        return broken or xfail, Payload(record, rows, "wrong" if broken else None)
    stored = units.stored(session, item, record)
    texts = []
    for row, _ in failing:
        baseline = stored.get(row.metric.name)
        old = [run.environment for run in baseline.runs] if baseline else []
        texts.append(explain(row, baseline, record, environment_differences(old, record.environment)))
    return "\n\n".join(texts), Payload(record, rows, gate.worst([cause for _, cause in failing]))


def _record(session: GpuperfSession, item: pytest.Item) -> Record | None:
    """What the test measured in this process; None where that is nothing."""
    recorder = recorder_of(item)
    _take_benchmark(session, item)
    if not recorder.measurements:
        return None
    from pytest_gpuperf.machine import environment

    gpu = session.opened
    return Record(
        measurements=tuple(recorder.measurements.values()),
        device=gpu.device.place() if gpu else {"backend": "cpu"},
        host=environment.host_place(),
        environment={
            **environment.describe(gpu.device if gpu else None, item.path.parent),
            **({"sentinels": sentinels} if (sentinels := session.guard.sentinels) else {}),
        },
        unfit=item.stash.get(UNFIT, ""),
    )


def _take_benchmark(session: GpuperfSession, item: pytest.Item) -> None:
    """A test that used pytest-benchmark's fixture is judged like any other."""
    fixture = getattr(item, "funcargs", {}).get("benchmark")
    stats = getattr(getattr(fixture, "stats", None), "stats", None)
    data = tuple(getattr(stats, "data", ()))
    if not data:
        return
    kind: Kind = "noisy" if session.judges_host_time() else "shown"
    metric = Metric("benchmark", "s", "lower", kind, "host_time")
    contract = test_options(item).versioned({"timing": "pytest-benchmark"})
    recorder_of(item).add(Measurement(metric, contract, data))


def run(session: GpuperfSession, item: pytest.Item, nextitem: pytest.Item | None) -> bool | None:
    """Runs a test in another way than pytest's where one is asked for."""
    from pytest_gpuperf.judging import budgeted

    return run_compared(session, item) or budgeted.run(session, item, nextitem) or run_apart(session, item)


def run_apart(session: GpuperfSession, item: pytest.Item) -> bool | None:
    """Runs a test whole in a child process where it asks for that; None leaves it to pytest."""
    if session.options.child is not None or not isolates(item):
        return None
    item.ihook.pytest_runtest_logstart(nodeid=item.nodeid, location=item.location)
    hand_on(session, item, reports_of_child(session, item), verdicts)
    return True


def reports_of_child(session: GpuperfSession, item: pytest.Item) -> list[pytest.TestReport]:
    """What a process of its own reports of a test; only its correctness where nothing is measured now."""
    from pytest_gpuperf.processes.replicas import run_child

    measured = session.measures(item) if _NUMBER_FIXTURES & _fixtures(item) else session.options.active
    result = run_child(session.config, replace(session.options, active=measured), [item])
    reports = result.of(item.nodeid)
    if item.nodeid in session.left_out:
        for report in reports:
            with_payload(report, left_out=True)
    if result.trouble or not reports:
        trouble = result.trouble or "reported nothing"
        text = f"The process of this test {trouble}. It printed last:\n{result.output}"
        reports = [r for r in reports if r.when != "teardown"]
        reports.append(_failed(item, text))
    return reports


def run_compared(session: GpuperfSession, item: pytest.Item) -> bool | None:
    """Under --gpuperf-against, what this checkout's processes report of a test; None leaves it to pytest."""
    if session.options.revisions.against is None or session.options.child is not None:
        return None
    from pytest_gpuperf.processes import against

    if not against.measures(item):
        return None
    item.ihook.pytest_runtest_logstart(nodeid=item.nodeid, location=item.location)
    try:
        reports = against.own_reports(session, item)
    except GpuperfError as error:
        reports = [_failed(item, str(error))]
    hand_on(session, item, reports, against.verdicts)
    return True


def hand_on(
    session: GpuperfSession, item: pytest.Item, reports: Sequence[pytest.TestReport], decide: Decide
) -> None:
    """Reports a test that ran in another process as if it had run here, judged."""
    for report in reports:
        if report.when == "call" and report.passed:
            _judge_report(session, item, report, decide)
            for each in reports:
                each.user_properties += _properties(payload_of(report).rows)
        item.ihook.pytest_runtest_logreport(report=report)
    item.ihook.pytest_runtest_logfinish(nodeid=item.nodeid, location=item.location)


def _judge_report(
    session: GpuperfSession, item: pytest.Item, report: pytest.TestReport, decide: Decide
) -> None:
    record = payload_of(report).record
    if record is None or not session.options.active or session.options.only_records:
        return
    try:
        text, payload = decide(session, item, record)
    except GpuperfError as error:
        text, payload = str(error), Payload(record, cause="wrong")
    attach(report, replace(payload, left_out=item.nodeid in session.left_out))
    if payload.cause:
        report.outcome, report.longrepr = "failed", text
    elif text:
        report.outcome, report.wasxfail = "skipped", f"reason: {text}"


def _failed(item: pytest.Item, text: str) -> pytest.TestReport:
    return pytest.TestReport(
        item.nodeid, item.location, dict.fromkeys(item.keywords, 1), "failed", text, "call"
    )


def finish_report(
    session: GpuperfSession, item: pytest.Item, call: pytest.CallInfo[None], report: pytest.TestReport
) -> None:
    """Puts our errors into one sentence, turns what is not there into a skip, and attaches the rows."""
    error = call.excinfo.value if call.excinfo else None
    payload = item.stash.get(RESULT, Payload()) if report.when == "call" else Payload()
    if isinstance(error, GpuperfError):
        cause: Cause = "infrastructure" if isinstance(error, NotFit) else "wrong"
        where = _where(item, call)
        text = "\n".join((f"{where}: {error}", *getattr(error, "__notes__", ())))
        if isinstance(error, Unavailable):
            cause = "setup"
            # a GPU machine with a part missing is broken; elsewhere it is a machine that has less
            if not session.options.strict and not _has_gpu(session):
                path, line = _location(item)
                report.outcome, report.longrepr = "skipped", (str(path), line, f"Skipped: {error}")
                return
        report.outcome, report.longrepr = "failed", text
        payload = Payload(payload.record, payload.rows, cause)
    if report.when == "call" and item.nodeid in session.left_out:
        payload = replace(payload, left_out=True)
    if payload != Payload():
        attach(report, payload)


def _properties(rows: Sequence[Row]) -> list[tuple[str, object]]:
    """The verdicts as properties of the test, which JUnit files carry."""
    from pytest_gpuperf.report.format import percent, quantity

    found: list[tuple[str, object]] = []
    for row in rows:
        text = f"{row.word} {quantity(row.verdict.now, row.metric.unit)} {percent(row.verdict.change)}"
        if row.verdict.interval:
            text += f" [{percent(row.verdict.interval[0])}, {percent(row.verdict.interval[1])}]"
        found.append((f"gpuperf.{row.metric.name}", text))
    return found


def _has_gpu(session: GpuperfSession) -> bool:
    try:
        return session.expects_cuda()
    except Unavailable:
        return True  # its driver does not start


def _where(item: pytest.Item, call: pytest.CallInfo[None]) -> str:
    """The suite's line that met the error: the last one outside this package and its libraries."""
    assert call.excinfo is not None
    ours = [e for e in call.excinfo.traceback if _is_users(Path(str(e.path)))]
    path, line = (Path(str(ours[-1].path)), ours[-1].lineno + 1) if ours else _location(item)
    root = item.config.rootpath
    return f"{path.relative_to(root) if path.is_relative_to(root) else path}:{line}"


def _is_users(path: Path) -> bool:
    return _PACKAGE not in path.parents and "site-packages" not in path.parts


def _location(item: pytest.Item) -> tuple[Path, int]:
    return item.path, (item.location[1] or 0) + 1
