"""Kernels that never change: where they got slower, the machine did (judging/slower.py tells), not the code.

One is bound by memory bandwidth, one by arithmetic (sentinels.cu). Every process that measures on a CUDA
device takes them once, and they are stored with its runs.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from pytest_gpuperf.instruments import device_time

if TYPE_CHECKING:
    from pytest_gpuperf.gpu import Gpu

# Part of what stored figures mean, so never to be changed. The arrays are larger than any L2; on an H100 the
# blocks are one wave and both kernels last some tenths of a millisecond.
ELEMENTS = 2**25  # float32, 128 MiB, of each of two arrays
THREADS = 256
BLOCKS = 1056
ROUNDS = 16384
FACTOR, ADD = 0.999, 0.5
SETTINGS = device_time.Options(seconds=0.1, warmup=0.1)

KERNELS = {"bandwidth_s": "memory", "compute_s": "arithmetic"}
"""The stored times, by what bounds them."""
_DIGITS = 6


def take(gpu: Gpu) -> dict[str, Any]:
    """The sentinels on ``gpu``, a CUDA device that nobody else uses: JSON scalars, to be stored with a run.

    ``bandwidth_s`` and ``compute_s`` are the median seconds of a launch, ``sm_clock_mhz`` the SM's clock
    under that arithmetic (left out where the device's timer is too coarse to tell), ``code`` the hash of
    the machine code. Takes 256 MiB of the device for about half a second. Raises Unavailable without nvcc,
    GpuperfError where the device has no room.
    """
    from pytest_gpuperf.backends.library import Kernels

    file = Kernels(Path(__file__).parent, gpu)["sentinels.cu"]
    device = gpu.device
    # Zeros, since power and so clocks depend on the data.
    arrays = [device.to_device(np.zeros(shape, dtype)) for shape, dtype in ((ELEMENTS, "f4"), (2, "u8"))]
    try:
        arrays.append(device.empty((ELEMENTS,), "f4"))
        src, clocks, dst = arrays
        copy = file["sentinel_bandwidth"][ELEMENTS // 4 // THREADS, THREADS]
        bandwidth = device_time.measure(gpu, copy, (src, dst), SETTINGS, batch=1)
        chains = file["sentinel_compute"][BLOCKS, THREADS]
        compute = device_time.measure(gpu, chains, (dst, clocks, FACTOR, ADD, ROUNDS), SETTINGS, batch=1)
        cycles, nanoseconds = (int(count) for count in clocks.get())
    finally:
        for array in arrays:
            device.free(array)
    found = {"bandwidth_s": _rounded(bandwidth.median), "compute_s": _rounded(compute.median)}
    if nanoseconds:
        found["sm_clock_mhz"] = _rounded(1e3 * cycles / nanoseconds)
    return {**found, "code": copy.code_hash}


def _rounded(value: float) -> float:
    return float(f"{value:.{_DIGITS}g}")
