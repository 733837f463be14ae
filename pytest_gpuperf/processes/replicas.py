"""Child pytest processes: measure a test again, record a run, or run one test apart.

The child is this same suite under this same plugin, started afresh; its reports come back one JSON
line each through a socket. A child ends when its parent's end closes, so none outlives its parent
(not by stdin: pytest's capture replaces that).
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from pytest_gpuperf.options import Options

if TYPE_CHECKING:
    from pytest_gpuperf.processes.checkouts import Checkout

# Variables by which another tool would bend the child's arguments or take its process for its own.
_FOREIGN = ("PYTEST_ADDOPTS", "PYTEST_CURRENT_TEST", "PYTEST_XDIST", "COV_CORE_", "COVERAGE_PROCESS")
_OUTPUT_KEPT = 4000  # characters of a dead child's output that the failure shows


@dataclass(slots=True)
class ChildResult:
    """What came back: the reports in order, and, where the child did not end well, ``trouble`` in words."""

    reports: list[pytest.TestReport] = field(default_factory=list)
    trouble: str = ""
    output: str = ""

    def of(self, nodeid: str) -> list[pytest.TestReport]:
        return [report for report in self.reports if report.nodeid == nodeid]


def run_child(
    config: pytest.Config,
    options: Options,
    items: Sequence[pytest.Item],
    batches: Mapping[str, Mapping[str, int]] | None = None,
    checkout: Checkout | None = None,
    end: float | None = None,
) -> ChildResult:
    """Runs ``items`` in one fresh process, bounded: a child silent for ``child_timeout`` seconds is ended.

    ``batches`` says, by node id and metric, how many launches make a sample. The time a child waits for
    the device lock does not count: the lock has its own limit. ``checkout`` is the side of a comparison
    whose code runs; by default whatever this process would import. ``end``, of ``time.monotonic``, is when
    a child is ended in any case.
    """
    ours, theirs = socket.socketpair()
    result = ChildResult()
    with ours, tempfile.TemporaryFile() as output:
        process = subprocess.Popen(
            arguments(config, options, items, theirs.fileno(), checkout),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            pass_fds=(theirs.fileno(),),
            env=environment() | (checkout.environment() if checkout else {}),
            cwd=_working_folder(config, checkout),
            start_new_session=True,
        )
        theirs.close()
        try:
            ours.sendall(json.dumps(batches or {}).encode() + b"\n")
            for message in _messages(ours, options.child_timeout, end):
                if "report" in message:
                    report = config.hook.pytest_report_from_serializable(
                        config=config, data=message["report"]
                    )
                    if isinstance(report.longrepr, list):
                        report.longrepr = tuple(report.longrepr)  # of a skip, which JSON made a list
                    result.reports.append(report)
            process.wait(timeout=30)
        except TimeoutError as silence:
            result.trouble = str(silence)
        except subprocess.TimeoutExpired:
            pass  # its reports are all here; a process that cannot leave is ended below
        finally:
            _end(process)
        output.seek(0)
        result.output = output.read().decode(errors="replace")[-_OUTPUT_KEPT:]
    if not result.trouble and process.returncode not in (0, 1):
        result.trouble = _how_it_ended(process.returncode)
    return result


def arguments(
    config: pytest.Config,
    options: Options,
    items: Sequence[pytest.Item],
    descriptor: int,
    checkout: Checkout | None = None,
) -> list[str]:
    """The child's command line, built afresh: nothing of the parent's reporting, selection or parallelism."""
    command = [*_interpreter(checkout), "-m", "pytest", *_project(config, checkout)]
    command += ["-o", "addopts=", "-p", "no:cacheprovider", "-p", "no:randomly"]
    for override in config.option.override_ini or ():
        command += ["-o", override]
    for plugin in dict.fromkeys(config.option.plugins or ()):
        command += ["-p", plugin]
    command += [
        f"--gpuperf-child={descriptor}",
        f"--gpuperf-backend={options.backend}",
        f"--gpuperf-strict={'on' if options.strict else 'off'}",
        f"--gpuperf-baselines={options.baselines}",
        f"--gpuperf-lock-timeout={options.lock_timeout}",
    ]
    for flag in ("model_dir", "data_dir"):
        value = getattr(config.option, f"gpuperf_{flag}")
        path = config.invocation_params.dir / (value or "")
        command += [f"--gpuperf-{flag.replace('_', '-')}={path}"] if value else []
    command += ["--gpuperf"] if options.active else []
    if checkout:
        # Alternating sides on one machine is what makes a shared machine's times worth judging.
        return [*command, "-o", "gpuperf_judge_host_times=true", *checkout.selection(items)]
    return command + [f"{item.path}::{item.nodeid.partition('::')[2]}" for item in items]


def _working_folder(config: pytest.Config, checkout: Checkout | None) -> Path:
    here = config.invocation_params.dir
    return checkout.folder(here) if checkout else here


def _interpreter(checkout: Checkout | None) -> list[str]:
    if checkout:
        return [sys.executable, "-P"]  # its environment() says where to import from, and in which order
    return [sys.executable, *([] if {"", os.getcwd()} & set(sys.path) else ["-P"])]


def _project(config: pytest.Config, checkout: Checkout | None) -> list[str]:
    ini, root = config.inipath, config.rootpath
    if checkout:
        ini, root = checkout.path(ini) if ini else None, checkout.path(root)
        ini = ini if ini and ini.exists() else None  # pytest then looks for the revision's own
    return [*(["-c", str(ini)] if ini else []), f"--rootdir={root}"]


def environment() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if not name.startswith(_FOREIGN)}


def crash_line(report: pytest.TestReport) -> str:
    """What a failed report says in one line."""
    crash = getattr(report.longrepr, "reprcrash", None)
    return (crash.message if crash else report.longreprtext).strip().partition("\n")[0]


def _messages(link: socket.socket, timeout: float, end: float | None) -> Iterator[dict[str, Any]]:
    """The child's lines until it closes its end; TimeoutError when silent for too long, or at ``end``."""
    pending, waiting = b"", False
    last = time.monotonic()
    while True:
        if end is not None and time.monotonic() >= end:
            raise TimeoutError("was ended with the run's budget (--gpuperf-budget)")
        ready, _, _ = select.select([link], [], [], 1.0)
        if not ready:
            if not waiting and time.monotonic() - last > timeout:
                raise TimeoutError(
                    f"was silent for {timeout:g} s and was ended (ini key gpuperf_child_timeout)"
                )
            continue
        chunk = link.recv(1 << 16)
        if not chunk:
            return
        last = time.monotonic()
        *lines, pending = (pending + chunk).split(b"\n")
        for line in lines:
            message = json.loads(line)
            waiting = message.get("event") == "waiting"
            yield message


def _end(process: subprocess.Popen[bytes]) -> None:
    """Ends the child and whatever it started; it leads a process group of its own."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def _how_it_ended(returncode: int) -> str:
    if returncode < 0:
        return f"died of {signal.Signals(-returncode).name}"
    return f"ended with exit code {returncode} before it finished"


class ChildReporter:
    """The child's side: sends each report to the parent, and ends the process when the parent is gone."""

    def __init__(self, config: pytest.Config, descriptor: int) -> None:
        self.config = config
        self.link = socket.socket(fileno=descriptor)
        self.link.set_inheritable(False)
        # The parent's one line, before anything else happens here.
        self.batches: dict[str, dict[str, int]] = json.loads(self.link.makefile("rb").readline() or b"{}")
        threading.Thread(target=self._end_with_parent, daemon=True).start()

    def send(self, message: dict[str, Any]) -> None:
        self.link.sendall(json.dumps(message, default=str).encode() + b"\n")

    @pytest.hookimpl(trylast=True)
    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        data = self.config.hook.pytest_report_to_serializable(config=self.config, report=report)
        self.send({"report": data})

    @pytest.hookimpl(trylast=True)
    def pytest_unconfigure(self) -> None:
        phase = sys.modules.get("pytest_gpuperf.mlperf.phase")
        if phase is not None and phase.poisoned():
            os._exit(1)  # LoadGen would abort an ordinary exit; every report is sent

    def _end_with_parent(self) -> None:
        while self.link.recv(1024):
            pass
        os.killpg(os.getpgrp(), signal.SIGKILL)
