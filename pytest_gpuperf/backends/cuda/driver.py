"""What the CUDA driver and NVML say of a device without PyCUDA: is it there, which unit, how is it set up."""

from __future__ import annotations

import ctypes
import re
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pytest_gpuperf.errors import Unavailable

# cuda.h, CUresult
_SUCCESS, _STUB_LIBRARY, _NO_DEVICE = 0, 34, 100


def _library() -> ctypes.CDLL | None:
    try:
        return ctypes.CDLL("libcuda.so.1")
    except OSError:
        return None


def device_count() -> int:
    """How many devices CUDA_VISIBLE_DEVICES leaves; 0 without a driver.

    Raises Unavailable where there is a driver that does not start: a machine whose GPU is broken is
    not a machine without one.
    """
    library = _library()
    if library is None:
        return 0
    result = library.cuInit(0)
    if result in (_NO_DEVICE, _STUB_LIBRARY):
        return 0
    count = ctypes.c_int()
    result = result or library.cuDeviceGetCount(ctypes.byref(count))
    if result != _SUCCESS:
        raise Unavailable(
            f"The CUDA driver does not start: {_name(library, result)}; see what nvidia-smi says, "
            "or choose --gpuperf-backend=emulated."
        )
    return count.value


def _name(library: ctypes.CDLL, result: int) -> str:
    text = ctypes.c_char_p()
    library.cuGetErrorName(result, ctypes.byref(text))
    return text.value.decode() if text.value else f"error {result}"


def kernel_driver(path: Path = Path("/proc/driver/nvidia/version")) -> str | None:
    """Return the kernel driver's version, such as 580.65.06, from the first line of its /proc file."""
    try:
        first = path.read_text(encoding="utf-8", errors="replace").partition("\n")[0]
    except OSError:
        return None
    version = re.search(r"\b\d{3,}\.\d+(\.\d+)?\b", first)
    return version[0] if version else None


def device_uuid(index: int) -> str:
    """The unit's UUID as nvidia-smi -L prints it; cuInit has been called. A MIG slice has its own."""
    library = _library()
    raw = (ctypes.c_char * 16)()
    device = ctypes.c_int()
    if library is None or library.cuDeviceGet(ctypes.byref(device), index) != _SUCCESS:
        raise Unavailable(f"CUDA device {index} is not there.")
    if library.cuDeviceGetUuid_v2(raw, device) != _SUCCESS:
        raise Unavailable(
            f"CUDA device {index} does not tell its UUID; install a driver of CUDA 11.4 or newer."
        )
    unit = str(uuid.UUID(bytes=raw.raw))
    return f"MIG-{unit}" if _is_mig(unit) else f"GPU-{unit}"


def _is_mig(unit: str) -> bool:
    return _ask_nvml(lambda nvml: nvml.nvmlDeviceGetHandleByUUID(f"MIG-{unit}")) is not None


def settings(unit: str) -> dict[str, Any]:
    """The set-up that decides how fast unit ``unit`` is: "mig", "ecc", "power_limit_w".

    What NVML does not know, or does not tell this user, is left out; without NVML that is all of it.
    """
    mig = unit.startswith("MIG-")
    asked = {
        "mig": _ask_nvml(lambda nvml: _mig_profile(nvml, unit)) if mig else None,
        "ecc": _ask_nvml(lambda nvml: bool(nvml.nvmlDeviceGetEccMode(_physical(nvml, unit, mig))[0])),
        "power_limit_w": _ask_nvml(
            lambda nvml: nvml.nvmlDeviceGetPowerManagementLimit(_physical(nvml, unit, mig)) / 1000
        ),
        "power_limit_default_w": _ask_nvml(
            lambda nvml: nvml.nvmlDeviceGetPowerManagementDefaultLimit(_physical(nvml, unit, mig)) / 1000
        ),
    }
    if asked["power_limit_default_w"] == asked["power_limit_w"]:
        del asked["power_limit_default_w"]  # worth a word, and a pool of its own, only where they differ
    return {key: value for key, value in asked.items() if value is not None}


def _physical(nvml: Any, unit: str, mig: bool) -> Any:
    handle = nvml.nvmlDeviceGetHandleByUUID(unit)
    return nvml.nvmlDeviceGetDeviceHandleFromMigDeviceHandle(handle) if mig else handle


def _mig_profile(nvml: Any, unit: str) -> str:
    attributes = nvml.nvmlDeviceGetAttributes_v2(nvml.nvmlDeviceGetHandleByUUID(unit))
    return f"{attributes.gpuInstanceSliceCount}g.{round(attributes.memorySizeMB / 1024)}gb"


def _ask_nvml(question: Callable[[Any], Any]) -> Any:
    """The answer, or None where NVML is missing, does not know or may not tell."""
    try:
        import pynvml
    except ImportError:
        return None
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError:
        return None
    try:
        return question(pynvml)
    except pynvml.NVMLError:
        return None
    finally:
        pynvml.nvmlShutdown()
