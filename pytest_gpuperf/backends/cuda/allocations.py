"""Record what this process allocates on a GPU, by NVIDIA's CUPTI, whichever library does."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Iterable
from ctypes import c_uint32, c_uint64, c_void_p
from typing import Any, NamedTuple

from pytest_gpuperf.backends.cuda import activity
from pytest_gpuperf.backends.cuda.cupti import current, library

# cupti_activity.h
_MEMORY = 49  # CUPTI_ACTIVITY_KIND_MEMORY2
_ALLOCATED, _RELEASED = 1, 2  # CUpti_ActivityMemoryOperationType
_ON_DEVICE = (3, 4, 5)  # CUpti_ActivityMemoryKind: device, array, managed


class Change(NamedTuple):
    """Memory that was allocated at an address, or released, in which case ``bytes`` may be anything."""

    when: int
    allocated: bool
    address: int
    bytes: int
    device: int


class Memory(ctypes.Structure):
    """The first 64 bytes of CUpti_ActivityMemory2 and later."""

    _fields_ = (
        ("kind", c_uint32),
        ("operation", c_uint32),
        ("memory", c_uint32),
        ("correlation", c_uint32),
        ("address", c_uint64),
        ("bytes", c_uint64),
        ("timestamp", c_uint64),
        ("counter", c_uint64),
        ("process", c_uint32),
        ("device", c_uint32),
        ("context", c_uint32),
        ("stream", c_uint32),
    )


def read(address: int) -> Change | None:
    """Return what the record at an address says; None for a record of another kind, or of a host's memory."""
    if c_uint32.from_address(address).value != _MEMORY:
        return None
    record = Memory.from_address(address)
    if record.memory not in _ON_DEVICE or record.operation not in (_ALLOCATED, _RELEASED):
        return None
    allocated = record.operation == _ALLOCATED
    return Change(record.timestamp, allocated, record.address, record.bytes, record.device)


def most(changes: Iterable[Change]) -> int:
    """Return the most bytes that were held at once; what was there before the changes counts for nothing."""
    held, now, found = dict[int, int](), 0, 0
    for change in sorted(changes):
        if change.allocated:
            now += change.bytes - held.get(change.address, 0)
            held[change.address] = change.bytes
        else:
            now -= held.pop(change.address, 0)
        found = max(found, now)
    return found


def most_allocated(work: Callable[[], Any], synchronize: Callable[[], None]) -> int:
    """Call ``work``; return the most bytes that it had at once of the current device, as ``Backend`` says.

    Raises Unavailable without CUPTI, or where that does not record allocations.
    """
    device = c_uint32()
    library().cuptiGetDeviceId(c_void_p(current()), ctypes.byref(device))
    with activity.collected((_MEMORY,), read) as changes:
        result = work()  # kept, as its memory is the call's too
        synchronize()
        del result
    return most(change for change in changes if change.device == device.value)
