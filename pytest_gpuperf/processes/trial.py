"""One trial of the whole procedure on recorded runs: these the baseline, that the screen, those the replicas.

What the gate asks for by measuring is looked up here among the runs; what it decides by is called.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import median, stdev
from typing import Any

from pytest_gpuperf.judging import bounds, verdict
from pytest_gpuperf.judging.circumstances import with_circumstances
from pytest_gpuperf.judging.confirm import Replicas
from pytest_gpuperf.measurement import Baseline, Measurement, Metric, Outcome, Run, Verdict
from pytest_gpuperf.records import Record


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
        return {number for number, record in self.records.items() if record.unfit}

    def spread(self) -> float:
        """The standard deviation of the log median between runs."""
        logs = [math.log(measured.value) for measured in self.values.values()]
        return stdev(logs) if len(logs) > 1 else 0.0

    def baseline(self, numbers: Sequence[int]) -> Baseline:
        """What an update would have stored of these runs."""
        first, code = numbers[0], {number: self.values[number].code for number in numbers}
        return Baseline(
            self.metric,
            self.values[first].contract,
            self.records[first].place(self.metric),
            self.metric.constants.prior_sd,
            tuple(Run(self.values[n].samples, self.records[n].environment, code[n]) for n in numbers),
        )


def every_series(runs: Sequence[RecordedRun]) -> list[Series]:
    """Each judged metric of each test; runs that measured another question than the first are left out."""
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
    """What the gate would have called the metric; runs by their numbers.

    ``slowdown`` is planted into screen and replicas, not into the sentinels beside them. They are runs
    of ``other`` where it is given: the same metric, of other code or on another unit than the baseline's.
    """
    now = other or series
    stored = series.baseline(baseline)
    first, *again = [_slowed(now.values[number], slowdown) for number in (screen, *replicas)]
    record = now.records[screen]

    def ask(*measured: Measurement) -> Verdict:
        decided = verdict.judge(
            stored,
            first,
            measured,
            tolerance=series.tolerance,
            place=record.place(series.metric),
            device_uuid=record.environment.get("device_uuid"),
        )
        return bounds.judge(decided, first, measured)

    decided = ask()
    if series.metric.kind == "noisy" and decided.exceeds:
        confirmed = Replicas([now.records[number] for number in replicas])
        decided = with_circumstances(ask(*again), series.metric, stored, record, confirmed)
    return decided.outcome


def _slowed(measurement: Measurement, slowdown: float) -> Measurement:
    if not slowdown:
        return measurement
    factor = 1 + slowdown if measurement.metric.better == "lower" else 1 / (1 + slowdown)
    return replace(measurement, samples=(measurement.value * factor,))
