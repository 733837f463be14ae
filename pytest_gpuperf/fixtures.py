"""Give suites ``gpu``, ``kernels``, ``gpuperf`` and ``counters``."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from numbers import Real
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import pytest

from pytest_gpuperf.errors import GpuperfError
from pytest_gpuperf.marker import TestOptions, test_options
from pytest_gpuperf.measurement import Better, Bounds, Kind, Measurement, Metric
from pytest_gpuperf.session import SESSION, GpuperfSession, recorder_of

if TYPE_CHECKING:
    from pytest_gpuperf.backends.gpu import Gpu
    from pytest_gpuperf.backends.kernels import Kernels, Launch
    from pytest_gpuperf.instruments.counters import Counters
    from pytest_gpuperf.instruments.device_time import Timing


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
    """Count the memory traffic of one launch: ``counters(launch, *args)``, by the emulator's warp model.

    ``.global_load`` and ``.global_store`` have ``sectors_per_request``; ``.shared_load`` and
    ``.shared_store`` have ``wavefronts_per_request`` and ``bank_conflicts``. The ratios are judged
    as exact metrics. On a GPU they would come through Nsight Compute, which is not wired up yet:
    the test is skipped there.
    """
    if not gpu.device.counts_traffic:
        pytest.skip("counters on a GPU need Nsight Compute, which pytest-gpuperf does not drive yet")
    session = request.config.stash[SESSION]

    def take(launch: Launch, *args: Any, name: str | None = None) -> Counters:
        from pytest_gpuperf.backends.arguments import check
        from pytest_gpuperf.backends.kernels import Launch
        from pytest_gpuperf.instruments.counters import count

        if not isinstance(launch, Launch):
            raise GpuperfError(f"counters takes a kernel bound to its grid, not {type(launch).__name__}")
        checked = check(launch.declaration, args, launch.backend)
        found = count(launch.file.program, launch.name, launch.geometry, checked)
        if session.options.active:
            contract = _contract(gpu, args, test_options(request.node), {"counters": "modelled"})
            for ratio, value in found.ratios().items():
                metric = Metric(f"{name or launch.name} {ratio}", "1", "lower", "exact", "counters")
                recorder_of(request.node).add(Measurement(metric, contract, (value,)))
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
        bytes: int | None = None,
        flops: int | None = None,
        max: float | None = None,
        min: float | None = None,
    ) -> Timing:
        """Time ``launch(*args)`` on the device and return its samples, in seconds.

        ``bytes`` moved and ``flops`` done per launch give the rates that are shown. ``name`` is the
        metric's; by default the kernel's or function's own. ``max`` and ``min`` are bounds of the time,
        in seconds: beyond them the test fails, with a baseline or without.
        """
        from pytest_gpuperf.instruments.device_time import Timing

        if not callable(launch):
            raise GpuperfError(f"gpuperf times a launch or another callable, not {type(launch).__name__}")
        bounds = Bounds.of("gpuperf(...)", min, max)
        gpu = self._session.gpu()
        if not self._session.measures(self._item):
            launch(*args)
            return Timing((), {})
        name = str(name or getattr(launch, "name", None) or getattr(launch, "__name__", "launch"))
        taken = timed(self._session, self._item, name, launch, args, {"bytes": bytes, "flops": flops})
        rates = {} if self._session.options.child is not None else _rates(gpu, taken.value, bytes, flops)
        details = {**taken.details, **rates}  # which are to be shown, and so the session's own
        recorder_of(self._item).add(replace(taken, details=details, bounds=bounds))
        return Timing(taken.samples, taken.details)

    def record(
        self,
        name: str,
        value: float | Sequence[float],
        unit: str = "1",
        better: Better = "lower",
        *,
        kind: Kind = "noisy",
        max: float | None = None,
        min: float | None = None,
    ) -> None:
        """Judge a number that the test took itself, or several samples of it.

        ``kind`` "exact" compares it directly; a "noisy" one is measured again in fresh processes before it
        fails the test, and on a machine without a GPU it is shown only. ``max`` and ``min`` are bounds in its
        unit: beyond them the test fails, with a baseline or without.
        """
        bounds = Bounds.of(f'gpuperf.record("{name}")', min, max, kind)
        if better not in ("lower", "higher"):
            raise GpuperfError(f'gpuperf.record("{name}"): better={better!r}; say "lower" or "higher"')
        if kind not in ("noisy", "exact", "shown"):
            raise GpuperfError(f'gpuperf.record("{name}"): kind={kind!r}; say "noisy", "exact" or "shown"')
        samples = _samples(name, value)
        if not samples or not all(math.isfinite(v) and (v > 0 or kind != "noisy") for v in samples):
            raise GpuperfError(
                f'gpuperf.record("{name}", {value!r}): noisy values must be finite and positive, '
                "exact values finite"
            )
        if not self._session.options.active:
            return
        if kind == "noisy" and not self._session.judges_host_time():
            kind = "shown"
        metric = Metric(name, unit, better, kind, "record")
        contract = test_options(self._item).versioned({})
        recorder_of(self._item).add(Measurement(metric, contract, samples, bounds=bounds))


def _samples(name: str, value: Any) -> tuple[float, ...]:
    """Return a number or several as floats, also NumPy's and other libraries'; raises GpuperfError."""
    if not isinstance(name, str) or not name.strip() or not name.isprintable():
        raise GpuperfError(f"gpuperf.record({name!r}): a name is printable text in one line")
    plain = value.tolist() if hasattr(value, "tolist") else value
    several = plain if isinstance(plain, Sequence) and not isinstance(plain, (str, bytes)) else (plain,)
    for each in several:
        if not isinstance(each, Real) or isinstance(each, bool):
            raise GpuperfError(
                f'gpuperf.record("{name}", {value!r}): give a number, or a flat sequence of numbers'
            )
    return tuple(float(each) for each in several)


def timed(
    session: GpuperfSession,
    item: pytest.Item,
    name: str,
    launch: Callable[..., Any],
    args: Sequence[Any] = (),
    question: Mapping[str, Any] = MappingProxyType({}),
) -> Measurement:
    """Measure the device time of ``launch(*args)``; ``question`` is added to the metric's contract."""
    from pytest_gpuperf.instruments import device_time

    gpu, options = session.gpu(), test_options(item)
    work_hash = getattr(launch, "work_hash", None)
    code = work_hash(*args) if work_hash else None  # before it is launched, which writes to its arrays
    settings = device_time.Settings(options.l2, options.seconds, options.warmup)
    timing = device_time.measure(gpu, launch, args, settings, batch=session.batch(item, name))
    session.guard.sample()  # before the device cools down
    # a time that includes the host's gaps is judged as a host time
    instrument = "host_time" if "host-bound" in timing.details else "device_time"
    metric = Metric(name, "s", "lower", "noisy" if gpu.device.judges_times else "shown", instrument)
    mode = {"timing": "events", "l2": options.l2, "batch": timing.details.get("batch")}
    contract = _contract(gpu, args, options, {**mode, **question})
    return Measurement(metric, contract, timing.samples, code, timing.details)


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


def _rates(gpu: Gpu, seconds: float, moved: int | None, flops: int | None) -> dict[str, float]:
    """Return the rates of the declared work, for a real device: an emulated time gives none."""
    if not gpu.device.judges_times:
        return {}
    from pytest_gpuperf.instruments.device_time import copy_bandwidth

    rates = {}
    if moved:
        rates["bytes_per_second"] = moved / seconds
        rates["of_copy"] = moved / seconds / copy_bandwidth(gpu)
    if flops:
        rates["flops_per_second"] = flops / seconds
    return rates
