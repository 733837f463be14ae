"""What a place that runs kernels must offer; ``cuda.py`` and ``emulated.py`` are the two there are."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:  # at run time it would be a third of the start of a process that needs no NumPy
    import numpy as np

Dim3 = tuple[int, int, int]


class DeviceArray(Protocol):
    """An array on the device, C-contiguous unless its owner made it otherwise."""

    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    nbytes: int

    def get(self) -> np.ndarray:
        """A copy on the host, after everything enqueued so far has finished."""


class Program(Protocol):
    """One compiled kernel file."""

    def code_hash(self, name: str) -> str | None:
        """The hash of the machine code of kernel ``name``; None where the backend has none of its own."""

    def launch(
        self, name: str, grid: Dim3, block: Dim3, shared: int, stream: Any, arguments: Sequence[Any]
    ) -> None:
        """Enqueues kernel ``name``. Arguments are checked already: device arrays, or NumPy scalars of the
        declared dtype. ``shared`` is the dynamic shared memory in bytes; ``stream`` None is the device's own.
        """


class Backend(Protocol):
    """One device and how to run kernels on it.

    ``name`` is "cuda" or "emulated"; ``device_name`` what the maker calls it; ``uuid`` the unit's own;
    ``compute_capability`` such as (9, 0), which the emulated backend does not have (None).
    ``context`` and ``stream`` are PyCUDA's own objects on cuda and None when emulated.
    """

    name: str
    device_name: str
    uuid: str
    compute_capability: tuple[int, int] | None
    context: Any
    stream: Any

    def place(self) -> dict[str, Any]:
        """The part of a measurement's place that this device decides (flat, JSON scalars)."""

    def empty(self, shape: Sequence[int], dtype: Any) -> DeviceArray:
        """An uninitialised array (the emulated backend poisons it)."""

    def to_device(self, host: np.ndarray) -> DeviceArray: ...

    def free(self, array: DeviceArray) -> None:
        """Gives the array's memory back now; using it later is an error, not a crash."""

    def address(self, argument: Any) -> int | None:
        """The device address behind an argument, or None if it is no array on this device."""

    def synchronize(self) -> None: ...

    def load(self, path: Path, options: Sequence[str] = ()) -> Program:
        """Compiles a kernel file, or takes it from the cache; raises KernelError with the compiler's line."""

    def close(self) -> None: ...
