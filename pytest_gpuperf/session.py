"""One pytest process: the device it uses, what it collected, and how it ends."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

import pytest

from pytest_gpuperf.backends import device_count, expects_device
from pytest_gpuperf.errors import Unavailable
from pytest_gpuperf.machine.guard import Guard
from pytest_gpuperf.marker import FIXTURES_OF_DEVICE, FIXTURES_OF_NUMBERS, fixtures_of
from pytest_gpuperf.options import Options
from pytest_gpuperf.records import REPORTED_SAMPLES, Recorder
from pytest_gpuperf.results import Results
from pytest_gpuperf.storage.project import Project
from pytest_gpuperf.text import counted

if TYPE_CHECKING:
    from pytest_gpuperf.backends.base import Backend
    from pytest_gpuperf.backends.gpu import Gpu
    from pytest_gpuperf.backends.tracing import Tracer
    from pytest_gpuperf.processes.child import Children
    from pytest_gpuperf.processes.live import Live

RECORDER = pytest.StashKey[Recorder]()


@dataclass(slots=True)
class Budget:
    """--gpuperf-budget: ``seconds`` of measuring from now."""

    seconds: float
    end: float = field(init=False)

    def __post_init__(self) -> None:
        self.end = time.monotonic() + self.seconds

    @property
    def spent(self) -> bool:
        return time.monotonic() >= self.end

    def __str__(self) -> str:
        return f"the budget of {self.seconds / 60:g} minutes (--gpuperf-budget) was spent"


class GpuperfSession:
    """One process's device, baselines and results; a controller of xdist workers only collects.

    ``stand_in`` is a device that is used instead of this machine's, None for none.
    """

    def __init__(self, config: pytest.Config, options: Options) -> None:
        self.config = config
        self.options = options
        self.project = Project(config.rootpath, config.inipath.parent if config.inipath else None, options)
        # What is recorded are fresh processes' figures, and this one's only where they are exact.
        self.results = Results(REPORTED_SAMPLES if options.reports else 1 if options.only_records else 0)
        self.tracer: Tracer | None = None
        bounded = options.budget if options.active and options.child is None else None
        self.budget = Budget(bounded) if bounded else None
        self.batches: dict[str, dict[str, int]] = {}
        self.guard = Guard(options.lock_timeout, on_wait=self._on_wait, note=self.results.note)
        self.opened: Gpu | None = None
        self.stand_in: Backend | None = None
        self._padding: Any = None
        self._mark = 0
        self._unavailable: Unavailable | None = None

    @cached_property
    def children(self) -> Children:
        """Return what starts child pytest processes of this session."""
        from pytest_gpuperf.processes.child import Children

        end = self.budget.end if self.budget else None
        return Children(self.config, self.options, self.progress, self.live, end)

    @cached_property
    def live(self) -> Live:
        """Return the line that says how long work gets on."""
        from pytest_gpuperf.processes.live import Live

        return Live(self.config)

    @property
    def in_worker(self) -> bool:
        """Return whether this is a worker of pytest-xdist."""
        return hasattr(self.config, "workerinput")

    @property
    def _child(self) -> Any:
        """Return what tells this process's parent how it gets on, None if this is no child."""
        return self.config.pluginmanager.get_plugin("gpuperf-child")

    # --------------------------------------------------------------------------- the device

    def gpu(self) -> Gpu:
        """Return the session's device, opened at first use; raises Unavailable, always the same."""
        if self._unavailable:
            raise self._unavailable
        if self.opened is None:
            from pytest_gpuperf.backends import select
            from pytest_gpuperf.backends.gpu import Gpu

            try:
                device = self.stand_in or select(self.options.backend)
            except Unavailable as error:
                self._unavailable = error
                raise
            device.compiling = self.guard.unlocked
            device.seconds = self.options.kernel_timeout
            self.opened = Gpu(device)
            if self.options.active and device.judges_times:
                from pytest_gpuperf.instruments.places import padding

                self._padding = padding(device)  # also randomises the addresses of arrays we cannot move
        return self.opened

    def uses_device(self, item: pytest.Item) -> bool:
        """Return whether a test uses the device, as far as its fixtures tell before it runs."""
        names = fixtures_of(item)
        return bool(names & FIXTURES_OF_DEVICE) or (
            bool(names & FIXTURES_OF_NUMBERS) and self.expects_device()
        )

    @property
    def lost(self) -> bool:
        """Return whether nothing in this process can use the device any more."""
        return self.opened is not None and bool(self.opened.device.lost)

    @property
    def stuck(self) -> bool:
        """Return whether a kernel does not end, so that this process cannot end in the ordinary way."""
        return self.opened is not None and self.opened.device.stuck

    def settle_device(self) -> None:
        """Wait for what a test enqueued, so that it fails by its own kernels; raises KernelError."""
        if self.opened is not None and not self.opened.device.lost and self.options.plan is None:
            with self.untraced():
                self.opened.synchronize()

    @contextmanager
    def untraced(self) -> Iterator[None]:
        """Leave out of a trace what the block does, which is none of the test's own."""
        opened = self.opened
        with self.tracer.paused(opened.synchronize) if self.tracer and opened else nullcontext():
            yield

    def judges_host_time(self) -> bool:
        """Return whether host times are judged: on a GPU runner, since on a shared CPU they say nothing."""
        return (self.opened is not None and self.opened.device.judges_times) or self.options.judge_host_times

    def expects_device(self) -> bool:
        """Return whether this session runs on a real device, without opening it."""
        return self._expects_device

    @cached_property
    def _expects_device(self) -> bool:
        return self.options.plan is not None or expects_device(self.options.backend)

    def mark_memory(self) -> None:
        """Begin a test: ``free_memory`` frees the device arrays made from here on."""
        self._mark = self.gpu().mark()

    def free_memory(self) -> None:
        """Give back the device arrays of the current test: other processes need room for their own."""
        if self.opened is not None:
            self.opened.free_since(self._mark)

    def close(self) -> None:
        """Give the device back, unless a kernel that does not end keeps it."""
        self.guard.close()
        if self.opened is not None and not self.opened.device.stuck:
            self.opened.close()
            self.opened = None

    # --------------------------------------------------------------------------- a test

    def measures(self, item: pytest.Item) -> bool:
        """Return whether numbers are taken now: with ``--gpuperf``, while the run's budget lasts."""
        if self.options.active and self.budget is not None and self.budget.spent:
            self.results.left_out.add(item.nodeid)
            return False
        return self.options.active

    def batch(self, item: pytest.Item, metric: str) -> int | None:
        """Return how many launches make a sample, if the baseline or the parent process has settled it.

        Otherwise a launch near the limit between single and batched timing would change its contract, and
        its figure, from process to process.
        """
        if self.options.child is not None:
            return self.batches.get(item.nodeid, {}).get(metric)
        if self.options.update in ("replace", "prune"):
            return None
        stored = self.project.stored(item.nodeid, self.gpu().device.place()).get(metric)
        return stored.contract.get("batch") if stored else None

    # --------------------------------------------------------------------------- the person who waits

    def telling(self, item: pytest.Item, metric: str) -> Callable[[int], None]:
        """Return what says in the live line, this process's or its parent's, how many samples there are."""
        inside = self.options.child is not None
        show = self._child.progress if inside else self.live.show
        what = f"{metric} of {item.nodeid}" if inside else f"measuring {metric}"
        show(what)
        return lambda count: show(f"{what}, {count} samples")

    def progress(self, text: str) -> None:
        """Print a line now, also while pytest captures a test's output."""
        reporter = self.config.pluginmanager.get_plugin("terminalreporter")
        capture = self.config.pluginmanager.get_plugin("capturemanager")
        if reporter is not None:
            self.live.clear()
            with capture.global_and_fixture_disabled() if capture else nullcontext():
                reporter.ensure_newline()
                reporter.write_line(text)

    def _on_wait(self, message: str) -> None:
        self.results.note(message)
        self.progress(f"gpuperf: {message}")
        if self.options.child is not None:
            self._child.waiting()

    @contextmanager
    def phase(self) -> Iterator[None]:
        """Run what ends itself where it makes no progress, such as a phase of LoadGen.

        It counts neither against the test's own time limit nor as a child's lack of progress.
        """
        from pytest_gpuperf.mlperf.phase import told
        from pytest_gpuperf.processes.limits import paused

        inside = self.options.child is not None
        tell = self._child.progress if inside else self.live.show
        try:
            with paused(self.config), self._child.busy() if inside else nullcontext(), told(tell):
                yield
        finally:
            self.live.clear()


def recorder_of(item: pytest.Item) -> Recorder:
    """Return what a test has measured in this process."""
    return item.stash.setdefault(RECORDER, Recorder())


# --------------------------------------------------------------------------- the workers of pytest-xdist


def check_workers(config: pytest.Config, options: Options) -> None:
    """Claim a worker's device; in the controller raise pytest.UsageError for workers that would collide."""
    workers = len(getattr(config.option, "tx", None) or ())
    if options.active and hasattr(config, "workerinput"):
        _claim_device(int(config.workerinput["workerid"].removeprefix("gw")))
        return
    if not workers or not options.active:
        return
    if options.only_records:
        flag = "--gpuperf-update" if options.update else "--gpuperf-calibrate"
        raise pytest.UsageError(f"{flag} records in one process after the other; leave out -n")
    try:
        devices = device_count(options.backend)
    except Unavailable as error:
        raise pytest.UsageError(str(error)) from None
    if 0 < devices < workers:
        raise pytest.UsageError(
            f"{workers} xdist workers would measure on {counted(devices, 'device')} at once; "
            f"use -n {devices} or fewer"
        )


def _claim_device(number: int) -> None:
    """Make the worker's device the only one that it and its children see, before CUDA starts."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    devices = visible.split(",") if visible else []
    os.environ["CUDA_VISIBLE_DEVICES"] = devices[number] if number < len(devices) else str(number)
