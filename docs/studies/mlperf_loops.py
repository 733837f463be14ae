"""Bare loops over a session's workers, the reference's calls and PyTorch, for ``mlperf_speed.py``."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from statistics import median
from time import perf_counter
from typing import Any

import numpy as np

HELD = 768  # images


class Timed:
    """A worker that keeps the seconds of each run."""

    def __init__(self, worker: Any, times: list[float]) -> None:
        self._worker, self._times, self.run = worker, times, worker.run

    def run_held(self, parts: Any) -> np.ndarray:
        begin = perf_counter()
        found = self._worker.run_held(parts)
        self._times.append(perf_counter() - begin)
        return found


class Watched:
    """A session whose runs within LoadGen's phase are timed."""

    def __init__(self, session: Any) -> None:
        self._session, self.times = session, []
        self.workers = [Timed(worker, self.times) for worker in session.workers]

    def __getattr__(self, name: str) -> Any:
        return getattr(self._session, name)


def held(session: Any) -> tuple[np.ndarray, Callable[[], None]]:
    images = session.model.dataset(None).images(np.arange(HELD)).astype(session.dtype)
    return images, session.hold(images)


def timed(call: Callable[[int], object], seconds: float) -> list[float]:
    """The seconds of each call, after as many calls as a sixth of the time takes; it gets their number."""
    times: list[float] = []
    for length in (seconds / 6, seconds):
        times, end = [], perf_counter() + length
        while (begin := perf_counter()) < end:
            call(len(times))
            times.append(perf_counter() - begin)
    return times


def on_thread(call: Callable[[], Any]) -> Any:
    found: list[Any] = []
    thread = threading.Thread(target=lambda: found.append(call()))
    thread.start()
    thread.join()
    return found[0]


def together(calls: Sequence[Callable[[int], object]], seconds: float) -> float:
    """Calls a second of several loops at once, each on a thread of its own."""
    ready, counts = threading.Barrier(len(calls)), [0] * len(calls)
    capturing = threading.Lock()  # CUDA graphs, at a thread's first call: one breaks another's
    spans = [(0.0, 0.0)] * len(calls)

    failed: list[BaseException] = []

    def loop(place: int) -> None:
        try:
            walk(place)
        except BaseException as error:
            failed.append(error)
            ready.abort()

    def walk(place: int) -> None:
        with capturing:
            for number in range(6):
                calls[place](number)
        ready.wait(60)
        begin = perf_counter()
        while perf_counter() < begin + seconds:
            calls[place](counts[place])
            counts[place] += 1
        spans[place] = begin, perf_counter()

    threads = [threading.Thread(target=loop, args=(place,)) for place in range(len(calls))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failed:
        raise failed[0]
    return sum(counts) / (max(end for _, end in spans) - min(begin for begin, _ in spans))


def bare(worker: Any, batch: int, seconds: float, order: Sequence[int] | None = None) -> float:
    """The median seconds of a batch of the held images, in their order or in another."""
    places = order or range(HELD // batch)
    return median(timed(lambda n: worker.run_held(((places[n % len(places)] * batch, batch),)), seconds))


def apart(session: Any, worker: Any, images: np.ndarray, batch: int, seconds: float) -> float:
    """The same with a wait after each of copy, graph and copy back, as ONNX Runtime's own calls do."""
    lane = worker._lanes[batch]

    def run(number: int) -> None:
        start = number % (HELD // batch) * batch
        lane._to.update_inplace(images[start : start + batch])
        lane._session.run_with_iobinding(lane._binding)
        lane._io.classes(lane._from.numpy())

    return median(timed(run, seconds))


def walking(worker: Any, batch: int, place: int) -> Callable[[int], object]:
    many = HELD // batch
    return lambda number: worker.run_held((((number * 2 + place) % many * batch, batch),))


def copy_alone(lane: Any, copies: Any, first: int, batch: int, number: int) -> None:
    start = first + number % (HELD // batch) * batch * lane._image
    copies.put(lane._target, start, batch * lane._image, lane._stream)
    copies._synchronise(lane._stream)


def back_alone(lane: Any, copies: Any, batch: int, number: int) -> None:
    copies.fetch(lane._answers, lane._source, batch * lane._answer, lane._stream)
    lane._io.classes(lane._output)


def session_run(model: Any) -> list[float]:
    """The reference's way, in fp32 with the provider's defaults: seconds of a batch of 1, and of 32."""
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.log_severity_level = 3
    session = ort.InferenceSession(str(model.path), options, providers=["CUDAExecutionProvider"])
    images = model.dataset(None).images(np.arange(HELD))
    rates = []
    for batch in (1, 32):

        def run(number: int, batch: int = batch) -> None:
            start = number % (HELD // batch) * batch
            session.run(None, {"input": np.array(images[start : start + batch])})

        rates.append(median(timed(run, 1.5)))
    return rates


def torch_graphs(model: Any) -> dict[str, Any]:
    """PyTorch, channels last in fp16 as a CUDA graph, from page-locked images that lie so.

    The seconds of an image ("1"), and the images a second of so many loops x batches.
    """
    import torch

    from pytest_gpuperf.mlperf import torch_module

    runner = torch_module._Graphs(torch, torch_module.digits_module(), "fp16", "cuda")
    images = torch.from_numpy(model.dataset(None).images(np.arange(HELD))).half()
    images = images.contiguous(memory_format=torch.channels_last).pin_memory()
    labels = model.dataset(None).labels[:256]
    found: dict[str, Any] = {"version": torch.__version__}
    found["right of 256"] = int((runner.lane((256, 3, 224, 224))(images[:256]).argmax(-1) == labels).sum())

    def walk(batch: int, place: int) -> Callable[[int], object]:
        def run(number: int) -> object:
            start = (number * 2 + place) % (HELD // batch) * batch
            return runner.lane((batch, 3, 224, 224))(images[start : start + batch])

        return run

    def warm(batch: int) -> float:
        return median(timed(walk(batch, 0), 1.0))

    found["1"] = on_thread(lambda: warm(1))
    for count, batch in ((1, 256), (2, 256), (2, 128)):
        found[f"{count} x {batch}"] = batch * together([walk(batch, n) for n in range(count)], 1.2)
    return found
