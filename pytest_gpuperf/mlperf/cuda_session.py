"""A model in ONNX Runtime with every node on the GPU.

Each batch size has a session of its own, whose whole run is one CUDA graph over fixed buffers: a query is a
copy of its images to the device, one graph launch, and a copy of the classes back.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from pytest_gpuperf.errors import GpuperfError
from pytest_gpuperf.mlperf import cuda_runtime
from pytest_gpuperf.mlperf.models import Model
from pytest_gpuperf.mlperf.onnx_session import Backend, Interface, OnnxSession, Precision, failure

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
    """ONNX Runtime's CUDA provider alone: one session, pair of buffers and CUDA graph for each batch size."""

    backend: Backend = "cuda"

    def __init__(
        self,
        onnxruntime: Any,
        model: Model,
        precision: Precision,
        sizes: tuple[int, ...],
        stream: int | None = None,
    ) -> None:
        super().__init__(onnxruntime, model, precision, sizes)
        self.options = {**CUDA_OPTIONS, "use_tf32": USE_TF32[precision]}
        on_stream = {"user_compute_stream": str(stream)} if stream else {}
        provider = (cuda_runtime.PROVIDER, {**self.options, **on_stream})
        self._lanes = {size: _Lane(self, size, self.open(provider)) for size in sizes}
        self.description["provider_options"] = " ".join(f"{k}={v}" for k, v in self.options.items())

    def run(self, batch: np.ndarray) -> np.ndarray:
        count = len(batch)
        size = next((size for size in self.batch_sizes if size >= count), None)
        if size is None:
            raise GpuperfError(
                f"a batch of {count} was run, the session was opened for {list(self.batch_sizes)}"
            )
        return self._lanes[size].run(batch)

    def replay(self, images: np.ndarray) -> Callable[[], None]:
        """What enqueues the largest batch size's graph, over so many images, on the session's stream.

        It waits for nothing; older ONNX Runtimes do all the same (pull request 28686 there, of May 2026).
        """
        lane = self._lanes[self.batch_sizes[-1]]
        lane.run(
            np.ascontiguousarray(images, self.dtype)
        )  # here, since ONNX Runtime keeps a graph for each thread
        return lane.enqueue

    def hold(self, images: np.ndarray) -> Callable[[], None]:
        """Locks the images' pages; where that is refused, ``description`` says so and copies are slower."""
        release = cuda_runtime.page_lock(images, cuda_runtime.cuda_version(self.ort)[0])
        self.description["images"] = "pageable" if release is None else "page-locked"
        return release or (lambda: None)


class _Lane:
    """One batch size on the device."""

    def __init__(self, owner: CudaSession, size: int, session: Any) -> None:
        ort, model = owner.ort, owner.model
        self._model, self._size, self._session = model, size, session
        self._io = Interface(self._session, model, owner.precision)
        self._io.require_batch(size, model)
        self._staging = np.zeros((size, *model.input_shape), owner.dtype)
        shape, dtype = self._output_form(owner)
        try:
            self._input = ort.OrtValue.ortvalue_from_numpy(self._staging, "cuda", 0)
            self._output = ort.OrtValue.ortvalue_from_shape_and_type(shape, dtype, "cuda", 0)
        except Exception as error:
            raise failure(model, f"allocating the buffers for batch {size}", error) from error
        self._binding = self._session.io_binding()
        self._binding.bind_ortvalue_input(self._io.input, self._input)
        self._binding.bind_ortvalue_output(self._io.output, self._output)
        self._unsynchronised = ort.RunOptions()
        self._unsynchronised.add_run_config_entry("disable_synchronize_execution_providers", "1")

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
            raise failure(self._model, f"running a batch of {self._size}", error) from error
        return self._io.classes(output[:count])

    def enqueue(self) -> None:
        try:
            self._session.run_with_iobinding(self._binding, self._unsynchronised)
        except Exception as error:
            raise failure(self._model, f"enqueueing a batch of {self._size}", error) from error
