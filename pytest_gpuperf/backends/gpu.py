"""Make arrays on a device and remember how each was made; the ``gpu`` fixture's object."""

from __future__ import annotations

import operator
import weakref
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np

from pytest_gpuperf.backends.base import Backend, DeviceArray
from pytest_gpuperf.backends.room import check_host
from pytest_gpuperf.errors import GpuperfError


@dataclass(frozen=True, slots=True)
class _Record:
    reference: weakref.ref[Any]  # weak, so that remembering keeps nothing alive
    origin: str
    serial: int


class Gpu:
    """One device: make arrays with ``empty``, ``random`` and ``to_device``, launch kernels on them.

    ``name`` is the maker's, ``backend`` "cuda" or "emulated", ``uuid`` the unit's own.
    ``compute_capability`` (such as (9, 0)), ``context`` and ``stream`` (PyCUDA's or cuda.core's own
    objects) are None when emulated. ``device`` is the backend itself.
    """

    def __init__(self, device: Backend) -> None:
        self.device = device
        self._records: dict[int, _Record] = {}  # by id(): device arrays compare elementwise, so do not hash
        self._serial = 0

    name = property(operator.attrgetter("device.device_name"))
    backend = property(operator.attrgetter("device.name"))
    uuid = property(operator.attrgetter("device.uuid"))
    compute_capability = property(operator.attrgetter("device.compute_capability"))
    context = property(operator.attrgetter("device.context"))
    stream = property(operator.attrgetter("device.stream"))

    def empty(self, shape: int | Sequence[int], dtype: Any = np.float32) -> DeviceArray:
        """Allocate an uninitialised array, C-contiguous; every dimension is 1 or more."""
        return self._remember(self.device.empty(_shape(shape), _dtype(dtype)), "empty", "nothing")

    def random(self, shape: int | Sequence[int], dtype: Any = np.float32, seed: int = 0) -> DeviceArray:
        """Make random values, the same on every machine and backend: NumPy's PCG64 on the host.

        Floats are uniform in [0, 1), complex numbers in both parts; integers are uniform in 0 ... 99,
        which every integer type holds; booleans are fair.
        """
        shape, dtype, origin = _shape(shape), _dtype(dtype), f"random(seed={seed})"
        check_host(shape, dtype)  # where the values are drawn
        values = _random(shape, dtype, _seed(seed))
        contents = f"{origin} {values.dtype.descr} {values.shape}"
        return self._remember(self.device.to_device(values), origin, contents)

    def to_device(self, host: np.ndarray) -> DeviceArray:
        """Copy a NumPy array to the device, C-contiguous and in native byte order."""
        if not isinstance(host, (np.ndarray, np.generic)):
            raise GpuperfError(
                f"gpu.to_device takes a NumPy array, not a {type(host).__name__}; "
                "write np.asarray(values, dtype=...) so that the dtype is yours."
            )
        dtype = _dtype(host.dtype)
        if 0 in host.shape:
            raise GpuperfError(
                f"gpu.to_device got an empty array of shape {host.shape}; it needs an element."
            )
        check_host(host.shape, dtype)  # a view may be larger than its memory
        # Not ascontiguousarray, which makes a scalar an array of one dimension.
        values = np.asarray(host, dtype, order="C")
        contents = _digest(values)
        return self._remember(self.device.to_device(values), "to_device", contents)

    def synchronize(self) -> None:
        """Wait for everything enqueued; raises KernelError if a kernel did something forbidden."""
        self.device.synchronize()

    def origin(self, array: Any) -> str | None:
        """Say how this object made ``array``: "empty", "random(seed=1)", "to_device"; None if it did not."""
        record = self._records.get(id(array))
        return record.origin if record and record.reference() is array else None

    def mark(self) -> int:
        """Return a point in time for ``free_since``."""
        return self._serial

    def free_since(self, mark: int) -> int:
        """Free the arrays made since ``mark`` that are still alive; return how many bytes that was."""
        freed = 0
        for record in list(self._records.values()):  # at once: collected garbage takes its records out
            if record.serial > mark and (array := record.reference()) is not None:
                freed += array.nbytes
                del self._records[id(array)]
                self.device.free(array)
        return freed

    def close(self) -> None:
        """Give the device back; the arrays made here cannot be used any more."""
        self._records.clear()
        self.device.close()

    def _remember(self, array: DeviceArray, origin: str, contents: str | None) -> DeviceArray:
        array.contents = contents
        key, records = id(array), self._records
        self._serial += 1
        # An id lives on in the next array: the callback runs before it can be given away.
        reference = weakref.ref(array, lambda _: records.pop(key, None))
        records[key] = _Record(reference, origin, self._serial)
        return array


def _digest(values: np.ndarray) -> str:
    """Return a checksum of an array's dtype, shape and bytes, in their order; a second takes a gigabyte."""
    return f"{zlib.crc32(values.reshape(-1).view('u1').data):08x} {values.dtype.descr} {values.shape}"


def _shape(shape: Any) -> tuple[int, ...]:
    try:
        given = tuple(shape) if isinstance(shape, Sequence | np.ndarray) else (shape,)
        extents = tuple(operator.index(extent) for extent in given)
    except TypeError:
        raise GpuperfError(f"A shape is an integer or a tuple of integers; {shape!r} was given.") from None
    if any(extent < 1 for extent in extents):
        raise GpuperfError(f"Shape {shape!r} has a dimension below 1; every one must be 1 or more.")
    return extents


def _dtype(dtype: Any) -> np.dtype:
    try:
        found = np.dtype(dtype)
    except TypeError:
        raise GpuperfError(f"{dtype!r} is not a NumPy dtype; give one such as np.float32.") from None
    # long double and its complex are wider than anything a GPU computes with.
    if found.kind not in "biufcV" or found.hasobject or found.char in "gG":
        raise GpuperfError(f"dtype {found} has no counterpart on a GPU; use a number, bool or struct dtype.")
    return found.newbyteorder("=")


def _seed(seed: Any) -> int:
    try:
        found = operator.index(seed)
    except TypeError:
        found = -1
    if found < 0:
        raise GpuperfError(f"A seed is an integer, 0 or more; {seed!r} was given.")
    return found


# The tests of a suite draw the same array one after the other: 256 MiB took 0.7 s on a CPU of two cores.
@lru_cache(maxsize=1)
def _random(shape: tuple[int, ...], dtype: np.dtype, seed: int) -> np.ndarray:
    values = _drawn(np.random.Generator(np.random.PCG64(seed)), shape, dtype)
    values.flags.writeable = False  # the next test is given the same array
    return values


def _drawn(generator: np.random.Generator, shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
    if dtype.kind == "f" and dtype.itemsize in (4, 8):
        return generator.random(shape, dtype)
    if dtype.kind == "f" and dtype.itemsize == 2:
        # Rounding a float32 below 1 can give 1; these are the multiples of 2^-11, all exact.
        return (generator.integers(0, 2**11, shape) / 2**11).astype(dtype)
    if dtype.kind == "c" and dtype.itemsize in (8, 16):
        part = np.dtype(f"f{dtype.itemsize // 2}")
        return generator.random((*shape, 2), part).view(dtype).reshape(shape)
    if dtype.kind in "iu":
        return generator.integers(0, 100, shape, dtype)
    if dtype.kind == "b":
        return generator.integers(0, 2, shape, np.uint8).astype(bool)
    raise GpuperfError(
        f"gpu.random knows no values of dtype {dtype}; fill a NumPy array and use gpu.to_device."
    )
