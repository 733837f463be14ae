"""The callbacks around a session, which must never raise: issue, load and unload."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import repeat
from typing import Any, TypeVar

import numpy as np

from pytest_gpuperf.errors import GpuperfError
from pytest_gpuperf.machine.energy import EnergyMeter
from pytest_gpuperf.mlperf import perf_counter
from pytest_gpuperf.mlperf.datasets import Dataset
from pytest_gpuperf.mlperf.library import SampleLibrary
from pytest_gpuperf.mlperf.raised import described

T = TypeVar("T")


class Callbacks:
    """Issue, load and unload for one phase.

    ``workers`` run the model; the first one on LoadGen's own thread if it is the only one, else each on a
    thread of its own. A worker has ``run(batch)`` and, if it copies the held images itself,
    ``run_held(parts)``; if it has CUDA graphs, ``captures`` are calls that capture them. ``failure`` is the
    first exception; ``progress`` when a batch was last completed or an image loaded, infinite while graphs
    are captured; ``loading`` "loaded" or "decoded" while that happens to ``done`` of ``wanted`` images, since
    ``began``;
    ``completions`` the time and the number of samples of each completed batch (seconds on
    ``perf_counter``) of a query of several, and ``issued`` when the first of these came.
    """

    alone = True  # a single worker shares LoadGen's thread
    patience = math.inf  # of a server

    def __init__(self, loadgen: Any, workers: Sequence[Any], library: SampleLibrary, batch: int) -> None:
        self._loadgen, self._workers, self.library, self._batch = loadgen, workers, library, batch
        self._runs = [self._runner(worker) for worker in workers]
        self.failure: BaseException | None = None
        self.abandoned, self.loading = False, ""
        self.done, self.wanted, self.began = 0, 0, 0.0
        self.progress = perf_counter()
        self.issued: float | None = None
        self.completions: list[tuple[float, int]] = []
        self.meter: EnergyMeter | None = None  # which runs from the images' loading to their unloading
        self._answered: dict[int, tuple[np.ndarray, list[Any]]] = {}
        self._own = len(workers) > 1 or not self.alone
        self._threads: list[ThreadPoolExecutor] = []
        self.lasting: list[ThreadPoolExecutor] | None = None  # an earlier phase's, and for a later one

    def _runner(self, worker: Any) -> Callable[[Sequence[int]], Any]:
        """Return what runs the model on LoadGen's sample indices."""
        if hasattr(worker, "run_held"):
            parts, run_held = self.library.parts, worker.run_held
            return lambda indices: run_held(parts(indices))
        batch, run = self.library.batch, worker.run
        return lambda indices: run(batch(indices))

    def start(self, prepare: Callable[[], T]) -> T:
        """Call ``prepare``, which may warm up ``on_each`` worker; returns what it returned."""
        if self._own:  # CUDA graphs belong to the thread that captured them
            self._threads = [] if self.lasting is None else self.lasting
            for place in range(len(self._threads), len(self._workers)):
                self._threads.append(ThreadPoolExecutor(1, f"worker-{place}"))
        self._capture()
        return prepare()

    def _capture(self) -> None:
        """Have the workers capture all their CUDA graphs in turn, each on the thread that runs the model.

        ONNX Runtime captures at the first run of each thread and batch size, and in CUDA's global mode: what
        any other thread does on a device at that time can break it. So nothing else runs until all are done,
        and nothing is left to be captured afterwards.
        """
        self.progress = math.inf  # cuDNN may compile for long, which is no stall
        for place, worker in enumerate(self._workers):
            for capture in getattr(worker, "captures", ()):
                self._threads[place].submit(capture).result() if self._own else capture()
        self.progress = perf_counter()

    def stop(self) -> None:
        """End what ``start`` began."""
        if self.lasting is None:
            for thread in self._threads:
                thread.shutdown()

    def on_each(self, call: Callable[[Any], T]) -> list[T]:
        """Return ``call(worker)`` of every worker, all at once, each on the thread that runs the model."""
        if not self._own:
            return [call(worker) for worker in self._workers]
        begun = [
            thread.submit(call, worker) for thread, worker in zip(self._threads, self._workers, strict=True)
        ]
        return [future.result() for future in begun]

    def prepare(self, dataset: Dataset) -> None:
        """Let a dataset make ready all its samples, if it has something for that; raises GpuperfError."""
        if hasattr(dataset, "prepare"):
            self._begin("decoded")
            try:
                dataset.prepare(self._tick)
            except GpuperfError:
                raise
            except Exception as error:
                raise GpuperfError(f"{dataset.name}: prepare() failed: {described(error)}") from error
            self.loading = ""

    def load(self, indices: Sequence[int]) -> None:
        self._begin("loaded")
        self._guarded(self.library.load, indices, self._tick)
        self.loading = ""
        if self.meter is not None:
            self._guarded(self.meter.begin)

    def _begin(self, loading: str) -> None:
        self.loading, self.done, self.began = loading, 0, perf_counter()

    def _tick(self, done: int, wanted: int) -> None:
        if self.abandoned:
            raise GpuperfError("the phase was given up while images were loaded")
        self.progress, self.done, self.wanted = perf_counter(), done, wanted

    def unload(self, indices: Sequence[int]) -> None:
        if self.meter is not None:
            self._guarded(self.meter.end)
        self._guarded(self.library.unload)

    def _guarded(self, call: Callable[..., None], *arguments: Any) -> None:
        try:
            call(*arguments)
        except BaseException as error:
            self.failure = self.failure or error
        self.progress = perf_counter()

    def issue(self, ids: Sequence[int], indices: Sequence[int]) -> None:
        """Run the samples ``indices`` in batches and complete their query ``ids``."""
        if len(ids) <= self._batch and not self._own:
            self._answer(ids, indices)
        else:
            self.issued = self.issued or perf_counter()
            self._in_batches(ids, indices)

    def _answer(self, ids: Sequence[int], indices: Sequence[int]) -> None:
        """Answer a query of one batch: what its latency consists of, beside the model's run.

        Answers and responses are made once for each number of samples, and nothing else is called. For one
        sample a loop, and NumPy's function for a shape, would take a third of the time.
        """
        found = self._answered.get(len(ids))
        answers, responses = found or self._prepared(len(ids))
        try:
            if self.failure is None and not self.abandoned:
                classes = self._runs[0](indices)
                if getattr(classes, "shape", ()) != answers.shape and np.shape(classes) != answers.shape:
                    raise misshapen(indices, classes)
                answers[:] = classes
            if len(ids) == 1:
                responses[0].id = ids[0]
            else:
                for response, identity in zip(responses, ids, strict=True):
                    response.id = identity
            self._loadgen.QuerySamplesComplete(responses)
        except BaseException as error:
            self._recover(error, ids, answers)
        self.progress = perf_counter()

    def _prepared(self, count: int) -> tuple[np.ndarray, list[Any]]:
        answers = np.zeros(count, np.int64)
        self._answered[count] = made = answers, list(self._responses([0] * count, answers))
        return made

    def _recover(self, error: BaseException, ids: Sequence[int], answers: np.ndarray) -> None:
        """Keep the first exception, and complete its query all the same, with zeros."""
        self.failure = self.failure or error
        answers[:] = 0
        self._guarded(self._complete, ids, answers)

    def _in_batches(self, ids: Sequence[int], indices: Sequence[int]) -> None:
        """Run a query of many batches, each worker the next one that is left.

        LoadGen takes a batch in while the device computes the next: 3 % of the time of fp16 on an H200.
        """
        starts, taking = iter(range(0, len(ids), self._batch)), threading.Lock()

        def work(run: Callable[[Sequence[int]], Any]) -> None:
            for start in _taken(starts, taking):
                stop = start + self._batch
                classes = self._classes(run, indices[start:stop])
                completing.submit(self._guarded, self._complete, ids[start:stop], classes)

        with ThreadPoolExecutor(1, "completions") as completing:
            if not self._own:
                work(self._runs[0])
                return
            pairs = zip(self._threads, self._runs, strict=True)
            for future in [thread.submit(work, run) for thread, run in pairs]:
                future.result()

    def _classes(self, run: Callable[[Sequence[int]], Any], indices: Sequence[int]) -> np.ndarray:
        """Predict int64 [n]; zeros once anything has failed, since a query must be completed all the same."""
        classes = np.zeros(len(indices), np.int64)
        self._guarded(self._predict, run, indices, classes)
        return classes

    def _predict(
        self, run: Callable[[Sequence[int]], Any], indices: Sequence[int], classes: np.ndarray
    ) -> None:
        if self.failure is not None or self.abandoned:
            return
        found = run(indices)
        if np.shape(found) != classes.shape:
            raise misshapen(indices, found)
        classes[:] = found

    def _complete(self, ids: Sequence[int], classes: np.ndarray) -> None:
        # LoadGen copies the bytes before QuerySamplesComplete returns, so the array may go then.
        self._loadgen.QuerySamplesComplete(list(self._responses(ids, classes)))
        if not self.abandoned:
            self.completions.append((perf_counter(), len(ids)))

    def _responses(self, ids: Sequence[int], classes: np.ndarray) -> Iterator[Any]:
        first, size = classes.ctypes.data, classes.itemsize
        addresses = range(first, first + classes.nbytes, size)
        return map(self._loadgen.QuerySampleResponse, ids, addresses, repeat(size))


def _taken(starts: Iterator[int], taking: threading.Lock) -> Iterator[int]:
    """Yield what is left of an iterator that several threads share."""
    while True:
        with taking:
            start = next(starts, None)
        if start is None:
            return
        yield start


def misshapen(indices: Sequence[int], found: Any) -> GpuperfError:
    return GpuperfError(
        f"{len(indices)} images gave classes of shape {list(np.shape(found))}; run() must return one for each"
    )
