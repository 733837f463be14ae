"""The devices that kernels run on: ``select`` opens a backend; the others answer without opening one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, get_args

from pytest_gpuperf.backends.base import Backend
from pytest_gpuperf.errors import GpuperfError, Unavailable

Choice = Literal["auto", "cuda", "cuda-core", "emulated"]
BACKENDS: tuple[str, ...] = get_args(Choice)
DEVICES = ("cuda",)
"""Places of a device of its own: that of PyCUDA and that of cuda.core are one."""
DEVICELESS = ("emulated", "cpu")
"""What stands for the backend in places of a machine without a GPU: the emulator, and no device at all."""

NO_DEVICE = (
    "There is no CUDA device here: libcuda.so.1 is missing, or CUDA_VISIBLE_DEVICES hides every device; "
    "install the NVIDIA driver, or choose --gpuperf-backend=emulated."
)


def select(choice: str = "auto") -> Backend:
    """Open a backend: "cuda" (PyCUDA), "cuda-core", "emulated", or with "auto" what is there, in that order.

    Raises Unavailable, naming what to install. A machine that has a GPU never ends up emulated
    unasked: there "auto" without PyCUDA and cuda.core raises too.
    """
    if choice not in BACKENDS:
        raise GpuperfError(
            f'There is no backend {choice!r}; choose "auto", "cuda", "cuda-core" or "emulated".'
        )
    if device_count(choice):
        return _on_device(choice)
    if expects_device(choice):
        raise Unavailable(NO_DEVICE)
    from pytest_gpuperf.backends.emulated.device import EmulatedBackend

    return EmulatedBackend()


def _on_device(choice: str) -> Backend:
    if uses_cuda_core(choice):
        from pytest_gpuperf.backends.cuda_core.device import CudaCoreBackend

        return CudaCoreBackend()
    from pytest_gpuperf.backends.cuda.device import CudaBackend

    return CudaBackend()


def uses_cuda_core(choice: str) -> bool:
    """Say whether a session with this choice takes cuda.core on a GPU: asked to, or without PyCUDA."""
    from importlib.util import find_spec

    if choice != "auto":
        return choice == "cuda-core"
    try:
        return find_spec("pycuda") is None and find_spec("cuda.core") is not None
    except ModuleNotFoundError:  # not even the package "cuda"
        return False


def device_count(choice: str = "auto") -> int:
    """Count the GPUs that a session with this choice of backend can use; 0 if it emulates.

    Raises Unavailable if there is a driver that does not start.
    """
    if choice == "emulated":
        return 0
    from pytest_gpuperf.backends.cuda import driver

    return driver.device_count()


def expects_device(choice: str) -> bool:
    """Say whether a session with this choice of backend runs on a GPU, or fails without one.

    Raises Unavailable if there is a driver that does not start.
    """
    return choice in ("cuda", "cuda-core") or device_count(choice) > 0


# --------------------------------------------------------------------------- of a stored place


def is_modelled(place: Mapping[str, Any]) -> bool:
    """Say whether what was measured there is a model's of a GPU, as the emulator's counters are."""
    return place.get("backend") == "emulated"


def judges_times(place: Mapping[str, Any]) -> bool:
    """Say whether times of that place are by a device's own clock, and are judged."""
    return place.get("backend") == "cuda"


def pool_name(place: Mapping[str, Any]) -> str:
    """Name the set of like runners: the GPU's model, its MIG profile and a changed power limit."""
    parts = [str(place.get("gpu", place.get("backend", "cpu")))]
    parts += [str(place["mig"])] if place.get("mig") else []
    parts += [f"{place['power_limit_w']:g}W"] if "power_limit_default_w" in place else []
    return " ".join(parts)
