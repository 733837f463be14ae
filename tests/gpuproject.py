"""What tests on a GPU share: its backends, streams beside theirs, and a project run as its owner would."""

from __future__ import annotations

import ctypes
import os
import re
import shutil
import subprocess
import sys
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

import pytest

from pytest_gpuperf.backends import select
from pytest_gpuperf.backends.cuda.compile import find_nvcc
from pytest_gpuperf.backends.gpu import Gpu
from pytest_gpuperf.errors import Unavailable

BINDINGS = ("cuda", "cuda-core")


def _has_nvcc() -> bool:
    try:
        find_nvcc()
    except Unavailable:
        return False
    return shutil.which("gcc") is not None


needs_nvcc = pytest.mark.skipif(not _has_nvcc(), reason="needs nvcc and gcc")


def opened(choice: str) -> Gpu:
    """The GPU through one of its backends; skips where that is not installed."""
    try:
        return Gpu(select(choice))
    except Unavailable as error:
        pytest.skip(str(error))


def side_stream(gpu: Gpu) -> Any:
    """A stream of the binding's own that waits for no other."""
    if gpu.device.binding == "PyCUDA":
        import pycuda.driver

        return pycuda.driver.Stream(1)  # cuda.h, CU_STREAM_NON_BLOCKING
    from cuda.core import Device

    return Device().create_stream()


def let_wait(gpu: Gpu, later: Any, earlier: Any) -> None:
    """Let what is enqueued on one stream from now on wait for what is on another."""
    if gpu.device.binding == "PyCUDA":
        import pycuda.driver

        event = pycuda.driver.Event()
        event.record(earlier)
        later.wait_for_event(event)
    else:
        later.wait(earlier)


def copy(destination: Any, source: Any, stream: Any = None) -> None:
    """Enqueue a copy of one array to another by the driver itself, on its default stream if none is given."""
    handle = int(stream.handle) if stream else 0
    given = [ctypes.c_uint64(array.ptr) for array in (destination, source)]
    given += [ctypes.c_size_t(source.nbytes), ctypes.c_void_p(handle)]
    assert ctypes.CDLL("libcuda.so.1").cuMemcpyDtoDAsync_v2(*given) == 0


def run(project: Path, *arguments: str, backend: str = "cuda") -> tuple[int, str]:
    """The exit code and the output of ``pytest ARGUMENTS --gpuperf`` in the project."""
    installed = any(point.name == "gpuperf" for point in entry_points(group="pytest11"))
    loaded = [] if installed else ["-p", "pytest_gpuperf.plugin"]
    command = [sys.executable, "-m", "pytest", *loaded, "-p", "no:cacheprovider", "-q"]
    command += [*arguments, "--gpuperf", f"--gpuperf-backend={backend}"]
    done = subprocess.run(command, cwd=project, env=os.environ, capture_output=True, text=True, check=False)
    print(done.stdout[-6000:])  # what the machine said, for whoever runs this by hand
    return done.returncode, done.stdout + done.stderr


def red(output: str) -> set[str]:
    return set(re.findall(r"^FAILED \S+::(\S+)", output, re.MULTILINE))


def require_loadgen() -> None:
    """Skips where LoadGen, or an ONNX Runtime that has CUDA, is not installed."""
    for module in ("mlperf_loadgen", "onnx", "onnxruntime"):
        pytest.importorskip(module, reason=f"LoadGen on a GPU needs {module}")
    import onnxruntime

    from pytest_gpuperf.mlperf import cuda_runtime

    if cuda_runtime.PROVIDER not in onnxruntime.get_available_providers():
        pytest.skip("this onnxruntime was built for the CPU")
