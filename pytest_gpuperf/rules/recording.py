"""Tell the runs of a recording that are far from the others: one is an accident, two are a second mode."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import replace
from statistics import median

from pytest_gpuperf.constants import Instrument
from pytest_gpuperf.measurement import Baseline, Run

_SPREADS = 5
"""How many times the usual spread a run lies from the median, at least, before it is far."""
_DEVIATIONS = 3 * 1.4826
"""The same in median absolute deviations of this recording: three standard deviations of normal noise."""


def far_runs(values: Sequence[float], spread: float, tolerance: float) -> list[int]:
    """Return the places of the runs that are far from the others.

    ``values`` are the runs' medians, ``spread`` the usual standard deviation of their logs. Run i is far iff
    |y_i - med| > max(5 spread, tolerance / 2) and > 3 * 1.4826 * MAD, with y the log.
    """
    logs = [math.log(value) for value in values]
    middle = median(logs)
    distances = [abs(y - middle) for y in logs]
    limit = max(_SPREADS * spread, tolerance / 2, _DEVIATIONS * median(distances))
    return [i for i, distance in enumerate(distances) if distance > limit]


def usual_spread(instrument: Instrument, pool: Iterable[Baseline]) -> float:
    """Return the spread of an instrument's runs in a pool: the median of its metrics', at least its own.

    By a fixed constant, a quarter of all recordings on a machine ten times as noisy would have a far run.
    """
    found = [
        spread
        for baseline in pool
        if baseline.metric.kind == "noisy" and baseline.metric.instrument == instrument.name
        if (spread := _spread(baseline.runs)) is not None
    ]
    return max(instrument.prior_sd, median(found)) if found else instrument.prior_sd


def _spread(runs: Iterable[Run]) -> float | None:
    """Return the standard deviation of log medians within a unit, None without two runs of one."""
    units: dict[object, list[float]] = defaultdict(list)
    for run in runs:
        units[run.environment.get("device_uuid")].append(math.log(run.value))
    means = {unit: math.fsum(logs) / len(logs) for unit, logs in units.items()}
    squares = math.fsum((y - means[unit]) ** 2 for unit, logs in units.items() for y in logs)
    freedom = sum(len(logs) - 1 for logs in units.values())
    return math.sqrt(squares / freedom) if freedom else None


def replaced(baseline: Baseline, far: int, again: Run, spread: float, tolerance: float) -> Baseline:
    """Return a recording whose run ``far`` was measured ``again``, with that run left out.

    If the new one is far from the others too, it was no accident: all of them are kept.
    """
    runs = (*baseline.runs, again)
    if len(runs) - 1 in far_runs([run.value for run in runs], spread, tolerance):
        return replace(baseline, runs=runs)
    kept = tuple(run for i, run in enumerate(runs) if i != far)
    return replace(baseline, runs=kept, left_out=(baseline.runs[far],))
