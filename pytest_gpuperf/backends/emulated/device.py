"""Run unmodified CUDA C++ without a GPU, compiled with g++; every access of every launch is checked."""

from __future__ import annotations

import mmap
import os
import platform
import weakref
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any, NoReturn

import numpy as np

from pytest_gpuperf.backends.emulated.compiler import build_kernels, build_runtime, find_compiler
from pytest_gpuperf.backends.emulated.faults import Region
from pytest_gpuperf.backends.emulated.program import EmulatedProgram
from pytest_gpuperf.backends.emulated.runtime import processors, runtime
from pytest_gpuperf.errors import KernelError, Unavailable

if TYPE_CHECKING:
    from pytest_gpuperf.backends.declarations import Declarations

_SECONDS = 60.0
_LEAST_GAP, _MOST_GAP = 1 << 16, 1 << 24
_MAP_NORESERVE = 0x4000  # Linux on x86-64; Python's mmap module does not have the name before 3.13
_REMEMBERED = 256  # freed arrays, whose names make a better message


class EmulatedArray:
    """An array of the emulated device: ``shape``, ``dtype``, ``nbytes``, ``get()`` and ``set()``.

    It starts on a page, hence on a multiple of 256 bytes as CUDA's allocations do, and has address space of
    its own: an access over its ends meets no other array.
    """

    def __init__(self, backend: EmulatedBackend, shape: tuple[int, ...], dtype: np.dtype) -> None:
        self.shape, self.dtype = shape, dtype
        self.size = int(np.prod(shape, dtype=np.int64))
        self.ndim = len(shape)
        self.nbytes = self.size * dtype.itemsize
        self.gap = min(max(_LEAST_GAP, -(-self.nbytes // mmap.PAGESIZE) * mmap.PAGESIZE), _MOST_GAP)
        # Pages that nobody touches cost address space only.
        flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | _MAP_NORESERVE
        try:
            pages = mmap.mmap(-1, self.nbytes + 2 * self.gap, flags=flags)
        except OSError:
            raise KernelError(
                f"{self.nbytes} bytes for an array {dtype}{list(shape)} do not fit into memory."
            ) from None
        self._host: np.ndarray | None = (
            np.frombuffer(pages, np.uint8, self.nbytes, self.gap).view(dtype).reshape(shape)
        )
        self.address = self._host.ctypes.data
        self.backend = backend
        self._forget = weakref.finalize(self, backend._forget, self.address, self.nbytes, str(self))
        self._forget.atexit = False

    def __str__(self) -> str:
        return f"{self.dtype}{list(self.shape)}"

    def __repr__(self) -> str:
        return f"<emulated array {self}{'' if self._host is not None else ', freed'}>"

    @property
    def host(self) -> np.ndarray:
        """Return the memory itself; raises KernelError once it was freed."""
        if self._host is None:
            raise KernelError(f"This array, {self}, was freed; make another with gpu.empty or gpu.to_device.")
        return self._host

    @property
    def flags(self) -> Any:
        """Return NumPy's flags; ``c_contiguous`` is always true."""
        return self.host.flags

    def get(self) -> np.ndarray:
        """Copy it to the host."""
        return self.host.copy()

    def set(self, values: np.ndarray) -> None:
        """Overwrite the array; raises KernelError if shape or dtype differ."""
        if values.shape != self.shape or values.dtype != self.dtype:
            raise KernelError(
                f"{values.dtype}{list(values.shape)} was given to set an array {self}; make them equal."
            )
        self.host[...] = values

    def free(self) -> None:
        """Give the memory back; freeing twice is no error."""
        self._forget()
        self._host = None


class EmulatedBackend:
    """The emulated device. ``threads`` OS threads run its blocks; a launch is stopped after ``seconds``.

    Raises Unavailable, naming what to install, if no g++ works. ``__device__`` variables live as long as the
    process, per kernel file and options.
    """

    name = "emulated"
    uuid = "emulated"
    pci: str | None = None
    compute_capability: tuple[int, int] | None = None
    context: Any = None
    stream: Any = None
    judges_times, checks_memory, counts_traffic = False, True, True

    def __init__(self, threads: int | None = None, seconds: float = _SECONDS) -> None:
        self._compiler = find_compiler(os.environ.get("CXX") or None)
        self._runtime_path = build_runtime(self._compiler)
        self.runtime = runtime(self._runtime_path)
        self.threads = threads or processors()
        self.seconds = seconds
        self.device_name = f"emulated ({self.compiler_version}, {platform.machine()})"
        # Never entered: the compiler runs on the processors that are this device.
        self.compiling: Callable[[], AbstractContextManager[None]] = nullcontext
        self._live: dict[int, weakref.ref[EmulatedArray]] = {}
        self._freed: list[Region] = []
        self._changes = 0
        self._memory: tuple[int, np.ndarray] = (-1, np.empty((0, 2), np.uint64))

    def place(self) -> dict[str, Any]:
        """Return a place without compiler and processor: counters are equal on all of them."""
        return {"backend": self.name, "counters": "modelled"}

    @property
    def compiler_version(self) -> str:
        return f"g++ {self._compiler.version}"

    def software(self) -> dict[str, str]:
        return {}

    def empty(self, shape: Sequence[int], dtype: Any) -> EmulatedArray:
        """Allocate an array full of 0xff bytes: reading NaN, -1 or the largest number shows."""
        array = self._array(tuple(shape), np.dtype(dtype))
        array.host.reshape(-1).view(np.uint8)[...] = 0xFF
        return array

    def to_device(self, host: np.ndarray) -> EmulatedArray:
        array = self._array(host.shape, host.dtype)
        array.set(host)
        return array

    def free(self, array: Any) -> None:
        array.free()

    def address(self, argument: Any) -> int | None:
        if not isinstance(argument, EmulatedArray) or argument.backend is not self:
            return None
        return argument.host.ctypes.data

    def owns_memory(self, array: Any) -> bool:
        return isinstance(array, EmulatedArray) and array.backend is self

    def copy(self, destination: Any, source: Any) -> None:
        destination.host.reshape(-1).view(np.uint8)[...] = source.host.reshape(-1).view(np.uint8)

    def free_memory(self) -> int:
        return os.sysconf("SC_AVPHYS_PAGES") * mmap.PAGESIZE

    def timer(self) -> NoReturn:
        raise Unavailable("The emulated device has no clock of its own; time kernels on a GPU.")

    def synchronize(self) -> None:
        """Do nothing: a launch returns when its kernel has ended."""

    def load(self, file: Declarations, options: Sequence[str] = ()) -> EmulatedProgram:
        """Compile a kernel file, or take it from the cache; raises KernelError with the compiler's line.

        Of nvcc's options, -D, -U, -I and --std count; the others have no meaning here.
        """
        library = build_kernels(self._compiler, self._runtime_path, file, options)
        return EmulatedProgram(self, file, library)

    def close(self) -> None:
        """Free every array that is left."""
        for array in self.arrays():
            array.free()

    def memory(self) -> np.ndarray:
        """Return begin and end of every live array, sorted, as uint64[n, 2]."""
        # Arrays come and go in other Python threads and whenever garbage is collected.
        changes = self._changes
        known, memory = self._memory
        if known != changes:
            spans = [(a.address, a.address + a.nbytes) for a in self.arrays()]
            memory = np.array(sorted(spans), np.uint64).reshape(-1, 2)
            self._memory = changes, memory
        return memory

    def arrays(self) -> list[EmulatedArray]:
        """List the live arrays."""
        return [array for reference in self._references() if (array := reference()) is not None]

    def _references(self) -> list[weakref.ref[EmulatedArray]]:
        """List all of them at one moment.

        Not by dict.copy(): a finalizer that the garbage collector runs inside it leaves the copy's count and
        its keys at odds (CPython 3.11).
        """
        while True:
            try:
                return list(self._live.values())
            except RuntimeError:  # an array came or went in another thread: look again
                continue

    @property
    def freed(self) -> list[Region]:
        """List the arrays freed last, the newest first."""
        return list(reversed(self._freed))

    def _array(self, shape: tuple[int, ...], dtype: np.dtype) -> EmulatedArray:
        array = EmulatedArray(self, shape, dtype)
        self._live[array.address] = weakref.ref(array)
        self._changes += 1
        # The system may hand out a freed array's pages again, as this one's or as the gaps around it.
        begin, end = array.address - array.gap, array.address + array.nbytes + array.gap
        self._freed = [r for r in self._freed[-_REMEMBERED:] if r.end <= begin or r.begin >= end]
        return array

    def _forget(self, address: int, nbytes: int, name: str) -> None:
        self._live.pop(address, None)
        self._changes += 1
        self._freed.append(Region(address, address + nbytes, name))
