"""Device time of a launch, and the device's own copy to compare it with."""

from __future__ import annotations

import math
import time
import weakref
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from pytest_gpuperf.instruments.places import Places
from pytest_gpuperf.instruments.stopwatch import Stopwatch
from pytest_gpuperf.instruments.timing import Options, Settings, Timing

if TYPE_CHECKING:
    from pytest_gpuperf.backends.gpu import Gpu


def measure(
    gpu: Gpu,
    launch: Callable[..., Any],
    args: Sequence[Any] = (),
    options: Settings | None = None,
    *,
    batch: int | None = None,
) -> Timing:
    """Times ``launch(*args)`` on ``gpu``.

    ``launch`` is a kernel's Launch, or any callable that enqueues its work on the device's stream or
    on the default stream. ``batch`` fixes the launches a sample to what a baseline used; without it
    launches below BATCH_BELOW get the power of two that lasts BATCH_LASTS. A kernel's arrays are copied
    to other places again and again (places.py), and those given see the warm-up's launches alone.
    Raises KernelError for a callable whose work the events cannot see. On the emulated backend one run
    after a warm one, in host seconds, to be shown and never judged.
    """
    enqueue = _bound(launch, args)
    if not gpu.device.judges_times:
        return _emulated(enqueue, gpu)
    places = Places.of(launch, args, gpu.device)
    return Stopwatch(gpu.device.timer(), enqueue, options or Options(), batch, places).measure()


def _bound(launch: Callable[..., Any], args: Sequence[Any]) -> Callable[[], Any]:
    """Kernels check their arguments once, so that a check is not what the stream waits for."""
    bind = getattr(launch, "bind", None)
    return bind(*args) if bind else lambda: launch(*args)


def _emulated(enqueue: Callable[[], Any], gpu: Gpu) -> Timing:
    enqueue()
    gpu.synchronize()
    start = time.perf_counter()
    enqueue()
    gpu.synchronize()
    return Timing((time.perf_counter() - start,), {"emulated": True})


# --------------------------------------------------------------------------- the device's own peak

_bandwidths: weakref.WeakKeyDictionary[Any, float] = weakref.WeakKeyDictionary()


def copy_bandwidth(gpu: Gpu) -> float:
    """Bytes per second, read and written, of a device-to-device copy: what "fraction of copy" is of.

    Of min(256 MiB, an eighth of the free memory), once per process and device. NaN when emulated.
    """
    backend = gpu.device
    if not backend.judges_times:
        return math.nan
    if backend not in _bandwidths:
        nbytes = min(256 * 2**20, backend.free_memory() // 8)
        source, destination = backend.empty((nbytes,), "u1"), backend.empty((nbytes,), "u1")
        try:
            timing = measure(gpu, backend.copy, (destination, source))
        finally:
            backend.free(source)
            backend.free(destination)
        _bandwidths[backend] = 2 * nbytes / timing.median
    return _bandwidths[backend]
