"""Start child pytest processes: to measure a test again, record a run, or run one test by itself.

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
import time
from collections import defaultdict
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from pytest_gpuperf.options import Options
from pytest_gpuperf.records import payload_of

if TYPE_CHECKING:
    from pytest_gpuperf.processes.checkouts import Checkout

# Variables by which another tool would bend the child's arguments or take its process for its own.
_FOREIGN = ("PYTEST_ADDOPTS", "PYTEST_CURRENT_TEST", "PYTEST_XDIST", "COV_CORE_", "COVERAGE_PROCESS")
_OUTPUT_KEPT = 4000  # characters of a dead child's output that the failure shows
AGAIN = 3
"""How often a process on an unfit machine is repeated: with the pause between, time for heat to go or for a
neighbour to finish, and still an end if it does not."""


class ChildResult:
    """The reports of a child; ``trouble`` says how it ended if it did not end well, after ``output``.

    ``collected`` are reports of collections that failed.
    """

    def __init__(self) -> None:
        self.reports: list[pytest.TestReport] = []
        self.collected: dict[str, pytest.TestReport] = {}
        self.trouble = ""
        self.output = ""
        self.returncode: int | None = None
        self._by_nodeid: dict[str, list[pytest.TestReport]] = defaultdict(list)

    def add(self, report: pytest.TestReport) -> None:
        if report.when == "collect":
            self.collected[report.nodeid] = report
            return
        self.reports.append(report)
        self._by_nodeid[report.nodeid].append(report)

    def of(self, nodeid: str) -> list[pytest.TestReport]:
        """Return a test's reports, in order."""
        return self._by_nodeid.get(nodeid, [])

    def crashed(self, nodeid: str) -> str:
        """Return how the process ended before a test's teardown was reported, "" if it was.

        Whatever the exit code: a C library's exit(0) in a test ends it as a segmentation fault does.
        """
        reports = self.of(nodeid)
        if any(report.when == "teardown" for report in reports):
            return ""
        ended = (
            f"ended with exit code {self.returncode} in the middle of it" if reports else "reported nothing"
        )
        return self.trouble or ended

    def unfit(self) -> dict[str, str]:
        """Return the tests that were measured on an unfit machine, by node id, and why it was not fit."""
        records = ((report.nodeid, payload_of(report).record) for report in self.reports)
        return {nodeid: record.unfit for nodeid, record in records if record and record.unfit}

    def replace(self, nodeids: Collection[str], again: ChildResult) -> ChildResult:
        """Return this result with the reports of ``nodeids``, and how it ended, from a repetition."""
        merged = ChildResult()
        for report in self.reports:
            if report.nodeid not in nodeids:
                merged.add(report)
        for report in again.reports:
            merged.add(report)
        merged.trouble, merged.output, merged.returncode = again.trouble, again.output, again.returncode
        return merged


class Children:
    """Starts child processes of one session, whose measuring ends at ``end`` of ``time.monotonic``."""

    def __init__(
        self, config: pytest.Config, options: Options, progress: Callable[[str], None], end: float | None
    ) -> None:
        self.config = config
        self._options, self._progress, self._end = options, progress, end

    def run(
        self,
        items: Sequence[pytest.Item],
        batches: Mapping[str, Mapping[str, int]] | None = None,
        checkout: Checkout | None = None,
        active: bool = True,
        end: float | None = None,
    ) -> ChildResult:
        """Run ``items`` in one fresh process, bounded: a child silent for ``child_timeout`` seconds is ended.

        ``batches`` says, by node id and metric, how many launches make a sample. The time a child waits for
        the device lock does not count: the lock has its own limit. ``checkout`` is the side of a comparison
        whose code runs; by default whatever this process would import. Not ``active``: only correctness.
        ``end``, of ``time.monotonic``, is when the child is ended in any case.
        """
        options = replace(self._options, active=active)
        ours, theirs = socket.socketpair()
        result = ChildResult()
        with ours, tempfile.TemporaryFile() as output:
            process = subprocess.Popen(
                arguments(self.config, options, items, theirs.fileno(), checkout),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                pass_fds=(theirs.fileno(),),
                env=environment() | (checkout.environment() if checkout else {}),
                cwd=_working_folder(self.config, checkout),
                start_new_session=True,
            )
            theirs.close()
            try:
                # One that ends before it has read its task resets the connection: its exit code says why.
                with contextlib.suppress(ConnectionError):
                    ours.sendall(json.dumps(_told(items, batches, checkout)).encode() + b"\n")
                    self._receive(ours, result, end)
                process.wait(timeout=30)
            except TimeoutError as silence:
                result.trouble = str(silence)
            except subprocess.TimeoutExpired:
                pass  # its reports are all here; a process that cannot leave is ended below
            finally:
                _end(process)
            output.seek(0)
            result.output = output.read().decode(errors="replace")[-_OUTPUT_KEPT:]
        result.returncode = process.returncode
        if not result.trouble and process.returncode not in (0, 1):
            result.trouble = _how_it_ended(process.returncode)
        return result

    def _receive(self, link: socket.socket, result: ChildResult, end: float | None) -> None:
        for message in _messages(link, self._options.child_timeout, end):
            if "report" in message:
                data = message["report"]
                report = self.config.hook.pytest_report_from_serializable(config=self.config, data=data)
                if isinstance(report.longrepr, list):
                    report.longrepr = tuple(report.longrepr)  # of a skip, which JSON made a list
                result.add(report)

    def run_fit(self, items: Sequence[pytest.Item], batches: Mapping[str, Mapping[str, int]]) -> ChildResult:
        """Run ``items`` as ``run`` does, and again, AGAIN times at most, those measured on an unfit machine.

        What is still unfit then comes back as it is: its records say so.
        """
        result = self.run(items, batches, end=self._end)
        for _ in range(AGAIN):
            unfit = result.unfit()
            if not unfit or result.trouble or (self._end is not None and time.monotonic() >= self._end):
                break
            why, pause = next(iter(unfit.values())), self._options.cooldown
            self._progress(f"gpuperf: {why}; measuring {len(unfit)} test(s) again in {pause:g} s")
            time.sleep(pause)
            repeated = [item for item in items if item.nodeid in unfit]
            result = result.replace(unfit, self.run(repeated, batches, end=self._end))
        return result


def arguments(
    config: pytest.Config,
    options: Options,
    items: Sequence[pytest.Item],
    descriptor: int,
    checkout: Checkout | None = None,
) -> list[str]:
    """Build the child's command line afresh: nothing of the parent's reporting, selection or parallelism."""
    command = [*_interpreter(checkout), "-m", "pytest", *_project(config, checkout)]
    command += ["-o", "addopts=", "-p", "no:cacheprovider", "-p", "no:randomly"]
    command += ["-o", f"gpuperf_judge_host_times={str(options.judge_host_times).lower()}"]
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
    # Which tests, the reporter is told: thousands of names would be matched with thousands of tests.
    command.append("--continue-on-collection-errors")
    if checkout:
        # Alternating sides on one machine is what makes a shared machine's times worth judging.
        return [*command, "-o", "gpuperf_judge_host_times=true", *checkout.files(items)]
    return command + list(dict.fromkeys(str(item.path) for item in items))


def _told(
    items: Sequence[pytest.Item], batches: Mapping[str, Mapping[str, int]] | None, checkout: Checkout | None
) -> dict[str, Any]:
    """Return what the child's ``ChildReporter`` reads before anything else."""
    sides = {"top": str(checkout.top), "root": str(checkout.root)} if checkout else {"top": "", "root": ""}
    return {"tests": [item.nodeid for item in items], "batches": batches or {}, **sides}


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
    """Return what a failed report says in one line."""
    crash = getattr(report.longrepr, "reprcrash", None)
    return (crash.message if crash else report.longreprtext).strip().partition("\n")[0]


def _messages(link: socket.socket, timeout: float, end: float | None) -> Iterator[dict[str, Any]]:
    """Yield the child's messages until it closes its end; raises TimeoutError on silence or at ``end``."""
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
    """End the child and whatever it started; it leads a process group of its own."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def _how_it_ended(returncode: int) -> str:
    if returncode < 0:
        return f"died of {signal.Signals(-returncode).name}"
    return f"ended with exit code {returncode} before it finished"
