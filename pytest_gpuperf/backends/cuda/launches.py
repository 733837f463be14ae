"""Name the kernels that a library launches, by callbacks of CUPTI from the driver's launch functions."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from functools import cache
from typing import Any

from pytest_gpuperf.backends.cuda.cupti import call, current, library
from pytest_gpuperf.errors import GpuperfError

_DRIVER, _EXIT = 1, 1  # cupti_callbacks.h: CUPTI_CB_DOMAIN_DRIVER_API, CUPTI_API_EXIT
# cupti_driver_cbid.h: cuLaunchKernel, cuLaunchCooperativeKernel and cuLaunchKernelEx, each for both kinds of
# default stream. The runtime's launches come through them too.
_KERNELS = (307, 442, 477, 478, 652, 653)
_GRAPHS = (514, 515)  # cuGraphLaunch
_GRAPH = "CUDA graph"


class _Call(ctypes.Structure):
    """CUpti_CallbackData."""

    _fields_ = [
        ("site", ctypes.c_int),
        ("function", ctypes.c_char_p),
        ("parameters", ctypes.POINTER(ctypes.c_void_p)),
        ("result", ctypes.POINTER(ctypes.c_int)),
        ("symbol", ctypes.c_char_p),
        ("context", ctypes.c_void_p),
    ]


_CALLBACK = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_int, ctypes.c_uint32, ctypes.POINTER(_Call))


class Launches:
    """Sees the launches in the current context while it is entered, of any thread and library.

    Raises Unavailable where somebody else listens to CUPTI already: it serves one at a time.
    """

    def __init__(self) -> None:
        self.seen: list[str] = []  # names of kernels, _GRAPH for a graph
        self._callback = _CALLBACK(self._called)
        self._subscriber = ctypes.c_void_p()

    def __enter__(self) -> Launches:
        self._context = current()
        to = ctypes.byref(self._subscriber)
        call("cuptiSubscribe", to, self._callback, None)
        for function in (*_KERNELS, *_GRAPHS):
            library().cuptiEnableCallback(1, self._subscriber, _DRIVER, function)
        return self

    def __exit__(self, *_: object) -> None:
        library().cuptiUnsubscribe(self._subscriber)

    def _called(self, _: Any, domain: int, function: int, data: Any) -> None:
        call = data.contents
        if call.site != _EXIT or call.context != self._context or (call.result and call.result[0]):
            return
        name = _GRAPH if function in _GRAPHS else (call.symbol or b"unnamed kernel").decode(errors="replace")
        self.seen.append(name)

    @property
    def graphs(self) -> int:
        return self.seen.count(_GRAPH)

    @property
    def whole(self) -> str:
        """Name all of it, of which some is graphs."""
        return _GRAPH if self.graphs == len(self.seen) else f"{_GRAPH} and other kernels"

    def names(self, kernels: int) -> Sequence[str]:
        """Return the name of each of so many kernels that ran, in their order, none of them a graph's.

        Raises GpuperfError where launches and kernels do not go together.
        """
        if len(self.seen) != kernels:
            raise GpuperfError(
                f"counters: the callable made {len(self.seen)} launches and {kernels} kernels ran; capture a "
                "CUDA graph before, and count its launch."
            )
        return [demangled(name) for name in self.seen]


@cache
def demangled(symbol: str) -> str:
    """Return a C++ function's name as it was written, any other name as it is."""
    if not symbol.startswith("_Z"):
        return symbol
    try:
        runtime = ctypes.CDLL("libstdc++.so.6")
    except OSError:
        return symbol
    demangle, free = runtime.__cxa_demangle, ctypes.CDLL(None).free
    demangle.restype, free.argtypes = ctypes.c_void_p, [ctypes.c_void_p]
    status = ctypes.c_int()
    made = demangle(symbol.encode(), None, None, ctypes.byref(status))
    if not made:
        return symbol
    try:
        return ctypes.string_at(made).decode(errors="replace")
    finally:
        free(made)


def without_parameters(name: str) -> str:
    """Return a function's name without what it takes and returns: a template's arguments say that already."""
    name = name.removesuffix(" const")
    depth = 0
    for at in range(len(name) - 1, 0, -1):
        depth += (name[at] == ")") - (name[at] == "(")
        if depth == 0:
            return name[:at].removeprefix("void ") if name.endswith(")") else name
    return name
