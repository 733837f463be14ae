"""Kernels that never change: where they got slower, the machine did, and not the code under test.

One is bound by memory bandwidth, one by arithmetic (sentinels.cu). Every process that measures on a CUDA
device takes them once, and they are stored with its runs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from pytest_gpuperf.instruments import device_time
from pytest_gpuperf.measurement import Baseline, Measurement, Metric, Run

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
EXCUSED = 2
"""Times what the sentinels lost: a kernel may be hit harder than they are. A choice: on H100s in machines
with two of them the sentinel of memory takes 1.6 % longer, and thirteen kernels from -0.6 to +1.6 %."""
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


class Slower(NamedTuple):
    """A machine that got slower: the most by which a sentinel did, ``share`` (a fraction) and ``seconds``."""

    reason: str
    share: float
    seconds: float

    def excuses(self, metric: Metric, baseline: float) -> float:
        """The greatest loss from ``baseline`` that may be the machine's, a fraction.

        EXCUSED times what the sentinels lost: as a share, as a lower clock takes it, or in seconds, as a
        longer way to the first instruction does, whichever is more.
        """
        in_seconds = self.seconds / baseline if metric.unit == "s" else 0.0
        return EXCUSED * max(self.share, in_seconds)


def slower(
    baseline: Baseline,
    replicas: Sequence[Mapping[str, Any]],
    tolerance: float,
    device_uuid: str | None = None,
) -> Slower | None:
    """How much slower than at ``baseline`` the machine is; None where no sentinel got slower.

    ``replicas`` are the environments of the processes that confirmed a red. A sentinel got slower where
    d - h > log(1 + tolerance / 2), with d and h as the verdict has them, from the same runs: half the
    tolerance, so that no red can come from the machine alone. One that got faster excuses nothing: what is
    slower on a faster machine is slower by its own doing. Sentinels of other machine code (another nvcc
    compiled them) are another question and say nothing.
    """
    every = (_slower(name, baseline, replicas, tolerance, device_uuid) for name in KERNELS)
    found = [each for each in every if each]
    if not found:
        return None
    most = max(found, key=lambda each: each.share)
    return most._replace(seconds=max(each.seconds for each in found))


def _slower(
    name: str, baseline: Baseline, replicas: Sequence[Mapping[str, Any]], tolerance: float, uuid: str | None
) -> Slower | None:
    from pytest_gpuperf.judging.verdict import judge

    metric = Metric(f"sentinel {name}", "s", "lower", "noisy", "device_time")
    now = [taken for environment in replicas if name in (taken := environment.get("sentinels", {}))]
    codes = {taken.get("code") for taken in now}
    old = [
        Run((taken[name],), run.environment)
        for run in baseline.runs
        if name in (taken := run.environment.get("sentinels", {})) and {taken.get("code")} == codes
    ]
    if not old or len(now) < len(replicas):
        return None
    measured = [Measurement(metric, {}, (taken[name],)) for taken in now]
    stored = Baseline(metric, {}, {}, metric.constants.prior_sd, tuple(old))
    found = judge(stored, measured[0], measured, tolerance=tolerance, place={}, device_uuid=uuid)
    if found.interval is None or found.change is None or found.baseline is None:
        return None  # a tolerance that only runs of the same GPU can be held to, and there is none
    low, high = found.interval
    if low <= tolerance / 2:
        return None
    reason = (
        f"the machine moved: a kernel that never changes, bound by {KERNELS[name]}, takes "
        f"{100 * found.change:+.2f} % against the baseline's runs{_clocks(old, now)}"
    )
    return Slower(reason, high, high * found.baseline)


def _clocks(old: Sequence[Run], now: Sequence[Mapping[str, Any]]) -> str:
    """The SM clock then and now, where that was read: the usual cause, and a number to look for."""
    from statistics import median

    then = [clock for run in old if (clock := run.environment["sentinels"].get("sm_clock_mhz"))]
    today = [clock for taken in now if (clock := taken.get("sm_clock_mhz"))]
    if not then or not today:
        return ""
    return f" (SM clock {median(then):.0f} MHz then, {median(today):.0f} MHz now)"


def _rounded(value: float) -> float:
    return float(f"{value:.{_DIGITS}g}")
