"""Ask the CUDA driver and NVML, without PyCUDA, for devices, their units' names and their set-up."""

from __future__ import annotations

import ctypes
import re
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pytest_gpuperf.errors import Unavailable

# cuda.h, CUresult
_SUCCESS, _STUB_LIBRARY, _NO_DEVICE = 0, 34, 100
Loader = Callable[[str], Any]


class _NoDevice(Unavailable):
    """The machine has no driver or no device; one whose GPU is broken is another matter."""


def _driver(load: Loader = ctypes.CDLL) -> Any:
    """Load libcuda and start it; raises Unavailable if it does not start, _NoDevice if there is none."""
    try:
        library = load("libcuda.so.1")
    except OSError:
        raise _NoDevice(
            "There is no CUDA device here: no NVIDIA driver is installed (libcuda.so.1 is not found); "
            "install it, then retry."
        ) from None
    result = library.cuInit(0)
    if result in (_NO_DEVICE, _STUB_LIBRARY):
        raise _NoDevice(
            f"The NVIDIA driver finds no usable device (CUDA error {result}); see what nvidia-smi says."
        )
    _check(library, result)
    return library


def _check(library: Any, result: int) -> None:
    if result != _SUCCESS:
        text = ctypes.c_char_p()
        library.cuGetErrorName(result, ctypes.byref(text))
        name = text.value.decode() if text.value else f"error {result}"
        raise Unavailable(
            f"The CUDA driver does not start: {name}; see what nvidia-smi says, "
            "or choose --gpuperf-backend=emulated."
        )


def device_count() -> int:
    """Count the devices that CUDA_VISIBLE_DEVICES leaves; 0 without a driver.

    Raises Unavailable if there is a driver that does not start.
    """
    try:
        library = _driver()
    except _NoDevice:
        return 0
    count = ctypes.c_int()
    _check(library, library.cuDeviceGetCount(ctypes.byref(count)))
    return count.value


def cuda_version(load: Loader = ctypes.CDLL) -> tuple[int, int]:
    """Return the newest CUDA that the driver supports, such as (13, 0).

    ``load`` opens a shared library by name and raises OSError if it cannot. Raises Unavailable if there is no
    driver, no device or a driver that does not start.
    """
    library, version = _driver(load), ctypes.c_int()
    _check(library, library.cuDriverGetVersion(ctypes.byref(version)))
    return version.value // 1000, version.value % 1000 // 10


def kernel_driver(path: Path = Path("/proc/driver/nvidia/version")) -> str | None:
    """Return the kernel driver's version, such as 580.65.06, from the first line of its /proc file."""
    try:
        first = path.read_text(encoding="utf-8", errors="replace").partition("\n")[0]
    except OSError:
        return None
    version = re.search(r"\b\d{3,}\.\d+(\.\d+)?\b", first)
    return version[0] if version else None


def device_uuid(index: int) -> str:
    """Return the unit's UUID as nvidia-smi -L prints it; a MIG slice has its own."""
    library = _driver()
    raw = (ctypes.c_char * 16)()
    device = ctypes.c_int()
    if library.cuDeviceGet(ctypes.byref(device), index) != _SUCCESS:
        raise Unavailable(f"CUDA device {index} was not found.")
    if library.cuDeviceGetUuid_v2(raw, device) != _SUCCESS:
        raise Unavailable(
            f"CUDA device {index} has no readable UUID; install a driver of CUDA 11.4 or newer."
        )
    unit = str(uuid.UUID(bytes=raw.raw))
    with _nvml() as ask:
        is_mig = ask("nvmlDeviceGetHandleByUUID", f"MIG-{unit}") is not None
    return f"MIG-{unit}" if is_mig else f"GPU-{unit}"


def settings(unit: str) -> dict[str, Any]:
    """Return the set-up that decides how fast unit ``unit`` is: "mig", "ecc", "power_limit_w".

    "power_limit_default_w" stands beside a changed limit. Leaves out what NVML does not know, or does not
    tell this user; without NVML that is all of it.
    """
    with _nvml() as ask:
        profile, gpu = None, ask("nvmlDeviceGetHandleByUUID", unit)
        if unit.startswith("MIG-"):
            profile = ask("nvmlDeviceGetAttributes_v2", gpu)
            gpu = ask("nvmlDeviceGetDeviceHandleFromMigDeviceHandle", gpu)
        ecc = ask("nvmlDeviceGetEccMode", gpu)
        limit = ask("nvmlDeviceGetPowerManagementLimit", gpu)
        default = ask("nvmlDeviceGetPowerManagementDefaultLimit", gpu)
    found: dict[str, Any] = {}
    if profile is not None:
        found["mig"] = f"{profile.gpuInstanceSliceCount}g.{round(profile.memorySizeMB / 1024)}gb"
    if ecc is not None:
        found["ecc"] = bool(ecc[0])
    if limit is not None:
        found["power_limit_w"] = limit / 1000
        if default not in (None, limit):
            found["power_limit_default_w"] = default / 1000
    return found


@contextmanager
def _nvml() -> Iterator[Callable[..., Any]]:
    """Open NVML; gives a function that calls one of NVML's by name.

    It returns None if there is no NVML, if NVML does not know or may not tell, and for an argument None.
    """
    try:
        import pynvml
    except ImportError:
        yield lambda function, *arguments: None
        return

    def ask(function: str, *arguments: Any) -> Any:
        if None in arguments:
            return None
        try:
            return getattr(pynvml, function)(*arguments)
        except pynvml.NVMLError:
            return None

    ask("nvmlInit")  # if it does not start, it refuses every other call too
    try:
        yield ask
    finally:
        ask("nvmlShutdown")
