"""The callbacks around a session, which must never raise: issue, load and unload."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import repeat
from time import perf_counter
from typing import Any

import numpy as np

from pytest_gpuperf.errors import GpuperfError
from pytest_gpuperf.mlperf.library import SampleLibrary

Run = Callable[[np.ndarray], np.ndarray]


class Callbacks:
    """Issue, load and unload for one phase.

    ``failure`` is the first exception; ``progress`` when a batch was last completed, or an image loaded while
    ``loading``; ``completions`` the time and the number of samples of each completed batch (seconds on
    ``perf_counter``); ``issued`` when the first query came.
    """

    def __init__(self, loadgen: Any, run: Run, library: SampleLibrary, batch: int) -> None:
        self._loadgen, self._run, self.library, self._batch = loadgen, run, library, batch
        self.failure: BaseException | None = None
        self.abandoned = self.loading = False
        self.progress = perf_counter()
        self.issued: float | None = None
        self.completions: list[tuple[float, int]] = []

    def start(self, prepare: Callable[[], Any]) -> Any:
        """Call ``prepare`` on the thread that will run the model; returns what it returned."""
        return prepare()

    def stop(self) -> None:
        """End what ``start`` began."""

    def load(self, indices: Sequence[int]) -> None:
        self.loading = True
        self._guarded(self.library.load, indices, self._tick)
        self.loading = False

    def _tick(self) -> None:
        if self.abandoned:
            raise GpuperfError("the phase was given up while images were loaded")
        self.progress = perf_counter()

    def unload(self, indices: Sequence[int]) -> None:
        self._guarded(self.library.unload)

    def _guarded(self, call: Callable[..., None], *arguments: Any) -> None:
        try:
            call(*arguments)
        except BaseException as error:
            self.failure = self.failure or error
        self.progress = perf_counter()

    def issue(self, ids: Sequence[int], indices: Sequence[int]) -> None:
        """Run the samples ``indices`` in batches and complete their query ``ids``."""
        if self.issued is None:
            self.issued = perf_counter()
        if len(ids) <= self._batch:
            self._guarded(self._complete, ids, self._classes(indices))
            return
        # LoadGen takes a batch in while the device computes the next: 3 % of the time of fp16 on an H200.
        with ThreadPoolExecutor(1, "completions") as completing:
            for start in range(0, len(ids), self._batch):
                stop = start + self._batch
                classes = self._classes(indices[start:stop])
                completing.submit(self._guarded, self._complete, ids[start:stop], classes)

    def _classes(self, indices: Sequence[int]) -> np.ndarray:
        """Predict int64 [n]; zeros once anything has failed, since a query must be completed all the same."""
        classes = np.zeros(len(indices), np.int64)
        self._guarded(self._predict, indices, classes)
        return classes

    def _predict(self, indices: Sequence[int], classes: np.ndarray) -> None:
        if self.failure is not None or self.abandoned:
            return
        found = self._run(self.library.batch(indices))
        if np.shape(found) != classes.shape:
            shape = list(np.shape(found))
            raise GpuperfError(
                f"{len(indices)} images gave classes of shape {shape}; run() must return one for each"
            )
        classes[:] = found

    def _complete(self, ids: Sequence[int], classes: np.ndarray) -> None:
        # LoadGen copies the bytes before QuerySamplesComplete returns, so the array may go then.
        first, size = classes.ctypes.data, classes.itemsize
        addresses = range(first, first + classes.nbytes, size)
        responses = map(self._loadgen.QuerySampleResponse, ids, addresses, repeat(size))
        self._loadgen.QuerySamplesComplete(list(responses))
        self.completions.append((perf_counter(), len(ids)))
