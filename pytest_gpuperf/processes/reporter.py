"""The child's side of a child process: it runs what it is told, reports to its parent, and ends with it."""

from __future__ import annotations

import json
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from pytest_gpuperf.files import is_installed
from pytest_gpuperf.processes.link import OVER, PROGRESS, WAITING
from pytest_gpuperf.processes.live import OFTEN


class ChildReporter:
    def __init__(self, config: pytest.Config, descriptor: int) -> None:
        self.config = config
        self._told_progress, self._told_doing, self._sending = 0.0, 0.0, threading.Lock()
        self.link = socket.socket(fileno=descriptor)
        self.link.set_inheritable(False)
        for name in ("lfplugin", "nfplugin"):  # which would keep what failed here for the session's next --lf
            if config.pluginmanager.has_plugin(name):
                config.pluginmanager.unregister(name=name)
        # The parent's one line, before anything else happens here.
        told = json.loads(self.link.makefile("rb").readline() or b"{}")
        config.args[:] = told.get("files", config.args)
        self._limits: bool = told.get("limits", False)
        self.batches: dict[str, dict[str, int]] = told.get("batches", {})
        self._tests: list[str] = told.get("tests", [])
        self._top, self._root = Path(told.get("top", "")), Path(told.get("root", ""))
        # Measures a test once more, beside nobody else's code: to be stored, or to confirm a regression.
        self.repeats = not self._limits and not told.get("top")
        threading.Thread(target=self._end_with_parent, daemon=True).start()

    def send(self, message: dict[str, Any]) -> None:
        with self._sending:
            self.link.sendall(json.dumps(message, default=str).encode() + b"\n")

    def progress(self, doing: str = "") -> None:
        """Tell the parent that something was done, so that it does not end this process; once a second.

        ``doing`` says what, for its live line.
        """
        now = time.monotonic()
        if doing and now - self._told_doing >= OFTEN:
            self._told_progress = self._told_doing = now
            self.send({**PROGRESS, "doing": doing})
        elif now - self._told_progress >= 1:
            self._told_progress = now
            self.send(PROGRESS)

    def waiting(self) -> None:
        """Tell the parent that this process waits for the device lock, which has a limit of its own."""
        self.send(WAITING)

    @contextmanager
    def busy(self) -> Iterator[None]:
        """Tell the parent of progress as long as the block lasts, which ends itself where there is none."""
        done = threading.Event()

        def tell() -> None:
            while not done.wait(1):
                self.progress()

        threading.Thread(target=tell, daemon=True).start()
        try:
            yield
        finally:
            done.set()

    def pytest_collectreport(self) -> None:
        self.progress()

    def pytest_runtest_logstart(self, nodeid: str) -> None:
        self.progress(nodeid)

    def pytest_fixture_setup(self) -> None:
        self.progress()

    @pytest.hookimpl(tryfirst=True, optionalhook=True)
    def pytest_timeout_set_timer(self) -> bool | None:
        """Leave pytest-timeout's limits to a test's own process: this one may measure it once more."""
        return None if self._limits else True

    @pytest.hookimpl(trylast=True)
    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        """Leave the tests that were asked for, as far as they are there, in the order given."""
        found = {item.nodeid: item for item in items}
        items[:] = [found[nodeid] for nodeid in self._tests if nodeid in found]

    @pytest.hookimpl(wrapper=True)
    def pytest_make_collect_report(self) -> Generator[None, Any, Any]:
        report = yield
        if report.failed:
            self.pytest_runtest_logreport(report)
        return report

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_makereport(self) -> Generator[None, Any, Any]:
        report = yield
        if report.when == "call":
            report.gpuperf_borrowed = borrowed(self._top, self._root)
        return report

    @pytest.hookimpl(tryfirst=True)
    def pytest_sessionfinish(self, session: pytest.Session, exitstatus: int) -> None:
        self._leave_out_summaries()
        if exitstatus == pytest.ExitCode.NO_TESTS_COLLECTED:  # the parent sees which tests did not report
            session.exitstatus = pytest.ExitCode.OK

    @pytest.hookimpl(trylast=True)
    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        data = self.config.hook.pytest_report_to_serializable(config=self.config, report=report)
        self.send({"report": data})

    @pytest.hookimpl(trylast=True)
    def pytest_unconfigure(self) -> None:
        self.send(OVER)
        phase = sys.modules.get("pytest_gpuperf.mlperf.phase")
        if phase is not None and phase.poisoned():
            os._exit(1)  # LoadGen would abort an ordinary exit; every report is sent

    def _leave_out_summaries(self) -> None:
        """Let no plugin add to a summary that nobody reads: hypothesis would load all of itself for that."""
        name, manager = "pytest_terminal_summary", self.config.pluginmanager
        plugins = [each.plugin for each in getattr(manager.hook, name).get_hookimpls()]
        setattr(manager.hook, name, manager.subset_hook_caller(name, plugins))

    def _end_with_parent(self) -> None:
        while self.link.recv(1024):
            pass
        os.killpg(os.getpgrp(), signal.SIGKILL)


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
        ours = (module.__name__ or "").partition(".")[0] == "pytest_gpuperf"
        if path.is_relative_to(top) and not path.is_relative_to(root) and not is_installed(path) and not ours:
            found.append(str(path.relative_to(top)))
    return sorted(found)
