"""The callbacks of the Server scenario: queries queue up, and one thread runs them in batches."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from time import perf_counter
from typing import Any

from pytest_gpuperf.mlperf.callbacks import Callbacks, Run
from pytest_gpuperf.mlperf.library import SampleLibrary

_LOOK = 0.5  # seconds after which a worker without work says that it is well


class Batcher(Callbacks):
    """Run whatever waits, ``batch`` samples at most, after ``max_wait`` seconds for a fuller batch.

    LoadGen issues a query when its time has come, whether the last is done or not, so ``issue`` only queues.
    CUDA graphs belong to the thread that captured them: what warms up runs on the worker, too.
    """

    def __init__(
        self, loadgen: Any, run: Run, library: SampleLibrary, batch: int, max_wait: float = 0.0
    ) -> None:
        super().__init__(loadgen, run, library, batch)
        self._max_wait = max_wait
        self._waiting: deque[tuple[int, int, float]] = deque()
        self._changed = threading.Condition()
        self._closed = False
        self._worker: threading.Thread | None = None

    def start(self, prepare: Callable[[], Any]) -> Any:
        """Call ``prepare`` on the worker, which then waits for queries; returns what it returned."""
        ready: Future[Any] = Future()

        def work() -> None:
            try:
                ready.set_result(prepare())
            except BaseException as error:
                ready.set_exception(error)
            else:
                self._serve()

        self._worker = threading.Thread(target=work, daemon=True, name="server")
        self._worker.start()
        return ready.result()

    def stop(self) -> None:
        """End the worker, which has nothing left to do."""
        with self._changed:
            self._closed = True
            self._changed.notify()
        if self._worker is not None:
            self._worker.join()

    def issue(self, ids: Sequence[int], indices: Sequence[int]) -> None:
        now = perf_counter()
        if self.issued is None:
            self.issued = now
        with self._changed:
            self._waiting.extend((one, index, now) for one, index in zip(ids, indices, strict=True))
            self._changed.notify()

    def _serve(self) -> None:
        while taken := self._take():
            ids, indices = zip(*taken, strict=True)
            self._guarded(self._complete, ids, self._classes(indices))

    def _take(self) -> list[tuple[int, int]]:
        """Wait for queries and return a batch of them; none once there are no more to come."""
        with self._changed:
            while not self._waiting:
                if self._closed:
                    return []
                self.progress = perf_counter()
                self._changed.wait(_LOOK)
            end = self._waiting[0][2] + self._max_wait
            while len(self._waiting) < self._batch and (left := end - perf_counter()) > 0:
                self._changed.wait(left)
            count = min(len(self._waiting), self._batch)
            return [self._waiting.popleft()[:2] for _ in range(count)]
