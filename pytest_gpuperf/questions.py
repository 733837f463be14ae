"""Ask what the device time of a launch is, in words that a baseline can be held to, and measure it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import pytest

from pytest_gpuperf.marker import TestOptions, test_options
from pytest_gpuperf.measurement import Measurement, Metric
from pytest_gpuperf.session import GpuperfSession

if TYPE_CHECKING:
    from pytest_gpuperf.backends.gpu import Gpu

_NONE: Mapping[str, Any] = MappingProxyType({})


def question(
    session: GpuperfSession,
    item: pytest.Item,
    name: str,
    launch: Callable[..., Any],
    args: Sequence[Any] = (),
    more: Mapping[str, Any] = _NONE,
    keywords: Mapping[str, Any] = _NONE,
) -> Measurement:
    """Return the measurement of the device time of ``launch(*args)`` before it is taken, without samples.

    ``more``, and the arrays among ``keywords``, which are bound already, are part of the contract.
    """
    gpu, options = session.gpu(), test_options(item)
    from pytest_gpuperf.instruments.callables import is_kernel

    # before it is launched, which writes to its arrays
    if is_kernel(launch):
        code = launch.work_hash(*args)
    else:
        from pytest_gpuperf.backends.foreign import work_hash as of_a_library

        measures = session.options.active and gpu.device.judges_times
        code = of_a_library(launch, args) if measures else None
    metric = Metric(name, "s", "lower", "noisy" if gpu.device.judges_times else "shown", "device_time")
    asked = contract(gpu, args, options, {"timing": "events", "l2": options.l2, **more}, keywords)
    return Measurement(metric, asked, (), code)


def timed(
    session: GpuperfSession,
    item: pytest.Item,
    launch: Callable[..., Any],
    args: Sequence[Any],
    reached: Measurement,
    *,
    check: Callable[[Any], None] | None = None,
    watched: bool = False,
    warm: bool = False,
) -> Measurement:
    """Measure the device time of ``launch(*args)``, which is what ``reached`` asks.

    ``warm``: the device was busy until now, so unless the test asks for a warm-up there is none.
    """
    from pytest_gpuperf.instruments import device_time
    from pytest_gpuperf.instruments.stopwatch import WARMUP

    gpu, options, metric = session.gpu(), test_options(item), reached.metric
    warmup = options.warmup if options.warmup is not None else 0.0 if warm else WARMUP
    settings = device_time.Settings(options.l2, options.seconds, warmup, session.telling(item, metric.name))
    batch, name = session.batch(item, metric.name), metric.name if watched else ""
    graph = reached.contract.get("mode") == "graph"
    timing = device_time.measure(
        gpu, launch, args, settings, batch=batch, name=name, check=check, graph=graph
    )
    session.guard.sample()  # before the device cools down
    # a time that includes the host's gaps is judged as a host time
    instrument = "host_time" if "host-bound" in timing.details else "device_time"
    batched = {} if (size := timing.details.get("batch")) is None else {"batch": size}
    return replace(
        reached,
        metric=replace(metric, instrument=instrument),
        contract={**reached.contract, **batched},
        samples=timing.samples,
        details=timing.details,
    )


def contract(
    gpu: Gpu,
    args: Sequence[Any],
    options: TestOptions,
    extra: dict[str, Any],
    keywords: Mapping[str, Any] = _NONE,
) -> dict[str, Any]:
    """Describe the question that a measurement answers, from what the fixture was really given.

    Never the kernel's source, its launch geometry or its compiler: those are judged.
    """
    given = [("", value) for value in args] + [(f"{key}=", keywords[key]) for key in sorted(keywords)]
    arrays = [f"{key}{_array(gpu, value)}" for key, value in given if _is_array(value)]
    found = options.versioned({**extra, "arguments": "; ".join(arrays)})
    return {key: value for key, value in found.items() if value is not None}


def _is_array(value: Any) -> bool:
    """Return whether an argument is an array; ``np.float32``, a ``dtype=``, only has its attributes."""
    with suppress(Exception):  # a library's property, of an array that is not there yet
        return hasattr(value, "dtype") and isinstance(value.shape, Iterable)
    return False


def _array(gpu: Gpu, argument: Any) -> str:
    shape = ",".join(str(extent) for extent in argument.shape)
    origin = gpu.origin(argument)
    return f"{argument.dtype}[{shape}]" + (f" {origin}" if origin else "")


def rates(gpu: Gpu, seconds: float, bytes: float | None, flops: float | None) -> dict[str, float]:
    """Return the rates of the declared work, for a real device: an emulated time gives none."""
    if not gpu.device.judges_times:
        return {}
    from pytest_gpuperf.instruments.device_time import copy_bandwidth

    found = {}
    if bytes:
        found["bytes_per_second"] = bytes / seconds
        found["of_copy"] = bytes / seconds / copy_bandwidth(gpu)
    if flops:
        found["flops_per_second"] = flops / seconds
        if peak := gpu.device.peak_fp32:
            found["of_fp32"] = flops / seconds / peak
    return found
