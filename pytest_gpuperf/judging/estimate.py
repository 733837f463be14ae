"""How far today's runs are from a baseline's, and how sure that is: the moderated t statistic."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from pytest_gpuperf.measurement import Measurement, Metric, Run

ALPHA = 0.005
"""The chance, one-sided, of calling a metric regressed that sits exactly at its tolerance."""
PRIOR_DF = 4
"""How many degrees of freedom the instrument's own standard deviation counts for (Smyth 2004's d0)."""
MIN_RUNS = 3
"""Runs that each side needs before anything is called regressed: fewer do not show a second mode."""
REPLICAS = 4
"""Fresh processes that confirm or clear a test whose screen did not pass."""
POWER = 0.95
_MAX_EXPONENT = 709.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """A noisy metric's change, in logs where positive is worse, with both figures in the metric's unit.

    ``change`` is d, ``half_width`` h; ``margin`` is what a change needs beyond the limit to clear it
    with probability 95 %, if the spread is the one seen.
    """

    baseline: float
    now: float
    change: float
    half_width: float
    margin: float


@dataclass(frozen=True, slots=True, kw_only=True)
class RunsEstimate(Estimate):
    """The moderated t statistic; ``each`` are the runs' own d."""

    each: tuple[float, ...]
    baseline_runs: int


def estimate(
    metric: Metric, prior_sd: float, runs: Sequence[Run], now: Sequence[Measurement], alpha: float
) -> RunsEstimate:
    """The estimate, its spread moderated by the instrument's own (Smyth 2004, doi:10.2202/1544-6115.1027).

    s^2 = (d0 s0^2 + (R-1) s_b^2 + (K-1) s_c^2) / (d0 + R + K - 2), h = t(1-alpha) s sqrt(1/R + 1/K).
    """
    from scipy.special import stdtrit

    sign = 1.0 if metric.better == "lower" else -1.0
    old_logs = [math.log(run.value) for run in runs]
    new_logs = [math.log(measurement.value) for measurement in now]
    old_mean, new_mean = math.fsum(old_logs) / len(old_logs), math.fsum(new_logs) / len(new_logs)
    squares = math.fsum((y - old_mean) ** 2 for y in old_logs) + math.fsum(
        (y - new_mean) ** 2 for y in new_logs
    )
    freedom = PRIOR_DF + len(old_logs) + len(new_logs) - 2
    spread = math.sqrt((PRIOR_DF * prior_sd**2 + squares) / freedom)

    # A screen that passed says how wide a single run is; what could have been caught is
    # decided by the replicas that a slower screen would have called for.
    confirming = len(new_logs) if len(new_logs) > 1 else REPLICAS
    confirming_freedom = PRIOR_DF + len(old_logs) + confirming - 2
    quantiles = float(stdtrit(confirming_freedom, 1 - alpha)) + float(stdtrit(confirming_freedom, POWER))
    return RunsEstimate(
        baseline=bounded_exp(old_mean),
        now=bounded_exp(new_mean),
        change=sign * (new_mean - old_mean),
        each=tuple(sign * (y - old_mean) for y in new_logs),
        half_width=float(stdtrit(freedom, 1 - alpha))
        * spread
        * math.sqrt(1 / len(old_logs) + 1 / len(new_logs)),
        margin=quantiles * spread * math.sqrt(1 / len(old_logs) + 1 / confirming),
        baseline_runs=len(old_logs),
    )


def bounded_exp(exponent: float) -> float:
    # Absurd but finite input must give an absurd but finite figure, not an OverflowError.
    return math.exp(min(exponent, _MAX_EXPONENT))
