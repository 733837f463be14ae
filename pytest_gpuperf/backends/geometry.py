"""The geometry of a launch: its grid and block, shared memory and stream, checked."""

from __future__ import annotations

import ctypes
import operator
from dataclasses import dataclass
from typing import Any

from pytest_gpuperf.errors import KernelError

Dim3 = tuple[int, int, int]

# CUDA C++ Programming Guide, "Technical Specifications per Compute Capability": the same since 3.0.
_GRID_LIMIT = (2**31 - 1, 65535, 65535)
_BLOCK_LIMIT = (1024, 1024, 64)
_THREADS_PER_BLOCK = 1024
_HANDLES = ("handle", "cuda_stream", "ptr")  # of PyCUDA, cuda.core and Numba; of torch; of CuPy


@dataclass(frozen=True, slots=True)
class Geometry:
    """Blocks of a launch, threads of a block, bytes of dynamic shared memory, and the stream.

    ``of`` checks them. ``stream`` None is the device's own.
    """

    grid: Dim3
    block: Dim3
    shared: int = 0
    stream: Any = None

    @classmethod
    def of(cls, grid: Any, block: Any, shared: Any = 0, stream: Any = None) -> Geometry:
        """Make a geometry that CUDA accepts of what a person wrote; raises KernelError.

        Grid and block are an int or one to three ints, x first.
        """
        threads = _dimensions("block", block, _BLOCK_LIMIT)
        made = cls(
            _dimensions("grid", grid, _GRID_LIMIT),
            threads,
            _integer("shared memory", shared),
            _stream(stream),
        )
        if (count := threads[0] * threads[1] * threads[2]) > _THREADS_PER_BLOCK:
            raise KernelError(f"block {block!r} has {count} threads; CUDA allows {_THREADS_PER_BLOCK}.")
        if made.shared < 0:
            raise KernelError(f"shared memory is given in bytes, 0 or more; {shared!r} was given.")
        return made


def stream_handle(stream: Any) -> Any:
    """Return what a library has as the driver's handle of its stream; an integer is one itself."""
    if hasattr(stream, "__cuda_stream__"):
        return stream.__cuda_stream__()[1]
    known = (getattr(stream, name) for name in _HANDLES if hasattr(stream, name))
    found = next(known, stream)
    return found.value or 0 if isinstance(found, ctypes.c_void_p) else found


def _stream(given: Any) -> Any:
    try:
        if isinstance(given, (bool, str, float)):
            raise TypeError
        int(0 if given is None else stream_handle(given))
    except (TypeError, ValueError):
        raise KernelError(
            "a stream is gpu.stream, another that the backend's library made, or on cuda-core any library's; "
            f"{given!r} was given."
        ) from None
    return given


def _dimensions(what: str, given: Any, limit: Dim3) -> Dim3:
    values = tuple(given) if isinstance(given, (tuple, list)) else (given,)
    if not 1 <= len(values) <= 3:
        raise KernelError(f"{what} {given!r} needs one to three integers, x first.")
    x, y, z = (*(_integer(what, value) for value in values), 1, 1)[:3]
    for axis, value, most in zip("xyz", (x, y, z), limit, strict=True):
        if not 1 <= value <= most:
            raise KernelError(f"{what} {given!r} has {axis} = {value}; it must be 1 to {most}.")
    return x, y, z


def _integer(what: str, value: Any) -> int:
    try:
        return operator.index(value)
    except TypeError:
        raise KernelError(f"{what} needs integers; {value!r} was given.") from None
