"""The system under test: a model in ONNX Runtime, on the CPU or with every node on the GPU."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import numpy as np

from pytest_gpuperf.errors import GpuperfError, Unavailable
from pytest_gpuperf.mlperf import cuda_runtime
from pytest_gpuperf.mlperf.cuda_session import CudaSession
from pytest_gpuperf.mlperf.models import Model
from pytest_gpuperf.mlperf.onnx_session import DTYPES, Backend, CpuSession, Precision


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
    model: Model,
    backend: Backend,
    precision: Precision = "fp32",
    batch_sizes: Sequence[int] = (1, 8),
    stream: int | None = None,
) -> CpuSession | CudaSession:
    """Loads the model; raises Unavailable naming the package that is missing, GpuperfError where the model
    does not fit its dataset or the device's memory.

    ``stream`` is the handle of the CUDA stream to run on; without one ONNX Runtime makes its own.
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
        return CudaSession(onnxruntime, model, precision, sizes, stream)
    return CpuSession(onnxruntime, model, precision, sizes)
