"""Measure the device time of a launch, and the device's own copy to compare it with."""

from __future__ import annotations

import math
import time
import weakref
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from pytest_gpuperf.instruments.places import ArrayMover
from pytest_gpuperf.instruments.stopwatch import Settings, Stopwatch, Timing

if TYPE_CHECKING:
    from pytest_gpuperf.backends.base import Backend
    from pytest_gpuperf.backends.gpu import Gpu


def measure(
    gpu: Gpu,
    launch: Callable[..., Any],
    args: Sequence[Any] = (),
    settings: Settings | None = None,
    *,
    batch: int | None = None,
) -> Timing:
    """Time ``launch(*args)`` on ``gpu``.

    ``launch`` is a kernel's Launch, or any callable that enqueues its work on the device's stream or on the
    default stream. ``batch`` fixes the launches a sample to what a baseline used; without it launches below
    BATCH_BELOW get the power of two that lasts BATCH_LASTS. A kernel's arrays are copied to other places
    again and again (places.py); your own arrays see the warm-up's launches only. Raises KernelError for a
    callable whose work the events cannot see. On a device whose times are not judged it takes one run after
    a warm one, in host seconds, to be shown.
    """
    # Kernels check their arguments once, so that the stream does not wait for checks.
    enqueue = launch.bind(*args) if hasattr(launch, "bind") else lambda: launch(*args)
    if not gpu.device.judges_times:
        return _by_the_host(enqueue, gpu)
    mover = ArrayMover.of(launch, args, gpu.device)
    return Stopwatch(gpu.device.timer(), enqueue, settings or Settings(), batch, mover).measure()


def _by_the_host(enqueue: Callable[[], Any], gpu: Gpu) -> Timing:
    enqueue()
    gpu.synchronize()
    start = time.perf_counter()
    enqueue()
    gpu.synchronize()
    return Timing((time.perf_counter() - start,), {"emulated": True})


_bandwidths: weakref.WeakKeyDictionary[Backend, float] = weakref.WeakKeyDictionary()


def copy_bandwidth(gpu: Gpu) -> float:
    """Return the bytes per second, read and written, of a device-to-device copy; "fraction of copy" is of it.

    It copies min(256 MiB, an eighth of the free memory), once per process and device. NaN on a device whose
    times are not judged.
    """
    device = gpu.device
    if not device.judges_times:
        return math.nan
    if device not in _bandwidths:
        nbytes = min(256 * 2**20, device.free_memory() // 8)
        source, destination = device.empty((nbytes,), "u1"), device.empty((nbytes,), "u1")
        try:
            timing = measure(gpu, device.copy, (destination, source))
        finally:
            device.free(source)
            device.free(destination)
        _bandwidths[device] = 2 * nbytes / timing.median
    return _bandwidths[device]
