"""Measure one test in this process: hold the device meanwhile, and collect what was measured."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

from pytest_gpuperf.marker import FIXTURES_OF_DEVICE, FIXTURES_OF_NUMBERS, fixtures_of, test_options
from pytest_gpuperf.measurement import Kind, Measurement, Metric
from pytest_gpuperf.records import Record
from pytest_gpuperf.session import GpuperfSession, recorder_of

if TYPE_CHECKING:
    from pytest_gpuperf.backends.gpu import Gpu

UNFIT = pytest.StashKey[str]()


@contextmanager
def measuring(session: GpuperfSession, item: pytest.Item) -> Iterator[None]:
    """Hold the device during the test and watch whether it is throttled."""
    if not session.options.active:
        yield
        return
    gpu = session.gpu() if _uses_device(session, item) else None
    if gpu:
        session.mark_memory()
    if "benchmark" in fixtures_of(item) and not session.measures(item):
        item.funcargs["benchmark"].disabled = True  # type: ignore[attr-defined]  # it then runs once, untimed
    if not _must_be_alone(session, item, gpu):
        yield
        return
    with session.guard.measuring(gpu):
        yield
    item.stash[UNFIT] = session.guard.unfit


def _must_be_alone(session: GpuperfSession, item: pytest.Item, gpu: Gpu | None) -> bool:
    """Return whether others must wait meanwhile: on a real device, or a host whose times are judged."""
    if gpu and gpu.device.judges_times:
        return True
    return session.options.judge_host_times and bool(FIXTURES_OF_NUMBERS & fixtures_of(item))


def _uses_device(session: GpuperfSession, item: pytest.Item) -> bool:
    names = fixtures_of(item)
    if names & FIXTURES_OF_DEVICE or not names & FIXTURES_OF_NUMBERS:
        return bool(names & FIXTURES_OF_DEVICE)
    return session.expects_device()


def record_of(session: GpuperfSession, item: pytest.Item) -> Record | None:
    """Return what a test measured in this process, None if nothing."""
    recorder = recorder_of(item)
    _take_benchmark(session, item)
    if not recorder.measurements:
        return None
    from pytest_gpuperf.machine import environment

    # Another test may have opened the device: that must not move this one's figures to another pool.
    measured_there = any(m.metric.constants.where == "device" for m in recorder.measurements.values())
    uses_it = session.opened and (measured_there or _uses_device(session, item))
    device = session.opened.device if session.opened and uses_it else None
    host = environment.host_place()
    sentinels = session.guard.sentinels
    return Record(
        measurements=tuple(recorder.measurements.values()),
        device=device.place() if device else {"backend": "cpu"},
        host=host,
        environment={
            **environment.describe(device, item.path.parent),
            **({"sentinels": sentinels} if sentinels else {}),
        },
        unfit=item.stash.get(UNFIT, ""),
    )


def _take_benchmark(session: GpuperfSession, item: pytest.Item) -> None:
    """Record what a test measured by pytest-benchmark's fixture, to be judged like any other figure."""
    fixture = getattr(item, "funcargs", {}).get("benchmark")
    stats = getattr(getattr(fixture, "stats", None), "stats", None)
    data = tuple(getattr(stats, "data", ()))
    if not data:
        return
    kind: Kind = "noisy" if session.judges_host_time() else "shown"
    metric = Metric("benchmark", "s", "lower", kind, "host_time")
    contract = test_options(item).versioned({"timing": "pytest-benchmark"})
    recorder_of(item).add(Measurement(metric, contract, data))
