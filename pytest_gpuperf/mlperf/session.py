"""The system under test: a model in ONNX Runtime, on the CPU or with every node on the GPU."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar, Literal, Protocol

import numpy as np

from pytest_gpuperf.errors import GpuperfError
from pytest_gpuperf.files import sha256
from pytest_gpuperf.mlperf import cuda_runtime, imported, models
from pytest_gpuperf.mlperf.interface import Interface, failure
from pytest_gpuperf.mlperf.lane import Lane
from pytest_gpuperf.mlperf.models import DTYPES, Model, Precision
from pytest_gpuperf.mlperf.scores import Answers

Backend = Literal["cuda", "cpu"]

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


class Session(Protocol):
    """A system under test, as far as LoadGen uses it: of a Model, or of a Sut.

    ``batch_sizes`` are the sizes that run without padding, in increasing order; ``dtype`` is that of the
    images, None for the dataset's own, or one for each name of several inputs. A session that computes on a
    GPU also has ``on_device = True``; without it, it counts as one on the CPU.
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
) -> CpuSession | CudaSession:
    """Load the model, on the CUDA stream with the handle ``stream``, or on one of ONNX Runtime's own.

    On the CPU ``threads`` compute one batch, as many as there are cores unless given.
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
    if kind.on_device:
        cuda_runtime.require(onnxruntime)
    models.require_file(model)
    return kind(onnxruntime, model, precision, sizes, stream, threads)


class OnnxSession:
    """A model in ONNX Runtime: its file in the precision, and the sessions that are opened for it."""

    on_device: ClassVar[bool]
    offline_batch: ClassVar[int]  # images of a batch in Offline

    def __init__(
        self,
        onnxruntime: Any,
        model: Model,
        precision: Precision,
        sizes: tuple[int, ...],
        stream: int | None = None,
        threads: int | None = None,
    ) -> None:
        self.ort, self.threads = onnxruntime, threads
        self.model, self.precision, self.batch_sizes = model, precision, sizes
        self.dtype: Any = DTYPES[precision]
        self.answers = Answers()
        self.path = model.path if precision == "fp32" else models.half_precision(model)
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

    def _taken(self, answers: Any) -> np.ndarray:
        return answers if self.model.score is None else self.answers.places(answers)

    def _settle(self, io: Interface) -> None:
        """Take over what the file takes: its types, and its batch size if it has but one."""
        self.dtype = io.dtype
        if io.fixed_batch:
            self.batch_sizes = (io.fixed_batch,)
            self.description["fixed_batch"] = io.fixed_batch

    def _in_parts(self, batch: Any, size: int, run: Callable[[Any], np.ndarray]) -> np.ndarray:
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
        self._names = [*self._io.outputs, *self._io.state.values()]
        self._given: dict[str, np.ndarray] = {}
        self.restart()

    def restart(self) -> None:
        self._given = {**self._io.constants, **self._io.first_state()}

    def run(self, batch: Any) -> np.ndarray:
        size = self._io.fixed_batch
        if size is None or len(batch) == size:
            return self._infer(batch, len(batch))
        return self._in_parts(batch, size, lambda part: self._infer(part, size))

    def _infer(self, batch: Any, count: int) -> np.ndarray:
        try:
            outputs = self._session.run(self._names, {**self._given, **self._io.arrays(batch)})
        except Exception as error:
            raise failure(self.model, f"running a batch of {count}", error) from error
        if self._io.state:
            self._given.update(zip(self._io.state, outputs[len(self._io.outputs) :], strict=True))
        return self._taken(self._io.answers(outputs[: len(self._io.outputs)], count))

    def hold(self, images: np.ndarray) -> Callable[[], None]:
        return lambda: None


class CudaSession(OnnxSession):
    """ONNX Runtime's CUDA provider alone.

    Each batch size has a session of its own, whose whole run is one CUDA graph over fixed buffers: a query
    is a copy of its images to the device, one graph launch, and a copy of the classes back.
    """

    on_device = True
    offline_batch = 256  # the fastest of those measured

    def load(self, stream: int | None) -> None:
        options = {**CUDA_OPTIONS, "use_tf32": USE_TF32[self.precision]}
        on_stream = {**options, "user_compute_stream": str(stream)} if stream else options
        lane = Lane(self, self.batch_sizes[-1], on_stream)
        self._settle(lane.io)
        others = {size: Lane(self, size, on_stream) for size in self.batch_sizes if size != lane.size}
        self._lanes = {lane.size: lane, **others}
        self.description["provider_options"] = " ".join(f"{k}={v}" for k, v in options.items())

    def restart(self) -> None:
        for lane in self._lanes.values():
            lane.restart()

    def run(self, batch: Any) -> np.ndarray:
        count = len(batch)
        if "fixed_batch" in self.description and count > self.batch_sizes[-1]:
            return self._in_parts(batch, self.batch_sizes[-1], self.run)
        size = next((size for size in self.batch_sizes if size >= count), None)
        if size is None:
            raise GpuperfError(
                f"a batch of {count} was run, the session was opened for {list(self.batch_sizes)}"
            )
        return self._taken(self._lanes[size].run(batch))

    def replay(self, images: Any) -> Callable[[], None]:
        """Return what enqueues the graph of the largest batch size, over so many images, on the stream.

        It waits for nothing, but for ONNX Runtime before May 2026 (pull request 28686 there).
        """
        lane = self._lanes[self.batch_sizes[-1]]
        # Captures the graph for this thread: ONNX Runtime keeps one for each.
        lane.run(np.ascontiguousarray(images, self.dtype) if isinstance(images, np.ndarray) else images)
        return lane.enqueue

    def hold(self, images: Any) -> Callable[[], None]:
        """Lock the images' pages; if that is refused, ``description`` says so and copies are slower."""
        arrays = next(iter(self._lanes.values())).io.arrays(images).values()
        major = cuda_runtime.cuda_major(self.ort)
        releases = [cuda_runtime.page_lock(array, major) for array in arrays]
        self.description["images"] = "pageable" if None in releases else "page-locked"

        def release() -> None:
            for each in filter(None, releases):
                each()

        return release


SESSIONS: Mapping[Backend, type[CpuSession] | type[CudaSession]] = {"cpu": CpuSession, "cuda": CudaSession}
