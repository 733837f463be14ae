"""StartTest on a thread of its own, so that the calling thread can bound it and can be interrupted."""

from __future__ import annotations

import gc
import os
import threading
from collections.abc import Callable
from pathlib import Path
from time import perf_counter
from typing import Any

from pytest_gpuperf.errors import GpuperfError
from pytest_gpuperf.mlperf import logs
from pytest_gpuperf.mlperf.datasets import Dataset
from pytest_gpuperf.mlperf.session import Session
from pytest_gpuperf.mlperf.sut import Callbacks, SampleLibrary

_running = threading.Lock()
_poison: list[str] = []


def poisoned() -> str | None:
    """Why no further phase can run in this process (LoadGen still waits in a thread), or None. A process
    that is poisoned must end with ``os._exit``: an ordinary exit crashes in LoadGen.
    """
    return _poison[0] if _poison else None


class Phase:
    """One call of StartTest, with the callbacks around ``session`` and the logs in ``log_dir``.

    ``stall`` bounds the seconds without a completion. CUDA graphs belong to the thread that captured them,
    so the warm-up runs on the thread of StartTest too.
    """

    def __init__(
        self, lg: Any, session: Session, dataset: Dataset, batch: int, log_dir: Path, stall: float
    ) -> None:
        if len(dataset) == 0:
            raise GpuperfError(f"the dataset {dataset.name} of {session.model.name} has no images")
        _require_folder(log_dir)
        self._lg, self._session, self._log_dir, self._stall = lg, session, log_dir, stall
        self._total = len(dataset)
        self.callbacks = Callbacks(
            lg, session.run, SampleLibrary(dataset, session.dtype, session.hold), batch
        )
        self.notes: tuple[str, ...] = ()
        if Path("audit.config").exists():
            self.notes = (f"{Path('audit.config').resolve()} lies in the working directory and was not used",)

    def run(self, settings: Callable[[], Any], trace: bool) -> Any:
        """Runs ``settings`` (which may warm up), then StartTest with what it returned; returns that."""
        if _poison:
            raise GpuperfError(f"LoadGen cannot run again in this process: {_poison[0]}")
        if not _running.acquire(blocking=False):
            raise GpuperfError("LoadGen runs one phase at a time and another is running in this process")
        outcome: dict[str, Any] = {}
        thread = threading.Thread(
            target=self._body, args=(settings, trace, outcome), daemon=True, name="loadgen"
        )
        try:
            self.callbacks.progress = perf_counter()
            thread.start()
            self._wait(thread)
        finally:
            if not thread.is_alive():
                self.callbacks.library.unload()
                _running.release()
        error = self.callbacks.failure or outcome.get("error")
        if isinstance(error, GpuperfError):
            raise error
        if error is not None:
            raise GpuperfError(
                f"{self._session.model.name} failed while LoadGen ran it: {type(error).__name__}: {error}"
            ) from error
        return outcome["settings"]

    def _body(self, settings: Any, trace: bool, outcome: dict[str, Any]) -> None:
        collecting = gc.isenabled()
        try:
            outcome["settings"] = settings()
            # A collection in the middle of a query would be a latency of this package's making.
            gc.collect()
            gc.disable()
            if self.callbacks.failure is None and not self.callbacks.abandoned:
                self._start_test(outcome["settings"], trace)
        except BaseException as error:
            outcome["error"] = error
        finally:
            if collecting:
                gc.enable()

    def _start_test(self, settings: Any, trace: bool) -> None:
        lg, calls = self._lg, self.callbacks
        output = lg.LogOutputSettings()
        output.outdir = str(self._log_dir)
        log = lg.LogSettings()
        log.log_output, log.enable_trace = output, trace
        sut = lg.ConstructFastSUT(calls.issue, calls.flush)
        qsl = lg.ConstructQSL(
            self._total, settings.performance_sample_count_override, calls.load, calls.unload
        )
        # By default an audit.config in the working directory overrides settings; "" says that there is none.
        lg.StartTestWithLogSettings(sut, qsl, settings, log, "")
        lg.DestroyQSL(qsl)
        lg.DestroySUT(sut)

    def _wait(self, thread: threading.Thread) -> None:
        try:
            while thread.is_alive():
                thread.join(0.5)
                if thread.is_alive() and perf_counter() - self.callbacks.progress > self._stall:
                    self._give_up(f"{self._session.model.name} completed nothing for {self._stall:g} s")
        except KeyboardInterrupt:
            # Queries are then completed unanswered, which ends StartTest in an orderly way.
            self.callbacks.abandoned = True
            thread.join(self._stall)
            if thread.is_alive():
                _poison.append("it was interrupted and the model did not return")
            raise

    def _give_up(self, what: str) -> None:
        self.callbacks.abandoned = True
        _poison.append(what)
        raise GpuperfError(
            f"{what}: the query was given up (LoadGen itself would wait for ever); "
            f"its logs are in {self._log_dir}"
        )


def _require_folder(log_dir: Path) -> None:
    """LoadGen returns without having run and aborts at exit where it cannot write its logs."""
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
