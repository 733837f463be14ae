"""One phase of MLPerf's LoadGen around a session, in this process.

LoadGen can poison a process (``poisoned`` says so afterwards) and can end it: a completion of an unknown
query, or a crash in the model's own library, takes the process down with a signal. So a test that uses this
belongs in a child process, and only its parent can bound those. What can be bound in here is: a callback
that raises, a model that hangs, a log folder that cannot be written, a phase that LoadGen calls INVALID, an
interrupt.
"""

from __future__ import annotations

from importlib import metadata
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any

import numpy as np

from pytest_gpuperf.errors import GpuperfError, Unavailable
from pytest_gpuperf.mlperf import logs, settings
from pytest_gpuperf.mlperf.datasets import Dataset
from pytest_gpuperf.mlperf.phase import Callbacks, Phase, poisoned
from pytest_gpuperf.mlperf.result import AccuracyResult, Latency, PerformanceResult
from pytest_gpuperf.mlperf.session import Session
from pytest_gpuperf.mlperf.settings import SAMPLES_PER_QUERY, Scenario

__all__ = ["accuracy", "performance", "poisoned"]

PERFORMANCE_SAMPLES = 1024  # MLPerf's for ResNet-50
CPU_PERFORMANCE_SAMPLES = 64  # keeps the loading of a phase on the CPU under a second
STALL = 60.0
TOLERANCE = 0.05  # of the invariants between a phase's rate and its mean latency
GAP = 20e-6  # seconds; seen with a model that does nothing: 1.1 us in SingleStream, 2.6 in MultiStream


def performance(
    session: Session,
    scenario: Scenario,
    *,
    log_dir: Path,
    profile: str = "short",
    seconds: float | None = None,
    stall: float = STALL,
) -> PerformanceResult:
    """One performance phase; the images' copy to the device is part of every query.

    ``seconds`` overrides the profile's duration; ``stall`` bounds the seconds without a completion. Raises
    GpuperfError for everything in the module's docstring, and Unavailable where LoadGen is not installed.
    """
    lg, chosen = _loadgen(), settings.profile(profile)
    batch = _batch(session, scenario)
    dataset = session.model.dataset(None)
    phase = Phase(lg, session, dataset, batch, log_dir, stall)
    loaded = _loaded(session, dataset)
    limit = seconds if seconds is not None else chosen.seconds
    warm_up = _warm_up_seconds(session, limit)

    def prepare() -> Any:
        phase.callbacks.load(range(loaded))
        probe = _probe(phase.callbacks, session, batch, warm_up)
        measured = limit
        if limit is not None and chosen.includes_warm_up:
            measured = max(0.1, limit - warm_up)
        return settings.performance(lg, scenario, chosen, measured, probe, batch, loaded)

    used = phase.run(prepare, trace=scenario != "Offline")
    detail = logs.read_detail(log_dir)
    _require_valid(detail, scenario)
    latency, queries, samples, duration = _timing(scenario, phase.callbacks, detail, log_dir)
    require_consistent(scenario, latency, queries, duration)
    contract = {
        **_contract(session, dataset, scenario, detail),
        "profile": chosen.name,
        "seconds": limit if limit is not None else used.min_duration_ms / 1000,
        "performance_samples": loaded,
        "samples_per_query": SAMPLES_PER_QUERY if scenario == "MultiStream" else 1,
        "qsl": "host",
        "input_copy": True,
    }
    environment = {**session.description, "batch": batch}
    return PerformanceResult(
        scenario, latency, queries, samples, duration, contract, environment, log_dir, phase.notes
    )


def accuracy(
    session: Session,
    *,
    log_dir: Path,
    scenario: Scenario = "Offline",
    count: int | None = None,
    stall: float = STALL,
) -> AccuracyResult:
    """One accuracy phase over the first ``count`` images (None: all). Raises as ``performance`` does."""
    lg = _loadgen()
    batch = _batch(session, scenario)
    dataset = session.model.dataset(count)
    phase = Phase(lg, session, dataset, batch, log_dir, stall)

    def prepare() -> Any:
        chosen = settings.mlperf(lg, scenario)
        chosen.mode = lg.TestMode.AccuracyOnly
        chosen.performance_sample_count_override = _loaded(session, dataset)
        return chosen

    phase.run(prepare, trace=False)
    detail = logs.read_detail(log_dir)
    if detail.num_errors:
        raise GpuperfError(f"LoadGen met {detail.num_errors} errors ({detail.path}): {detail.reason}")
    predictions = logs.read_accuracy(log_dir, len(dataset))
    contract = {**_contract(session, dataset, scenario, detail), "mode": "accuracy"}
    return AccuracyResult(
        session.model,
        session.precision,
        predictions,
        dataset.labels,
        contract,
        session.description,
        log_dir,
        phase.notes,
    )


def _loadgen() -> Any:
    try:
        import mlperf_loadgen
    except ImportError as error:
        raise Unavailable(
            f"MLPerf's LoadGen cannot be imported ({error}): pip install 'pytest-gpuperf[mlperf]'"
        ) from error
    return mlperf_loadgen


def _batch(session: Session, scenario: str) -> int:
    if scenario == "SingleStream":
        return 1
    if scenario == "MultiStream":
        return SAMPLES_PER_QUERY
    if scenario == "Offline":
        return session.batch_sizes[-1]
    raise GpuperfError(f'there is no scenario "{scenario}"; use SingleStream, MultiStream or Offline')


def _loaded(session: Session, dataset: Dataset) -> int:
    """How many images are loaded at once: a multiple of the largest batch, so that a batch is a slice."""
    limit = min(len(dataset), PERFORMANCE_SAMPLES if _on_device(session) else CPU_PERFORMANCE_SAMPLES)
    largest = session.batch_sizes[-1]
    return limit - limit % largest if limit > largest else limit


def _on_device(session: Session) -> bool:
    return getattr(session, "on_device", False)  # a suite's own session need not have it


def _warm_up_seconds(session: Session, limit: float | None) -> float:
    """A GPU needs 3 s to reach its clocks; on the CPU a tenth of the phase fills caches and thread pools."""
    if _on_device(session):
        return 3.0
    return 0.1 * (limit if limit is not None else 10.0)


def _probe(calls: Callbacks, session: Session, batch: int, seconds: float) -> float:
    """Warms up at the measured shape; the median seconds of a batch over the later half of the runs."""
    times: list[float] = []
    end = perf_counter() + seconds
    while len(times) < 4 or perf_counter() < end:
        images = calls.library.slice(len(times) * batch, batch)
        begin = perf_counter()
        session.run(images)
        calls.progress = perf_counter()
        times.append(calls.progress - begin)
        if calls.abandoned:
            break
    return median(times[len(times) // 2 :])


def _require_valid(detail: logs.Detail, scenario: str) -> None:
    if detail.num_errors or not detail.valid:
        state = str(detail.values.get("result_validity", "without a result"))
        raise GpuperfError(
            f"LoadGen calls this {scenario} phase {state} with {detail.num_errors} errors, so it has no "
            f"figures: {detail.reason or 'no reason given'} ({detail.path})"
        )


def _timing(
    scenario: str, calls: Callbacks, detail: logs.Detail, log_dir: Path
) -> tuple[Latency, int, int, float]:
    """Latency, queries, samples and the seconds of the phase, from LoadGen's trace; in Offline, whose trace
    would be gigabytes, from the clock of the callbacks and LoadGen's last completion.
    """
    if scenario != "Offline":
        trace = logs.read_trace(log_dir)
        queries = len(trace.latencies)
        return Latency.of(trace.latencies, queries), queries, trace.samples, trace.duration
    ends = np.array([end for end, _ in calls.completions]) - (calls.issued or 0.0)
    sizes = np.array([size for _, size in calls.completions])
    duration = float(detail.values["result_max_latency_ns"]) * 1e-9
    return Latency.of(np.repeat(ends, sizes), 1), 1, int(sizes.sum()), duration


def require_consistent(scenario: str, latency: Latency, queries: int, duration: float) -> None:
    """A stream has one query under way at a time, so its rate times its mean latency is 1, less the GAP
    that LoadGen and Python need between two. (The reference harness once printed 242 QPS beside a mean of
    0.2466 s.)
    """
    rate = queries / duration
    found = rate * latency.mean
    if scenario != "Offline" and abs(found - 1) > TOLERANCE + GAP * rate:
        raise GpuperfError(
            f"the {scenario} figures contradict each other: {rate:.4g} queries/s times the mean latency of "
            f"{latency.mean:.4g} s is {found:.3f}, not 1 within {TOLERANCE:.0%}: time passed between queries"
        )


def _contract(session: Session, dataset: Dataset, scenario: str, detail: logs.Detail) -> dict[str, Any]:
    seeds = {
        f"seed_{name}": detail.values[f"effective_{key}_rng_seed"]
        for name, key in (("qsl", "qsl"), ("sample", "sample_index"), ("schedule", "schedule"))
    }
    return {
        "model": session.model.name,
        "recipe": session.model.recipe,
        "dataset": dataset.name,
        "images": len(dataset),
        "scenario": scenario,
        "precision": session.precision,
        "loadgen": metadata.version("mlcommons-loadgen"),
        **seeds,
    }
