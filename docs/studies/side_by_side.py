"""The same runs judged by this package's procedure and by six rules of other tools: false reds and power.

    python docs/studies/side_by_side.py --simulate
    python docs/studies/side_by_side.py unit-1.jsonl unit-2.jsonl.xz --baseline unit-3.jsonl
    python docs/studies/side_by_side.py unit-1/work-0.jsonl --slower "+2 %=unit-1/work-2.jsonl"

Runs files are those of --gpuperf-calibrate (gpu_runs.py makes them), as they are or compressed by xz, a
unit each. Every run of identical code is the new one once. The other tools compare it with one other run,
drawn at random; this package's procedure takes five others as its baseline, and of the rest its alternation
with the old code (two blocks at least, six at most) or, alone, four replicas.
Slowdowns are planted (every sample of the new processes longer) unless --slower gives runs with more real
work, which are compared with the runs of the same GPU. --baseline takes the old runs from another file:
another unit, or another day.
"""

from __future__ import annotations

import argparse
import lzma
import random
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from pytest_gpuperf.measurement import Measurement, Metric, Outcome
from pytest_gpuperf.records import Record
from pytest_gpuperf.rules.calibration import Rate, runs_needed
from pytest_gpuperf.rules.case import BLOCKS
from pytest_gpuperf.rules.estimate import REPLICAS
from pytest_gpuperf.rules.paired import PER_BLOCK, looks
from pytest_gpuperf.rules.trial import RecordedRun, RecordedTest, Series, every_series, outcome
from pytest_gpuperf.storage.calibrations import parse_runs, read_runs

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
    identical: bool
    old_samples: Mapping[int, tuple[float, ...]]
    new_samples: Mapping[int, tuple[float, ...]]

    @property
    def same(self) -> bool:
        return self.old is self.new

    @property
    def unit(self) -> str:
        """The GPU of the new runs; "" where none is named."""
        return _unit(self.new.records.values())


@dataclass(slots=True)
class Count:
    """Red tests and the runs (unit and number) that had any, of those judged, and the tests left unjudged."""

    tests: list[bool] = field(default_factory=list)
    runs: dict[tuple[str, int], bool] = field(default_factory=dict)
    unfit: int = 0

    def add(self, run: tuple[str, int], found: Outcome) -> None:
        red = found is Outcome.REGRESSED
        self.tests.append(red)
        self.runs[run] = self.runs.get(run, False) or red
        self.unfit += found is Outcome.UNFIT


Judge = Callable[[Case, int, float, random.Random], Outcome]
"""What a run of a case is called with a slowdown planted, in percent; what is drawn, chance draws."""


def ours(tolerance: float | None = None, alone: bool = False) -> Judge:
    """This package's whole procedure, at the tolerance that was recorded or at another.

    ``alone``: by the stored runs, as where the old code cannot be had; and where the runs do not suffice.
    """

    def judge(case: Case, run: int, percent: float, chance: random.Random) -> Outcome:
        others = [number for number in case.old.values if not (case.same and number == run)]
        chance.shuffle(others)
        baseline, rest = others[:BASELINE_RUNS], others[BASELINE_RUNS:]
        if not case.same:
            rest = [number for number in case.new.values if number != run]
            chance.shuffle(rest)
        old = case.old if tolerance is None else replace(case.old, tolerance=tolerance)
        there = case.old, others  # the baseline's too: a comparison does not look at it
        if case.identical:  # one code: half of the runs play the old one
            there = case.new, rest[1::2]
        here = rest[::2] if case.identical else rest
        if alone or min(len(here), len(there[1])) < PER_BLOCK * looks(BLOCKS)[0]:
            return outcome(old, baseline, run, rest[:REPLICAS], percent / 100, case.new)
        return outcome(old, baseline, run, here, percent / 100, case.new, old_code=there)

    return judge


def pairwise(red: Callable[[Sequence[float], Sequence[float]], bool]) -> Judge:
    """A tool that compares one process with one other."""

    def judge(case: Case, run: int, percent: float, chance: random.Random) -> Outcome:
        other = chance.choice([n for n in case.old.values if not (case.same and n == run)])
        new = [sample * (1 + percent / 100) for sample in case.new_samples[run]]
        return Outcome.REGRESSED if red(case.old_samples[other], new) else Outcome.EQUAL

    return judge


JUDGES = {
    "pytest-gpuperf": ours(),
    "pytest-gpuperf, tolerance 1 %": ours(0.01),
    "pytest-gpuperf, tolerance 1 %, stored runs alone": ours(0.01, alone=True),
    **{rule.name: pairwise(rule.red) for rule in pair_rules()},
}


def count(judge: Judge, cases: Sequence[Case], percent: float = 0.0) -> Count:
    found, chance = Count(), random.Random(SEED)
    for case in cases:
        for run in case.new.values:
            found.add((case.unit, run), judge(case, run, percent, chance))
    return found


# --------------------------------------------------------------------------- what is judged


def cases(
    old: Sequence[RecordedRun], new: Sequence[RecordedRun] | None = None, identical: bool = False
) -> list[Case]:
    """Every noisy metric that both sides measured often enough; one side alone is tried on itself.

    ``identical``: the new runs are of the same code, on another unit.
    """
    sides = [old] if new is None else [old, new]
    found = []
    before, *rest = ({(s.test, s.metric.name): s for s in _noisy(runs)} for runs in sides)
    after = rest[0] if rest else before
    for key in before.keys() & after.keys():
        first, second = before[key], after[key]
        enough = runs_needed(BASELINE_RUNS) if first is second else BASELINE_RUNS
        if len(first.values) >= enough and len(second.values) > REPLICAS:
            _check_same_question(first, second)
            same = identical or first is second
            found.append(Case(first, second, same, _times(old, first), _times(sides[-1], second)))
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


def table(identical: Sequence[Case], slower: Mapping[str, Sequence[Case]]) -> str:
    """Markdown: false reds with their bound, then the power at each slowdown, planted or real.

    Below it, how often the machine was unfit: a sentinel slower, or processes of one code too far apart.
    """
    asked = {title: (cases, 0.0) for title, cases in slower.items()} or {
        f"+{percent:g} %": (identical, percent) for percent in SLOWDOWNS
    }
    lines = [
        f"| rule | red runs, identical code | at most (95 %) | red tests | {' | '.join(asked)} |",
        "|---" * (4 + len(asked)) + "|",
    ]
    notes = []
    for name, judge in JUDGES.items():
        false = count(judge, identical)
        runs = Rate(sum(false.runs.values()), len(false.runs))
        power = {title: count(judge, cases, percent) for title, (cases, percent) in asked.items()}
        cells = [f"{100 * sum(found.tests) / len(found.tests):.0f} %" for found in power.values()]
        lines.append(
            f"| {name} | {runs.reds} of {runs.trials} | {100 * runs.at_most:.1f} % | "
            f"{sum(false.tests)} of {len(false.tests)} | {' | '.join(cells)} |"
        )
        unfit = {"identical code": false, **power}
        told = [f"{each.unfit} of {len(each.tests)} ({title})" for title, each in unfit.items() if each.unfit]
        notes += [f"{name}: unfit in {', '.join(told)}"] if told else []
    return "\n".join([*lines, *([""] if notes else []), *notes])


def recorded(path: Path) -> list[RecordedRun]:
    """The runs of a file, which xz may have compressed."""
    if path.suffix != ".xz":
        return read_runs(path)
    return parse_runs(lzma.decompress(path.read_bytes()), path)


def by_unit(files: Iterable[Path]) -> dict[str, list[RecordedRun]]:
    """The runs of each GPU, all files of one together."""
    found: dict[str, list[RecordedRun]] = {}
    for file in files:
        runs = recorded(file)
        found.setdefault(_unit(test.record for run in runs for test in run.values()), []).extend(runs)
    return found


def _unit(records: Iterable[Record]) -> str:
    return next((str(record.environment.get("device_uuid") or "") for record in records), "")


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("runs", nargs="*", type=Path, help="runs of identical code, a file for each unit")
    parser.add_argument("--simulate", action="store_true", help="judge simulated runs")
    parser.add_argument("--baseline", type=Path, help="old runs from another unit or day")
    parser.add_argument("--slower", nargs="+", default=[], metavar="TITLE=FILE", help="runs with more work")
    asked = parser.parse_args(arguments)
    if asked.simulate == bool(asked.runs):
        parser.error("give either files of runs or --simulate")
    if asked.simulate:
        for title, parameters in SIMULATED.items():
            print(f"\n{title} (simulated)\n\n{table(cases(simulate(*parameters)), {})}")
        return
    identical, old = by_unit(asked.runs), recorded(asked.baseline) if asked.baseline else None
    slower: dict[str, list[Case]] = {}
    for each in asked.slower:
        title, _, file = each.partition("=")
        for unit, runs in by_unit([Path(file)]).items():
            if unit not in identical:
                parser.error(f"{file}: none of the runs of identical code is of {unit}; give one that is")
            slower.setdefault(title, []).extend(cases(old or identical[unit], runs))
    same = [case for runs in identical.values() for case in (cases(old, runs, True) if old else cases(runs))]
    print(table(same, slower))


if __name__ == "__main__":
    main()
