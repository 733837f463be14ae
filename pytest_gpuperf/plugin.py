"""The pytest hooks, each a few lines that delegate."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from typing import Any

import pytest

from pytest_gpuperf import per_run, per_test
from pytest_gpuperf.fixtures import counters, gpu, gpuperf, kernels  # noqa: F401  (fixtures)
from pytest_gpuperf.mlperf.fixtures import loadgen, name_model, resnet50  # noqa: F401  (fixtures)
from pytest_gpuperf.options import add_options, read_options, test_options
from pytest_gpuperf.session import SESSION, GpuperfSession


def pytest_addoption(parser: pytest.Parser) -> None:
    add_options(parser)


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line(
        "markers",
        "gpuperf(*, tolerance, version, l2, seconds, warmup, isolated, expected, until): "
        "how a test is measured and judged",
    )
    options = read_options(config)
    per_run.check_workers(config, options)
    per_run.check_calibration(options)
    config.stash[SESSION] = GpuperfSession(config, options)
    config.pluginmanager.register(Collector(config.stash[SESSION]), "gpuperf-collector")
    if options.child is not None:
        from pytest_gpuperf.processes.replicas import ChildReporter

        reporter = ChildReporter(config, options.child)
        config.pluginmanager.register(reporter, "gpuperf-child")
        config.stash[SESSION].batches = reporter.batches


def pytest_cmdline_main(config: pytest.Config) -> int | None:
    return per_run.calibrate_offline(config)


def pytest_report_header(config: pytest.Config) -> list[str] | None:
    return per_run.header(config.stash[SESSION])


@pytest.hookimpl(tryfirst=True)
def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    name_model(metafunc)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        test_options(item)  # a wrong marker stops the run before anything is measured
    if items:
        per_run.prepare(items[0].config.stash[SESSION], items)


def pytest_deselected(items: Sequence[pytest.Item]) -> None:
    if items:
        items[0].config.stash[SESSION].deselected = True


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_protocol(item: pytest.Item, nextitem: pytest.Item | None) -> bool | None:
    return per_test.run(item.config.stash[SESSION], item, nextitem)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None, Any, Any]:
    session = item.config.stash[SESSION]
    with per_test.measuring(session, item):
        result = yield
    per_test.judge_item(session, item)
    return result


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    per_test.finish_report(item.config.stash[SESSION], item, call, report)
    return report


@pytest.hookimpl(wrapper=True)
def pytest_runtestloop(session: pytest.Session) -> Generator[None, Any, Any]:
    with per_run.settling(session.config.stash[SESSION]):
        result = yield
    per_run.finish_run(session.config.stash[SESSION], session)
    return result


@pytest.hookimpl(tryfirst=True)
def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    gpuperf_session = session.config.stash[SESSION]
    session.exitstatus = gpuperf_session.exit_status(exitstatus)
    gpuperf_session.close()


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    per_run.summary(config.stash[SESSION], terminalreporter)


class Collector:
    """Takes in every report, wherever its test ran; this hook is not given the config."""

    def __init__(self, session: GpuperfSession) -> None:
        self.session = session

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        self.session.collect(report)
