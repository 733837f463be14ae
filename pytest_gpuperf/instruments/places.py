"""Move arrays to random places of the device's memory, which turns a place's bias into noise.

The same launch on arrays in other places takes another time: on an H200 +-2 % of a transpose with large
strides, each place within 0.1 % of itself, and processes that allocate alike get the same place again and
again (docs/studies/README.md, "Memory's place"). Two processes that differ in anything that allocates would
then differ by a place's luck, which no number of runs averages out. So places are drawn at random, many per
process (Mytkowicz et al. 2009, doi:10.1145/1508244.1508275; Curtsinger and Berger 2013,
doi:10.1145/2451116.2451141, who do it to code, stack and heap of a CPU's programs).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from random import Random
from typing import Any

from pytest_gpuperf.backends.base import Backend, DeviceArray
from pytest_gpuperf.errors import GpuperfError

PAGE = 2 * 2**20
"""Bytes of a large page of the device's: the driver gives large arrays whole ones, and small ones parts."""
GAPS = 128
"""Places that a gap before an array can move it by: pages, or as many parts of a page."""
PADDING = 512
"""Pages that a process keeps at most, for what it cannot move."""

# Its own generator: others seed the random module's for their tests' sake, and processes have to differ.
_draw = Random()


class ArrayMover:
    """A launch that can be bound to copies of its arrays, each time in other places."""

    def __init__(self, launch: Any, args: Sequence[Any], device: Backend) -> None:
        self._launch = launch
        self._args = args
        self._device = device
        arrays = [each for each in args if hasattr(each, "dtype") and getattr(each, "shape", None)]
        self._arrays = {id(array): array for array in arrays if device.owns_memory(array)}

    @classmethod
    def of(cls, launch: Any, args: Sequence[Any], device: Backend) -> ArrayMover | None:
        """Return the mover of a kernel's launch; None if it has no array of ours, or there is no room.

        A part of an array may be used with its neighbours, so it is measured where it is.
        """
        mover = cls(launch, args, device)
        arrays = mover._arrays.values()
        overlap = len({device.address(array) for array in arrays}) < len(arrays)
        room = sum(array.nbytes + _unit(array) * GAPS for array in arrays)
        return mover if arrays and not overlap and 2 * room <= device.free_memory() else None

    @contextmanager
    def moved(self) -> Iterator[Callable[[], Any]]:
        """Give the launch, bound to copies of its arrays; they are freed when the block ends."""
        kept: list[DeviceArray] = []
        copies: dict[int, DeviceArray] = {}
        try:
            for key, array in _draw.sample(sorted(self._arrays.items()), len(self._arrays)):
                if gap := _draw.randrange(GAPS) * _unit(array):
                    kept.append(self._device.empty((gap,), "u1"))
                kept.append(self._device.empty(array.shape, array.dtype))
                copies[key] = kept[-1]
                self._device.copy(kept[-1], array)
            yield self._launch.bind(*(copies.get(id(argument), argument) for argument in self._args))
        finally:
            for array in kept:
                with suppress(GpuperfError):  # of a kernel that broke the context, which says so itself
                    self._device.free(array)


def padding(device: Backend) -> DeviceArray:
    """Make an array of random size, to be kept: it moves what the process allocates after it."""
    pages = min(PADDING, device.free_memory() // 16 // PAGE)
    return device.empty((_draw.randint(1, max(1, pages)) * PAGE,), "u1")


def _unit(array: Any) -> int:
    return PAGE if array.nbytes >= PAGE else PAGE // GAPS
