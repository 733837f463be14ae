"""One run: the device it uses, what each test measured, what was decided, and how the run ends."""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from pytest_gpuperf.backends import expects_device, is_modelled, pool_name
from pytest_gpuperf.errors import GpuperfError, Unavailable
from pytest_gpuperf.judging.budget import Budget
from pytest_gpuperf.machine.guard import Guard
from pytest_gpuperf.measurement import Outcome, TestKey
from pytest_gpuperf.options import Options, owner_of, test_options
from pytest_gpuperf.records import Cause, Record, Recorder, Row, attach, payload_of

if TYPE_CHECKING:
    from pytest_gpuperf.backends.gpu import Gpu
    from pytest_gpuperf.storage.baselines import Store

SESSION = pytest.StashKey["GpuperfSession"]()
RECORDER = pytest.StashKey[Recorder]()
EXIT_INFRASTRUCTURE = 20
EXIT_ENVIRONMENT = 21
EXIT_SETUP = 22
JUDGED = (
    Outcome.REGRESSED,
    Outcome.ENVIRONMENT_MOVED,
    Outcome.IMPROVED,
    Outcome.EQUAL,
    Outcome.INCONCLUSIVE,
)


class GpuperfSession:
    """What one pytest process knows; a controller of xdist workers only collects."""

    def __init__(self, config: pytest.Config, options: Options) -> None:
        self.config = config
        self.options = options
        self.rows: list[Row] = []
        self.records: dict[str, Record] = {}
        self.outcomes: dict[str, str] = {}
        self.skipped: dict[str, str] = {}
        self.causes: set[Cause] = set()
        self.findings: list[str] = []
        self.notes: dict[str, None] = {}
        self.deselected = False
        bounded = options.active and options.child is None and options.rules.budget
        self.budget = Budget(bounded) if bounded else None
        self.left_out: set[str] = set()
        self.batches: dict[str, dict[str, int]] = {}
        self._gpu: Gpu | None = None
        self._padding: Any = None
        self._mark: int = 0
        self._unavailable: Unavailable | None = None
        self.guard = Guard(options.lock_timeout, on_wait=self._on_wait, note=self.note)
        self._stores: dict[Path, Store] = {}

    # --- the device

    def gpu(self) -> Gpu:
        """The session's device, opened at first use; raises Unavailable, each time with the same words."""
        if self._unavailable:
            raise self._unavailable
        if self._gpu is None:
            from pytest_gpuperf.backends import select
            from pytest_gpuperf.backends.gpu import Gpu

            try:
                device = select(self.options.backend)
            except Unavailable as error:
                self._unavailable = error
                raise
            device.compiling = self.guard.unlocked
            self._gpu = Gpu(device)
            if self.options.active and device.judges_times:
                from pytest_gpuperf.instruments.places import padding

                self._padding = padding(device)  # also randomises the addresses of arrays we cannot move
        return self._gpu

    @property
    def opened(self) -> Gpu | None:
        return self._gpu

    def _on_wait(self, message: str) -> None:
        self.note(message)
        self.progress(f"gpuperf: {message}")
        reporter = self.config.pluginmanager.get_plugin("gpuperf-child")
        if reporter is not None:
            reporter.send({"event": "waiting"})

    def judges_host_time(self) -> bool:
        """Host times are judged on a GPU runner; on a shared CPU they say nothing about the code."""
        on_gpu = self._gpu is not None and self._gpu.device.judges_times
        return on_gpu or self.options.judge_host_times

    def expects_cuda(self) -> bool:
        """Whether this session runs on a CUDA device, without opening it."""
        return expects_device(self.options.backend)

    def measures(self, item: pytest.Item) -> bool:
        """Whether numbers are taken now: with ``--gpuperf``, while the run's budget lasts."""
        if self.options.active and self.budget is not None and self.budget.spent:
            self.left_out.add(item.nodeid)
            return False
        return self.options.active

    def mark_memory(self) -> None:
        self._mark = self.gpu().mark()

    def free_memory(self) -> None:
        """Gives back the device arrays of the current test: the replicas need room for their own."""
        if self._gpu is not None:
            self._gpu.free_since(self._mark)

    def progress(self, text: str) -> None:
        """A line for the person who waits, now, also while pytest captures a test's output."""
        reporter = self.config.pluginmanager.get_plugin("terminalreporter")
        capture = self.config.pluginmanager.get_plugin("capturemanager")
        if reporter is not None:
            with capture.global_and_fixture_disabled() if capture else nullcontext():
                reporter.ensure_newline()
                reporter.write_line(text)

    def batch(self, item: pytest.Item, metric: str) -> int | None:
        """How many launches make a sample, where the baseline or the parent process has settled it.

        A launch near the limit between single and batched timing would else change its contract,
        and its figure, from process to process.
        """
        if self.options.child is not None:
            return self.batches.get(item.nodeid, {}).get(metric)
        if self.options.update == "replace":
            return None
        key, store = self.key(item.nodeid), self.store(item.path)
        place = self.gpu().device.place()
        stored = store.load(self.pool_of(place), key.suite).get(key.name, {}).get(metric)
        return stored.contract.get("batch") if stored else None

    def note(self, text: str) -> None:
        """Something to say once at the end, however often it came up; nothing where it is empty."""
        if text:
            self.notes[text] = None

    # --- tests and their baselines

    def owner(self, path: Path, folder: str) -> Path:
        root = self.config.inipath.parent if self.config.inipath else self.config.rootpath
        return owner_of(path.parent, folder, root)

    def path(self, nodeid: str) -> Path:
        """The suite file of a test."""
        return Path(os.path.normpath(self.config.rootpath / nodeid.partition("::")[0]))

    def key(self, nodeid: str) -> TestKey:
        """A test's lasting name, from the folder that owns its baselines."""
        path = self.path(nodeid)
        owner = self.owner(path, self.options.baselines)
        if not path.is_relative_to(owner):
            raise GpuperfError(
                f"{path} lies outside {owner}, the folder that holds the baselines; "
                "keep suites and baselines under one folder"
            )
        return TestKey(path.relative_to(owner).as_posix(), nodeid.partition("::")[2])

    def store(self, path: Path) -> Store:
        """The baselines that belong to the suite file ``path``."""
        folder = self.owner(path, self.options.baselines) / self.options.baselines
        if folder not in self._stores:
            self._stores[folder] = self._open(folder)
        return self._stores[folder]

    def _open(self, folder: Path) -> Store:
        revision = self.options.revisions.baselines_from
        if revision is not None:
            from pytest_gpuperf.storage.revision_store import RevisionStore

            return RevisionStore(folder, revision)
        from pytest_gpuperf.storage.baselines import Store

        return Store(folder)

    def pool(self, record: Record) -> str:
        return self.pool_of(record.device)

    def pool_of(self, device: Mapping[str, Any]) -> str:
        """The user's name for it, else the device's model, MIG profile and changed power limit."""
        chosen = None if is_modelled(device) else self.options.pool
        return chosen or pool_name(device)

    # --- reports

    def collect(self, report: pytest.TestReport) -> None:
        """Takes in a report, from this process, a worker or a child."""
        payload = payload_of(report)
        self.rows.extend(payload.rows)
        if payload.left_out:
            self.left_out.add(report.nodeid)
        if payload.record:
            self.records[report.nodeid] = payload.record
        if report.when == "call" or report.outcome != "passed":
            self.outcomes[report.nodeid] = report.outcome
        if report.skipped and isinstance(report.longrepr, tuple):
            self.skipped[report.nodeid] = report.longrepr[2]
        if report.failed:
            self.causes.add(payload.cause or "wrong")

    def finding(self, cause: Cause, text: str) -> None:
        """Something strict that no single test can fail for: it decides the exit code and is printed."""
        self.causes.add(cause)
        self.findings.append(text)

    def exit_status(self, status: int) -> int:
        """pytest's own status, or ours where every failure has one of our causes."""
        ours = status in (pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED)
        if not ours or not self.causes or self.options.child is not None:
            return status  # a child's parent decides
        if "wrong" in self.causes:
            return int(pytest.ExitCode.TESTS_FAILED)
        if "setup" in self.causes:
            return EXIT_SETUP
        return EXIT_ENVIRONMENT if "environment" in self.causes else EXIT_INFRASTRUCTURE

    def close(self) -> None:
        self.guard.close()
        if self._gpu is not None:
            self._gpu.close()
            self._gpu = None


def recorder_of(item: pytest.Item) -> Recorder:
    return item.stash.setdefault(RECORDER, Recorder())


def isolates(item: pytest.Item) -> bool:
    """Whether a test runs whole in a process of its own: LoadGen's mishaps take the process with them."""
    return "loadgen" in getattr(item, "fixturenames", ()) or test_options(item).isolated


def with_payload(report: pytest.TestReport, **changes: Any) -> None:
    """Changes parts of what a report carries."""
    from dataclasses import replace

    attach(report, replace(payload_of(report), **changes))
