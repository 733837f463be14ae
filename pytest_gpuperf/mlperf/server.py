"""The callbacks of the Server scenario: queries queue up, and workers run them in batches."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import Any, TypeVar

from pytest_gpuperf.mlperf import perf_counter
from pytest_gpuperf.mlperf.callbacks import Callbacks
from pytest_gpuperf.mlperf.library import SampleLibrary

T = TypeVar("T")
_LOOK = 0.5  # seconds after which a worker without work says that it is well


class Batcher(Callbacks):
    """Run whatever waits, ``batch`` samples at most, after ``max_wait`` seconds for a fuller batch.

    LoadGen issues a query when its time has come, whether the last is done or not, so ``issue`` only queues.
    Once a query has waited for ``patience`` seconds the phase is lost, and the rest is completed unanswered:
    at a rate far too high that is what would take hours.
    """

    alone = False

    def __init__(
        self,
        loadgen: Any,
        workers: Sequence[Any],
        library: SampleLibrary,
        batch: int,
        max_wait: float = 0.0,
    ) -> None:
        super().__init__(loadgen, workers, library, batch)
        self._max_wait = max_wait
        self._waiting: deque[tuple[int, int, float]] = deque()
        self._changed = threading.Condition()
        self._closed, self._running = False, 0
        self._serving: list[Future[None]] = []

    def start(self, prepare: Callable[[], T]) -> T:
        """Call ``prepare``, after which the workers wait for queries; returns what it returned."""
        prepared = super().start(prepare)
        pairs = zip(self._threads, self._runs, strict=True)
        self._serving = [thread.submit(self._serve, run) for thread, run in pairs]
        return prepared

    def stop(self) -> None:
        """End the workers, which have nothing left to do."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        for each in self._serving:
            each.result()
        super().stop()

    def issue(self, ids: Sequence[int], indices: Sequence[int]) -> None:
        now = perf_counter()
        with self._changed:
            self._waiting.extend((one, index, now) for one, index in zip(ids, indices, strict=True))
            self._changed.notify()

    def _serve(self, run: Callable[[Sequence[int]], Any]) -> None:
        while taken := self._take():
            ids, indices = zip(*taken, strict=True)
            self._guarded(self._complete, ids, self._classes(run, indices))
            with self._changed:
                self._running -= 1

    def _take(self) -> list[tuple[int, int]]:
        """Wait for queries and return a batch of them; none once there are no more to come."""
        with self._changed:
            while not self._ready():
                if self._closed and not self._waiting:
                    return []
                # With a batch under way, or a query that could not be completed, it is not idle but hung.
                if not self._running and self.failure is None:
                    self.progress = perf_counter()
                self._changed.wait(min(self._left(), _LOOK))
            self._running += 1
            count = min(len(self._waiting), self._batch)
            self.abandoned |= perf_counter() - self._waiting[0][2] > self.patience
            taken = [self._waiting.popleft()[:2] for _ in range(count)]
            if self._waiting:
                self._changed.notify()  # what is left is for another worker
            return taken

    def _ready(self) -> bool:
        return len(self._waiting) >= self._batch or (bool(self._waiting) and self._left() <= 0)

    def _left(self) -> float:
        """Return the seconds to wait: for a fuller batch, or for any query."""
        if not self._waiting:
            return _LOOK
        return self._waiting[0][2] + self._max_wait - perf_counter()
