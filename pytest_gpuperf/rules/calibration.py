"""Measure how often the verdict errs on runs of identical code: false alarms, and power at planted slowdowns.

Every run in turn plays the test's own measurement (the screen); of the others, drawn without
replacement, some are its baseline, and the rest its replicas or, where there are enough, its alternation
with the old code, and the verdict decides as it would have.
Draws from one set of runs share their runs and are no independent trials, so bounds take a run, each
once as the screen, for one trial; rates are over all draws.
"""

from __future__ import annotations

import math
import random
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from pytest_gpuperf.measurement import Outcome
from pytest_gpuperf.rules.case import BLOCKS
from pytest_gpuperf.rules.estimate import REPLICAS
from pytest_gpuperf.rules.paired import looks
from pytest_gpuperf.rules.trial import RecordedRun, RecordedTest, Series, every_series, outcome

SHIFTS = (0.01, 0.02, 0.03, 0.05, 0.10)
"""Slowdowns planted for the power: x times the time, or 1/x times the rate, with x = 1 + shift."""
ASKS = 4 * looks(BLOCKS)[0] - REPLICAS
"""Runs that one more trial needs for its first look at an alternation with the old code."""
DRAWS = 500
"""Draws in all, at least one for each run as screen: rates then come in steps of 0.2 %."""
SEED = 20260801
CONFIDENCE = 0.95


@dataclass(frozen=True, slots=True)
class Rate:
    """``reds`` of ``trials``; bounds are Clopper and Pearson's (1934), exact, 95 % each on its own."""

    reds: int = 0
    trials: int = 0

    @property
    def share(self) -> float:
        return self.reds / self.trials if self.trials else math.nan

    @property
    def at_most(self) -> float:
        if self.reds >= self.trials:
            return 1.0
        from scipy.special import betaincinv

        return float(betaincinv(self.reds + 1, self.trials - self.reds, CONFIDENCE))

    @property
    def at_least(self) -> float:
        if self.reds == 0:
            return 0.0
        from scipy.special import betaincinv

        return float(betaincinv(self.reds, self.trials - self.reds + 1, 1 - CONFIDENCE))


@dataclass(frozen=True, slots=True)
class Figure:
    """The rate of failures: over ``runs``, each once as the screen, and over all ``draws``."""

    runs: Rate = field(default_factory=Rate)
    draws: Rate = field(default_factory=Rate)


@dataclass(frozen=True, slots=True)
class MetricResult:
    """``spread``: standard deviation of the log median between runs; ``power`` by slowdown, in percent."""

    tolerance: float
    spread: float
    power: Mapping[str, Figure]


@dataclass(frozen=True, slots=True)
class TestResult:
    """``reds`` counts draws in which any metric of the test failed; ``metrics`` are the noisy ones."""

    __test__ = False

    reds: Figure
    metrics: Mapping[str, MetricResult]


@dataclass(frozen=True, slots=True)
class Calibration:
    """The verdict's error rates on one pool's runs of identical code.

    ``runs`` were recorded, of which ``baseline_runs`` are a baseline and ``replicas`` confirm; ``reds``
    counts runs with any red test, and ``asked`` does where the old code is asked before anything is called
    regressed (None: too few runs to try it); ``expected_reds`` is the mean number of red tests in a run. All
    but ``asked`` is by the stored runs alone.
    ``devices`` are the units, ``first`` and ``last`` the dates of the runs.
    """

    pool: str
    runs: int
    baseline_runs: int
    replicas: int
    seed: int
    first: str
    last: str
    devices: tuple[str, ...]
    reds: Figure
    expected_reds: float
    tests: Mapping[str, TestResult]
    asked: Figure | None = None


def runs_needed(baseline_runs: int) -> int:
    """Return the fewest runs to calibrate with: a baseline, a screen and its replicas, all different."""
    return baseline_runs + 1 + REPLICAS


def calibrate(runs: Sequence[RecordedRun], baseline_runs: int, seed: int = SEED) -> list[Calibration]:
    """Calibrate each pool that enough of the runs measured; sorted by pool.

    A test counts with the runs that measured it, and needs ``runs_needed`` of them; a pool none of
    whose tests has so many is left out.
    """
    pools: dict[str, list[dict[str, RecordedTest]]] = defaultdict(list)
    for run in runs:
        by_pool: dict[str, dict[str, RecordedTest]] = defaultdict(dict)
        for name, test in run.items():
            by_pool[test.pool][name] = test
        for pool, tests in by_pool.items():
            pools[pool].append(tests)
    found = (_calibrate_pool(pool, pools[pool], baseline_runs, seed) for pool in sorted(pools))
    return [calibration for calibration in found if calibration]


def _calibrate_pool(
    pool: str, runs: Sequence[RecordedRun], baseline_runs: int, seed: int
) -> Calibration | None:
    series = [s for s in every_series(runs) if len(s.values) >= runs_needed(baseline_runs)]
    if not series:
        return None
    tallies = _tally(series, len(runs), baseline_runs, seed)
    if not tallies.tests:
        return None  # too few of the runs were fit to be a baseline
    dates = sorted(str(t.record.environment.get("date", "")) for run in runs for t in run.values())
    units = {t.record.environment.get("device_uuid") for run in runs for t in run.values()}
    reds = _figure(tallies.run)
    red_tests = sum(_figure(tally).draws.reds for tally in tallies.tests.values())
    return Calibration(
        pool=pool,
        runs=len(runs),
        baseline_runs=baseline_runs,
        replicas=REPLICAS,
        seed=seed,
        first=dates[0],
        last=dates[-1],
        devices=tuple(sorted(str(unit) for unit in units if unit)),
        reds=reds,
        expected_reds=red_tests / reds.draws.trials,
        tests={test: _test_result(test, series, tallies) for test in tallies.tests},
        asked=_figure(tallies.asked) if len(runs) >= runs_needed(baseline_runs) + ASKS else None,
    )


# --------------------------------------------------------------------------- all draws


_Tally = list[tuple[bool, bool]]
"""Of each draw whether it is the first of its screen, and whether it failed."""


def _figure(tally: _Tally) -> Figure:
    firsts = [red for first, red in tally if first]
    return Figure(Rate(sum(firsts), len(firsts)), Rate(sum(red for _, red in tally), len(tally)))


@dataclass(frozen=True, slots=True)
class _Tallies:
    run: _Tally = field(default_factory=list)
    asked: _Tally = field(default_factory=list)
    tests: dict[str, _Tally] = field(default_factory=lambda: defaultdict(list))
    power: dict[tuple[str, str, float], _Tally] = field(default_factory=lambda: defaultdict(list))


def _tally(series: Sequence[Series], count: int, baseline_runs: int, seed: int) -> _Tallies:
    tallies = _Tallies()
    for screen, first, order in _draws(count, seed):
        reds: dict[str, bool] = {}
        asked = False
        for each in series:
            split = _split(each, screen, order, baseline_runs)
            if split is None:
                continue
            baseline, others = split
            replicas = others[:REPLICAS]
            red = outcome(each, baseline, screen, replicas) is Outcome.REGRESSED
            there = each, others[1::2]
            asked |= outcome(each, baseline, screen, others[::2], old_code=there) is Outcome.REGRESSED
            reds[each.test] = reds.get(each.test, False) | red
            for shift in SHIFTS if each.metric.kind == "noisy" else ():
                red = outcome(each, baseline, screen, replicas, shift) is Outcome.REGRESSED
                tallies.power[each.test, each.metric.name, shift].append((first, red))
        for test, red in reds.items():
            tallies.tests[test].append((first, red))
        if reds:
            tallies.run.append((first, any(reds.values())))
            tallies.asked.append((first, asked))
    return tallies


def _draws(count: int, seed: int) -> Iterator[tuple[int, bool, list[int]]]:
    """Yield (screen, whether it is its first draw, the other runs in random order); tests share a draw."""
    generator = random.Random(seed)
    for screen in range(count):
        others = [number for number in range(count) if number != screen]
        for draw in range(max(1, math.ceil(DRAWS / count))):
            yield screen, draw == 0, generator.sample(others, len(others))


def _split(
    series: Series, screen: int, order: Sequence[int], baseline_runs: int
) -> tuple[list[int], list[int]] | None:
    """Choose a screen's baseline and list the other runs; None if too few measured this on a fit machine."""
    if screen not in series.values:
        return None
    others = [number for number in order if number in series.values]
    baseline = [number for number in others if number not in series.unfit][:baseline_runs]
    rest = [number for number in others if number not in baseline]
    if len(baseline) < baseline_runs or len(rest) < REPLICAS:
        return None
    return baseline, rest


def _test_result(test: str, series: Sequence[Series], tallies: _Tallies) -> TestResult:
    metrics = {
        s.metric.name: MetricResult(
            tolerance=s.metric.constants.tolerance if s.tolerance is None else s.tolerance,
            spread=s.spread(),
            power={f"{100 * x:g}": _figure(tallies.power[test, s.metric.name, x]) for x in SHIFTS},
        )
        for s in series
        if (test, s.metric.name, SHIFTS[0]) in tallies.power and s.test == test
    }
    return TestResult(_figure(tallies.tests[test]), metrics)
