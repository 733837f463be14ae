"""Start child pytest processes: to measure a test again, record a run, or run one test by itself.

The child is this same suite under this same plugin, started afresh; its reports come back one JSON
line each through a socket. A child ends when its parent's end closes, so none outlives its parent
(not by stdin: pytest's capture replaces that).
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from pytest_gpuperf.flags import flag_of
from pytest_gpuperf.options import Options
from pytest_gpuperf.processes.limits import paused
from pytest_gpuperf.processes.link import Patience, exchange
from pytest_gpuperf.processes.live import Live
from pytest_gpuperf.processes.options import environment, passed_on
from pytest_gpuperf.processes.result import ChildResult, how_it_ended
from pytest_gpuperf.text import counted

if TYPE_CHECKING:
    from pytest_gpuperf.processes.checkouts import Checkout
    from pytest_gpuperf.processes.sanitizer import Sanitizer

_OUTPUT_KEPT = 4000  # characters of a dead child's output that the failure shows
_SLOWER = 50
"""Times as long that a kernel may run under compute-sanitizer."""
_NO_LIMIT = 10**9  # seconds
_TO_LEAVE = 10  # seconds in which a child that has reported everything may end
AGAIN = 3
"""How often a process on an unfit machine is repeated: with the pause between, time for heat to go or for a
neighbour to finish, and still an end if it does not."""


class Children:
    """Starts child processes of one session, whose measuring ends at ``end`` of ``time.monotonic``."""

    def __init__(
        self,
        config: pytest.Config,
        options: Options,
        progress: Callable[[str], None],
        live: Live,
        end: float | None,
    ) -> None:
        self.config = config
        self._options, self._progress, self._end = options, progress, end
        self.live = live

    def stage(self, text: str, done: int = 0, total: int = 0) -> None:
        """Say what begins: in the live line, or by a line of its own where there is none."""
        if not self.live.stage(text, done, total):
            self._progress(f"gpuperf: {text}")

    def run(
        self,
        items: Sequence[pytest.Item],
        batches: Mapping[str, Mapping[str, int]] | None = None,
        checkout: Checkout | None = None,
        active: bool = True,
        end: float | None = None,
        of_the_test: bool = False,
        sanitizer: Sanitizer | None = None,
    ) -> ChildResult:
        """Run ``items`` in one fresh process, which is ended after ``child_timeout`` s without progress.

        Those that the machine kept from measuring are run once more, in another. Only a sanitizer's are not.
        ``batches`` says, by node id and metric, how many launches make a sample. The time a child waits for
        the device lock does not count: the lock has its own limit. ``checkout`` is the side of a comparison
        whose code runs; by default whatever this process would import. Not ``active``: only correctness.
        ``end``, of ``time.monotonic``, is when the child is ended in any case. ``of_the_test``: it is the
        session's run of a test, whose time limit and reruns hold there. ``sanitizer`` watches the process.
        """

        def process(items: Sequence[pytest.Item]) -> ChildResult:
            return self._process(items, batches, checkout, active, end, of_the_test, sanitizer)

        result = process(items)
        return self._again(result, {} if sanitizer else result.kept_from(), items, process, end)

    def _process(
        self,
        items: Sequence[pytest.Item],
        batches: Mapping[str, Mapping[str, int]] | None,
        checkout: Checkout | None,
        active: bool,
        end: float | None,
        of_the_test: bool,
        sanitizer: Sanitizer | None,
    ) -> ChildResult:
        options = replace(self._options, active=active)
        command = arguments(self.config, options, checkout, of_the_test)
        if sanitizer:
            slow = f"gpuperf_kernel_timeout={_SLOWER * options.kernel_timeout}"
            command = [*sanitizer.command, *command, f"--gpuperf-sanitize={sanitizer.tool}", "-o", slow]
        under = checkout or sanitizer
        variables = under.environment() if under else {}
        task = _task(items, batches, checkout, of_the_test)
        patience = Patience(options.child_timeout, options.lock_timeout, end)
        ours, theirs = socket.socketpair()
        result = ChildResult()
        with paused(self.config), ours, tempfile.TemporaryFile() as output:
            process = subprocess.Popen(
                [*command, f"--gpuperf-child={theirs.fileno()}"],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                pass_fds=(theirs.fileno(),),
                env=environment() | variables,
                cwd=_working_folder(self.config, checkout),
                start_new_session=True,
            )
            theirs.close()
            try:
                told = exchange(ours, process, json.dumps(task).encode() + b"\n", patience)
                self._follow(told, len(items), result)
                process.wait(timeout=_TO_LEAVE)
                result.returncode = process.returncode
            except TimeoutError as silence:
                result.trouble = str(silence)
            except subprocess.TimeoutExpired:
                result.returncode = 0  # its reports are all here; that it cannot leave is no failure
            finally:
                self.live.clear()
                _end(process)
            output.seek(0)
            result.output = output.read().decode(errors="replace")[-_OUTPUT_KEPT:]
        if result.returncode not in (None, 0, 1):
            result.trouble = how_it_ended(result.returncode)
        return result

    def _follow(self, told: Iterable[dict[str, Any]], tests: int, result: ChildResult) -> None:
        """Show what the child tells of its ``tests``, and add its reports to the result."""
        over = 0
        for message in told:
            if "report" in message:
                result.add(report := self._report(message["report"]))
                over += report.when == "teardown"
            elif doing := message.get("doing"):
                self.live.show(f"{over + 1} of {tests}: {doing}" if tests > 1 else doing)

    def _report(self, data: dict[str, Any]) -> pytest.TestReport:
        report: pytest.TestReport = self.config.hook.pytest_report_from_serializable(
            config=self.config, data=data
        )
        if isinstance(report.longrepr, list):
            report.longrepr = tuple(report.longrepr)  # of a skip, which JSON made a list
        return report

    def run_fit(self, items: Sequence[pytest.Item], batches: Mapping[str, Mapping[str, int]]) -> ChildResult:
        """Run ``items`` as ``run`` does, and again, AGAIN times at most, those measured on an unfit machine.

        What is still unfit then comes back as it is: its records say so.
        """

        def process(items: Sequence[pytest.Item]) -> ChildResult:
            return self.run(items, batches, end=self._end)

        result = process(items)
        for _ in range(AGAIN):
            result = self._again(result, result.unfit(), items, process, self._end)
        return result

    def _again(
        self,
        result: ChildResult,
        unfit: Mapping[str, str],
        items: Sequence[pytest.Item],
        process: Callable[[Sequence[pytest.Item]], ChildResult],
        end: float | None,
    ) -> ChildResult:
        """Return a result with the tests that are ``unfit``, by node id and why, from another process."""
        if not unfit or result.trouble or (end is not None and time.monotonic() >= end):
            return result
        why, pause = next(iter(unfit.values())), self._options.cooldown
        self._progress(f"gpuperf: {why}; measuring {counted(len(unfit), 'test')} again in {pause:g} s")
        with paused(self.config):
            time.sleep(pause)
        return result.replace(unfit, process([item for item in items if item.nodeid in unfit]))


def arguments(
    config: pytest.Config, options: Options, checkout: Checkout | None = None, of_the_test: bool = False
) -> list[str]:
    """Build the child's command line: the session's own, but for the table of what a child does not get."""
    given, paths = passed_on(config, of_the_test)
    command = [*_interpreter(checkout), "-m", "pytest", *given, *_project(config, checkout)]
    # What this session was told in these ways is in the command line already, or is not for the child.
    command += ["-o", "addopts=", "-o", "log_file=", "-p", "no:stepwise"]
    # Alternating sides on one machine is what makes a shared machine's times worth judging.
    host_times = options.judge_host_times or checkout is not None
    command += ["-o", f"gpuperf_judge_host_times={str(host_times).lower()}"]
    seed = getattr(config.option, "randomly_seed", None)
    if isinstance(seed, int):  # pytest-randomly is there
        command += [f"--randomly-seed={seed}", "--randomly-dont-reorganize"]
    if hasattr(config.option, "session_timeout"):  # so is pytest-timeout
        command += [f"--session-timeout={_NO_LIMIT}"]  # 0 is an expired limit to some versions, "" no number
    command += [
        f"--gpuperf-backend={options.backend}",
        f"--gpuperf-strict={'on' if options.strict else 'off'}",
        f"--gpuperf-baselines={options.baselines}",
        f"--gpuperf-lock-timeout={options.lock_timeout}",
    ]
    for flag in ("model_dir", "data_dir"):
        value = getattr(config.option, f"gpuperf_{flag}")
        path = config.invocation_params.dir / (value or "")
        command += [f"{flag_of(flag)}={path}"] if value else []
    command += ["--gpuperf"] if options.active else []
    command += [f"--gpuperf-trace={options.trace}"] if options.trace is not None else []
    command.append("--continue-on-collection-errors")
    # These paths say which conftest files have a say about options; what to collect, the task says.
    return [*command, *(_mapped(config, path, checkout) if checkout else path for path in paths)]


def _mapped(config: pytest.Config, given: str, checkout: Checkout) -> str:
    """Return a path of the command line as a side of a comparison has it; a package's name stays."""
    path, separator, name = given.partition("::")
    here = config.invocation_params.dir / path
    return f"{checkout.path(here)}{separator}{name}" if here.exists() else given


def _task(
    items: Sequence[pytest.Item],
    batches: Mapping[str, Mapping[str, int]] | None,
    checkout: Checkout | None,
    of_the_test: bool,
) -> dict[str, Any]:
    """Return what the child's ``ChildReporter`` reads before anything else.

    Which tests is no part of the command line, where thousands of names would be matched with thousands.
    """
    files = checkout.files(items) if checkout else list(dict.fromkeys(str(item.path) for item in items))
    return {
        "files": files,
        "tests": [item.nodeid for item in items],
        "batches": batches or {},
        "top": str(checkout.top) if checkout else "",
        "root": str(checkout.root) if checkout else "",
        "limits": of_the_test,
    }


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


def _end(process: subprocess.Popen[bytes]) -> None:
    """End the child and whatever it started; it leads a process group of its own."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
