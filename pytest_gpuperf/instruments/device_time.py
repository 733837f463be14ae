"""Measure the device time of a launch, and the device's own copy to compare it with."""

from __future__ import annotations

import math
import time
import weakref
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

from pytest_gpuperf.errors import KernelError
from pytest_gpuperf.instruments.callables import is_kernel, name_of, ran
from pytest_gpuperf.instruments.contents import hold_to_contents, kept
from pytest_gpuperf.instruments.graphs import Graphed
from pytest_gpuperf.instruments.places import ArrayMover
from pytest_gpuperf.instruments.stopwatch import Settings, Stopwatch, Timing
from pytest_gpuperf.instruments.watch import Watch

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
    name: str = "",
    check: Callable[[Any], None] | None = None,
    graph: bool = False,
) -> Timing:
    """Time ``launch(*args)`` on ``gpu``, or with ``graph`` the replay of its CUDA graph.

    ``launch`` is a kernel's Launch, or any callable that enqueues its work on the device's stream or on the
    default stream. ``batch`` fixes the launches a sample to what a baseline used; without it launches below
    BATCH_BELOW get the power of two that lasts BATCH_LASTS. A kernel's arrays are copied to other places
    again and again (places.py); in your own it leaves what one launch makes of them, the last of all, from
    their contents before the first. Raises KernelError for a callable whose work the events cannot see; one
    with a ``name`` is also watched (watch.py), if it is no kernel on the device's own stream. ``check`` gets
    what a last call returns, once that is done. On a device whose times are not judged it takes one run after
    a warm one, in host seconds, to be shown.
    """
    # Kernels check their arguments once, so that the stream does not wait for checks.
    call = launch.bind(*args) if is_kernel(launch) else lambda: ran(launch, launch(*args))
    graphed = Graphed(launch, gpu.device) if graph else None
    with kept(launch, args, gpu.device) as restore:
        if not gpu.device.judges_times:
            return _by_the_host(graphed.of(call).launch if graphed else call, gpu, restore, check)
        timer = gpu.device.timer()
        watch = Watch(timer, call, name) if name and not _is_in_order(launch) else None
        if watch:
            watch.before()
        captured = graphed.of(call) if graphed else None
        enqueue = captured.launch if captured else call
        # another callable may know its arrays by other names than its arguments
        mover = None
        if is_kernel(launch):
            mover = ArrayMover.of(graphed or launch, args, gpu.device)
        stopwatch = Stopwatch(timer, enqueue, settings or Settings(), batch, mover)
        timing = stopwatch.measure()
        if watch:
            seen = watch.held_by(captured.works) if captured else watch.after(timing.median)
            timing = replace(timing, details={**timing.details, **seen})
        if restored := restore():
            hold_to_contents(stopwatch.once, restore, timing.median, name_of(launch))
        if restored or check:
            result = None if restored else enqueue()  # a kernel's is none
            gpu.synchronize()
            if check:
                check(result)
        return timing


def _is_in_order(launch: Any) -> bool:
    """Say whether it is a kernel's launch, on the device's own stream: then there is no more to it."""
    return is_kernel(launch) and launch.geometry.stream is None


def check_possible(
    device: Backend, name: str, seconds: float, moved: float | None, done: float | None = None
) -> None:
    """Raise KernelError for a time in which the device could not have moved or done so much.

    What fits into the L2 cache need not come from memory, and is not counted.
    """
    if device.judges_times and 0 < device.peak_flops * seconds < (done or 0.0):
        assert done is not None
        raise KernelError(
            f"{name} is faster than the hardware: {done / seconds / 1e12:,.0f} TFLOP/s by flops={done:,.0f}, "
            f"and this GPU does {device.peak_flops / 1e12:,.0f} at most, in its narrowest type. Either less "
            "is computed, or the work is not done when the time ends."
        )
    far = (moved or 0.0) - device.l2_bytes
    if device.judges_times and 0 < device.peak_bandwidth * seconds < far:
        assert moved is not None
        rate = moved / seconds / 1e9
        raise KernelError(
            f"{name} is faster than the hardware: {rate:,.0f} GB/s by bytes={moved:,.0f}, and "
            f"this memory moves {device.peak_bandwidth / 1e9:,.0f} at most. Either fewer bytes are moved, or "
            "the work is not done when the time ends."
        )


def repeat(
    gpu: Gpu,
    launch: Callable[..., Any],
    args: Sequence[Any],
    times: int,
    aside: Callable[[], AbstractContextManager[None]],
    *,
    graph: bool = False,
) -> Any:
    """Call ``launch(*args)`` so often, or the replay of its CUDA graph, and return what the last call did.

    A kernel leaves what one launch makes of its arrays' contents before the first, as ``measure`` does.
    ``aside`` is entered for what that takes.
    """
    with ExitStack() as held:
        with aside():
            restore = held.enter_context(kept(launch, args, gpu.device))
        enqueue: Callable[[], Any] = partial(launch, *args)
        if graph:
            enqueue = Graphed(launch, gpu.device).of(enqueue).launch
            with aside():
                restore()  # what the call before a capture has made
        for _ in range(times - 1):
            enqueue()
        with aside():
            restore()
        result = enqueue()
        with aside():
            held.close()
    return result


def _by_the_host(
    enqueue: Callable[[], Any],
    gpu: Gpu,
    restore: Callable[[], bool],
    check: Callable[[Any], None] | None,
) -> Timing:
    enqueue()
    gpu.synchronize()
    restore()
    start = time.perf_counter()
    result = enqueue()
    gpu.synchronize()
    taken = time.perf_counter() - start
    if check:
        check(result)
    return Timing((taken,), {"emulated": True})


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
