"""ONNX Runtime's TensorRT provider: whether it can work here, and its options with the cache of engines."""

from __future__ import annotations

import ctypes
import importlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from pytest_gpuperf.backends.cuda.driver import Loader
from pytest_gpuperf.cache import cached_folder, lock_beside
from pytest_gpuperf.errors import Unavailable
from pytest_gpuperf.mlperf import cuda_runtime, weights

PROVIDER = "TensorrtExecutionProvider"
LIBRARIES = ("libnvinfer.so.10", "libnvonnxparser.so.10")


def require(onnxruntime: Any, load: Loader = ctypes.CDLL) -> None:
    """Raise Unavailable unless the provider and TensorRT's libraries are there; CUDA's are checked before."""
    if PROVIDER not in onnxruntime.get_available_providers():
        raise Unavailable(
            f'backend="tensorrt": this onnxruntime ({onnxruntime.__version__}) has no {PROVIDER}: '
            + cuda_runtime.REINSTALL
        )
    with suppress(ImportError, OSError):
        importlib.import_module("tensorrt")  # loads the libraries of its wheel, which no search path has
    missing = []
    for library in LIBRARIES:
        try:
            load(library)
        except OSError:
            missing.append(library)
    if missing:
        package = f"tensorrt-cu{cuda_runtime.cuda_major(onnxruntime)}"
        raise Unavailable(
            f'backend="tensorrt": {", ".join(missing)} cannot be loaded: pip install "{package}<11", '
            "or put TensorRT 10's libraries on LD_LIBRARY_PATH"
        )


def options(precision: str) -> dict[str, str]:
    """Return what all sessions in the precision have in common."""
    return {"trt_cuda_graph_enable": "1", "trt_fp16_enable": "1" if precision == "fp16" else "0"}


def cache(onnxruntime: Any, path: Path, size: int) -> dict[str, str]:
    """Return the options that keep the engine of a batch size, in a folder of the cache of its own.

    ONNX Runtime names an engine by its graph, TensorRT and the GPU, but not by the weights; and it would
    widen one engine to all the sizes that it met, which makes each of them slower.
    """
    folder = cached_folder(f"engines/{_name(onnxruntime, path)}-batch{size}")
    return {
        "trt_engine_cache_enable": "1",
        "trt_engine_cache_path": str(folder),
        "trt_timing_cache_enable": "1",
        "trt_timing_cache_path": str(folder),
    }


@contextmanager
def building(onnxruntime: Any, path: Path) -> Iterator[None]:
    """Let one process build what the cache lacks for a model file, while others wait and then read it."""
    with lock_beside(cached_folder("engines") / _name(onnxruntime, path)):
        yield


def _name(onnxruntime: Any, path: Path) -> str:
    return f"{weights.digest(path)}-{onnxruntime.__version__}"
