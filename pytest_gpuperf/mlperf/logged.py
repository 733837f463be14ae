"""Read the log folder of a phase that any harness ran under LoadGen, MLPerf's own among them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pytest_gpuperf.errors import GpuperfError
from pytest_gpuperf.figures import short
from pytest_gpuperf.mlperf import logs
from pytest_gpuperf.mlperf.logs import Detail
from pytest_gpuperf.mlperf.submission import objections

_PERCENTILES = {f"p{each:g}": f"{each:.2f}" for each in (50, 90, 95, 97, 99, 99.9)}
_EARLY = {"SingleStream": "early_stopping_latency_ss", "MultiStream": "early_stopping_latency_ms"}


@dataclass(frozen=True, slots=True)
class LoggedPhase:
    """What LoadGen's detail log says of one phase.

    ``mode`` is LoadGen's own name, such as "PerformanceOnly". ``latency`` are its percentiles in seconds, of
    queries, and ``samples_per_second`` its rate; both are empty or None after an accuracy phase. ``valid``
    holds only without errors. ``early_stopping`` is MLPerf's metric of the streams: the bound that their
    target percentile keeps with 99 % confidence, in seconds. ``values`` has every key of the log.
    ``objections`` are those of MLPerf's submission checker to a performance phase of ResNet-50.
    """

    scenario: str
    mode: str
    valid: bool
    reason: str
    queries: int | None
    latency: Mapping[str, float]
    samples_per_second: float | None
    early_stopping: float | None
    loadgen: str
    values: Mapping[str, Any]
    objections: tuple[str, ...] = ()


def read_logs(folder: str | Path) -> LoggedPhase:
    """Read the log folder of one phase; raises GpuperfError if its detail log is not there or not whole."""
    if not isinstance(folder, str | Path):
        raise GpuperfError(f"read_logs: {short(folder)} is no path; give the folder of a phase's logs")
    detail = logs.read_detail(Path(folder))
    values = detail.values
    return LoggedPhase(
        scenario=str(values.get("effective_scenario", "")),
        mode=str(values.get("effective_test_mode", "")),
        valid=detail.valid and not detail.num_errors,
        reason=detail.reason,
        queries=None if (counted := detail.number("result_query_count")) is None else int(counted),
        latency=_latency(detail),
        samples_per_second=_rate(detail),
        early_stopping=early_stopping(detail),
        loadgen=str(values.get("loadgen_version", "")),
        values=values,
        objections=tuple(objections(values, detail.num_errors)),
    )


def early_stopping(detail: Detail) -> float | None:
    """Return the early-stopping bound of a stream's target percentile in seconds, None if there is none."""
    found = detail.number(_EARLY.get(str(detail.values.get("effective_scenario")), ""))
    return found * 1e-9 if found else None


def _latency(detail: Detail) -> dict[str, float]:
    per_query = "result_{}_percentile_per_query_latency_ns"
    form = per_query if per_query.format("50.00") in detail.values else "result_{}_percentile_latency_ns"
    found = {name: detail.number(form.format(percent)) for name, percent in _PERCENTILES.items()}
    return {name: ns * 1e-9 for name, ns in found.items() if ns is not None}


def _rate(detail: Detail) -> float | None:
    for key in (
        "result_samples_per_second",
        "result_completed_samples_per_sec",
        "result_qps_with_loadgen_overhead",
    ):
        if (rate := detail.number(key)) is not None:
            return rate
    # MultiStream logs no rate
    mean, samples = map(detail.number, ("result_mean_query_latency_ns", "effective_samples_per_query"))
    return samples * 1e9 / mean if mean and samples else None
