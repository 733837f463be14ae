"""Find the highest rate of queries at which Server keeps its latency, though some phases are spoilt."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from pytest_gpuperf.errors import GpuperfError, NotFit
from pytest_gpuperf.measurement import Kind, Measurement, Metric
from pytest_gpuperf.mlperf.datasets import dataset_of
from pytest_gpuperf.mlperf.library import Kept
from pytest_gpuperf.mlperf.loadgen import AGAIN, performance
from pytest_gpuperf.mlperf.phase import Lasting
from pytest_gpuperf.mlperf.result import PerformanceResult
from pytest_gpuperf.mlperf.session import Session
from pytest_gpuperf.mlperf.settings import SERVER_QUERIES, Scenario
from pytest_gpuperf.mlperf.threshold import Threshold
from pytest_gpuperf.mlperf.timing import InvalidPhase, answering

MOST_PHASES, MOST_FLOODS = 60, 12
DOUBTFUL = 20  # phases after which a search is not plain
LENGTHY = 600.0  # seconds of a phase, as long as MLPerf's
FLOOD = 0.25  # of a phase's seconds: as long are those with more queries than can be answered
FLOODED = 0.8  # of the rate that was asked for: a server that answers less has more than it can do


@dataclass(frozen=True, slots=True)
class Attempt:
    """A phase at ``rate``: what it found, None if it was invalid, and the queries answered a second."""

    rate: float
    found: Any
    answered: float


Attempts = Callable[[float, float], Attempt]


@dataclass(frozen=True, slots=True)
class PeakResult:
    """The highest rate of queries that was VALID, known to ``resolution``.

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
    attempt: Attempts, resolution: float, slack: Callable[[float], float] = lambda answered: 0.0
) -> tuple[Attempt, tuple[tuple[float, bool], ...]]:
    """Return the highest valid phase that the others bear out, and all rates that were tried.

    ``attempt(rate, part)`` runs a phase of a part of the usual length, for the rate 0 at one of its own
    choice. Short ones at twice the rate each come first, until the server is flooded: how fast it then
    answers is about the peak, or higher by ``slack`` of it. Each further phase is at the rate that all before
    make as likely too high as too low, until the peak is known to the resolution: a phase that contradicts
    the others is held to be spoilt. Where many were not enough, every other one is halfway between the
    bounds: one that was valid by luck leaves higher rates open, and phases below those rule none of them
    out. Raises after MOST_PHASES: NotFit if they contradict each other, else GpuperfError.
    """
    answered, tried = _flooded(attempt)
    threshold, attempts = Threshold(answered * (1 + slack(answered)), resolution), list[Attempt]()
    while True:
        low, middle, high = threshold.bounds()
        valid = [each for each in attempts if each.found is not None and each.rate <= high]
        if valid and high / low <= 1 + resolution:
            return max(valid, key=lambda each: each.rate), tuple(tried)
        if len(attempts) == MOST_PHASES:
            rates = f"{len(tried)} phases from {min(tried)[0]:.4g} to {max(tried)[0]:.4g} queries/s"
            raise _given_up(f"no highest rate was found in {rates}", attempts, low, high)
        plain = len(attempts) < DOUBTFUL or len(attempts) % 2
        made = attempt(middle if plain else math.sqrt(low * high), 1.0)
        attempts.append(made)
        tried.append((made.rate, made.found is not None))
        threshold.saw(made.rate, made.found is not None)


def _given_up(said: str, attempts: Sequence[Attempt], low: float, high: float) -> GpuperfError:
    """Return why a search ended without a peak that lies between ``low`` and ``high``."""
    valid = [each.rate for each in attempts if each.found is not None]
    if not valid:
        return GpuperfError(f"{said} (none was valid): give another max_latency")
    between = f"the peak lies between {low:,.1f} and {high:,.1f}, {100 * (high / low - 1):.2g} % apart"
    if max(valid) <= min((each.rate for each in attempts if each.found is None), default=math.inf):
        return GpuperfError(f"{said}: {between}; give a coarser resolution")
    return NotFit(
        f"{said} (some contradict others): {between}; run again on a quieter host, or give more seconds or a "
        "coarser resolution"
    )


def _flooded(attempt: Attempts) -> tuple[float, list[tuple[float, bool]]]:
    """Return how many queries a second are answered where too many come, and the rates that were tried."""
    tried: list[tuple[float, bool]] = []
    rate = 0.0
    for _ in range(MOST_FLOODS):
        made = attempt(rate, FLOOD)
        tried.append((made.rate, made.found is not None))
        if made.answered < FLOODED * made.rate:
            return made.answered, tried
        rate = 2 * made.rate
    raise GpuperfError(f"no highest rate was found: {made.rate:.4g} queries/s are answered, and all before")


def find_peak(
    session: Session, scenario: Scenario, *, seconds: float, resolution: float, **options: Any
) -> PeakResult:
    """Return the highest valid rate of Server, in phases of ``seconds``.

    ``options`` are those of ``performance``. A phase lasts until it has the 662 queries of a p99. Raises as
    ``performance`` and ``search`` do.
    """
    lasting = Lasting(Kept(dataset_of(session.model, None), session.dtype, session.hold))

    def attempt(qps: float, part: float) -> Attempt:
        if qps and SERVER_QUERIES / qps > LENGTHY:
            raise GpuperfError(
                f"no rate above {SERVER_QUERIES / LENGTHY:.2g} queries/s keeps max_latency="
                f"{scenario.max_latency:g}, and a phase of less takes over {LENGTHY:g} s for its "
                f"{SERVER_QUERIES} queries: give a longer one"
            )
        warm_up = AGAIN if qps else None  # the first phase has no rate yet
        asked = replace(scenario, qps=qps)
        more = {**options, "lasting": lasting, "metered": False, "warm_up": warm_up}
        try:
            found = performance(session, asked, seconds=seconds * part, **more)
        except InvalidPhase as invalid:
            if not invalid.too_slow:
                raise
            return Attempt(invalid.qps, None, min(invalid.qps, answering(invalid.completions)))
        return Attempt(float(found.contract["target_qps"]), found, found.qps)

    def slack(answered: float) -> float:
        """Return by how much too high a rate a phase bears: at its end as much may wait as has the time."""
        lasts = max(seconds, SERVER_QUERIES / answered)
        if scenario.max_latency > lasts:  # almost any rate would be valid, and its phase last for ever
            raise GpuperfError(
                f"max_latency={scenario.max_latency:g} is longer than a phase of {lasts:.3g} s, so that no "
                "rate is too high: give a shorter one, or several times as many seconds="
            )
        return scenario.max_latency / lasts

    try:
        peak, tried = search(attempt, resolution, slack)
    finally:
        lasting.close()
    contract = {name: value for name, value in peak.found.contract.items() if name != "target_qps"}
    return PeakResult(peak.rate, peak.found, tried, resolution, {**contract, "resolution": resolution})
