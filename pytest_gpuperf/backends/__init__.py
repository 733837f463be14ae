"""Where kernels run. ``select`` opens the backend that was asked for."""

from __future__ import annotations

from typing import Any

from pytest_gpuperf.backends.base import Backend
from pytest_gpuperf.errors import GpuperfError, Unavailable


def select(choice: str = "auto") -> Backend:
    """Opens a backend: "cuda", "emulated", or with "auto" CUDA where there is a device, else emulated.

    Raises Unavailable, naming what to install. A machine that has a GPU never ends up emulated
    unasked: there "auto" without PyCUDA raises too.
    """
    if choice == "emulated":
        return _emulated()
    if choice not in ("auto", "cuda"):
        raise GpuperfError(f'There is no backend {choice!r}; choose "auto", "cuda" or "emulated".')
    from pytest_gpuperf.backends.cuda_driver import device_count

    if device_count():
        from pytest_gpuperf.backends.cuda import CudaBackend

        return CudaBackend()
    if choice == "cuda":
        raise Unavailable(
            "There is no CUDA device here: libcuda.so.1 is missing, or CUDA_VISIBLE_DEVICES hides every "
            "device; install the NVIDIA driver, or choose --gpuperf-backend=emulated."
        )
    return _emulated()


def _emulated() -> Backend:
    from pytest_gpuperf.backends.emulated import EmulatedBackend

    # Its arrays' type is narrower than the protocol's: it takes back only what it made.
    backend: Any = EmulatedBackend()
    return backend
