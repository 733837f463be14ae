"""The pytest hooks: nearly nothing, until a test, a flag or an ini key is this plugin's.

Every pytest session pays for what is imported here, so ``hooks`` and all below it are loaded by ``wake``.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from pathlib import Path
from typing import Any

import pytest

from pytest_gpuperf.fixtures import counters, gpu, gpuperf, kernels, loadgen, resnet50  # noqa: F401
from pytest_gpuperf.flags import add_options, any_given
from pytest_gpuperf.waking import WAKE, session_of

HOOKS = pytest.StashKey[Any]()
OURS = frozenset({"gpu", "kernels", "gpuperf", "counters", "loadgen", "resnet50"})


def wake(config: pytest.Config) -> Any:
    """Return what the hooks do, loaded now if nothing of it was needed before."""
    if HOOKS not in config.stash:
        from pytest_gpuperf import hooks

        hooks.start(config)
        config.stash[HOOKS] = hooks
    return config.stash[HOOKS]


def awake(config: pytest.Config) -> Any:
    """Return what the hooks do, None while nothing of it is needed."""
    return config.stash.get(HOOKS, None)


def pytest_addoption(parser: pytest.Parser) -> None:
    add_options(parser)


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line(
        "markers",
        "gpuperf(*, tolerance, version, l2, seconds, warmup, isolated, expected, until, backend): "
        "how a test is measured and judged",
    )
    config.stash[WAKE] = lambda: wake(config)
    # The processes of pytest-xdist tell each other what only one of them knows.
    if any_given(config) or getattr(config.option, "tx", None) or hasattr(config, "workerinput"):
        wake(config)


def pytest_cmdline_main(config: pytest.Config) -> int | None:
    """Calibrate with the recorded runs of a file instead of running tests, if that was asked for."""
    if not isinstance(config.option.gpuperf_calibrate, Path):
        return None
    from _pytest.main import wrap_session

    from pytest_gpuperf.modes.calibrate import judge_file

    return int(wrap_session(config, lambda config, _: judge_file(session_of(config))))


def pytest_report_header(config: pytest.Config) -> list[str] | None:
    return hooks.report_header(config) if (hooks := awake(config)) else None


@pytest.hookimpl(tryfirst=True)
def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "resnet50" in metafunc.fixturenames:
        from pytest_gpuperf.mlperf.which import name_model

        name_model(metafunc)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    ours = [item for item in items if _is_ours(item)]
    if ours and not awake(config) and not config.option.collectonly:
        wake(config)
    if hooks := awake(config):
        hooks.collection_modifyitems(config, items)
    elif ours:
        from pytest_gpuperf.marker import test_options

        for item in ours:
            test_options(item)


def _is_ours(item: pytest.Item) -> bool:
    marked = item.get_closest_marker("gpuperf") is not None
    return marked or not OURS.isdisjoint(getattr(item, "fixturenames", ()))


@pytest.hookimpl(tryfirst=True)
def pytest_collection_finish(session: pytest.Session) -> None:
    if hooks := awake(session.config):
        hooks.collection_finish(session)


@pytest.hookimpl(tryfirst=True)
def pytest_sessionstart(session: pytest.Session) -> None:
    if hooks := awake(session.config):
        hooks.sessionstart(session)


def pytest_deselected(items: Sequence[pytest.Item]) -> None:
    if items and (hooks := awake(items[0].config)):
        hooks.deselected(items)


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_protocol(item: pytest.Item, nextitem: pytest.Item | None) -> bool | None:
    return hooks.runtest_protocol(item, nextitem) if (hooks := awake(item.config)) else None


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    if hooks := awake(item.config):
        hooks.runtest_setup(item)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None, Any, Any]:
    if hooks := awake(item.config):
        return (yield from hooks.runtest_call(item))
    result = yield
    if awake(item.config):  # by request.getfixturevalue
        session_of(item.config).settle_device()
    return result


@pytest.hookimpl(wrapper=True, tryfirst=True)  # outside of what turns a failure into an xfail
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    hooks = awake(item.config)
    return (yield from hooks.runtest_makereport(item, call)) if hooks else (yield)


@pytest.hookimpl(wrapper=True)
def pytest_runtestloop(session: pytest.Session) -> Generator[None, Any, Any]:
    hooks = awake(session.config)
    return (yield from hooks.runtestloop(session)) if hooks else (yield)


@pytest.hookimpl(tryfirst=True)
def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    if hooks := awake(session.config):
        hooks.sessionfinish(session, exitstatus)


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    if hooks := awake(node.config):
        hooks.testnodedown(node)


def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, exitstatus: int, config: pytest.Config
) -> None:
    if hooks := awake(config):
        hooks.terminal_summary(terminalreporter, exitstatus, config)


@pytest.hookimpl(trylast=True)
def pytest_unconfigure(config: pytest.Config) -> None:
    if hooks := awake(config):
        hooks.unconfigure(config)
