"""The system under test: a model in ONNX Runtime, on the CPU or with every node on the GPU."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, Protocol

import numpy as np

from pytest_gpuperf.errors import GpuperfError
from pytest_gpuperf.mlperf import cuda_runtime, imported, models, tensorrt
from pytest_gpuperf.mlperf.cuda_session import CudaSession, TensorrtSession
from pytest_gpuperf.mlperf.models import DTYPES, Model, Precision
from pytest_gpuperf.mlperf.onnx_session import ALONE, CpuSession, Team

Backend = Literal["cuda", "tensorrt", "cpu"]


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


SESSIONS: Mapping[Backend, type[CpuSession] | type[CudaSession]] = {
    "cpu": CpuSession,
    "cuda": CudaSession,
    "tensorrt": TensorrtSession,
}


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
    or the device's memory, which of a single batch size its first run tells.
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
            'TensorRT is not asked for them; use precision="fp16", or backend="cpu"'
        )
    if kind.on_device:
        cuda_runtime.require(onnxruntime)
    if backend == "tensorrt":
        tensorrt.require(onnxruntime)
    models.require_file(model)
    return kind(onnxruntime, model, precision, sizes, stream, threads, team)
