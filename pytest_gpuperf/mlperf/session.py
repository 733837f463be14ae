"""The system under test: a model in ONNX Runtime, on the CPU or with every node on the GPU.

On CUDA each batch size has a session of its own, whose whole run is one CUDA graph over fixed buffers: a
query is a copy of its images to the device, one graph launch, and a copy of the classes back.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, Protocol

import numpy as np

from ..errors import GpuperfError, Unavailable
from . import cuda_runtime, models
from .models import Model

Backend = Literal["cuda", "cpu"]
Precision = Literal["fp32", "fp16"]
DTYPES: Mapping[str, type[np.floating[Any]]] = {"fp32": np.float32, "fp16": np.float16}

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
    """What LoadGen needs of a system under test; a suite may bring its own.

    ``batch_sizes`` are the sizes that run without padding, in increasing order; ``dtype`` that of the images.
    """

    model: Model
    backend: Backend
    precision: Precision
    batch_sizes: tuple[int, ...]
    dtype: type[np.floating[Any]]
    description: Mapping[str, Any]

    def run(self, batch: np.ndarray) -> np.ndarray:
        """The class of every image of a C-contiguous [n, *input_shape] batch, int64 [n]."""

    def hold(self, images: np.ndarray) -> Callable[[], None]:
        """Told of the host array that batches will be slices of, and gives what to call before it goes."""


def open_session(
    model: Model, backend: Backend, precision: Precision = "fp32", batch_sizes: Sequence[int] = (1, 8)
) -> CpuSession | CudaSession:
    """Loads the model; raises Unavailable naming the package that is missing, GpuperfError where the model
    does not fit its dataset or the device's memory.
    """
    try:
        import onnxruntime
    except ImportError as error:
        extra = "cuda" if backend == "cuda" else "cpu"
        raise Unavailable(
            f"onnxruntime cannot be imported ({error}): pip install 'pytest-gpuperf[{extra}]'"
        ) from error
    if precision not in DTYPES:
        raise GpuperfError(f'there is no precision "{precision}"; use {" or ".join(DTYPES)}')
    sizes = tuple(sorted(set(batch_sizes)))
    if not sizes or sizes[0] < 1:
        raise GpuperfError(f"batch sizes {list(batch_sizes)} must be one or more positive numbers")
    if backend == "cuda":
        cuda_runtime.require(onnxruntime)
        return CudaSession(onnxruntime, model, precision, sizes)
    return CpuSession(onnxruntime, model, precision, sizes)


def _failure(model: Model, doing: str, error: Exception) -> GpuperfError:
    """ONNX Runtime's exception as one sentence; it has a class for each status and no public base of its
    own.
    """
    text = " ".join(str(error).split())
    if "allocate memory" in text or "out of memory" in text.lower():
        return GpuperfError(
            f"{model.name} does not fit into memory while {doing}: use a smaller batch ({text[:300]})"
        )
    return GpuperfError(f"ONNX Runtime failed while {doing} ({model.name}, {model.path}): {text[:500]}")


class _Interface:
    """The model's input and the output in use, checked against what the dataset gives."""

    def __init__(self, session: Any, model: Model, precision: Precision) -> None:
        expected = {"fp32": "tensor(float)", "fp16": "tensor(float16)"}[precision]
        inputs = session.get_inputs()
        found = ", ".join(f"{i.name} {i.type} {list(i.shape)}" for i in inputs)
        shape = list(inputs[0].shape[1:]) if inputs else []
        fits = len(shape) == len(model.input_shape) and all(
            not isinstance(size, int) or size == wanted
            for size, wanted in zip(shape, model.input_shape, strict=True)
        )
        if len(inputs) != 1 or inputs[0].type != expected or not fits:
            raise GpuperfError(
                f"{model.path} takes {found or 'no input'}; {model.name} is fed one {expected} "
                f"[N, {', '.join(map(str, model.input_shape))}]"
            )
        outputs = {output.name: output for output in session.get_outputs()}
        name = model.output or next(iter(outputs))
        if name not in outputs or (model.output is None and len(outputs) > 1):
            raise GpuperfError(
                f'{model.path} has the outputs {", ".join(outputs)}; Model.output is "{model.output}"'
            )
        self.input, self.batch, self.output = inputs[0].name, inputs[0].shape[0], name
        self._offset = model.label_offset

    def require_batch(self, size: int, model: Model) -> None:
        if isinstance(self.batch, int) and self.batch != size:
            raise GpuperfError(f"{model.path} only takes batches of {self.batch}; {size} was asked for")

    def classes(self, output: np.ndarray) -> np.ndarray:
        """int64 [n] from integer classes [n] or [n, 1], or from scores [n, classes]."""
        found = output if np.issubdtype(output.dtype, np.integer) else output.argmax(axis=-1)
        return found.reshape(-1).astype(np.int64, copy=False) + self._offset


class _OnnxSession:
    """What both backends share: the facts, the file for the precision, and the ONNX Runtime session."""

    backend: Backend

    def __init__(self, onnxruntime: Any, model: Model, precision: Precision, sizes: tuple[int, ...]) -> None:
        self._ort = onnxruntime
        self.model, self.precision, self.batch_sizes = model, precision, sizes
        self.dtype = DTYPES[precision]
        self._path = model.path if precision == "fp32" else models.half_precision(model)
        self.description: dict[str, Any] = {
            "onnxruntime": onnxruntime.__version__,
            "model_sha256": models.sha256(model.path)[:16],
            "batch_sizes": " ".join(map(str, sizes)),
        }

    def _open(self, provider: Any) -> Any:
        name = provider[0] if isinstance(provider, tuple) else provider
        options = self._ort.SessionOptions()
        options.log_severity_level = (
            3  # its warnings (unused initialisers, ...) would swamp the test's output
        )
        if name != "CPUExecutionProvider":
            options.add_session_config_entry("session.disable_cpu_ep_fallback", "1")
        options.add_session_config_entry("session.record_ep_graph_assignment_info", "1")
        try:
            session = self._ort.InferenceSession(str(self._path), options, providers=[provider])
        except Exception as error:
            raise _failure(self.model, "loading the graph", error) from error
        session.disable_fallback()
        if session.get_providers()[0] != name:
            raise GpuperfError(f"{self.model.name} was to run on {name} and got {session.get_providers()}")
        self.description["provider"] = name
        self.description["nodes"] = self._assigned(session, name)
        return session

    def _assigned(self, session: Any, name: str) -> str:
        """How many nodes the provider runs; raises GpuperfError where another one runs any."""
        if not hasattr(session, "get_provider_graph_assignment_info"):
            return f"all on {name} (no fallback allowed)"
        elsewhere: list[str] = []
        count = 0
        for subgraph in session.get_provider_graph_assignment_info():
            nodes = subgraph.get_nodes()
            count += len(nodes)
            if subgraph.ep_name != name:
                elsewhere += [f"{node.op_type} on {subgraph.ep_name}" for node in nodes]
        if elsewhere:
            raise GpuperfError(
                f"{len(elsewhere)} of {count} nodes of {self.model.name} are not on {name}: {elsewhere[:5]}"
            )
        return f"{count} of {count} on {name}"


class CpuSession(_OnnxSession):
    """ONNX Runtime's CPU provider; any batch size runs unpadded."""

    backend: Backend = "cpu"

    def __init__(self, onnxruntime: Any, model: Model, precision: Precision, sizes: tuple[int, ...]) -> None:
        super().__init__(onnxruntime, model, precision, sizes)
        self._session = self._open("CPUExecutionProvider")
        self._io = _Interface(self._session, model, precision)
        for size in sizes:
            self._io.require_batch(size, model)

    def run(self, batch: np.ndarray) -> np.ndarray:
        try:
            output = self._session.run([self._io.output], {self._io.input: batch})[0]
        except Exception as error:
            raise _failure(self.model, f"running a batch of {len(batch)}", error) from error
        return self._io.classes(output)

    def hold(self, images: np.ndarray) -> Callable[[], None]:
        return lambda: None


class CudaSession(_OnnxSession):
    """ONNX Runtime's CUDA provider alone: one session, pair of buffers and CUDA graph for each batch size."""

    backend: Backend = "cuda"

    def __init__(self, onnxruntime: Any, model: Model, precision: Precision, sizes: tuple[int, ...]) -> None:
        super().__init__(onnxruntime, model, precision, sizes)
        self.options = {**CUDA_OPTIONS, "use_tf32": USE_TF32[precision]}
        self._lanes = {size: _Lane(self, size) for size in sizes}
        self.description["provider_options"] = " ".join(f"{k}={v}" for k, v in self.options.items())

    def run(self, batch: np.ndarray) -> np.ndarray:
        count = len(batch)
        size = next((size for size in self.batch_sizes if size >= count), None)
        if size is None:
            raise GpuperfError(
                f"a batch of {count} was run, the session was opened for {list(self.batch_sizes)}"
            )
        return self._lanes[size].run(batch)

    def hold(self, images: np.ndarray) -> Callable[[], None]:
        """Locks the images' pages; where that is refused, ``description`` says so and copies are slower."""
        release = cuda_runtime.page_lock(images, cuda_runtime.cuda_version(self._ort)[0])
        self.description["images"] = "pageable" if release is None else "page-locked"
        return release or (lambda: None)


class _Lane:
    """One batch size on the device."""

    def __init__(self, owner: CudaSession, size: int) -> None:
        ort, model = owner._ort, owner.model
        self._model, self._size = model, size
        self._session = owner._open((cuda_runtime.PROVIDER, owner.options))
        self._io = _Interface(self._session, model, owner.precision)
        self._io.require_batch(size, model)
        self._staging = np.zeros((size, *model.input_shape), owner.dtype)
        shape, dtype = self._output_form(owner)
        try:
            self._input = ort.OrtValue.ortvalue_from_numpy(self._staging, "cuda", 0)
            self._output = ort.OrtValue.ortvalue_from_shape_and_type(shape, dtype, "cuda", 0)
        except Exception as error:
            raise _failure(model, f"allocating the buffers for batch {size}", error) from error
        self._binding = self._session.io_binding()
        self._binding.bind_ortvalue_input(self._io.input, self._input)
        self._binding.bind_ortvalue_output(self._io.output, self._output)

    def _output_form(self, owner: CudaSession) -> tuple[list[int], Any]:
        """A CUDA graph needs the output's buffer before the first run, so its shape must be in the file."""
        output = next(o for o in self._session.get_outputs() if o.name == self._io.output)
        rest = list(output.shape[1:])
        if not all(isinstance(n, int) for n in rest):
            raise GpuperfError(
                f"{owner.model.path}: output {output.name} has the shape {output.shape}, "
                "of which only the first size may be open"
            )
        dtypes = {
            "tensor(float)": np.float32,
            "tensor(float16)": np.float16,
            "tensor(int64)": np.int64,
            "tensor(int32)": np.int32,
        }
        if output.type not in dtypes:
            raise GpuperfError(
                f"{owner.model.path}: output {output.name} is a {output.type}, not one of {list(dtypes)}"
            )
        return [self._size, *rest], dtypes[output.type]

    def run(self, batch: np.ndarray) -> np.ndarray:
        count = len(batch)
        if count < self._size:
            self._staging[:count] = batch
            batch = self._staging
        try:
            self._input.update_inplace(batch)
            self._session.run_with_iobinding(self._binding)
            output = self._output.numpy()
        except Exception as error:
            raise _failure(self._model, f"running a batch of {self._size}", error) from error
        return self._io.classes(output[:count])
