"""The system under test: a model in ONNX Runtime, on the CPU or with every node on the GPU."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal, Protocol

import numpy as np

from pytest_gpuperf.errors import GpuperfError
from pytest_gpuperf.files import sha256
from pytest_gpuperf.mlperf import cuda_runtime, imported, models, quantised, tensorrt
from pytest_gpuperf.mlperf.cuda_copies import Copies
from pytest_gpuperf.mlperf.cuda_lane import Lane, Place, Worker
from pytest_gpuperf.mlperf.datasets import Arrays
from pytest_gpuperf.mlperf.general_lane import GeneralLane, GeneralWorker
from pytest_gpuperf.mlperf.interface import Interface, failure
from pytest_gpuperf.mlperf.models import DTYPES, Model, Precision
from pytest_gpuperf.mlperf.scores import Answers

Backend = Literal["cuda", "tensorrt", "cpu"]

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


def precision_file(model: Model, precision: Precision) -> Path:
    """Return the ONNX file of a model in the precision, converted if it is not fp32."""
    if precision == "int8":
        return quantised.int8(model)
    return model.path if precision == "fp32" else models.half_precision(model)


@dataclass(frozen=True, slots=True)
class Team:
    """How many batches a session runs at a time, and where the images lie: ``qsl`` "host" or "device".

    There are ``streams`` of each of the ``devices``; on the CPU so many batches run beside each other.
    """

    streams: int = 1
    devices: int = 1
    qsl: str = "host"


ALONE = Team()


class Session(Protocol):
    """A system under test, as far as LoadGen uses it: of a Model, or of a Sut.

    ``batch_sizes`` are the sizes that run without padding, in increasing order; ``dtype`` is that of the
    images, None for the dataset's own, or one for each name of several inputs. A session that computes on a
    GPU also has ``on_device = True``; without it, it counts as one on the CPU. One that runs several batches
    at a time has ``workers``, each with ``run``.
    """

    model: Any
    precision: Any
    batch_sizes: tuple[int, ...]
    dtype: Any

    @property
    def description(self) -> Mapping[str, Any]:
        """Return what ran where, with its versions."""

    def run(self, batch: np.ndarray) -> np.ndarray:
        """Return the class of every image of a C-contiguous [n, *input_shape] batch, int64 [n]."""

    def hold(self, images: np.ndarray) -> Callable[[], None]:
        """Prepare for batches that are slices of this host array; returns what to call before it goes."""


def open_session(
    model: Model,
    backend: Backend,
    precision: Precision = "fp32",
    batch_sizes: Sequence[int] = (1, 8),
    stream: int | None = None,
    threads: int | None = None,
    team: Team = ALONE,
) -> CpuSession | CudaSession:
    """Load the model, on the CUDA stream with the handle ``stream``, or on one of ONNX Runtime's own.

    On the CPU ``threads`` compute one batch, as many as there are cores unless given; ``team`` says how many
    batches run at a time.
    Raises Unavailable naming the package that is missing, GpuperfError if the model does not fit its dataset
    or the device's memory.
    """
    onnxruntime = imported("onnxruntime", "onnxruntime cannot be imported", backend)
    if precision not in DTYPES:
        raise GpuperfError(f'there is no precision "{precision}"; use {" or ".join(DTYPES)}')
    sizes = tuple(sorted(set(batch_sizes)))
    if not sizes or sizes[0] < 1:
        raise GpuperfError(f"batch sizes {list(batch_sizes)} must be one or more positive numbers")
    kind = SESSIONS[backend]
    if precision == "int8" and kind.on_device:
        raise GpuperfError(
            "int8 runs on the CPU: ONNX Runtime's CUDA provider has no convolutions in int8, and "
            'TensorRT is not asked for them; use precision="fp16"'
        )
    if kind.on_device:
        cuda_runtime.require(onnxruntime)
    if backend == "tensorrt":
        tensorrt.require(onnxruntime)
    models.require_file(model)
    return kind(onnxruntime, model, precision, sizes, stream, threads, team)


class OnnxSession:
    """A model in ONNX Runtime: its file in the precision, and the sessions that are opened for it."""

    on_device: ClassVar[bool]
    offline_batch: ClassVar[int]  # images of a batch in Offline
    contract: ClassVar[Mapping[str, str]] = {}  # what makes its figures others than those of its like

    def __init__(
        self,
        onnxruntime: Any,
        model: Model,
        precision: Precision,
        sizes: tuple[int, ...],
        stream: int | None = None,
        threads: int | None = None,
        team: Team = ALONE,
    ) -> None:
        self.ort, self.threads, self.team = onnxruntime, threads, team
        self.model, self.precision, self.batch_sizes = model, precision, sizes
        self.dtype: Any = DTYPES[precision]
        self.answers = Answers()
        self.path = precision_file(model, precision)
        self.description: dict[str, Any] = {
            "onnxruntime": onnxruntime.__version__,
            "model_sha256": sha256(model.path)[:16],
            "batch_sizes": " ".join(map(str, sizes)),
        }
        self.load(stream)

    def load(self, stream: int | None) -> None:
        """Open what runs the batch sizes, on the CUDA stream with that handle."""
        raise NotImplementedError

    def run(self, batch: Any) -> np.ndarray:
        """Return the class of each sample, or where its answer is kept."""
        raise NotImplementedError

    def restart(self) -> None:
        """Begin again with the state that goes from query to query."""

    def taken(self, answers: Any) -> np.ndarray:
        """Return the classes, or where answers of another kind are kept."""
        return answers if self.model.score is None else self.answers.places(answers)

    def _settle(self, io: Interface) -> None:
        """Take over what the file takes: its types, and its batch size if it has but one."""
        self.dtype = io.dtype
        if io.fixed_batch:
            self.batch_sizes = (io.fixed_batch,)
            self.description["fixed_batch"] = io.fixed_batch

    def in_parts(self, batch: Any, size: int, run: Callable[[Any], np.ndarray]) -> np.ndarray:
        """Run a batch in parts of ``size``, the last one filled up with its last sample."""
        count = len(batch)
        parts = []
        for start in range(0, count, size):
            chosen = np.minimum(np.arange(start, start + size), count - 1)
            parts.append(run(batch[chosen])[: min(size, count - start)])
        return np.concatenate(parts)

    def open(self, name: str, settings: Mapping[str, str]) -> Any:
        """Return an InferenceSession all of whose nodes are on the provider ``name``; raises GpuperfError."""
        options = self.ort.SessionOptions()
        options.log_severity_level = 3  # warnings (of unused initialisers, ...) would flood a test's output
        if self.threads:
            options.intra_op_num_threads = self.threads
        if self.on_device:
            options.add_session_config_entry("session.disable_cpu_ep_fallback", "1")
        options.add_session_config_entry("session.record_ep_graph_assignment_info", "1")
        try:
            session = self.ort.InferenceSession(str(self.path), options, providers=[(name, settings)])
        except Exception as error:
            raise failure(self.model, "loading the graph", error) from error
        session.disable_fallback()
        if session.get_providers()[0] != name:
            raise GpuperfError(f"{self.model.name} was to run on {name} and got {session.get_providers()}")
        self.description["provider"] = name
        self.description["nodes"] = self._assigned(session, name)
        return session

    def _assigned(self, session: Any, name: str) -> str:
        """Return how many nodes the provider runs; raises GpuperfError if another one runs any."""
        if not hasattr(session, "get_provider_graph_assignment_info"):
            return f"all on {name} (no fallback allowed)"
        subgraphs = session.get_provider_graph_assignment_info()
        nodes = [(node.op_type, graph.ep_name) for graph in subgraphs for node in graph.get_nodes()]
        count, elsewhere = len(nodes), [f"{kind} on {where}" for kind, where in nodes if where != name]
        if elsewhere:
            raise GpuperfError(
                f"{len(elsewhere)} of {count} nodes of {self.model.name} are not on {name}: {elsewhere[:5]}"
            )
        return f"{count} of {count} on {name}"


class CpuSession(OnnxSession):
    """ONNX Runtime's CPU provider; any batch size runs unpadded, unless the file has one of its own."""

    on_device = False
    offline_batch = 8

    def load(self, stream: int | None) -> None:
        self._session = self.open("CPUExecutionProvider", {})
        self._io = Interface(self._session, self.model, self.precision)
        self._settle(self._io)
        # A session on the CPU may be run by several threads, but state goes from one query to the next.
        self.workers = (self,) * (1 if self._io.state else self.team.streams)
        self._names = [*self._io.outputs, *self._io.state.values()]
        self._given: dict[str, np.ndarray] = {}
        self.restart()

    def restart(self) -> None:
        self._given = {**self._io.constants, **self._io.first_state()}

    def run(self, batch: Any) -> np.ndarray:
        size = self._io.fixed_batch
        if size is None or len(batch) == size:
            return self._infer(batch, len(batch))
        return self.in_parts(batch, size, lambda part: self._infer(part, size))

    def _infer(self, batch: Any, count: int) -> np.ndarray:
        try:
            outputs = self._session.run(self._names, {**self._given, **self._io.arrays(batch)})
        except Exception as error:
            raise failure(self.model, f"running a batch of {count}", error) from error
        if self._io.state:
            self._given.update(zip(self._io.state, outputs[len(self._io.outputs) :], strict=True))
        return self.taken(self._io.answers(outputs[: len(self._io.outputs)], count))

    def hold(self, images: np.ndarray) -> Callable[[], None]:
        return lambda: None


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

    def replay(self, images: Any) -> Callable[[], None]:
        """Return what enqueues the graph of the largest batch size, over so many images, on the stream.

        It waits for nothing, but for ONNX Runtime before May 2026 (pull request 28686 there).
        """
        enqueue: Callable[[], None] = self.workers[0].replay(images)
        return enqueue

    def hold(self, images: Any) -> Callable[[], None]:
        """Lock the images' pages, or copy the images to each device (``team.qsl``).

        If CUDA refuses the lock, ``description`` says so and copies are slower.
        """
        if self._io.is_plain:
            self._require_fitting(images)
        arrays = images.arrays.values() if isinstance(images, Arrays) else [images]
        releases = [self._copies.page_lock(array) for array in arrays]
        self.description["images"] = "pageable" if None in releases else "page-locked"
        if self._io.is_plain:
            releases += self._handed_over(images)

        def let_go() -> None:
            for release in filter(None, releases):
                release()

        return let_go

    def _require_fitting(self, images: np.ndarray) -> None:
        """Raise GpuperfError unless the images have the file's shape: they are copied by address and size."""
        ((_, wanted),) = self._io.sample_shapes({}).items()
        if images.shape[1:] != wanted:
            raise GpuperfError(
                f"{self.model.path} takes samples of the shape {list(wanted)}; the dataset of "
                f"{self.model.name} gave {list(images.shape[1:])}"
            )

    def _handed_over(self, images: np.ndarray) -> list[Callable[[], None]]:
        """Tell every worker where the images lie; returns what frees those on devices."""
        releases = []
        base, resident = images.ctypes.data, self.team.qsl == "device"
        for place, worker in enumerate(self.workers):
            if resident:
                self.description["images"] = "on the device"
                if place % self.team.streams == 0:
                    base, release = self._copies.resident(images, place // self.team.streams)
                    releases.append(release)
            worker.held(base, resident)
        return releases

    def addresses(self) -> list[str]:
        """Return the PCI addresses of the devices in use."""
        return [self._copies.pci(device) for device in range(self.team.devices)]


class TensorrtSession(CudaSession):
    """ONNX Runtime's TensorRT provider alone; the engines are built, or read from the cache, as it is opened.

    TensorRT builds when it first sees a shape, which takes minutes: that is no warm-up, and no stall.
    """

    provider = tensorrt.PROVIDER
    contract: ClassVar[Mapping[str, str]] = {"backend": "tensorrt"}

    def load(self, stream: int | None) -> None:
        super().load(stream)
        for worker in self.workers:
            for capture in worker.captures:
                capture()

    def _options(self) -> dict[str, str]:
        return tensorrt.options(self.precision)

    def _options_of(self, size: int) -> dict[str, str]:
        return tensorrt.cache(self.ort, self.path, size)


SESSIONS: Mapping[Backend, type[CpuSession] | type[CudaSession]] = {
    "cpu": CpuSession,
    "cuda": CudaSession,
    "tensorrt": TensorrtSession,
}
