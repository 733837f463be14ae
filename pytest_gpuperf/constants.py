"""The constants of each way to take a number, by which it is judged; docs/verdicts.md has their source."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

# Globs of the environment's keys, for Instrument.runs_on.
_HOST = ("python", "platform", "versions.*")
_LIBRARIES = ("versions.nvidia-*", "versions.onnxruntime*", "versions.tensorrt*")
_FRAMEWORKS = tuple(f"versions.{name}*" for name in ("cupy", "jax", "numba", "tensorflow", "torch", "triton"))


@dataclass(frozen=True, slots=True)
class Instrument:
    """One way to take a number, with the constants of its verdict.

    ``prior_sd`` is the expected standard deviation of the log median between fresh processes, and counts for
    ``prior_df`` degrees of freedom; ``tolerance`` the default theta, a fraction; ``floor`` the smallest
    absolute change of what one sample lasts, in the metric's unit, worth a failure; ``where`` says whose
    clock it is: a device metric depends on the GPU alone, a host metric on the CPU as well. ``runs_on`` are
    globs of the environment's keys: the software beside the driver, CUDA and the compiler that can move its
    figures with no commit. ``unit_sd`` and ``day_sd`` are standard deviations of the log between units of one
    model and between days on one machine, ``step`` is its timer's, in seconds. With ``identity`` a number
    only names what was found: another one is neither more nor less, it is wrong.
    """

    name: str
    prior_sd: float
    tolerance: float
    floor: float
    where: Literal["device", "host"]
    runs_on: tuple[str, ...] = ()
    prior_df: int = 2
    unit_sd: float = 0.015
    day_sd: float = 0.03
    step: float = 0.0
    identity: bool = False


INSTRUMENTS: Mapping[str, Instrument] = {
    instrument.name: instrument
    for instrument in (
        Instrument(
            "device_time",
            0.001,
            0.02,
            1e-7,
            "device",
            (*_LIBRARIES, *_FRAMEWORKS),
            unit_sd=0.005,
            day_sd=0.0,
            step=32e-9,
        ),
        # A board's watts depend on its leakage, and that on the unit and on how warm it is.
        Instrument(
            "energy", 0.01, 0.05, 0.0, "device", (*_LIBRARIES, *_FRAMEWORKS), unit_sd=0.04, day_sd=0.01
        ),
        Instrument("peak_memory", 0.0, 0.0, 0.0, "device", (*_LIBRARIES, *_FRAMEWORKS)),
        Instrument("first_launch", 0.1, 0.3, 20e-6, "host", _HOST),
        Instrument("compile_time", 0.03, 0.15, 0.05, "host", _HOST),
        Instrument("host_time", 0.02, 0.05, 1e-6, "host", _HOST),
        Instrument("record", 0.02, 0.05, 0.0, "host", _HOST),
        Instrument("counters", 0.0, 0.0, 0.0, "device"),
        Instrument("loadgen", 0.02, 0.05, 0.0, "host", _HOST),
        Instrument("loadgen_tail", 0.04, 0.10, 0.0, "host", _HOST),
        Instrument("accuracy", 0.0, 0.0, 0.0, "device", (*_LIBRARIES, "versions.numpy")),
        Instrument("answers", 0.0, 0.0, 0.0, "device", (*_LIBRARIES, "versions.numpy"), identity=True),
    )
}

PERCENTILES = {"p50": 0.5, "p80": 0.8, "p90": 0.9, "p95": 0.95, "p99": 0.99, "p99_9": 0.999}
"""LoadGen's percentiles of a latency that are kept, and the fraction of queries below each."""

SENTINELS: Mapping[str, str] = {"bandwidth_s": "memory", "compute_s": "arithmetic"}
"""Kernels that never change (machine/sentinels.py): the names of their stored times, and what bounds them."""
LAUNCH_SENTINEL = "launch_s"
"""The stored time of a kernel that does nothing: what any launch takes on this machine."""
