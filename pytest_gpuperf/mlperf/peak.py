"""Find the highest rate of queries at which Server keeps its latency, by bisection."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from pytest_gpuperf.errors import GpuperfError
from pytest_gpuperf.measurement import Kind, Measurement, Metric
from pytest_gpuperf.mlperf.loadgen import AGAIN, performance
from pytest_gpuperf.mlperf.result import PerformanceResult
from pytest_gpuperf.mlperf.session import Session
from pytest_gpuperf.mlperf.settings import Scenario
from pytest_gpuperf.mlperf.timing import InvalidPhase

MOST_PHASES = 30
# Phases that have to fail before a rate counts as too high: one pause of the host spoils a phase of 2 s. With
# one, five processes on an H100 found 9,570 to 10,060 queries/s and a sixth 4,858.
FAILURES = 2


@dataclass(frozen=True, slots=True)
class PeakResult:
    """The highest rate of queries that was VALID: one (1 + ``resolution``) times as high was not.

    ``phases`` are the rates that were tried, in order, with what LoadGen said; ``best`` the phase at ``qps``.
    """

    qps: float
    best: PerformanceResult
    phases: tuple[tuple[float, bool], ...]
    resolution: float
    contract: Mapping[str, Any]

    def measurements(self, kind: Kind = "noisy") -> list[Measurement]:
        """Return the rate, which is judged."""
        metric = Metric("peak_qps", "1/s", "higher", kind, "loadgen")
        details = {"phases": len(self.phases), "latency_p99": float(self.best.latency.p99)}
        return [Measurement(metric, self.contract, (self.qps,), details=details)]


def search(
    attempt: Callable[[float], tuple[float, PerformanceResult | None]], resolution: float
) -> tuple[PerformanceResult, tuple[tuple[float, bool], ...]]:
    """Return the best valid phase and all rates that were tried.

    ``attempt`` runs a phase at a rate, or for 0 at one of its own choice, and returns the rate and the phase,
    None if it was invalid, in which case it is asked once more. From the first on the rate is doubled or
    halved until one is valid and one is not, and then bisected, in logarithms, to the resolution. Raises
    GpuperfError if that takes more than MOST_PHASES.
    """
    low, high, rate, best = 0.0, math.inf, 0.0, None
    tried: list[tuple[float, bool]] = []
    while best is None or high / low > 1 + resolution:
        if len(tried) >= MOST_PHASES:
            why = "all were valid" if high == math.inf else "none was valid" if best is None else "too fine"
            rates = f"from {tried[0][0]:.4g} to {tried[-1][0]:.4g} queries/s"
            raise GpuperfError(
                f"no highest rate was found in {len(tried)} phases {rates} ({why}): "
                "give another max_latency or resolution"
            )
        for _ in range(FAILURES):
            rate, found = attempt(rate)
            tried.append((rate, found is not None))
            if found is not None:
                break
        if found is None:
            high = rate
        else:
            low, best = rate, found
        rate = low * 2 if high == math.inf else high / 2 if best is None else math.sqrt(low * high)
    return best, tuple(tried)


def find_peak(
    session: Session, scenario: Scenario, *, seconds: float, resolution: float, **options: Any
) -> PeakResult:
    """Return the highest valid rate of Server, in phases of ``seconds``; raises as ``performance`` does.

    ``options`` are those of ``performance``. A phase lasts until it has the 662 queries of a p99.
    """

    def attempt(qps: float) -> tuple[float, PerformanceResult | None]:
        warm_up = AGAIN if qps else None  # the first phase has no rate yet
        asked = replace(scenario, qps=qps)
        try:
            found = performance(session, asked, seconds=seconds, warm_up=warm_up, **options)
        except InvalidPhase as invalid:
            if not invalid.too_slow:
                raise
            return invalid.qps, None
        return float(found.contract["target_qps"]), found

    best, tried = search(attempt, resolution)
    contract = {name: value for name, value in best.contract.items() if name != "target_qps"}
    rate = float(best.contract["target_qps"])
    return PeakResult(rate, best, tried, resolution, {**contract, "resolution": resolution})
