"""The Python side of LoadGen: the sample library and the callbacks, which must never raise.

An exception that leaves a callback comes out of StartTest and leaves LoadGen in a state in which the next
StartTest aborts the process; a query that is never completed makes StartTest wait for ever. So every callback
catches what it meets, keeps it for the caller, and completes the queries all the same.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import repeat
from time import perf_counter
from typing import Any

import numpy as np

from pytest_gpuperf.mlperf.datasets import Dataset

Run = Callable[[np.ndarray], np.ndarray]
Hold = Callable[[np.ndarray], Callable[[], None]]


class SampleLibrary:
    """LoadGen's QSL: the loaded images in host memory, in the order LoadGen loaded them.

    LoadGen walks its loaded set in that order in Offline and in runs of eight in MultiStream, so nearly every
    batch is a slice of one array and costs no gathering copy.
    """

    def __init__(self, dataset: Dataset, dtype: Any, hold: Hold) -> None:
        self._dataset, self._dtype, self._hold = dataset, dtype, hold
        self._release: Callable[[], None] = lambda: None
        self._slots: dict[int, int] = {}
        self._images = np.empty(0, dtype)

    def __len__(self) -> int:
        return len(self._images)

    def load(self, indices: Sequence[int]) -> None:
        self.unload()
        # MultiStream pads its set with repeated indices.
        distinct = list(dict.fromkeys(indices))
        self._slots = {index: slot for slot, index in enumerate(distinct)}
        self._images = np.ascontiguousarray(self._dataset.images(distinct), dtype=self._dtype)
        self._release = self._hold(self._images)

    def unload(self) -> None:
        release, self._release = self._release, lambda: None
        release()
        self._slots = {}
        self._images = np.empty(0, self._dtype)

    def batch(self, indices: Sequence[int]) -> np.ndarray:
        """The images of LoadGen's sample indices, C-contiguous [n, *input_shape]."""
        first = self._slots[indices[0]]
        if len(indices) == 1:
            return self._images[first : first + 1]
        slots = [self._slots[index] for index in indices]
        if slots == list(range(first, first + len(slots))):
            return self._images[first : first + len(slots)]
        return self._images[slots]

    def slice(self, start: int, size: int) -> np.ndarray:
        """``size`` images for a warm-up, from ``start`` where there are so many."""
        start = start % max(1, len(self._images) - size + 1)
        if len(self._images) >= size:
            return self._images[start : start + size]
        return self._images[np.arange(size) % len(self._images)]


class Callbacks:
    """Issue, flush, load and unload for one phase.

    ``failure`` is the first exception; ``progress`` when something last completed; ``completions`` the time
    and the number of samples of each completed batch (seconds on ``perf_counter``); ``issued`` when the
    first query came.
    """

    def __init__(self, loadgen: Any, run: Run, library: SampleLibrary, batch: int) -> None:
        self._loadgen, self._run, self.library, self._batch = loadgen, run, library, batch
        self.failure: BaseException | None = None
        self.abandoned = False
        self.progress = perf_counter()
        self.issued: float | None = None
        self.completions: list[tuple[float, int]] = []

    def load(self, indices: Sequence[int]) -> None:
        self._guarded(self.library.load, indices)

    def unload(self, indices: Sequence[int]) -> None:
        self._guarded(self.library.unload)

    def flush(self) -> None:
        """Every query is run when it is issued: there is nothing to flush."""

    def _guarded(self, call: Callable[..., None], *arguments: Any) -> None:
        try:
            call(*arguments)
        except BaseException as error:
            self.failure = self.failure or error
        self.progress = perf_counter()

    def issue(self, ids: Sequence[int], indices: Sequence[int]) -> None:
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
        """int64 [n]; zeros once anything has failed, since a query must be completed all the same."""
        classes = np.zeros(len(indices), np.int64)
        self._guarded(self._predict, indices, classes)
        return classes

    def _predict(self, indices: Sequence[int], classes: np.ndarray) -> None:
        if self.failure is not None or self.abandoned:
            return
        found = self._run(self.library.batch(indices))
        if found.shape != classes.shape:
            raise ValueError(f"{len(indices)} images gave classes of shape {found.shape}")
        classes[:] = found

    def _complete(self, ids: Sequence[int], classes: np.ndarray) -> None:
        # LoadGen copies the bytes before QuerySamplesComplete returns, so the array may go then.
        first, size = classes.ctypes.data, classes.itemsize
        places = range(first, first + classes.nbytes, size)
        responses = map(self._loadgen.QuerySampleResponse, ids, places, repeat(size))
        self._loadgen.QuerySamplesComplete(list(responses))
        self.completions.append((perf_counter(), len(ids)))
