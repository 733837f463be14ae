"""Runs the gate's own functions on random numbers: a baseline, a screen, and the evidence it calls for."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from scipy.special import bdtr

from pytest_gpuperf.measurement import Baseline, Measurement, Metric, Outcome, Run, TestKey
from pytest_gpuperf.modes.case import held_to
from pytest_gpuperf.records import Record
from pytest_gpuperf.rules.case import Case, Compared, Evidence, Replicas
from pytest_gpuperf.rules.decide import decide, screen
from pytest_gpuperf.rules.old_code import to_ask
from pytest_gpuperf.rules.paired import decided, looks

REVISION = "HEAD (bbbbbbbbbb)"
PASSED = "passed the screen"

Draw = Callable[[], float]
"""A process's log median."""


@dataclass(frozen=True)
class Found:
    """What a run called a metric, and how many processes beside its own that took."""

    outcome: Outcome | str
    exceeds: bool = False
    processes: int = 0


def metric_of(instrument: str) -> Metric:
    return Metric("time", "s", "lower", "noisy", instrument)


Sentinels = Mapping[str, Any]


def judged(
    groups: Mapping[str, Sequence[float]],
    here: Draw,
    there: Draw | None = None,
    *,
    instrument: str = "device_time",
    theta: float = 0.02,
    unit: str = "GPU-1",
    sentinels: tuple[Callable[[], Sentinels], Callable[[], Sentinels]] | None = None,
) -> Found:
    """Judges a session of GPU ``unit``, whose baseline has ``groups`` of log medians by unit.

    ``here`` and ``there`` draw what a process of this checkout and of the old code measures; ``there`` None:
    the old code cannot be had. ``sentinels`` draw those of a stored run and of a process of today.
    """
    metric = metric_of(instrument)

    def environment(uuid: str, draw: Callable[[], Sentinels] | None) -> dict[str, Any]:
        return {"device_uuid": uuid, "gpus": 1, **({"sentinels": draw()} if draw else {})}

    then, now = sentinels or (None, None)
    runs = tuple(
        Run((math.exp(log),), environment(uuid, then)) for uuid, logs in groups.items() for log in logs
    )

    def process(draw: Draw) -> Record:
        return Record((Measurement(metric, {}, (math.exp(draw()),)),), environment=environment(unit, now))

    first = process(here)
    case = Case(
        key=TestKey("s.py", "t"),
        unit=unit,
        stored=held_to({"time": Baseline(metric, {}, {}, 0.0, runs)}, first),
        tolerances={"time": theta},
        acquits=there is not None,
    )
    if not screen(case, first).tripped:
        return Found(PASSED)
    if there is None or not to_ask(case, first, decide(case, first)):
        evidence = Evidence(replicas=Replicas([process(here) for _ in range(4)]))
        (row,) = decide(case, first, evidence)
        return Found(row.verdict.outcome, row.verdict.exceeds, 4)
    here_runs, compared = alternated(lambda: process(here), lambda: process(there), theta)
    evidence = Evidence(replicas=Replicas(here_runs), old_code={"time": compared})
    (row,) = decide(case, first, evidence)
    return Found(row.verdict.outcome, row.verdict.exceeds, 1 + 2 * len(here_runs))


def alternated(
    here: Callable[[], Record], there: Callable[[], Record], theta: float, blocks: int = 6
) -> tuple[list[Record], Compared]:
    """Takes blocks of this - other - other - this until the comparison is decided, as a run does."""
    sides: tuple[list[Record], list[Record]] = ([], [])
    compared = Compared(revision=REVISION, blocks=blocks)
    for _ in range(looks(blocks)[-1]):
        for number, take in ((0, here), (1, there), (1, there), (0, here)):
            sides[number].append(take())
        measured = [[record.measurements[0] for record in side] for side in sides]
        compared = Compared(revision=REVISION, here=measured[0], there=measured[1], blocks=blocks)
        if decided(compared, theta):
            break
    return sides[0], compared


def simulate(trials: int, session: Callable[[], Found]) -> tuple[Counter[Outcome | str], float]:
    """Returns how often each outcome came, and the mean number of processes beside a run's own."""
    every = [session() for _ in range(trials)]
    return Counter(found.outcome for found in every), sum(found.processes for found in every) / trials


def at_most(count: int, trials: int, rate: float, miss: float = 1e-4) -> bool:
    """Whether a binomial of at most this rate gives so many with probability ``miss`` or more."""
    return count == 0 or 1 - bdtr(count - 1, trials, rate) >= miss


def at_least(count: int, trials: int, rate: float, miss: float = 1e-4) -> bool:
    """Whether a binomial of at least this rate gives so few with probability ``miss`` or more."""
    return bool(bdtr(count, trials, rate) >= miss)
