"""Check that ONNX Runtime can use the GPU.

This is done before a session is opened: if a library is missing, ONNX Runtime itself runs on the CPU and says
so only on stderr.
"""

from __future__ import annotations

import contextlib
import ctypes
import io
from importlib import metadata
from pathlib import Path
from typing import Any

from pytest_gpuperf.backends.cuda import driver
from pytest_gpuperf.backends.cuda.driver import Loader
from pytest_gpuperf.errors import GpuperfError, Unavailable

INSTALL = "pip install 'onnxruntime-gpu[cuda,cudnn]'"
REINSTALL = f"pip uninstall -y onnxruntime onnxruntime-gpu && {INSTALL}"
PROVIDER = "CUDAExecutionProvider"

# What libonnxruntime_providers_cuda.so needs, by CUDA's major version (readelf on 1.31 for 13), and the wheel
# that has it. cuFFT is opened late since 1.27, and never for ResNet-50.
LIBRARIES = {
    12: {
        "libcudart.so.12": "nvidia-cuda-runtime-cu12",
        "libcublas.so.12": "nvidia-cublas-cu12",
        "libcublasLt.so.12": "nvidia-cublas-cu12",
        "libcurand.so.10": "nvidia-curand-cu12",
        "libcufft.so.11": "nvidia-cufft-cu12",
        "libcudnn.so.9": "nvidia-cudnn-cu12",
    },
    13: {
        "libcudart.so.13": "nvidia-cuda-runtime",
        "libcublas.so.13": "nvidia-cublas",
        "libcublasLt.so.13": "nvidia-cublas",
        "libcurand.so.10": "nvidia-curand",
        "libcudnn.so.9": "nvidia-cudnn-cu13",
    },
}


def require(onnxruntime: Any, load: Loader = ctypes.CDLL) -> None:
    """Raise Unavailable (GpuperfError for a broken installation) unless the CUDA provider can work here.

    ``load`` opens a shared library by name or raises OSError.
    """
    if len(installed_packages(Path(onnxruntime.__file__).parent)) > 1:
        raise GpuperfError(
            "onnxruntime and onnxruntime-gpu are both installed and overwrite each other's files: "
            + REINSTALL
        )
    if PROVIDER not in onnxruntime.get_available_providers():
        raise Unavailable(
            f"this onnxruntime ({onnxruntime.__version__}) was built for the CPU and has no {PROVIDER}: "
            + REINSTALL
        )
    built_for = cuda_major(onnxruntime)
    # CUDA 12 and later run on any driver of the same major version (CUDA minor version compatibility).
    major, minor = driver.cuda_version(load)
    if major < built_for:
        older = " or, for CUDA 12, pip install 'onnxruntime-gpu[cuda,cudnn]<1.27'" if major == 12 else ""
        raise Unavailable(
            f"the NVIDIA driver supports CUDA {major}.{minor}, this onnxruntime needs {built_for}: "
            f"update the driver{older}"
        )
    # It prints what it cannot load and never raises; the check below says it in one sentence.
    with contextlib.redirect_stdout(io.StringIO()):
        if hasattr(onnxruntime, "preload_dlls"):
            onnxruntime.preload_dlls()
    require_libraries(built_for, load)


def installed_packages(imported_from: Path) -> set[str]:
    """Return which of the two distributions of the import name ``onnxruntime`` are in that one folder.

    One in another folder of ``sys.path`` is only hidden: its files overwrite nothing.
    """
    found = set()
    for name in ("onnxruntime", "onnxruntime-gpu"):
        with contextlib.suppress(metadata.PackageNotFoundError):
            folder = Path(str(metadata.distribution(name).locate_file("onnxruntime")))
            if folder.resolve() == imported_from.resolve():
                found.add(name)
    return found


def cuda_major(onnxruntime: Any) -> int:
    """Return the major version of the CUDA that this ONNX Runtime was built for, such as 13."""
    text = str(getattr(onnxruntime, "cuda_version", "") or "")
    major = text.partition(".")[0]
    if not major.isdigit():
        raise GpuperfError(
            f'onnxruntime {onnxruntime.__version__} says it was built for CUDA "{text}", '
            f"which is no version; reinstall it: {REINSTALL}"
        )
    return int(major)


def require_libraries(major: int, load: Loader) -> None:
    """Raise Unavailable naming the libraries that cannot be loaded and the wheels that have them."""
    libraries = LIBRARIES.get(major)
    if libraries is None:
        raise Unavailable(
            f"this onnxruntime was built for CUDA {major}, known are {', '.join(map(str, LIBRARIES))}: "
            "upgrade pytest-gpuperf"
        )
    missing = {}
    for library, package in libraries.items():
        try:
            load(library)
        except OSError:
            missing[library] = package
    if missing:
        packages = " ".join(dict.fromkeys(missing.values()))
        raise Unavailable(f"{', '.join(missing)} cannot be loaded: pip install {packages}, or {INSTALL}")
