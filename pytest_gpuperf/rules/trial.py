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
from pytest_gpuperf.rules.case import BLOCKS, Case, Compared, Evidence, Replicas
from pytest_gpuperf.rules.decide import NO_EVIDENCE
from pytest_gpuperf.rules.estimate import REPLICAS
from pytest_gpuperf.rules.old_code import to_ask
from pytest_gpuperf.rules.paired import PER_BLOCK, decided
from pytest_gpuperf.rules.tolerances import default_tolerance


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
        code = f"{measured.code} slowed" if slowdown and measured.code else measured.code
        slowed = replace(measured, samples=(measured.value * factor,), code=code)
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
    again: Sequence[int],
    slowdown: float = 0.0,
    other: Series | None = None,
    *,
    old_code: tuple[Series, Sequence[int]] | None = None,
) -> Outcome:
    """Decide one metric as a run would have; runs by their numbers.

    ``again`` are the replicas, or this checkout's side of a comparison with the ``old_code``, that is with
    these runs of a series: two a block each, so that the shorter side sets the last look. ``slowdown`` is
    planted into what this checkout measures, not into the sentinels beside it. Screen and ``again`` are runs
    of ``other`` if it is given: the same metric, of other code or on another unit than the baseline's.
    """
    now = other or series
    record = now.record(screen, slowdown)
    case = case_of(series, series.baseline(baseline), record.environment.get("device_uuid"))
    case = replace(case, acquits=old_code is not None)
    evidence = NO_EVIDENCE
    if decide.screen(case, record).tripped:
        here = [now.record(number, slowdown) for number in again]
        if old_code and to_ask(case, record, decide.decide(case, record)):
            there = [old_code[0].record(number) for number in old_code[1]]
            compared = _compared(here, there, case.tolerances[series.metric.name])
            evidence = Evidence(
                replicas=Replicas(here[: len(compared.here)]), old_code={series.metric.name: compared}
            )
        else:
            evidence = Evidence(replicas=Replicas(here[:REPLICAS]))
    (row,) = decide.decide(case, record, evidence)
    return row.verdict.outcome


def _compared(here: Sequence[Record], there: Sequence[Record], tolerance: float) -> Compared:
    """Let two sides alternate, block by block, until they decide."""
    blocks = min(BLOCKS, len(here) // PER_BLOCK, len(there) // PER_BLOCK)
    compared = Compared(revision="")
    for block in range(1, blocks + 1):
        sides = here[: PER_BLOCK * block], there[: PER_BLOCK * block]
        compared = Compared(
            revision="the old code",
            here=[record.measurements[0] for record in sides[0]],
            there=[record.measurements[0] for record in sides[1]],
            blocks=blocks,
            unfit=next((record.unfit for side in sides for record in side if record.unfit), ""),
        )
        if decided(compared, tolerance):
            break
    return compared


def case_of(series: Series, stored: Baseline, unit: str | None) -> Case:
    """Return the case of a metric whose baseline is ``stored``, on GPU ``unit``."""
    suite, _, name = series.test.partition("::")
    tolerance = default_tolerance(series.metric) if series.tolerance is None else series.tolerance
    metric = series.metric.name
    return Case(key=TestKey(suite, name), unit=unit, stored={metric: stored}, tolerances={metric: tolerance})
