"""Capture what is enqueued on a stream as a CUDA graph, whichever library enqueues it."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from ctypes import c_char_p, c_int, c_size_t, c_uint64, c_void_p
from functools import cache
from typing import Any, Protocol

from pytest_gpuperf.backends.base import Graph
from pytest_gpuperf.backends.cuda.export import handle_of
from pytest_gpuperf.backends.libraries import on_stream
from pytest_gpuperf.errors import GpuperfError, KernelError

# cuda.h. Relaxed: what other threads do, and a library that allocates, are no fault of the capture.
_RELAXED = 2  # CUstreamCaptureMode
_WORKS = (0, 1, 2)  # CUgraphNodeType: kernel, memcpy, memset
_GRAPH = 4
_NO_WORKS = (3, 5, 6, 7, 10, 11)  # host function, empty, events, allocations


class Context(Protocol):
    """What a capture needs of a backend on CUDA, whichever library it opened the device with.

    ``capturing`` is set while a call is captured: every wait fails then, whatever the context's state.
    ``stuck`` and ``last_launch`` are as in CudaContext; ``explain`` turns an error into one of ours.
    """

    capturing: bool
    stuck: bool
    last_launch: str

    def synchronize(self) -> None: ...

    def explain(self, error: Exception, doing: str) -> GpuperfError: ...


class _Refused(Exception):
    """What the driver says against a call."""


@cache
def driver() -> Any:
    return ctypes.CDLL("libcuda.so.1")


def _call(function: str, *arguments: Any) -> None:
    _check(getattr(driver(), function)(*arguments))


def _check(result: int) -> None:
    if result:
        said = c_char_p()
        driver().cuGetErrorString(result, ctypes.byref(said))
        raise _Refused((said.value or b"").decode() or f"CUDA error {result}")


def capture(context: Context, on: Any, work: Callable[[], Any]) -> Graph:
    """Capture ``work`` on a binding's stream, or that of the driver's handle, as ``Backend.capture`` says."""
    handle = handle_of(on)
    stream = c_void_p(handle)
    with on_stream(handle):
        work()
        context.synchronize()
        graph, result = _captured(context, stream, work)
    try:
        works = _works(graph)
        if works == 0 and not _nodes(graph):
            raise KernelError("it enqueues nothing on gpu.stream")
        return Graph(_Replay(context, graph, stream, result), works or 0)
    finally:
        _call("cuGraphDestroy", graph)


def _captured(context: Context, stream: c_void_p, work: Callable[[], Any]) -> tuple[c_void_p, Any]:
    """Return the graph of a call, and what that returned; raises KernelError if it broke the capture."""
    graph, result, failed = c_void_p(), None, ""
    _call("cuStreamBeginCapture_v2", stream, c_int(_RELAXED))
    context.capturing = True
    try:
        result = work()
    except GpuperfError as error:
        failed = str(error)
    except Exception as error:
        failed = f"{type(error).__name__}: {error}"
    finally:
        context.capturing = False
        try:
            _call("cuStreamEndCapture", stream, ctypes.byref(graph))
        except _Refused as error:
            failed = failed or str(error)
    if failed:
        if graph:
            _call("cuGraphDestroy", graph)
        raise KernelError(failed.partition("\n")[0].rstrip(". "))
    return graph, result


class _Replay:
    """The launch of an executable graph, which lives as long as this does."""

    def __init__(self, context: Context, graph: c_void_p, stream: c_void_p, result: Any) -> None:
        self._context, self._stream, self._result = context, stream, result
        self._driver = driver()
        self._graph = c_void_p()
        try:
            _call("cuGraphInstantiateWithFlags", ctypes.byref(self._graph), graph, c_uint64(0))
        except _Refused as error:
            raise KernelError(str(error)) from None

    def __call__(self) -> Any:
        try:
            _check(self._driver.cuGraphLaunch(self._graph, self._stream))
        except _Refused as error:
            raise self._context.explain(error, "launching a CUDA graph") from None
        self._context.last_launch = "a CUDA graph"
        return self._result

    def __del__(self) -> None:
        if self._graph and not self._context.stuck:  # the driver would wait for a kernel that does not end
            self._driver.cuGraphExecDestroy(self._graph)


def _nodes(graph: c_void_p) -> list[c_void_p]:
    count = c_size_t()
    _call("cuGraphGetNodes", graph, None, ctypes.byref(count))
    if not count.value:
        return []
    nodes = (c_void_p * count.value)()
    _call("cuGraphGetNodes", graph, nodes, ctypes.byref(count))
    return [c_void_p(node) for node in nodes]


def _works(graph: c_void_p) -> int | None:
    """Count kernels, copies and memsets, also of graphs inside; None where a node may hold more of them."""
    found = 0
    for node in _nodes(graph):
        kind, inside = c_int(), c_void_p()
        _call("cuGraphNodeGetType", node, ctypes.byref(kind))
        if kind.value == _GRAPH:
            _call("cuGraphChildGraphNodeGetGraph", node, ctypes.byref(inside))
            more = _works(inside)
        else:
            known = kind.value in _WORKS or kind.value in _NO_WORKS
            more = int(kind.value in _WORKS) if known else None
        if more is None:
            return None
        found += more
    return found
