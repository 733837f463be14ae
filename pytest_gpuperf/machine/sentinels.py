"""Time kernels that never change: if they got slower, the machine did (rules/machine.py), not the code.

One is bound by memory bandwidth, one by arithmetic (sentinels.cu), and one does nothing (launch.cu). Every
process whose runs are stored, or that confirms a regression, times them once, and keeps them with its runs.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from pytest_gpuperf.constants import LAUNCH_SENTINEL
from pytest_gpuperf.instruments import device_time

if TYPE_CHECKING:
    from pytest_gpuperf.backends.base import Backend
    from pytest_gpuperf.backends.gpu import Gpu
    from pytest_gpuperf.backends.kernels import Launch

# Part of what stored figures mean, so never to be changed. The arrays are larger than any L2; on an H100 the
# blocks are one wave and both kernels last some tenths of a millisecond.
ELEMENTS = 2**25  # float32, 128 MiB, of each of two arrays
THREADS = 256
BLOCKS = 1056
ROUNDS = 16384
FACTOR, ADD = 0.999, 0.5
SETTINGS = device_time.Settings(seconds=0.1, warmup=0.1)
LAUNCHED = device_time.Settings(seconds=0.02, warmup=0.02)
CLOCKED = 100  # launches of the compute sentinel, 56 ms, over which the SMs' clock is taken
SMS = 1024  # places for SMs, more than any device has


def take(gpu: Gpu) -> dict[str, Any]:
    """Time the sentinels on ``gpu``, which nobody else uses; return JSON scalars to be stored with a run.

    ``bandwidth_s``, ``compute_s`` and ``launch_s`` are the median seconds of a launch, ``sm_mhz`` the SMs'
    clock under the arithmetic (left out if the device's timer does not tell), ``code`` the hash of the
    file's machine code. Takes 256 MiB of the device for about half a second. Raises Unavailable without a
    compiler, GpuperfError if the device has no room.
    """
    from pytest_gpuperf.backends.kernels import Kernels

    kernels = Kernels(Path(__file__).parent, gpu)
    file, device = kernels["sentinels.cu"], gpu.device
    # Zeros, since power and so clocks depend on the data.
    arrays = [device.to_device(np.zeros(shape, dtype)) for shape, dtype in ((ELEMENTS, "f4"), (2, "u8"))]
    try:
        arrays.append(device.empty((ELEMENTS,), "f4"))
        src, unused, dst = arrays
        copy = file["sentinel_bandwidth"][ELEMENTS // 4 // THREADS, THREADS]
        bandwidth = device_time.measure(gpu, copy, (src, dst), SETTINGS, batch=1)
        chains = file["sentinel_compute"][BLOCKS, THREADS]
        arithmetic = (dst, unused, FACTOR, ADD, ROUNDS)
        compute = device_time.measure(gpu, chains, arithmetic, SETTINGS, batch=1)
        nothing = kernels["launch.cu"]["sentinel_launch"][1, 1]
        empty = device_time.measure(gpu, nothing, (), LAUNCHED, batch=1)
        clock = _clocked(device, kernels["clock.cu"]["stamp"][BLOCKS, 1], chains.bind(*arithmetic))
    finally:
        for array in arrays:
            device.free(array)
    taken = {"bandwidth_s": bandwidth, "compute_s": compute, LAUNCH_SENTINEL: empty}
    found = {name: _rounded(timing.median) for name, timing in taken.items()}
    if clock:
        found["sm_mhz"] = _rounded(clock)
    return {**found, "code": copy.file.program.code_hash(None)}


def _clocked(device: Backend, stamp: Launch, load: Callable[[], None]) -> float | None:
    """Return the SMs' clock in MHz while ``load`` runs CLOCKED times."""
    stamps = [device.to_device(np.zeros((SMS, 2), "u8")) for _ in range(2)]
    try:
        before, after = (stamp.bind(each, SMS) for each in stamps)
        for enqueue in (before, *[load] * CLOCKED, after):
            enqueue()
        return sm_mhz(*(each.get() for each in stamps))
    finally:
        for each in stamps:
            device.free(each)


def sm_mhz(before: np.ndarray, after: np.ndarray) -> float | None:
    """Return the median clock of the SMs that left both stamps; None if none did, or no time passed.

    ``before`` and ``after``: u8 [SM, (cycles, nanoseconds)], zeros where an SM left none. What the compute
    sentinel itself counts over one launch cannot serve: on H100s, of which NVML said 1,965 or 1,980 MHz, it
    read 1,557 to 1,887, at intervals as of a timer with steps of some 32 us, and always too low (each of its
    warps reads the timer at its start, and may wait for it).
    """
    both = before.all(axis=1) & after.all(axis=1)
    cycles, nanoseconds = (after[both].astype("i8") - before[both].astype("i8")).T
    passed = nanoseconds > 0
    return float(np.median(1e3 * cycles[passed] / nanoseconds[passed])) if passed.any() else None


def _rounded(value: float) -> float:
    return float(f"{value:.6g}")
