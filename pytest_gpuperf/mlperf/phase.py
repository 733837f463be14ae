"""StartTest on a thread of its own, and the callbacks around a session, which must never raise.

An exception that leaves a callback comes out of StartTest and leaves LoadGen in a state in which the next
StartTest aborts the process; a query that is never completed makes StartTest wait for ever. So every callback
catches what it meets, keeps it for the caller, and completes the queries all the same. The caller waits for
the thread, so it can give up on a model that hangs, and can be interrupted.
"""

from __future__ import annotations

import gc
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pytest_gpuperf.errors import GpuperfError
from pytest_gpuperf.figures import short
from pytest_gpuperf.mlperf import imported, logs, perf_counter
from pytest_gpuperf.mlperf.callbacks import Callbacks
from pytest_gpuperf.mlperf.datasets import Dataset
from pytest_gpuperf.mlperf.library import InOrder, Kept, SampleLibrary
from pytest_gpuperf.mlperf.raised import described
from pytest_gpuperf.mlperf.server import Batcher
from pytest_gpuperf.mlperf.session import Session

_running = threading.Lock()
_poison: list[str] = []
_tell: list[Callable[[str], None]] = []


def poisoned() -> str | None:
    """Return why no further phase can run in this process (LoadGen still waits in a thread), or None.

    A poisoned process must end with ``os._exit``: an ordinary exit crashes in LoadGen.
    """
    return _poison[0] if _poison else None


@contextmanager
def told(tell: Callable[[str], None]) -> Iterator[None]:
    """Let ``tell`` hear twice a second what phases within do, and how long they last at least."""
    _tell.append(tell)
    try:
        yield
    finally:
        _tell.pop()


@dataclass(frozen=True, slots=True)
class Lasting:
    """What outlasts a phase: the images in ``library``, and a thread for each worker, once there was a phase.

    ONNX Runtime opens cuDNN and cuBLAS anew for each thread and session, and captures each graph again.
    """

    library: Kept
    threads: list[ThreadPoolExecutor] = field(default_factory=list)

    def close(self) -> None:
        """Let go of them, unless the model may still use them."""
        if not poisoned():
            self.library.close()
            for thread in self.threads:
                thread.shutdown()


class Phase:
    """One call of StartTest, with the callbacks around ``session`` and the logs in ``log_dir``.

    ``batch`` is how many images a run of the model gets at most, ``stall`` the seconds allowed in which
    neither a batch is completed nor an image loaded. ``max_wait`` is given for a server, which batches what
    comes in; ``workers`` for a session that runs several batches at a time; ``lasting`` is what outlasts the
    phase.
    """

    def __init__(
        self,
        session: Session,
        dataset: Dataset,
        batch: int,
        log_dir: Path,
        stall: float,
        max_wait: float | None,
        workers: Sequence[Any] | None,
        lasting: Lasting | None = None,
    ) -> None:
        self.lg = imported("mlperf_loadgen", "MLPerf's LoadGen cannot be imported")
        if len(dataset) == 0:
            raise GpuperfError(f"the dataset {dataset.name} of {session.model.name} has no images")
        _require_folder(log_dir)
        self._session, self._log_dir, self._stall = session, log_dir, stall
        self._dataset, self._total = dataset, len(dataset)
        library = lasting.library if lasting else library_for(session, dataset)
        arguments = self.lg, workers or (session,), library, batch
        self.callbacks = Callbacks(*arguments) if max_wait is None else Batcher(*arguments, max_wait)
        if lasting:
            self.callbacks.lasting = lasting.threads
        self._began = 0.0
        self.notes: tuple[str, ...] = ()
        if Path("audit.config").exists():
            self.notes = (f"{Path('audit.config').resolve()} lies in the working directory and was not used",)

    def run(self, prepare: Callable[[], Any], trace: bool) -> Any:
        """Run ``prepare``, which may warm up and returns LoadGen's settings, and then StartTest with them.

        Returns the settings. Raises GpuperfError for whatever the model raised, a stall, a poisoned process
        or another phase that is running.
        """
        if _poison:
            raise GpuperfError(f"LoadGen cannot run again in this process: {_poison[0]}")
        if not _running.acquire(blocking=False):
            raise GpuperfError("LoadGen runs one phase at a time and another is running in this process")
        outcome: dict[str, Any] = {}
        arguments = prepare, trace, outcome
        thread = threading.Thread(target=self._body, args=arguments, daemon=True, name="loadgen")
        try:
            self.callbacks.progress = perf_counter()
            thread.start()
            self._wait(thread, outcome)
        finally:
            if not thread.is_alive():
                with suppress(GpuperfError):  # what ended the phase is said
                    self.callbacks.library.unload()
                _running.release()
        error = self.callbacks.failure or outcome.get("error")
        if isinstance(error, GpuperfError):
            raise error
        if error is not None:
            raise GpuperfError(
                f"{self._session.model.name} failed while LoadGen ran it: {described(error)}"
            ) from error
        self.notes = (*self.notes, *notes_of(self._dataset))
        return outcome["settings"]

    def _body(self, prepare: Callable[[], Any], trace: bool, outcome: dict[str, Any]) -> None:
        collecting = gc.isenabled()
        try:
            outcome["settings"] = self.callbacks.start(prepare)
            # A collection in the middle of a query would add to its latency.
            gc.collect()
            gc.disable()
            if self.callbacks.failure is None and not self.callbacks.abandoned:
                self._start_test(outcome["settings"], trace)
        except BaseException as error:
            outcome["error"] = error
        finally:
            self.callbacks.stop()
            if collecting:
                gc.enable()

    def _start_test(self, settings: Any, trace: bool) -> None:
        lg, calls = self.lg, self.callbacks
        output = lg.LogOutputSettings()
        output.outdir = str(self._log_dir)
        log = lg.LogSettings()
        log.log_output, log.enable_trace = output, trace
        # There is nothing to flush: every query is run, or waits its bounded time, when it is issued.
        sut = lg.ConstructFastSUT(calls.issue, lambda: None)
        loaded = settings.performance_sample_count_override
        qsl = lg.ConstructQSL(self._total, loaded, calls.load, calls.unload)
        # By default an audit.config in the working directory overrides settings; "" says that there is none.
        lg.StartTestWithLogSettings(sut, qsl, settings, log, "")
        lg.DestroyQSL(qsl)
        lg.DestroySUT(sut)
        if not trace:
            (self._log_dir / logs.TRACE).unlink(missing_ok=True)  # an empty one

    def _doing(self, settings: Any) -> str:
        """Say what the phase does now, and for how long yet, as far as that is known."""
        name, calls = self._session.model.name, self.callbacks
        if calls.loading and calls.done:
            rate = calls.done / (perf_counter() - calls.began)
            left = f", {(calls.wanted - calls.done) / rate:.0f} s left" if calls.done < calls.wanted else ""
            return f"{calls.done:,} of {calls.wanted:,} images {calls.loading}{left}: {name}"
        if settings is None:
            return f"warming up {name}"
        if not calls.wanted:
            return f"LoadGen starts: {name}"
        self._began = self._began or perf_counter()
        performance = settings.mode == self.lg.TestMode.PerformanceOnly
        left = performance * settings.min_duration_ms / 1000 - (perf_counter() - self._began)
        time = f", {left:.0f} s left" if left > 0 else ""
        return f"LoadGen runs{time}: {name}"

    def _wait(self, thread: threading.Thread, outcome: dict[str, Any]) -> None:
        try:
            while thread.is_alive():
                thread.join(0.5)
                if _tell:
                    _tell[-1](self._doing(outcome.get("settings")))
                if thread.is_alive() and perf_counter() - self.callbacks.progress > self._stall:
                    what = "loaded no image" if self.callbacks.loading else "completed nothing"
                    reason = f"{self._session.model.name} {what} for {self._stall:g} s"
                    self.callbacks.abandoned = True
                    _poison.append(reason)
                    raise GpuperfError(
                        f"{reason}: the phase was given up (LoadGen itself would wait for ever); "
                        f"if it is only slow, give stall= more seconds; its logs are in {self._log_dir}"
                    )
        except KeyboardInterrupt:
            # Queries are then completed unanswered, which ends StartTest in an orderly way.
            self.callbacks.abandoned = True
            try:
                thread.join(self._stall)
            finally:  # a second interrupt does not wait
                if thread.is_alive():
                    _poison.append("it was interrupted and the model did not return")
            raise


def notes_of(dataset: Dataset) -> tuple[str, ...]:
    """Return what a dataset says of its samples; raises GpuperfError for anything but texts."""
    said = getattr(dataset, "notes", ())
    notes = (said,) if isinstance(said, str) else tuple(said) if isinstance(said, Sequence) else (said,)
    if not all(isinstance(note, str) for note in notes):
        raise GpuperfError(f"{dataset.name}: notes={short(said)}; give texts, or leave it out")
    return notes


def library_for(session: Any, dataset: Dataset) -> SampleLibrary:
    """Return the library of a phase: in the dataset's order for a model that carries state."""
    if getattr(session.model, "state", None):
        return InOrder(dataset, session.dtype, session.hold, session.restart)
    return SampleLibrary(dataset, session.dtype, session.hold)


def _require_folder(log_dir: Path) -> None:
    """Make ``log_dir`` and delete an earlier phase's logs in it; raises GpuperfError if it is not writable.

    LoadGen itself would return without having run, and abort the process at its exit.
    """
    probe = log_dir / f".writable-{os.getpid()}"
    try:
        log_dir.mkdir(parents=True, exist_ok=True)
        probe.write_bytes(b"")
        probe.unlink()
        for old in (logs.DETAIL, logs.TRACE, logs.ACCURACY):
            (log_dir / old).unlink(missing_ok=True)
    except OSError as error:
        raise GpuperfError(
            f"LoadGen's logs cannot be written to {log_dir} ({error.strerror}): name another folder"
        ) from error
