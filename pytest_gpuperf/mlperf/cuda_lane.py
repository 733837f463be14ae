"""A batch size on the device: its ONNX Runtime session, CUDA graph and buffers; and the lanes of a worker.

For a plain model, of one array in and classes out; any other has the lanes of ``general_lane``.
"""

from __future__ import annotations

import mmap
import weakref
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from pytest_gpuperf.errors import GpuperfError
from pytest_gpuperf.mlperf.cuda_copies import Copies
from pytest_gpuperf.mlperf.interface import Interface, failure
from pytest_gpuperf.mlperf.models import Model

Copy = Callable[[int, int, int, int], None]  # to, from, bytes, stream
# Batches up to this size are waited for after each step: on an H100 one image in fp16 took 0.506 ms so and
# 0.564 ms enqueued as a whole, eight 0.897 and 0.921.
APART = 8
Place = tuple[int, int]  # a device, and the handle of a stream on it


class GraphLane:
    """One batch size of a model: a session whose whole run is one CUDA graph, and what is bound to it."""

    def __init__(self, ort: Any, session: Any, model: Model, size: int) -> None:
        self._session, self._model, self._size = session, model, size
        self._binding = session.io_binding()
        self._unsynchronised = ort.RunOptions()
        self._unsynchronised.add_run_config_entry("disable_synchronize_execution_providers", "1")
        self._uncaptured = ort.RunOptions()
        self._uncaptured.add_run_config_entry("gpu_graph_id", "-1")

    def plan(self) -> None:
        """Run once on whatever the buffers hold, on any thread: cuDNN then has the convolutions' engines.

        Several lanes may do so at a time, since nothing is captured.
        """
        self._run_bound("planning", self._uncaptured)

    def capture(self) -> None:
        """Run once on whatever the buffers hold: ONNX Runtime then captures the graph, for this thread."""
        self._run_bound("capturing")

    def enqueue(self) -> None:
        """Enqueue the graph alone, over what the buffers hold; a thread's first time also captures it."""
        self._run_bound("enqueueing", self._unsynchronised)

    def _run_bound(self, doing: str, *options: Any) -> None:
        try:
            self._session.run_with_iobinding(self._binding, *options)
        except Exception as error:
            raise failure(self._model, f"{doing} a batch of {self._size}", error) from error


class Lane(GraphLane):
    """One batch size on one CUDA stream.

    A run of many images is enqueued as a whole, their copy to the device, the model's CUDA graph and the copy
    of its output back, and only then waited for.
    """

    def __init__(
        self, ort: Any, session: Any, model: Model, io: Interface, copies: Copies, place: Place, size: int
    ) -> None:
        super().__init__(ort, session, model, size)
        device, self._stream = place
        self._io, self._copies = io, copies
        self._apart = size <= APART
        ((source, form),) = io.sample_shapes({}).items()
        self._image = int(np.prod(form)) * np.dtype(io.dtype).itemsize
        (answer,) = io.outputs
        shape, dtype = io.output_shape(answer, size, {}), io.output_dtype(answer)
        self._output = _page_aligned(shape, dtype)
        if unlock := copies.page_lock(self._output):
            # Or a later array at the same address would be locked in part, which CUDA refuses to copy to.
            weakref.finalize(self, _let_go, unlock, self._output).atexit = False
        self._answer, self._answers = self._output.nbytes // size, self._output.ctypes.data
        zeros = np.zeros((size, *form), io.dtype)
        try:
            self._to = ort.OrtValue.ortvalue_from_numpy(zeros, "cuda", device)
            self._from = ort.OrtValue.ortvalue_from_shape_and_type(shape, dtype, "cuda", device)
        except Exception as error:
            raise failure(model, f"allocating the buffers for batch {size}", error) from error
        self._target, self._source = self._to.data_ptr(), self._from.data_ptr()
        self._binding.bind_ortvalue_input(source, self._to)
        self._binding.bind_ortvalue_output(answer, self._from)

    def run(self, copy: Copy, base: int, parts: Sequence[tuple[int, int]], count: int) -> np.ndarray:
        """Return the classes of ``count`` images: those in ``parts`` (first, count) of the array at ``base``.

        Where they are fewer than the lane's size the rest are an earlier run's.
        """
        target, size, stream = self._target, self._image, self._stream
        try:
            for first, number in parts:
                copy(target, base + first * size, number * size, stream)
                target += number * size
            if self._apart:
                self._copies.wait(stream)
                self._session.run_with_iobinding(self._binding)
            else:
                self._session.run_with_iobinding(self._binding, self._unsynchronised)
            self._copies.fetch(self._answers, self._source, count * self._answer, stream)
        except Exception as error:
            raise failure(self._model, f"running a batch of {self._size}", error) from error
        return self._io.classes(self._output[:count])


class Worker:
    """What one thread runs: a lane for each batch size, all on one stream of one device.

    ``captures`` capture their graphs, a lane each, for the thread that calls them; ``plans`` go before.
    """

    def __init__(self, lanes: Mapping[int, Lane], dtype: Any, copies: Copies) -> None:
        self._lanes, self._dtype, self._copies = dict(lanes), dtype, copies
        self.captures = tuple(lane.capture for lane in lanes.values())
        self.plans = tuple(lane.plan for lane in lanes.values())
        self._copy: Copy = copies.put
        self._base = 0

    def run(self, batch: np.ndarray) -> np.ndarray:
        batch = np.ascontiguousarray(batch, self._dtype)
        count = len(batch)
        return self._lane(count).run(self._copies.put, batch.ctypes.data, ((0, count),), count)

    def held(self, base: int, on_device: bool) -> None:
        """Take the images of ``run_held`` from that address, in host memory or on the device."""
        self._base, self._copy = base, self._copies.move if on_device else self._copies.put

    def run_held(self, parts: Sequence[tuple[int, int]]) -> np.ndarray:
        """Return the classes of the held images in ``parts``: (first, count)."""
        count = parts[0][1] if len(parts) == 1 else sum(number for _, number in parts)
        return self._lane(count).run(self._copy, self._base, parts, count)

    def replay(self) -> Callable[[], None]:
        return self._lanes[max(self._lanes)].enqueue

    def _lane(self, count: int) -> Lane:
        return self._lanes.get(count) or self._lanes[next_size(self._lanes, count)]


def next_size(sizes: Iterable[int], count: int) -> int:
    """Return the smallest of the sizes that a batch of ``count`` fits into; raises GpuperfError."""
    found = min((size for size in sizes if size >= count), default=None)
    if found is None:
        raise GpuperfError(f"a batch of {count} was run, the session was opened for {sorted(sizes)}")
    return found


def _let_go(unlock: Callable[[], None], output: np.ndarray) -> None:
    """Unlock the pages while the array is still there."""
    unlock()


def _page_aligned(shape: Sequence[int], dtype: Any) -> np.ndarray:
    """Return zeros that share no page with anything else: a page can be locked only once."""
    size = int(np.prod(shape)) * np.dtype(dtype).itemsize
    return np.frombuffer(mmap.mmap(-1, max(1, size)), dtype, int(np.prod(shape))).reshape(tuple(shape))
