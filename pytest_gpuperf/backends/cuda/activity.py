"""Record the kernels, copies and memsets of this process on a GPU, and its API calls, by NVIDIA's CUPTI.

Whichever library launches them. Of a record only the first fields are read, the same since CUDA 8
(CUpti_ActivityKernel4 to 13, Memcpy to 7, Memset to 5, API): newer ones are longer.
"""

from __future__ import annotations

import ctypes
import re
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from ctypes import c_char_p, c_int32, c_size_t, c_uint8, c_uint16, c_uint32, c_uint64, c_void_p
from functools import cache
from typing import Any

from pytest_gpuperf.backends.cuda import cupti
from pytest_gpuperf.backends.cuda.launches import demangled, without_parameters
from pytest_gpuperf.backends.timer import Work
from pytest_gpuperf.errors import Unavailable
from pytest_gpuperf.traces import Event

# cupti_activity.h, CUpti_ActivityKind
_MEMCPY, _MEMSET, _KERNEL, _DRIVER, _RUNTIME, _CONCURRENT_KERNEL = 1, 2, 3, 4, 5, 10
_WORK = (_MEMCPY, _MEMSET, _CONCURRENT_KERNEL)
_CALLS = (_DRIVER, _RUNTIME)
_DOMAINS = {_DRIVER: 1, _RUNTIME: 2}  # cupti_callbacks.h, CUpti_CallbackDomain
_COPIES = {_MEMCPY: "copy", _MEMSET: "memset"}
_PLACES = "?HHDAMDM"  # by CUpti_ActivityMemoryKind: host, device, array, managed
_FORCED = 1  # CUPTI_ACTIVITY_FLAG_FLUSH_FORCED: also what was not finished
_BUFFER = 2**20  # bytes; aligned to 8, as records are


class Kernel(ctypes.Structure):
    """The first 112 bytes of CUpti_ActivityKernel4 and later."""

    _fields_ = (
        ("kind", c_uint32),
        ("cache", c_uint8 * 2),
        ("registers", c_uint16),
        ("partitioned", c_uint32 * 2),
        ("start", c_uint64),
        ("end", c_uint64),
        ("completed", c_uint64),
        ("device", c_uint32),
        ("context", c_uint32),
        ("stream", c_uint32),
        ("geometry", c_int32 * 6),
        ("memory", c_uint32 * 4),
        ("correlation", c_uint32),
        ("grid_id", c_uint64),
        ("name", c_char_p),
    )


class Copy(ctypes.Structure):
    """The first 48 bytes of CUpti_ActivityMemcpy and CUpti_ActivityMemset, all versions."""

    _fields_ = (
        ("kind", c_uint32),
        ("what", c_uint8 * 4),  # of a memset: the value that it sets
        ("bytes", c_uint64),
        ("start", c_uint64),
        ("end", c_uint64),
        ("device", c_uint32),
        ("context", c_uint32),
        ("stream", c_uint32),
        ("correlation", c_uint32),
    )


class Call(ctypes.Structure):
    """CUpti_ActivityAPI."""

    _fields_ = (
        ("kind", c_uint32),
        ("function", c_uint32),
        ("start", c_uint64),
        ("end", c_uint64),
        ("process", c_uint32),
        ("thread", c_uint32),
        ("correlation", c_uint32),
        ("returned", c_uint32),
    )


_Requested = ctypes.CFUNCTYPE(
    None, ctypes.POINTER(c_void_p), ctypes.POINTER(c_size_t), ctypes.POINTER(c_size_t)
)
_Completed = ctypes.CFUNCTYPE(None, c_void_p, c_uint32, c_void_p, c_size_t, c_size_t)
_buffers: dict[int, Any] = {}  # those that CUPTI has, by address
_records: list[Any] = []  # what came back, as _reader reads it
_reader: Callable[[int], Any]


@_Requested
def _requested(buffer: Any, size: Any, most: Any) -> None:
    made = (c_uint64 * (_BUFFER // 8))()
    _buffers[ctypes.addressof(made)] = made
    buffer[0], size[0], most[0] = ctypes.addressof(made), _BUFFER, 0


@_Completed
def _completed(_context: int, _stream: int, buffer: int, _size: int, valid: int) -> None:
    record = c_void_p()
    following = cupti.library().cuptiActivityGetNextRecord
    while not following(c_void_p(buffer), c_size_t(valid), ctypes.byref(record)):
        if record.value and (found := _reader(record.value)):
            _records.append(found)
    _buffers.pop(buffer, None)


def read(address: int) -> tuple[int, Work] | None:
    """Return the device and the work of the record at an address; None for a record of another kind."""
    kind = c_uint32.from_address(address).value
    if kind in (_KERNEL, _CONCURRENT_KERNEL):
        kernel = Kernel.from_address(address)
        name = (kernel.name or b"a kernel").decode(errors="replace")
        what = f"{name}{list(kernel.geometry)}"
        return kernel.device, Work(what, kernel.start, kernel.end, kernel.stream)
    if kind in _COPIES:
        copy = Copy.from_address(address)
        what = f"{_COPIES[kind]} {bytes(copy.what).hex()} of {copy.bytes} bytes"
        return copy.device, Work(what, copy.start, copy.end, copy.stream)
    return None


def _start(reader: Callable[[int], Any]) -> None:
    """Have records read by ``reader`` from now on."""
    global _reader
    cupti.call("cuptiActivityRegisterCallbacks", _requested, _completed)
    cupti.library().cuptiActivityFlushAll(_FORCED)  # of what others may have recorded
    _records.clear()
    _reader = reader


def _enable(kinds: Sequence[int]) -> None:
    """Record these kinds, or none of them; raises Unavailable."""
    enabled = list[int]()
    try:
        for kind in kinds:
            cupti.call("cuptiActivityEnable", kind)
            enabled.append(kind)
    except Unavailable:
        _disable(enabled)
        raise


def _disable(kinds: Sequence[int]) -> None:
    for kind in kinds:
        cupti.library().cuptiActivityDisable(kind)


@contextmanager
def collected(kinds: Sequence[int], reader: Callable[[int], Any]) -> Iterator[list[Any]]:
    """Give what ``reader`` makes of these kinds' records, once the block has ended. Raises Unavailable."""
    found = list[Any]()
    _start(reader)
    _enable(kinds)
    try:
        yield found
    finally:
        cupti.library().cuptiActivityFlushAll(0)  # waits for times that are still to be read
        _disable(kinds)
        cupti.library().cuptiActivityFlushAll(_FORCED)
        found += _records


@contextmanager
def recorded(hold: str) -> Iterator[list[Work]]:
    """Record what runs on the device of the kernel ``hold`` while the block does; see ``Timer.watched``.

    The block ends with the device idle: what has not ended then has no end. Raises Unavailable.
    """
    works: list[Work] = []
    with collected(_WORK, read) as records:
        yield works
    holds = {device for device, work in records if work.what.startswith(f"{hold}[")}
    found = [work for device, work in records if device in holds]
    works += sorted((_marked(work, hold) for work in found), key=lambda work: work.start)


def _marked(work: Work, hold: str) -> Work:
    return Work(work.what, work.start, work.end, work.stream, work.what.startswith(f"{hold}["))


# --------------------------------------------------------------------------- API calls beside the work


class CuptiTracer:
    """Records the API calls of all threads, and the work they cause; see ``Tracer``."""

    def start(self) -> None:
        _start(event)
        _enable((*_WORK, *_CALLS))

    def take(self) -> list[Event]:
        cupti.library().cuptiActivityFlushAll(0)
        cupti.library().cuptiActivityFlushAll(_FORCED)
        found, _records[:] = list(_records), []
        threads = {(each.ident or 0) & 0xFFFFFFFF: each.native_id for each in threading.enumerate()}
        return [
            each._replace(lane=threads.get(each.lane, each.lane)) if each.what == "call" else each
            for each in found
            if each.end
        ]

    @contextmanager
    def paused(self, synchronize: Callable[[], None]) -> Iterator[None]:
        _disable(_CALLS)
        synchronize()  # what was launched before is to be recorded to its end
        cupti.library().cuptiActivityFlushAll(0)
        _disable(_WORK)
        try:
            yield
        finally:
            synchronize()
            _enable((*_WORK, *_CALLS))

    def now(self) -> int:
        time = c_uint64()
        cupti.call("cuptiGetTimestamp", ctypes.byref(time))
        return time.value


def event(address: int) -> Event | None:
    """Return what the record at an address says; None for a record of another kind."""
    kind = c_uint32.from_address(address).value
    if kind in _DOMAINS:
        call = Call.from_address(address)
        name = _function(_DOMAINS[kind], call.function)
        return Event("call", name, call.start, call.end, call.thread, call.correlation)
    if kind in (_KERNEL, _CONCURRENT_KERNEL):
        kernel = Kernel.from_address(address)
        name = without_parameters(demangled((kernel.name or b"a kernel").decode(errors="replace")))
        lane = kernel.stream, kernel.correlation, kernel.device
        return Event("kernel", name, kernel.start, kernel.end, *lane)
    if kind in _COPIES:
        copy = Copy.from_address(address)
        _, source, destination, _ = copy.what
        way = f" {_place(source)}to{_place(destination)}" if kind == _MEMCPY else ""
        lane = copy.stream, copy.correlation, copy.device
        what: Any = _COPIES[kind]
        return Event(what, what + way, copy.start, copy.end, *lane)
    return None


def _place(kind: int) -> str:
    return _PLACES[kind] if kind < len(_PLACES) else "?"


@cache
def _function(domain: int, number: int) -> str:
    """Return the name of an API function without its version: cuMemAlloc for cuMemAlloc_v2."""
    name = c_char_p()
    cupti.library().cuptiGetCallbackName(domain, c_uint32(number), ctypes.byref(name))
    said = (name.value or b"").decode(errors="replace") or f"function {number}"
    return re.sub(r"(_ptsz|_ptds|_v\d+)+$", "", said)
