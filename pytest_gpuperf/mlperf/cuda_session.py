"""A model in ONNX Runtime with every node on a GPU, by the CUDA provider or by TensorRT's."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from types import MappingProxyType
from typing import Any, ClassVar

import numpy as np

from pytest_gpuperf.errors import GpuperfError
from pytest_gpuperf.mlperf import cuda_runtime, tensorrt
from pytest_gpuperf.mlperf.cuda_copies import Copies
from pytest_gpuperf.mlperf.cuda_lane import Lane, Place, Worker
from pytest_gpuperf.mlperf.datasets import Arrays
from pytest_gpuperf.mlperf.general_lane import GeneralLane, GeneralWorker
from pytest_gpuperf.mlperf.interface import Interface
from pytest_gpuperf.mlperf.models import Precision
from pytest_gpuperf.mlperf.onnx_session import ALONE, OnnxSession

# fuse_conv_bias works only with prefer_nhwc (without it cuDNN finds no engine). EXHAUSTIVE, ONNX Runtime's
# default, decides the speed and is pinned; since 1.20 it is heuristic mode B of cuDNN's front end, which
# times nothing and names the same engines in every process (issue 22705 there).
CUDA_OPTIONS = {
    "cudnn_conv_algo_search": "EXHAUSTIVE",
    "enable_cuda_graph": "1",
    "prefer_nhwc": "1",
    "fuse_conv_bias": "1",
}
# "fp32" means float32 arithmetic. In fp16 the switch must stay on: off, ONNX Runtime leaves out cuDNN's
# tensor core engines whatever the type, finds none for the fused graph and runs each convolution unfused.
USE_TF32: Mapping[Precision, str] = {"fp32": "0", "fp16": "1"}


class CudaSession(OnnxSession):
    """ONNX Runtime's CUDA provider alone.

    Each batch size has a session of its own, whose whole run is one CUDA graph over fixed buffers: a query
    is a copy of its images to the device, one graph launch, and a copy of the classes back. Every stream of
    every device is a worker with such sessions of its own.
    """

    on_device = True
    offline_batch = 256  # the fastest of those measured
    provider: ClassVar[str] = cuda_runtime.PROVIDER

    def load(self, stream: int | None) -> None:
        self._copies = Copies(cuda_runtime.cuda_major(self.ort))
        self._require_devices()
        options = self._options()
        self.description["provider_options"] = " ".join(f"{k}={v}" for k, v in options.items())
        place = 0, stream or self._copies.stream(0)
        first = self._open_on(place, self.batch_sizes[0])
        self._io = Interface(first, self.model, self.precision)
        self._settle(self._io)
        self.workers: tuple[Any, ...]
        if self._io.is_plain:
            self.workers = self._worker(place, first), *map(self._worker, self._further_places())
        else:
            self._require_alone()
            sessions = self._sessions(place, first)
            lanes = {size: GeneralLane(self, each, self._io, size) for size, each in sessions.items()}
            self.workers = (GeneralWorker(self, lanes),)
        self._plan()

    def _plan(self) -> None:
        """Have cuDNN choose and compile the engines of several sessions side by side.

        That takes 2 to 5 s a session on an H100, at its first run, and a graph's capture then 10 ms. A single
        one's are left to its capture: each thread opens cuDNN and cuBLAS anew.
        """
        plans = [plan for worker in self.workers for plan in worker.plans]
        if len(plans) == 1:
            return
        with ThreadPoolExecutor(len(plans), "plans") as threads:
            for planned in [threads.submit(plan) for plan in plans]:
                planned.result()

    def _options(self) -> dict[str, str]:
        """Return the provider's options that all of its sessions have in common."""
        return {**CUDA_OPTIONS, "use_tf32": USE_TF32[self.precision]}

    def _options_of(self, size: int) -> dict[str, str]:
        """Return those of the sessions of a batch size."""
        return {}

    def _require_devices(self) -> None:
        wanted = self.team.devices
        if wanted > 1 and (found := self._copies.devices()) < wanted:
            raise GpuperfError(
                f"loadgen: devices={wanted}, and this process sees {found}; a worker of pytest-xdist sees one"
            )

    def _require_alone(self) -> None:
        if self.team != ALONE:
            raise GpuperfError(
                f"{self.model.name}: streams=, devices= and qsl= are on a GPU for models with one input and "
                "classes as their output, without constants, state, a score, a fixed batch size or open sizes"
            )

    def _further_places(self) -> Iterator[Place]:
        """Make a stream for each worker but the first."""
        for device in range(self.team.devices):
            for number in range(self.team.streams):
                if (device, number) != (0, 0):
                    yield device, self._copies.stream(device)

    def _open_on(self, place: Place, size: int) -> Any:
        device, handle = place
        settings = {**self._options(), "device_id": str(device), "user_compute_stream": str(handle)}
        return self.open(self.provider, {**settings, **self._options_of(size)})

    def _sessions(self, place: Place, first: Any = None) -> dict[int, Any]:
        """Return a session for each batch size, of which the ``first`` may be open."""
        smallest, *others = self.batch_sizes
        opened = {smallest: first or self._open_on(place, smallest)}
        return opened | {size: self._open_on(place, size) for size in others}

    def _worker(self, place: Place, first: Any = None) -> Worker:
        lanes = {
            size: Lane(self.ort, session, self.model, self._io, self._copies, place, size)
            for size, session in self._sessions(place, first).items()
        }
        return Worker(lanes, self.dtype, self._copies)

    def restart(self) -> None:
        if not self._io.is_plain:
            self.workers[0].restart()

    def run(self, batch: Any) -> np.ndarray:
        classes: np.ndarray = self.workers[0].run(batch)
        return classes

    def replay(self) -> Callable[[], None]:
        """Return what enqueues the graph of the largest batch size, over the last such batch, on the stream.

        It waits for nothing, but for ONNX Runtime before May 2026 (pull request 28686 there).
        """
        enqueue: Callable[[], None] = self.workers[0].replay()
        return enqueue

    def hold(self, images: Any) -> Callable[[], None]:
        """Lock the images' pages, or copy the images to each device (``team.qsl``).

        If CUDA refuses the lock, ``description`` says so and copies are slower.
        """
        if self._io.is_plain:
            self._require_fitting(images)
        arrays = images.arrays.values() if isinstance(images, Arrays) else [images]
        with ExitStack() as held:  # lets go of all that was held if some of it cannot be
            unlocking = [self._copies.page_lock(array) for array in arrays]
            for unlock in filter(None, unlocking):
                held.callback(unlock)
            self.description["images"] = "pageable" if None in unlocking else "page-locked"
            if self._io.is_plain:
                self._hand_over(images, held)
            return held.pop_all().close

    def _require_fitting(self, images: np.ndarray) -> None:
        """Raise GpuperfError unless the images have the file's shape: they are copied by address and size."""
        ((_, wanted),) = self._io.sample_shapes({}).items()
        if images.shape[1:] != wanted:
            raise GpuperfError(
                f"{self.model.path} takes samples of the shape {list(wanted)}; the dataset of "
                f"{self.model.name} gave {list(images.shape[1:])}"
            )

    def _hand_over(self, images: np.ndarray, held: ExitStack) -> None:
        """Tell every worker where the images lie; ``held`` gets what frees those on devices."""
        base, resident = images.ctypes.data, self.team.qsl == "device"
        for place, worker in enumerate(self.workers):
            if resident and place % self.team.streams == 0:
                base, free = self._copies.resident(images, place // self.team.streams)
                held.callback(free)
                self.description["images"] = "on the device"
            worker.held(base, resident)

    def addresses(self) -> list[str]:
        """Return the PCI addresses of the devices in use."""
        return [self._copies.pci(device) for device in range(self.team.devices)]


class TensorrtSession(CudaSession):
    """ONNX Runtime's TensorRT provider alone; the engines are built, or read from the cache, as it is opened.

    TensorRT builds when it first sees a shape, which takes minutes: that is no warm-up, and no stall.
    """

    provider = tensorrt.PROVIDER
    contract = MappingProxyType({"backend": "tensorrt"})

    def load(self, stream: int | None) -> None:
        with tensorrt.building(self.ort, self.path):
            super().load(stream)

    def _plan(self) -> None:
        for worker in self.workers:
            for capture in worker.captures:
                capture()

    def _options(self) -> dict[str, str]:
        return tensorrt.options(self.precision)

    def _options_of(self, size: int) -> dict[str, str]:
        return tensorrt.cache(self.ort, self.path, size)
