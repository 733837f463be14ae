"""The same runs judged by this package's procedure and by six rules of other tools: false reds and power.

    python docs/studies/side_by_side.py --simulate
    python docs/studies/side_by_side.py identical.jsonl
    python docs/studies/side_by_side.py identical.jsonl --slower 2=work-2.jsonl --baseline unit-3.jsonl

Runs files are those of --gpuperf-calibrate (gpu_runs.py makes them). Every run of identical code is the
new one once. The other tools compare it with one other run, drawn at random; this package's procedure
takes five others as its baseline and four as its replicas. Slowdowns are planted (every sample of the new
processes longer) unless --slower gives runs with that much more real work. --baseline takes the old runs
from another file: another unit, or another day.
"""

from __future__ import annotations

import argparse
import random
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from pytest_gpuperf.judging.estimate import REPLICAS
from pytest_gpuperf.measurement import Measurement, Metric
from pytest_gpuperf.processes.calibration import Rate, runs_needed
from pytest_gpuperf.processes.trial import RecordedRun, RecordedTest, Series, every_series, is_red
from pytest_gpuperf.records import Record
from pytest_gpuperf.storage.calibration_files import read_runs

sys.path.insert(0, str(Path(__file__).parent))
from rules import pair_rules

BASELINE_RUNS = 5
SLOWDOWNS = (1.0, 2.0, 3.0, 5.0, 10.0)
SEED = 20260801

# Simulated processes: 200 samples with a standard deviation of 0.3 %, and between processes what is said.
SIMULATED = {
    "device time, 0.06 % between processes": ("device_time", 0.0006, 0.0),
    "LoadGen on a GPU, 0.7 % between processes": ("loadgen", 0.007, 0.0),
    "host time, 2 % between processes": ("host_time", 0.02, 0.0),
    "device time, 15 % of processes 12 % slower": ("device_time", 0.0006, 0.15),
}
SIMULATED_RUNS, SAMPLES, WITHIN = 200, 200, 0.003


@dataclass(frozen=True, slots=True)
class Case:
    """One metric: its runs of the old and of the new code by number; one object where they are the same."""

    old: Series
    new: Series
    old_samples: Mapping[int, tuple[float, ...]]
    new_samples: Mapping[int, tuple[float, ...]]

    @property
    def same(self) -> bool:
        return self.old is self.new


@dataclass(slots=True)
class Count:
    """Red tests, and the runs that had any, of those judged."""

    tests: list[bool]
    runs: dict[int, bool]

    def add(self, run: int, red: bool) -> None:
        self.tests.append(red)
        self.runs[run] = self.runs.get(run, False) or red


Judge = Callable[[Case, int, float, random.Random], bool]
"""Whether a run of a case is red with a slowdown planted, in percent; what is drawn, chance draws."""


def ours(tolerance: float | None = None) -> Judge:
    """This package's whole procedure, at the tolerance that was recorded or at another."""

    def judge(case: Case, run: int, percent: float, chance: random.Random) -> bool:
        others = [number for number in case.old.values if not (case.same and number == run)]
        chance.shuffle(others)
        baseline, rest = others[:BASELINE_RUNS], others[BASELINE_RUNS:]
        if not case.same:
            rest = [number for number in case.new.values if number != run]
            chance.shuffle(rest)
        old = case.old if tolerance is None else replace(case.old, tolerance=tolerance)
        return is_red(old, baseline, run, rest[:REPLICAS], percent / 100, case.new)

    return judge


def pairwise(red: Callable[[Sequence[float], Sequence[float]], bool]) -> Judge:
    """A tool that compares one process with one other."""

    def judge(case: Case, run: int, percent: float, chance: random.Random) -> bool:
        other = chance.choice([n for n in case.old.values if not (case.same and n == run)])
        new = case.new_samples[run]
        return red(case.old_samples[other], [sample * (1 + percent / 100) for sample in new])

    return judge


JUDGES = {
    "pytest-gpuperf": ours(),
    "pytest-gpuperf, tolerance 1 %": ours(0.01),
    **{rule.name: pairwise(rule.red) for rule in pair_rules()},
}


def count(judge: Judge, cases: Sequence[Case], percent: float = 0.0) -> Count:
    found, chance = Count([], {}), random.Random(SEED)
    for case in cases:
        for run in case.new.values:
            found.add(run, judge(case, run, percent, chance))
    return found


# --------------------------------------------------------------------------- what is judged


def cases(old: Sequence[RecordedRun], new: Sequence[RecordedRun] | None = None) -> list[Case]:
    """Every noisy metric that both sides measured often enough; one side alone is tried on itself."""
    sides = [old] if new is None else [old, new]
    found = []
    before, *rest = ({(s.test, s.metric.name): s for s in _noisy(runs)} for runs in sides)
    after = rest[0] if rest else before
    for key in before.keys() & after.keys():
        first, second = before[key], after[key]
        enough = runs_needed(BASELINE_RUNS) if first is second else BASELINE_RUNS
        if len(first.values) >= enough and len(second.values) > REPLICAS:
            _check_same_question(first, second)
            found.append(Case(first, second, _times(old, first), _times(sides[-1], second)))
    if not found:
        raise SystemExit(
            f"no metric has {runs_needed(BASELINE_RUNS)} runs to compare: record more with gpu_runs.py"
        )
    return sorted(found, key=lambda case: (case.old.test, case.old.metric.name))


def _noisy(runs: Sequence[RecordedRun]) -> list[Series]:
    return [series for series in every_series(runs) if series.metric.kind == "noisy"]


def _check_same_question(old: Series, new: Series) -> None:
    contracts = [dict(next(iter(series.values.values())).contract) for series in (old, new)]
    places = [next(iter(series.records.values())).place(series.metric) for series in (old, new)]
    if contracts[0] != contracts[1] or places[0] != places[1]:
        raise SystemExit(
            f"{old.test}: the two files measured other things, or on other machines: "
            f"{contracts[0]}, {places[0]} and {contracts[1]}, {places[1]}"
        )


def _times(runs: Sequence[RecordedRun], series: Series) -> dict[int, tuple[float, ...]]:
    """All samples of each run, in seconds; a rate's are inverted."""
    found = {}
    for number in series.values:
        samples = runs[number][series.test].record.measurement(series.metric.name).samples
        found[number] = samples if series.metric.better == "lower" else tuple(1 / s for s in samples)
    return found


def simulate(instrument: str, between: float, slow_share: float, seed: int = SEED) -> list[RecordedRun]:
    """Runs of one test: lognormal within and between processes, and a share of processes 12 % slower."""
    generator = np.random.default_rng(seed)
    metric = Metric("time", "s", "lower", "noisy", instrument)
    runs = []
    for _ in range(SIMULATED_RUNS):
        process = generator.normal(0, between) + np.log(1.12) * (generator.random() < slow_share)
        samples = tuple(np.exp(process + generator.normal(0, WITHIN, SAMPLES)).tolist())
        record = Record((Measurement(metric, {}, samples),))
        runs.append({"simulated": RecordedTest("simulated", {}, record)})
    return runs


# --------------------------------------------------------------------------- the table


def table(identical: Sequence[Case], slower: Mapping[float, Sequence[Case]]) -> str:
    """Markdown: false reds with their bound, then the power at each slowdown, planted or real."""
    planted = dict.fromkeys(SLOWDOWNS, identical) if not slower else {}
    titles = [f"+{percent:g} %" for percent in planted or slower]
    lines = [
        f"| rule | red runs, identical code | at most (95 %) | red tests | {' | '.join(titles)} |",
        "|---" * (4 + len(titles)) + "|",
    ]
    for name, judge in JUDGES.items():
        false = count(judge, identical)
        runs = Rate(sum(false.runs.values()), len(false.runs))
        power = [count(judge, planted[percent], percent) for percent in planted]
        power += [count(judge, slower[percent]) for percent in slower]
        cells = [f"{100 * sum(found.tests) / len(found.tests):.0f} %" for found in power]
        lines.append(
            f"| {name} | {runs.reds} of {runs.trials} | {100 * runs.at_most:.1f} % | "
            f"{sum(false.tests)} of {len(false.tests)} | {' | '.join(cells)} |"
        )
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("runs", nargs="?", type=Path, help="runs of identical code")
    parser.add_argument("--simulate", action="store_true", help="judge simulated runs")
    parser.add_argument("--baseline", type=Path, help="old runs from another unit or day")
    parser.add_argument("--slower", nargs="+", default=[], metavar="PERCENT=FILE", help="runs with more work")
    asked = parser.parse_args(arguments)
    if asked.simulate == bool(asked.runs):
        parser.error("give either a file of runs or --simulate")
    if asked.simulate:
        for title, parameters in SIMULATED.items():
            print(f"\n{title} (simulated)\n\n{table(cases(simulate(*parameters)), {})}")
        return
    identical = read_runs(asked.runs)
    old = read_runs(asked.baseline) if asked.baseline else None
    slower = {}
    for each in asked.slower:
        percent, _, file = each.partition("=")
        slower[float(percent)] = cases(old or identical, read_runs(Path(file)))
    print(table(cases(old, identical) if old else cases(identical), slower))


if __name__ == "__main__":
    main()
