"""Estimate how far today's runs are from stored ones: from a unit's own, or with units as a random effect.

A run is one process, and its statistic the log of its median. Samples of one process share that process's
luck, so only processes count as replicates. docs/verdicts.md explains the formulas to the owner of runners
and says where each constant comes from.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from pytest_gpuperf.measurement import Measurement, Metric, Run
from pytest_gpuperf.rules.differences import other_software
from pytest_gpuperf.rules.student import quantile

ALPHA = 0.005
"""The chance, one-sided, of an interval that does not reach what it should."""
POWER = 0.95
MIN_RUNS = 3
"""Runs that each side needs before anything is called regressed: fewer do not show a second mode."""
REPLICAS = 4
"""Fresh processes that confirm or clear a test whose own measurement looked worse."""
UNIT_DF = 4
"""Degrees of freedom that the instrument's spread between units, or between days, counts for."""
SAME_HOSTS, OTHER_HOSTS = 0.15e-6, 1e-6
"""Seconds by which a launch differs between units: on H100s of machines of one kind up to 0.3 us, between
machines with one and with two of them 1.0 to 1.7 us (docs/verdicts.md)."""
_MAX_EXPONENT = 709.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """A noisy metric's change, in logs where positive is worse, with both figures in the metric's unit.

    ``change`` is d. ``half_width`` is its interval's, with what units and days differ by; ``noise`` is that
    of the runs alone. ``margin`` is what a change needs beyond the limit to clear it with probability 95 %,
    if the spread is the one seen.
    """

    baseline: float
    now: float
    change: float
    half_width: float
    noise: float
    margin: float


@dataclass(frozen=True, slots=True, kw_only=True)
class RunsEstimate(Estimate):
    """An estimate from stored runs: each of today's own d, and how many stored runs are this unit's own."""

    each: tuple[float, ...]
    baseline_runs: int
    own: int


def judged_runs(
    measured: Measurement, runs: Sequence[Run], environment: Mapping[str, Any]
) -> tuple[Run, ...]:
    """Select the runs that a figure is held to: this software's, then this unit's, three of them at least.

    This unit's among this software's say most; this software's come before this unit's, since what a new
    driver costs every unit would hide a loss or look like one. Where neither has three, all count.
    """
    same = [run for run in runs if not other_software(measured, (run,), environment)]
    found = same if len(same) >= MIN_RUNS else list(runs)
    own = [run for run in found if _unit(run.environment) == _unit(environment)]
    return tuple(own if len(own) >= MIN_RUNS else found)


def prior_sd(metric: Metric, value: float, divided: int) -> float:
    """Return s0, the standard deviation of a log median between processes, by the instrument alone.

    A timer that steps adds its share of a short ``value``; ``divided`` is how many launches a sample lasts.
    """
    constants = metric.constants
    step = constants.step / divided / (value * math.sqrt(12)) if metric.unit == "s" and value > 0 else 0.0
    return math.hypot(constants.prior_sd, step)


def estimate(
    now: Sequence[Measurement], runs: Sequence[Run], environment: Mapping[str, Any], alpha: float = ALPHA
) -> RunsEstimate:
    """Estimate the change of ``now``, one or more processes of this session, from stored ``runs``.

    The spread within units is moderated by the instrument's (Smyth 2004, doi:10.2202/1544-6115.1027): with U
    units of n_i runs, R in all, and K runs today, v_e = d0 + R - U + K - 1 and
    s^2 = (d0 s0^2 + sum_i (n_i-1) s_i^2 + (K-1) s_c^2) / v_e. Three runs of this unit are the baseline alone;
    else units vary by s_u (``_reference``), and a host's clock from day to day. Both variances are added,
    with Satterthwaite's degrees of freedom.
    """
    metric = now[0].metric
    sign = 1.0 if metric.better == "lower" else -1.0
    units: dict[Any, list[float]] = defaultdict(list)
    for run in runs:
        units[_unit(run.environment)].append(sign * math.log(run.value))
    mine = units.pop(_unit(environment), [])
    others = [] if len(mine) >= MIN_RUNS else list(units.values())
    used = [*others, mine] if mine else others
    today = [sign * math.log(measurement.value) for measurement in now]

    value = math.exp(math.fsum(math.log(run.value) for run in runs) / len(runs))
    squares = math.fsum(_squares(logs) for logs in (*used, today))
    d0, count = metric.constants.prior_df, sum(len(logs) - 1 for logs in used)
    freedom = d0 + count + len(today) - 1
    variance = (d0 * prior_sd(metric, value, now[0].divided) ** 2 + squares) / freedom
    unit_sd = _unit_sd(metric, value, runs, environment)
    stored = _reference(mine, others, variance, unit_sd)
    day = metric.constants.day_sd**2 * (1 + 1 / _days(runs))
    unit_freedom = UNIT_DF + max(len(others), 1) - 1

    def interval(processes: int, freedom: float, *quantiles: float) -> tuple[float, float]:
        """Return the interval's half width for a number of processes, without and with units and days."""
        own = variance * (1 / processes + stored.share)
        rest = stored.between + day
        total = own + rest
        combined = total**2 / (own**2 / freedom + rest**2 / unit_freedom)
        narrow = sum(quantile(freedom, q) for q in quantiles) * math.sqrt(own)
        return narrow, sum(quantile(combined, q) for q in quantiles) * math.sqrt(total)

    # What could have been detected depends on the replicas that a slower measurement would have called for.
    again = len(today) if len(today) > 1 else REPLICAS
    noise, half_width = interval(len(today), freedom, 1 - alpha)
    mean = math.fsum(today) / len(today)
    return RunsEstimate(
        baseline=bounded_exp(sign * stored.mean),
        now=bounded_exp(sign * mean),
        change=mean - stored.mean,
        each=tuple(y - stored.mean for y in today),
        half_width=half_width,
        noise=noise,
        margin=interval(again, d0 + count + again - 1, 1 - alpha, POWER)[1],
        baseline_runs=len(runs),
        own=len(mine),
    )


class _Reference(NamedTuple):
    """Where stored runs put a metric: the log mean, their ``share`` of s^2, the variance between units."""

    mean: float
    share: float
    between: float


def _reference(
    mine: Sequence[float], others: Sequence[Sequence[float]], variance: float, unit_sd: float
) -> _Reference:
    """Weigh this unit's runs against the other units' means, by partial pooling.

    s_u^2 = (4 s_u0^2 + max(0, sum_i (ybar_i - ybar)^2 - (U-1) s^2 mean(1/n_i))) / (4 + U - 1), over the other
    U units; each counts the same, however many runs it has. With m runs of this unit, their mean has weight
    P / (P + s^2/m), P = s_u^2 (1 + 1/U) + s^2 mean(1/n_i) / U.
    """
    if not others:
        return _Reference(_mean(mine), 1 / len(mine), 0.0)
    means, count = [_mean(logs) for logs in others], len(others)
    inverse = math.fsum(1 / len(logs) for logs in others) / count
    seen = max(0.0, _squares(means) - (count - 1) * variance * inverse)
    between = (UNIT_DF * unit_sd**2 + seen) / (UNIT_DF + count - 1) * (1 + 1 / count)
    if not mine:
        return _Reference(_mean(means), inverse / count, between)
    pooled = between + variance * inverse / count
    weight = pooled / (pooled + variance / len(mine))
    rest = 1 - weight
    return _Reference(
        weight * _mean(mine) + rest * _mean(means),
        weight**2 / len(mine) + rest**2 * inverse / count,
        rest**2 * between,
    )


def _unit_sd(metric: Metric, value: float, runs: Sequence[Run], environment: Mapping[str, Any]) -> float:
    """Return s_u0, what units of one model differ by: a share, and of a device's time some of a launch."""
    constants = metric.constants
    if constants.where != "device" or metric.unit != "s":
        return constants.unit_sd
    kinds = {run.environment.get("gpus") for run in runs} | {environment.get("gpus")}
    offset = SAME_HOSTS if len(kinds) == 1 and None not in kinds else OTHER_HOSTS
    return math.hypot(constants.unit_sd, offset / value)


def _unit(environment: Mapping[str, Any]) -> Any:
    return environment.get("device_uuid")


def _days(runs: Sequence[Run]) -> int:
    return len({str(run.environment.get("date", ""))[:10] for run in runs})


def _mean(values: Sequence[float]) -> float:
    return math.fsum(values) / len(values)


def _squares(values: Sequence[float]) -> float:
    mean = _mean(values)
    return math.fsum((value - mean) ** 2 for value in values)


def bounded_exp(exponent: float) -> float:
    """Return e ** exponent, at most what a float can hold: absurd but finite input must not overflow."""
    return math.exp(min(exponent, _MAX_EXPONENT))
