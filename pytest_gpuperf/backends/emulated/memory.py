"""The memory of the emulated device: its live arrays, and the names of those that were freed."""

from __future__ import annotations

import mmap
import weakref
from contextlib import suppress
from typing import Any

import numpy as np

from pytest_gpuperf.backends.emulated.faults import Region
from pytest_gpuperf.backends.room import check_host, host_memory, no_room
from pytest_gpuperf.errors import KernelError

_LEAST_GAP, _MOST_GAP = 1 << 16, 1 << 24
_MAP_NORESERVE = 0x4000  # Linux on x86-64; Python's mmap module does not have the name before 3.13
_REMEMBERED = 256  # freed arrays, whose names make a better message


class EmulatedArray:
    """An array of the emulated device: ``shape``, ``dtype``, ``nbytes``, ``get()`` and ``set()``.

    It starts on a page, hence on a multiple of 256 bytes as CUDA's allocations do, and has address space of
    its own: an access over its ends meets no other array.
    """

    contents: str | None = None

    def __init__(self, memory: EmulatedMemory, shape: tuple[int, ...], dtype: np.dtype) -> None:
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
            raise no_room("this host", shape, dtype, *host_memory()) from None
        self._host: np.ndarray | None = (
            np.frombuffer(pages, np.uint8, self.nbytes, self.gap).view(dtype).reshape(shape)
        )
        self.address = self._host.ctypes.data
        self.granule = {1: 0, 2: 1}.get(dtype.itemsize, 2)
        self.memory = memory
        self._forget = weakref.finalize(self, memory._forget, self.address, self.nbytes, str(self))
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


class EmulatedMemory:
    """The arrays of one emulated device: allocate them, list them, and know where each was."""

    def __init__(self) -> None:
        self._live: dict[int, weakref.ref[EmulatedArray]] = {}
        self.freed: list[Region] = []  # the arrays freed last, the newest at the end
        self.in_use = self.most = 0  # bytes of the live arrays, now and at most since somebody set it
        self._changes = 0
        self._spans: tuple[int, np.ndarray] = (-1, np.empty((0, 3), np.uint64))

    def allocate(self, shape: tuple[int, ...], dtype: np.dtype) -> EmulatedArray:
        """Make an array of zeros; raises GpuperfError if there is no room."""
        check_host(shape, dtype)
        array = EmulatedArray(self, shape, dtype)
        self._live[array.address] = weakref.ref(array)
        self._changes += 1
        self.in_use += array.nbytes
        self.most = max(self.most, self.in_use)
        # The system may hand out a freed array's pages again, as this one's or as the gaps around it.
        begin, end = array.address - array.gap, array.address + array.nbytes + array.gap
        self.freed = [r for r in self.freed[-_REMEMBERED:] if r.end <= begin or r.begin >= end]
        return array

    def owns(self, array: Any) -> bool:
        """Say whether ``allocate`` made an array."""
        return isinstance(array, EmulatedArray) and array.memory is self

    def address(self, argument: Any) -> int | None:
        """Return an argument's address, None unless it is an array of this memory.

        Raises KernelError for an array that was freed.
        """
        return argument.host.ctypes.data if self.owns(argument) else None

    def spans(self) -> np.ndarray:
        """Return begin, end and element size (its logarithm, shifted by 8) of every live array, sorted."""
        # Arrays come and go in other Python threads and whenever garbage is collected.
        changes = self._changes
        known, spans = self._spans
        if known != changes:
            found = sorted((a.address, a.address + a.nbytes, a.granule << 8) for a in self.arrays())
            spans = np.array(found, np.uint64).reshape(-1, 3)
            self._spans = changes, spans
        return spans

    def arrays(self) -> list[EmulatedArray]:
        """List the live arrays."""
        while True:
            # Not by dict.copy(): a finalizer that the garbage collector runs inside it leaves the copy's
            # count and its keys at odds (CPython 3.11).
            with suppress(RuntimeError):  # an array came or went in another thread: look again
                references = list(self._live.values())
                return [array for reference in references if (array := reference()) is not None]

    def _forget(self, address: int, nbytes: int, name: str) -> None:
        self._live.pop(address, None)
        self._changes += 1
        self.in_use -= nbytes
        self.freed.append(Region(address, address + nbytes, name))
