"""Hold the device while it is measured on, and check that nothing slows it down."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from pytest_gpuperf.errors import GpuperfError, NotFit

if TYPE_CHECKING:
    from pytest_gpuperf.backends.gpu import Gpu
    from pytest_gpuperf.machine.lock import DeviceLock
    from pytest_gpuperf.machine.nvml import FitnessWatch

HOST = "cpu"
"""The lock of a host whose own times are judged: there, too, two sessions at once slow each other down."""


class Guard:
    """The lock and the watch of one process.

    ``on_wait`` is told whom we wait for, ``note`` what could not be watched. ``sentinels`` are those of this
    process (sentinels.take), {} until a GPU was measured on, and always where they are not ``wanted``: only
    in processes that are stored, or that confirm a regression. ``unfit`` says why the last measurement's
    machine was not fit, "" if it was.
    """

    def __init__(
        self, lock_timeout: float, on_wait: Callable[[str], None], note: Callable[[str], None]
    ) -> None:
        self.wanted = False
        self.sentinels: dict[str, Any] = {}
        self.unfit = ""
        self._lock_timeout = lock_timeout
        self._on_wait = on_wait
        self._note = note
        self._lock: DeviceLock | None = None
        self._watch: FitnessWatch | None = None
        self._alone = False

    @contextmanager
    def measuring(self, gpu: Gpu | None) -> Iterator[None]:
        """Hold and watch ``gpu`` if its times are judged, else hold the host.

        Raises NotFree if another session keeps it longer than the limit.
        """
        real = gpu if gpu is not None and gpu.device.judges_times else None
        name = real.uuid if real else HOST
        if self._lock is None or self._lock.uuid != name:
            from pytest_gpuperf.machine.lock import DeviceLock

            self._lock = DeviceLock(name, timeout=self._lock_timeout, on_wait=self._on_wait)
        with self._lock:
            busy = self._begin(real) if real else ""
            yield
            self.unfit = busy or self._end()

    def sample(self) -> None:
        """Look in the middle of a measurement, when the device has just done what was timed."""
        if self._watch:
            self._watch.during()

    @contextmanager
    def unlocked(self) -> Iterator[None]:
        """Let others use the device while we do something long without it, such as compiling."""
        lock = self._lock if self._lock and self._lock.held else None
        if lock:
            lock.release()
        try:
            yield
        finally:
            if lock:
                lock.acquire()

    def close(self) -> None:
        """End the watch; closing twice is no error."""
        if self._watch:
            self._watch.close()
            self._watch = None

    def _begin(self, gpu: Gpu) -> str:
        """Say that others use the device, or begin the watch; ask only until it was ours alone once."""
        if self._watch is None:
            from pytest_gpuperf.machine.nvml import FitnessWatch

            # The whole GPU's address: a MIG instance has a UUID of its own, but no clocks.
            self._watch = FitnessWatch(gpu.uuid, gpu.device.pci)
        if not self._alone:
            busy = self._watch.busy()  # which may take a second
            self._note(self._watch.note)
            if busy:
                return busy
            if self.wanted:
                self._take_sentinels(gpu)
            self._alone = True
        self._watch.before()
        return ""

    def _take_sentinels(self, gpu: Gpu) -> None:
        from pytest_gpuperf.machine import sentinels

        try:
            self.sentinels = sentinels.take(gpu)
        except NotFit:
            raise
        except GpuperfError as error:
            self._note(f"whether the machine moved is not watched: {error}")

    def _end(self) -> str:
        if self._watch is None or not self._alone:
            return ""
        reason = self._watch.after()
        self._note(self._watch.note)
        return reason
