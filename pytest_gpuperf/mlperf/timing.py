"""The figures of a performance phase, and what must hold of them before they are any."""

from __future__ import annotations

from pathlib import Path
from statistics import median

import numpy as np

from pytest_gpuperf.errors import GpuperfError
from pytest_gpuperf.mlperf import logs
from pytest_gpuperf.mlperf.callbacks import Callbacks
from pytest_gpuperf.mlperf.result import Latency
from pytest_gpuperf.mlperf.settings import Scenario

LONG_ENOUGH = ("result_min_duration_met", "result_min_queries_met")  # LoadGen's keys
TOLERANCE = 0.05  # of the invariants between a phase's rate and its mean latency
# Seconds of a query, and of each of its samples. Seen with a model that does nothing: 1.1 us in SingleStream,
# 2.6 in MultiStream, and 0.1 to 0.34 us a sample in queries of a thousand to a million.
GAP, SAMPLE_GAP = 20e-6, 0.5e-6


class InvalidPhase(GpuperfError):
    """LoadGen calls a phase INVALID, or met errors in it; ``too_slow`` if only its latency was too long.

    ``completions`` are those of ``Callbacks``.
    """

    def __init__(
        self, scenario: Scenario, detail: logs.Detail, completions: list[tuple[float, int]] | None = None
    ) -> None:
        self.completions = completions or []
        state = str(detail.values.get("result_validity", "without a result"))
        self.qps = scenario.qps
        # It was late for more than 1 %, or for so nearly as many that early stopping is not sure.
        enough = all(detail.values.get(key) for key in LONG_ENOUGH)
        self.too_slow = scenario.server and not detail.num_errors and enough
        super().__init__(
            f"LoadGen calls this {scenario.name} phase {state} with {detail.num_errors} errors, so it has no "
            f"figures: {detail.reason or 'no reason given'} ({detail.path})"
        )


def timed(
    scenario: Scenario, calls: Callbacks, detail: logs.Detail, log_dir: Path
) -> tuple[Latency, int, int, float]:
    """Return the latency, the queries, the samples and the seconds of the phase.

    They come from LoadGen's trace; in Offline, whose trace would be gigabytes, from the clock of the
    callbacks and LoadGen's last completion.
    """
    if not scenario.one_query:
        trace = logs.read_trace(log_dir)
        queries = len(trace.latencies)
        latency = Latency.of(trace.latencies, queries)
        require_complete(scenario, detail, trace, latency)
        if not scenario.server:
            # A host that runs something else between two queries pauses some; what is wrong is so for all.
            require_consistent(scenario, latency, queries, trace.duration - trace.pauses)
        return latency, queries, trace.samples, trace.duration
    duration = float(detail.values["result_max_latency_ns"]) * 1e-9
    ends = np.array([end for end, _ in calls.completions]) - (calls.issued or 0.0)
    sizes = np.array([size for _, size in calls.completions])
    if not calls.completions:  # it was one batch, which nobody took the time of but LoadGen
        ends, sizes = np.array([duration]), np.array([int(detail.values["effective_samples_per_query"])])
    return Latency.of(np.repeat(ends, sizes), 1), 1, int(sizes.sum()), duration


def require_complete(scenario: Scenario, detail: logs.Detail, trace: logs.Trace, latency: Latency) -> None:
    """Raise GpuperfError unless the trace holds what LoadGen counted, and gives its median."""
    counted, median_ns = (detail.values.get(key) for key in ("result_query_count", scenario.median_key))
    queries, samples = len(trace.latencies), len(trace.latencies) * scenario.samples_per_query
    median_here = round(latency.p50 * 1e9)
    if (counted, median_ns, trace.samples) != (queries, median_here, samples):
        raise GpuperfError(
            f"LoadGen's trace is not whole: {queries:,} queries with {trace.samples:,} samples and a median "
            f"of {median_here} ns, where LoadGen counted {counted} and {median_ns} ns; is the disk of the "
            f"cache full? ({detail.path})"
        )


def require_consistent(scenario: str | Scenario, latency: Latency, queries: int, duration: float) -> None:
    """Raise GpuperfError unless a stream's rate and its mean latency belong together.

    It has one query under way at a time, so their product is 1, less the gap that LoadGen and Python need
    between two. (The reference harness once printed 242 QPS with a mean of 0.2466 s.)
    """
    asked, rate = Scenario.of(scenario), queries / duration
    found = rate * latency.mean
    if abs(found - 1) > TOLERANCE + (GAP + SAMPLE_GAP * asked.samples_per_query) * rate:
        raise GpuperfError(
            f"the {asked.name} figures contradict each other: {rate:.4g} queries/s times the mean latency of "
            f"{latency.mean:.4g} s is {found:.3f}, not 1 within {TOLERANCE:.0%}: time passed between queries"
        )


def answering(completions: list[tuple[float, int]]) -> float:
    """Return how many samples a second were answered: the median over stretches of an eighth of the batches.

    So a pause of the host does not count. 0 of fewer than two batches.
    """
    ends, total = [], 0
    for end, count in sorted(completions):
        total += count
        ends.append((end, total))
    stretch = max(1, len(ends) // 8)
    pairs = zip(ends, ends[stretch:], strict=False)
    return median([(after - before) / (end - begin) for (begin, before), (end, after) in pairs] or [0.0])
