"""Give suites ``gpu``, ``kernels``, ``gpuperf`` and ``counters``."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, cast

import pytest

from pytest_gpuperf.errors import GpuperfError, Unavailable
from pytest_gpuperf.figures import is_rate, is_time_or_rate, number, numbers, short, text
from pytest_gpuperf.marker import TestOptions, test_options
from pytest_gpuperf.measurement import Better, Bounds, Kind, Measurement, Metric
from pytest_gpuperf.session import SESSION, GpuperfSession, recorder_of
from pytest_gpuperf.unchanged import look, reach_counters

if TYPE_CHECKING:
    from pytest_gpuperf.backends.gpu import Gpu
    from pytest_gpuperf.backends.kernels import Kernels, Launch
    from pytest_gpuperf.instruments.counters import Counters
    from pytest_gpuperf.instruments.device_time import Timing


class _NotGiven(str):
    """An argument's default that can be told from the same value where somebody gave it."""


_LOWER = cast(Better, _NotGiven("lower"))


@pytest.fixture(scope="session")
def gpu(pytestconfig: pytest.Config) -> Gpu:
    """Open the device: ``empty(shape, dtype)``, ``random(shape, dtype, seed=)``, ``to_device(host)``.

    Also ``synchronize()``, ``name``, ``backend`` ("cuda" or "emulated"), ``compute_capability``, and PyCUDA's
    own ``context`` and ``stream``. If there is neither a device nor a compiler to emulate one, the test is
    skipped.
    """
    return pytestconfig.stash[SESSION].gpu()


@pytest.fixture(scope="module")
def kernels(gpu: Gpu, request: pytest.FixtureRequest) -> Kernels:
    """Open the kernel files: ``kernels["transpose.cu"].transpose_tiled[grid, block](src, dst, ...)``.

    Files come from the folder that the ini key ``gpuperf_kernels`` names (default ``kernels``), beside
    the suite or above it. Also ``[grid, block, shared_bytes, stream]``.
    """
    from pytest_gpuperf.backends.kernels import Kernels

    session = request.config.stash[SESSION]
    folder = session.options.kernels
    return Kernels(session.project.owner(request.path, folder) / folder, gpu.device)


@pytest.fixture
def gpuperf(request: pytest.FixtureRequest) -> Gpuperf:
    """Time a launch and judge it when the test ends: ``gpuperf(launch, *args, bytes=, flops=)``.

    ``launch`` is a kernel bound to its grid, or any callable that enqueues work on ``gpu.stream`` or
    the default stream. ``gpuperf.record(name, value, unit, better)`` judges any other number.
    Without ``--gpuperf`` the callable runs once and nothing is timed.
    """
    return Gpuperf(request.config.stash[SESSION], request.node)


@pytest.fixture
def counters(gpu: Gpu, request: pytest.FixtureRequest) -> Callable[..., Counters]:
    """Count the memory traffic of one launch: ``counters(launch, *args)``.

    ``.global_load`` and ``.global_store`` have ``sectors_per_request``; ``.shared_load`` and
    ``.shared_store`` have ``wavefronts_per_request`` and ``bank_conflicts``. The ratios and, where the
    baseline's compiler is this one, the totals are judged as exact metrics. A GPU counts them itself
    (CUPTI), and DRAM bytes, occupancy, instructions and registers beside them; without one they are the
    emulator's warp model's. Where a GPU does not let this user count, the test is skipped, unless the ini key
    ``gpuperf_require`` names counters.
    """
    session = request.config.stash[SESSION]
    modelled = gpu.device.models_traffic

    def take(launch: Launch, *args: Any, name: str | None = None) -> Counters:
        from pytest_gpuperf.backends.arguments import check
        from pytest_gpuperf.backends.kernels import Launch
        from pytest_gpuperf.instruments.counters import count

        if not isinstance(launch, Launch):
            raise GpuperfError(f"counters takes a kernel bound to its grid, not {type(launch).__name__}")
        label = launch.name if name is None else text("counters(...)", "name", name)
        checked = check(launch.declaration, args, launch.backend)
        kind = {"counters": "modelled" if modelled else "measured"}
        contract = _contract(gpu, args, test_options(request.node), kind)
        code = launch.work_hash(*args) if session.options.active or session.options.plan is not None else None
        if session.options.plan is not None:
            return reach_counters(session, request.node, label, contract, code)
        try:
            found = count(launch.file.program, launch.name, launch.geometry, checked, modelled)
        except Unavailable as error:
            if "counters" in session.options.require:
                raise
            pytest.skip(str(error))
        if session.options.active:
            for figure, value in {**found.ratios(), **found.totals()}.items():
                metric = Metric(f"{label} {figure}", "1", "lower", "exact", "counters")
                recorder_of(request.node).add(Measurement(metric, contract, (value,), code))
        return found

    return take


class Gpuperf:
    """The object behind the ``gpuperf`` fixture, one per test."""

    def __init__(self, session: GpuperfSession, item: pytest.Item) -> None:
        self._session = session
        self._item = item

    def __call__(
        self,
        launch: Callable[..., Any],
        *args: Any,
        name: str | None = None,
        bytes: float | None = None,
        flops: float | None = None,
        max: float | None = None,
        min: float | None = None,
    ) -> Timing:
        """Time ``launch(*args)`` on the device and return its samples, in seconds.

        ``bytes`` moved and ``flops`` done per launch give the rates that are shown. ``name`` is the
        metric's; by default the kernel's or function's own. ``max`` and ``min`` are bounds of the time,
        in seconds: beyond them the test fails, with a baseline or without, wherever times are judged.
        """
        from pytest_gpuperf.instruments.device_time import Timing, check_possible

        if not callable(launch):
            raise GpuperfError(f"gpuperf times a launch or another callable, not {type(launch).__name__}")
        bounds = Bounds.of("gpuperf(...)", min, max)
        work = {"bytes": _work("bytes", bytes), "flops": _work("flops", flops)}
        own = getattr(launch, "name", None) or getattr(launch, "__name__", "launch")
        name = str(own) if name is None else text("gpuperf(...)", "name", name)
        gpu = self._session.gpu()
        options = self._session.options
        if not options.active and options.plan is None:
            launch(*args)
            return Timing((), {})
        reached = replace(question(self._session, self._item, name, launch, args, work), bounds=bounds)
        same, why = look(self._session, self._item, reached)
        if same or options.plan is not None or not self._session.measures(self._item):
            launch(*args)
            return Timing((same.value,), {"unchanged": True}) if same else Timing((), {})
        taken = timed(self._session, self._item, launch, args, reached)
        check_possible(gpu.device, name, taken.value, work["bytes"])
        rates = {} if self._session.options.child is not None else _rates(gpu, taken.value, **work)
        details = {**taken.details, **rates, **why}  # which are to be shown, and so the session's own
        recorder_of(self._item).add(replace(taken, details=details))
        return Timing(taken.samples, taken.details)

    def record(
        self,
        name: str,
        value: float | Sequence[float],
        unit: str = "1",
        better: Better = _LOWER,
        *,
        kind: Kind = "noisy",
        max: float | None = None,
        min: float | None = None,
    ) -> None:
        """Judge a number that the test took itself, or several samples of it.

        ``better`` is "lower" or "higher", by default "lower". ``kind`` "exact" compares it directly; a
        "noisy" one is measured again in fresh processes before it fails the test, and a time or a rate is
        only shown on a machine without a GPU that is not dedicated to measuring. ``max`` and ``min`` are
        bounds in its unit: beyond them the test fails, with a baseline or without, wherever it is judged.
        """
        name = text("gpuperf.record(...)", "name", name)
        call = f'gpuperf.record("{name}")'
        unit = text(call, "unit", unit)
        details = {"better": _which_way(unit)} if better is _LOWER else {}
        better = cast(Better, _choice(call, "better", better, ("lower", "higher")))
        kind = cast(Kind, _choice(call, "kind", kind, ("noisy", "exact", "shown")))
        bounds = Bounds.of(call, min, max, kind)
        samples = _samples(f'gpuperf.record("{name}", {short(value)})', value, kind)
        if not self._session.options.active and self._session.options.plan is None:
            return
        if kind == "shown":
            details["kind"] = "shown by the test"
        elif kind == "noisy" and is_time_or_rate(unit) and not self._session.judges_host_time():
            kind = "shown"
        metric = Metric(name, unit, better, kind, "record")
        contract = test_options(self._item).versioned({})
        taken = Measurement(metric, contract, samples, details=details, bounds=bounds)
        if self._session.options.plan is None or kind != "shown":
            recorder_of(self._item).add(taken)


def _choice(call: str, what: str, given: Any, choices: Sequence[str]) -> str:
    if not isinstance(given, str) or given not in choices:
        *most, last = (f'"{choice}"' for choice in choices)
        raise GpuperfError(f"{call}: {what}={short(given)}; say {', '.join(most)} or {last}")
    return str.__str__(given)


def _samples(call: str, value: Any, kind: Kind) -> tuple[float, ...]:
    """Return what was recorded as floats, of an exact number one; raises GpuperfError."""
    samples = numbers(call, value)
    if not samples or not all(math.isfinite(v) and (v > 0 or kind != "noisy") for v in samples):
        raise GpuperfError(
            f"{call}: noisy values must be finite and positive, exact values finite "
            '(kind="exact" takes a count that may be 0)'
        )
    if kind == "exact" and len(set(samples)) > 1:
        raise GpuperfError(f"{call}: an exact number has one value, and these differ")
    return samples[:1] if kind == "exact" else samples


def _which_way(unit: str) -> str:
    """Say which way is better where the test did not, louder where that is likely to be wrong."""
    hint = f': for a rate such as {unit} say better="higher"' if is_rate(unit) else ""
    return f"lower is better (better= not given){hint}"


def _work(what: str, given: Any) -> int | float | None:
    """Return the bytes or operations of a launch as a plain number; raises GpuperfError."""
    found = None if given is None else number(given)
    if given is not None and (found is None or not 0 <= found < math.inf):
        raise GpuperfError(f"gpuperf(...): {what}={short(given)}; give the {what} of one launch, a number")
    return int(found) if found is not None and found.is_integer() else found


def question(
    session: GpuperfSession,
    item: pytest.Item,
    name: str,
    launch: Callable[..., Any],
    args: Sequence[Any] = (),
    more: Mapping[str, Any] = MappingProxyType({}),
) -> Measurement:
    """Return the measurement of the device time of ``launch(*args)`` before it is taken, without samples.

    ``more`` is added to the metric's contract.
    """
    gpu, options = session.gpu(), test_options(item)
    work_hash = getattr(launch, "work_hash", None)
    # before it is launched, which writes to its arrays
    if work_hash:
        code = work_hash(*args)
    else:
        from pytest_gpuperf.backends.foreign import work_hash as of_a_library

        measures = session.options.active and gpu.device.judges_times
        code = of_a_library(launch, args) if measures else None
    metric = Metric(name, "s", "lower", "noisy" if gpu.device.judges_times else "shown", "device_time")
    contract = _contract(gpu, args, options, {"timing": "events", "l2": options.l2, **more})
    return Measurement(metric, contract, (), code)


def timed(
    session: GpuperfSession,
    item: pytest.Item,
    launch: Callable[..., Any],
    args: Sequence[Any],
    reached: Measurement,
) -> Measurement:
    """Measure the device time of ``launch(*args)``, which is what ``reached`` asks."""
    from pytest_gpuperf.instruments import device_time

    gpu, options, metric = session.gpu(), test_options(item), reached.metric
    settings = device_time.Settings(options.l2, options.seconds, options.warmup)
    batch = session.batch(item, metric.name)
    timing = device_time.measure(gpu, launch, args, settings, batch=batch)
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


def _contract(gpu: Gpu, args: Sequence[Any], options: TestOptions, extra: dict[str, Any]) -> dict[str, Any]:
    """Describe the question that a measurement answers, from what the fixture was really given.

    Never the kernel's source, its launch geometry or its compiler: those are judged.
    """
    arrays = [_array(gpu, given) for given in args if hasattr(given, "dtype") and hasattr(given, "shape")]
    contract = options.versioned({**extra, "arguments": "; ".join(arrays)})
    return {key: value for key, value in contract.items() if value is not None}


def _array(gpu: Gpu, argument: Any) -> str:
    shape = ",".join(str(extent) for extent in argument.shape)
    origin = gpu.origin(argument)
    return f"{argument.dtype}[{shape}]" + (f" {origin}" if origin else "")


def _rates(gpu: Gpu, seconds: float, bytes: float | None, flops: float | None) -> dict[str, float]:
    """Return the rates of the declared work, for a real device: an emulated time gives none."""
    if not gpu.device.judges_times:
        return {}
    from pytest_gpuperf.instruments.device_time import copy_bandwidth

    rates = {}
    if bytes:
        rates["bytes_per_second"] = bytes / seconds
        rates["of_copy"] = bytes / seconds / copy_bandwidth(gpu)
    if flops:
        rates["flops_per_second"] = flops / seconds
    return rates
