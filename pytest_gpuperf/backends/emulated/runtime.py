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
from typing import Any

import numpy as np

from pytest_gpuperf.backends.base import Counted, Traffic
from pytest_gpuperf.backends.geometry import Geometry


class FaultKind(IntEnum):
    """``FaultKind`` of simt/request.hpp, in its order."""

    NONE, OUT_OF_BOUNDS, MISALIGNED, FOREIGN_STACK, RACE, DIVERGENT_BARRIER = range(6)
    LOST_LANE, SIGNAL, STOPPED, ASSERTION, NO_MEMORY, UNINITIALISED, NOT_RESIDENT = range(6, 13)


def _fields(kind: Any, names: str) -> list[tuple[str, Any]]:
    return [(name, kind) for name in names.split()]


class _Index3(Structure):
    _fields_ = _fields(c_uint32, "x y z")


class Fault(Structure):
    """``Fault`` of simt/request.hpp: what stopped a launch, and where."""

    _fields_ = [
        *_fields(c_uint32, "kind size access line other signal other_stores other_pc other_block resident"),
        *_fields(_Index3, "block thread"),
        *_fields(c_uint64, "pc address block_index shared_anchor"),
        ("file", c_char * 512),
        ("text", c_char * 256),
    ]

    @property
    def unsupported(self) -> bool:
        """Return whether a GPU would go on: the grid's threads are only too many for this backend."""
        return self.kind == FaultKind.NOT_RESIDENT and self.text == b"stacks"


class _Traffic(Structure):
    _fields_ = _fields(c_uint64, "requests units ideal")


class _Request(Structure):
    _fields_ = [
        *_fields(c_void_p, "body shared_anchor"),
        ("arguments", POINTER(c_void_p)),
        *_fields(c_void_p, "memory variables shared loops branches"),
        *_fields(c_uint64, "memory_count variable_count shared_count loop_count branch_count"),
        *_fields(_Index3, "grid block"),
        *_fields(c_uint32, "dynamic_shared workers counting"),
    ]


@dataclass(frozen=True, slots=True)
class Outcome:
    """The result of a launch: ``traffic`` is ``Program.trace``'s, ``traced`` counts all threads' accesses."""

    fault: Fault | None
    traffic: tuple[Traffic, ...]
    traced: int


_POLL_MS, _STOP_POLL_MS = 50, 5


class Runtime:
    """The loaded library. Launches of several Python threads wait for each other.

    While ``counted`` is a list, programs count each launch and add it.
    """

    counted: list[Counted] | None = None

    def __init__(self, path: Path) -> None:
        self._library = ctypes.CDLL(str(path))
        self._library.gpuperf_start.argtypes = [POINTER(_Request)]
        self._library.gpuperf_wait.argtypes = [c_int]
        self._library.gpuperf_wait.restype = c_int
        self._turn = threading.Lock()

    def launch(
        self,
        body: int,
        shared_anchor: int,
        geometry: Geometry,
        *,
        values: Sequence[np.ndarray],
        memory: np.ndarray,
        variables: np.ndarray,
        shared: np.ndarray,
        loops: np.ndarray,
        branches: np.ndarray,
        workers: int,
        counting: bool,
        seconds: float,
    ) -> Outcome:
        """Run a compiled kernel, by addresses in its library, to its end.

        ``values`` hold each argument's bytes, ``memory`` and ``variables`` what the kernel may touch of the
        live arrays and of the library's own variables, sorted, uint64[n, 3] (begin, end, flags), ``shared``
        the spans of its shared variables, from the anchor, int64[n, 2], ``loops`` the blocks of the code's
        loops, uint64[n, 3], ``branches`` the accesses that a GPU would make switched off,
        likewise. ``workers``: OS threads. After ``seconds`` it is stopped, which is a fault.
        """
        pointers = (c_void_p * max(1, len(values)))(*[value.ctypes.data for value in values])
        request = _Request(
            body, shared_anchor, pointers,
            memory.ctypes.data, variables.ctypes.data, shared.ctypes.data, loops.ctypes.data,
            branches.ctypes.data,
            len(memory), len(variables), len(shared), len(loops), len(branches),
            _Index3(*geometry.grid), _Index3(*geometry.block), geometry.shared, workers, counting,
        )  # fmt: skip
        fault, traffic, traced = Fault(), (_Traffic * 4)(), c_uint64()
        with self._turn:
            self._run(request, seconds)
            self._library.gpuperf_result(byref(fault), traffic, byref(traced))
        rows = tuple((row.requests, row.units, row.ideal) for row in traffic)
        return Outcome(fault if fault.kind else None, rows, traced.value)

    def written(self, address: int) -> bool:
        """Say whether the last launch may have written to the array at ``address``."""
        return bool(self._library.gpuperf_written(c_uint64(address)))

    def _run(self, request: _Request, seconds: float) -> None:
        deadline = time.monotonic() + seconds
        self._library.gpuperf_start(byref(request))
        try:
            while not self._library.gpuperf_wait(_POLL_MS):
                if time.monotonic() > deadline:
                    return self._stop()
        except BaseException:  # Ctrl-C or a test's own timeout: the threads must not outlive the arrays
            self._stop()
            raise

    def _stop(self) -> None:
        self._library.gpuperf_stop()
        while not self._library.gpuperf_wait(_STOP_POLL_MS):
            self._library.gpuperf_stop()


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
