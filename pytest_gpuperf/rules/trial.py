"""Try the verdict on recorded runs: some are the baseline, one the test's own measurement, some the replicas.

What a run measures is looked up here among the recorded runs; what decides is called (decide.py).
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import median, stdev
from typing import Any

from pytest_gpuperf.measurement import Baseline, Measurement, Metric, Outcome, Run, TestKey
from pytest_gpuperf.records import Record
from pytest_gpuperf.rules import decide
from pytest_gpuperf.rules.case import Case, Evidence, Replicas
from pytest_gpuperf.rules.decide import NO_EVIDENCE
from pytest_gpuperf.rules.tolerances import default_tolerance
from pytest_gpuperf.rules.verdict import judged_runs


@dataclass(frozen=True, slots=True)
class RecordedTest:
    """One test in one run: ``pool`` whose baselines it belongs to, ``tolerances`` that somebody stated."""

    pool: str
    tolerances: Mapping[str, float]
    record: Record


RecordedRun = Mapping[str, RecordedTest]
"""One process that ran the suite: its tests by their lasting names."""


@dataclass(frozen=True, slots=True)
class Series:
    """One metric of one test over the runs, by number: each run's median, and the record it stood in."""

    test: str
    metric: Metric
    tolerance: float | None
    values: Mapping[int, Measurement]
    records: Mapping[int, Record]

    @property
    def unfit(self) -> set[int]:
        """Return the numbers of the runs that were measured on an unfit machine."""
        return {number for number, record in self.records.items() if record.unfit}

    def spread(self) -> float:
        """Return the standard deviation of the log median between runs."""
        logs = [math.log(measured.value) for measured in self.values.values()]
        return stdev(logs) if len(logs) > 1 else 0.0

    def record(self, number: int, slowdown: float = 0.0) -> Record:
        """Return a run's record with this metric alone, slowed down by a fraction."""
        measured = self.values[number]
        factor = 1 + slowdown if measured.metric.better == "lower" else 1 / (1 + slowdown)
        slowed = replace(measured, samples=(measured.value * factor,))
        return replace(self.records[number], measurements=(slowed,))

    def baseline(self, numbers: Sequence[int]) -> Baseline:
        """Return what an update would have stored of these runs."""
        first, code = numbers[0], {number: self.values[number].code for number in numbers}
        return Baseline(
            self.metric,
            self.values[first].contract,
            self.records[first].place(self.metric),
            self.metric.constants.prior_sd,
            tuple(Run(self.values[n].samples, self.records[n].environment, code[n]) for n in numbers),
        )


def every_series(runs: Sequence[RecordedRun]) -> list[Series]:
    """Return each judged metric of each test, without runs that measured something else than the first."""
    found: dict[tuple[str, str], list[tuple[int, RecordedTest, Measurement]]] = defaultdict(list)
    for number, run in enumerate(runs):
        for name, test in run.items():
            for measurement in test.record.measurements:
                if measurement.metric.kind != "shown":
                    found[name, measurement.metric.name].append((number, test, measurement))
    return [_series(name, entries) for (name, _), entries in found.items()]


def _series(name: str, entries: Sequence[tuple[int, RecordedTest, Measurement]]) -> Series:
    _, first, pattern = entries[0]
    metric = pattern.metric
    same = [
        (number, test.record, measured)
        for number, test, measured in entries
        if _question(measured, test.record) == _question(pattern, first.record)
    ]
    return Series(
        test=name,
        metric=metric,
        tolerance=first.tolerances.get(metric.name),
        values={number: replace(m, samples=(median(m.samples),), details={}) for number, _, m in same},
        records={number: replace(record, measurements=()) for number, record, _ in same},
    )


def _question(measured: Measurement, record: Record) -> tuple[Any, ...]:
    return measured.metric, dict(measured.contract), record.place(measured.metric)


def outcome(
    series: Series,
    baseline: Sequence[int],
    screen: int,
    replicas: Sequence[int],
    slowdown: float = 0.0,
    other: Series | None = None,
) -> Outcome:
    """Decide one metric as a run would have, without the old code; runs by their numbers.

    ``slowdown`` is planted into screen and replicas, not into the sentinels beside them. They are runs of
    ``other`` if it is given: the same metric, of other code or on another unit than the baseline's.
    """
    now = other or series
    record, *again = [now.record(number, slowdown) for number in (screen, *replicas)]
    stored, unit = series.baseline(baseline), record.environment.get("device_uuid")
    case = case_of(series, stored, unit)
    evidence = Evidence(replicas=Replicas(again)) if decide.screen(case, record).tripped else NO_EVIDENCE
    (row,) = decide.decide(case, record, evidence)
    return row.verdict.outcome


def case_of(series: Series, stored: Baseline, unit: str | None) -> Case:
    """Return the case of a metric whose baseline is ``stored``, on GPU ``unit``."""
    suite, _, name = series.test.partition("::")
    if series.metric.kind == "noisy":
        stored = replace(stored, runs=judged_runs(stored.runs, unit))
    tolerance = default_tolerance(series.metric) if series.tolerance is None else series.tolerance
    metric = series.metric.name
    return Case(key=TestKey(suite, name), unit=unit, stored={metric: stored}, tolerances={metric: tolerance})
