"""Drive the runtime library: one launch at a time, ended by the kernel, a fault, the clock or Ctrl-C."""

from __future__ import annotations

import ctypes
import os
import threading
import time
from collections.abc import Sequence
from ctypes import POINTER, Structure, byref, c_char, c_int, c_uint32, c_uint64, c_void_p
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path

import numpy as np

from pytest_gpuperf.backends.base import Geometry, Traffic


class FaultKind(IntEnum):
    """``FaultKind`` of simt/runtime.hpp."""

    NONE = 0
    OUT_OF_BOUNDS = 1
    MISALIGNED = 2
    FOREIGN_STACK = 3
    SHARED_RACE = 4
    DIVERGENT_BARRIER = 5
    LOST_LANE = 6
    SIGNAL = 7
    STOPPED = 8
    ASSERTION = 9
    NO_MEMORY = 10


class _Index3(Structure):
    _fields_ = [("x", c_uint32), ("y", c_uint32), ("z", c_uint32)]


class Fault(Structure):
    """``Fault`` of simt/runtime.hpp: what stopped a launch, and where."""

    _fields_ = [
        ("kind", c_uint32),
        ("size", c_uint32),
        ("access", c_uint32),
        ("line", c_uint32),
        ("other", c_uint32),
        ("signal", c_uint32),
        ("other_stores", c_uint32),
        ("other_pc", c_uint32),
        ("block", _Index3),
        ("thread", _Index3),
        ("pc", c_uint64),
        ("address", c_uint64),
        ("block_index", c_uint64),
        ("shared_anchor", c_uint64),
        ("file", c_char * 512),
        ("text", c_char * 256),
    ]


class _Traffic(Structure):
    _fields_ = [("requests", c_uint64), ("units", c_uint64), ("ideal", c_uint64)]


class _Request(Structure):
    _fields_ = [
        ("body", c_void_p),
        ("shared_anchor", c_void_p),
        ("arguments", POINTER(c_void_p)),
        ("memory", c_void_p),
        ("shared", c_void_p),
        ("memory_count", c_uint64),
        ("shared_count", c_uint64),
        ("grid", _Index3),
        ("block", _Index3),
        ("dynamic_shared", c_uint32),
        ("workers", c_uint32),
        ("counting", c_uint32),
    ]


@dataclass(frozen=True, slots=True)
class Call:
    """One launch of a compiled kernel, by addresses in its library.

    ``shared``: its shared variables as spans from the anchor, int64[n, 2]. ``values`` hold each argument's
    bytes, ``memory`` the spans of the live arrays, sorted, as uint64[n, 2]. ``workers``: OS threads.
    """

    body: int
    shared_anchor: int
    shared: np.ndarray
    geometry: Geometry
    values: Sequence[np.ndarray]
    memory: np.ndarray
    workers: int
    counting: bool


@dataclass(frozen=True, slots=True)
class Outcome:
    """The result of a launch. ``traffic`` is as ``Program.trace`` has it; ``traced`` counts the accesses of
    all threads.
    """

    fault: Fault | None
    traffic: tuple[Traffic, ...]
    traced: int


_POLL_MS = 50
_STOP_POLL_MS = 5


class Runtime:
    """The loaded library. Launches of several Python threads wait for each other."""

    def __init__(self, path: Path) -> None:
        self._library = ctypes.CDLL(str(path))
        self._library.gpuperf_start.argtypes = [POINTER(_Request)]
        self._library.gpuperf_wait.argtypes = [c_int]
        self._library.gpuperf_wait.restype = c_int
        self._turn = threading.Lock()

    def launch(self, call: Call, seconds: float) -> Outcome:
        """Run one kernel to its end. After ``seconds`` it is stopped, which is a fault."""
        values, memory, shared, geometry = call.values, call.memory, call.shared, call.geometry
        pointers = (c_void_p * max(1, len(values)))(*[value.ctypes.data for value in values])
        request = _Request(
            call.body, call.shared_anchor, pointers, memory.ctypes.data, shared.ctypes.data, len(memory),
            len(shared), _Index3(*geometry.grid), _Index3(*geometry.block), geometry.shared, call.workers,
            call.counting,
        )  # fmt: skip
        with self._turn:
            self._run(request, seconds)
            return self._result()

    def _run(self, request: _Request, seconds: float) -> None:
        deadline = time.monotonic() + seconds
        self._library.gpuperf_start(byref(request))
        try:
            while not self._library.gpuperf_wait(_POLL_MS):
                if time.monotonic() > deadline:
                    self._stop()
                    return
        except BaseException:  # Ctrl-C or a test's own timeout: the threads must not outlive the arrays
            self._stop()
            raise

    def _stop(self) -> None:
        while True:
            self._library.gpuperf_stop()
            if self._library.gpuperf_wait(_STOP_POLL_MS):
                return

    def _result(self) -> Outcome:
        fault, traffic, traced = Fault(), (_Traffic * 4)(), c_uint64()
        self._library.gpuperf_result(byref(fault), traffic, byref(traced))
        rows = tuple((row.requests, row.units, row.ideal) for row in traffic)
        return Outcome(fault if fault.kind else None, rows, traced.value)


_loaded: dict[str, Runtime] = {}


def runtime(path: Path) -> Runtime:
    """Return the process's one runtime.

    Kernels find it by the name that it carries inside: they would not call a second copy, from another cache
    folder.
    """
    if path.name not in _loaded:
        _loaded[path.name] = Runtime(path)
    return _loaded[path.name]


def processors() -> int:
    """Return how many OS threads a launch may use. More than 8 only add stacks to keep."""
    return min(8, len(os.sched_getaffinity(0)))
