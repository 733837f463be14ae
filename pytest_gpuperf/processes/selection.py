"""Run, in a process of a comparison, the tests it was told to run that this checkout has.

A plugin of its own (``-p``): a test that a revision lacks must not stop the others.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from pathlib import Path
from typing import Any

import pytest

_TOLD = pytest.StashKey[dict[str, Any]]()


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.getgroup("gpuperf").addoption("--gpuperf-selection", help=argparse.SUPPRESS)


def pytest_configure(config: pytest.Config) -> None:
    config.stash[_TOLD] = json.loads(Path(config.option.gpuperf_selection).read_text())


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    found = {item.nodeid: item for item in items}
    items[:] = [found[nodeid] for nodeid in config.stash[_TOLD]["tests"] if nodeid in found]


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report(collector: pytest.Collector) -> Any:
    report = yield
    reporter = collector.config.pluginmanager.get_plugin("gpuperf-child")
    if report.failed and reporter is not None:
        reporter.pytest_runtest_logreport(report)
    return report


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_makereport(item: pytest.Item) -> Any:
    report = yield
    if report.when == "call":
        told = item.config.stash[_TOLD]
        report.gpuperf_borrowed = borrowed(Path(told["top"]), Path(told["root"]))
    return report


@pytest.hookimpl(tryfirst=True)
def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    if exitstatus == pytest.ExitCode.NO_TESTS_COLLECTED:  # the parent sees which tests did not report
        session.exitstatus = pytest.ExitCode.OK


def borrowed(top: Path, root: Path) -> list[str]:
    """Return files of modules that this process, of the checkout at ``root``, imported from ``top``."""
    if top == root:
        return []
    found = []
    for module in list(sys.modules.values()):
        name = getattr(module, "__file__", None)
        if not isinstance(name, str):
            continue
        path = Path(os.path.realpath(name))
        environment = path.is_relative_to(sys.prefix) or "site-packages" in path.parts
        ours = (module.__name__ or "").partition(".")[0] == "pytest_gpuperf"
        if path.is_relative_to(top) and not path.is_relative_to(root) and not environment and not ours:
            found.append(str(path.relative_to(top)))
    return sorted(found)
