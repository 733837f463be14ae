"""Baselines in a file's records, and back: what is stored of a run, and what several of them share."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

from pytest_gpuperf.measurement import Baseline, Metric, Milestone, Run
from pytest_gpuperf.records import thinned
from pytest_gpuperf.storage.format import (
    SCHEMA,
    BaselineFile,
    EntryRecord,
    MetricRecord,
    MilestoneRecord,
    RunRecord,
    SharedRecord,
)
from pytest_gpuperf.text import printable

KEPT_SAMPLES = 25
"""Samples kept of a run: enough to see its shape, few enough for a line. Odd, so that the median is one."""
DIGITS = 6
"""Significant digits of a noisy sample: five would move a median by up to 5e-5, a tenth of what device
times vary by between processes (prior_sd 6e-4); six move it by 5e-6 at most."""


def baselines_of(file: BaselineFile) -> dict[str, dict[str, Baseline]]:
    """Return a file's baselines by test name and metric name."""
    environments = {name: {**file.common, **own} for name, own in file.runs.items()}

    def convert(test: str, name: str, entry: EntryRecord) -> Baseline:
        of, shared = entry.metric, file.tests.get(test, SharedRecord({}, {}))
        metric = Metric(name, of.unit, of.better, of.kind, of.instrument)
        runs = {
            out: tuple(
                Run(tuple(run.samples), environments[run.run], _one_code(run.code))
                for run in entry.runs
                if run.left_out is out
            )
            for out in (False, True)
        }
        origin, best = (
            Milestone(mark.value, mark.date, mark.commit) if mark else None
            for mark in (entry.origin, entry.best)
        )
        contract, place = {**shared.contract, **entry.contract}, {**shared.place, **entry.place}
        return Baseline(metric, contract, place, entry.prior_sd, runs[False], origin, best, runs[True])

    return {
        test: {name: convert(test, name, entry) for name, entry in metrics.items()}
        for test, metrics in file.entries.items()
    }


def file_of(pool: str, suite: str, entries: Mapping[str, Mapping[str, Baseline]]) -> BaselineFile:
    """Return the file that holds ``entries``; raises ValueError or TypeError for what cannot be stored."""
    environments: dict[str, dict[str, Any]] = {}

    def environment_id(environment: Mapping[str, Any]) -> str:
        """Return an id made from the content: equal ones share it, rewriting keeps it."""
        text = json.dumps(environment, sort_keys=True, allow_nan=False)
        key = hashlib.sha256(text.encode()).hexdigest()[:12]
        environments[key] = json.loads(text)
        return key

    def convert(test: str, baseline: Baseline) -> EntryRecord:
        of = baseline.metric
        if of.kind == "shown":
            raise ValueError(f"{test}, {of.name} is only shown and has no baseline")
        _check_storable(baseline, f"{test}, {of.name}")
        runs = [
            RunRecord(environment_id(run.environment), _kept(of, run.samples), _codes(run.code), out)
            for out, some in ((False, baseline.runs), (True, baseline.left_out))
            for run in some
        ]
        metric = MetricRecord(of.unit, of.better, of.kind, of.instrument)
        origin, best = (_mark(of, mark) for mark in (baseline.origin, baseline.best))
        shared = tests[test]
        contract, place = _beside(shared.contract, baseline.contract), _beside(shared.place, baseline.place)
        return EntryRecord(metric, baseline.prior_sd, runs, contract, place, origin, best)

    tests = {
        test: SharedRecord(
            _common([baseline.contract for baseline in metrics.values()]),
            _common([baseline.place for baseline in metrics.values()]),
        )
        for test, metrics in entries.items()
    }
    records = {
        test: {name: convert(test, baseline) for name, baseline in metrics.items()}
        for test, metrics in entries.items()
    }
    by_date = sorted(environments.items(), key=lambda item: (str(item[1].get("date", "")), item[0]))
    # Forty versions a run would hide what a review looks for.
    common = _common([environment for _, environment in by_date]) if len(by_date) > 1 else {}
    own = {run: _beside(common, environment) for run, environment in by_date}
    return BaselineFile(SCHEMA, pool, suite, own, records, common, tests)


def _common(mappings: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return what all of some mappings have alike."""
    first, *others = mappings
    return {
        key: value
        for key, value in first.items()
        if all(key in other and _alike(other[key], value) for other in others)
    }


def _beside(common: Mapping[str, Any], whole: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in whole.items() if key not in common}


def _alike(one: Any, other: Any) -> bool:
    return type(one) is type(other) and bool(one == other)  # True is not 1


def _one_code(code: str | dict[str, str] | None) -> str | None:
    """Return the work's hash, of several kernels theirs in one text, which a "?" ends if any is unknown."""
    if not isinstance(code, dict):
        return code
    unknown = "?" if any(each.endswith("?") for each in code.values()) else ""
    return json.dumps(code, sort_keys=True) + unknown


def _codes(code: str | None) -> str | dict[str, str] | None:
    """Return what ``_one_code`` was given."""
    if code is None or not code.startswith("{"):
        return code
    by_kernel: dict[str, str] = json.loads(code.removesuffix("?"))
    return by_kernel


def _mark(metric: Metric, mark: Milestone | None) -> MilestoneRecord | None:
    return MilestoneRecord(_kept(metric, (mark.value,))[0], mark.date, mark.commit) if mark else None


def _check_storable(baseline: Baseline, where: str) -> None:
    """Raise ValueError for what JSON, or the file's shape, would not give back as it was."""
    for key, value in (*baseline.contract.items(), *baseline.place.items()):
        if not isinstance(value, str | int | float | None):
            raise ValueError(f"{where}: {key} is {value!r}, not a string, number, boolean or None")
        if isinstance(value, str) and value != printable(value):
            raise ValueError(f"{where}: {key} is {value!r}, which cannot be printed in a line")
    figures = [*baseline.contract.values(), *baseline.place.values()]
    figures += [sample for run in (*baseline.runs, *baseline.left_out) for sample in run.samples]
    for value in figures:
        if isinstance(value, float) and not math.isfinite(value):
            raise ValueError(f"{where}: {value} is not a number that can be compared")


def _kept(metric: Metric, samples: tuple[float, ...]) -> list[float]:
    """Return the samples as stored: an exact value as it is; noisy ones ascending, thinned and rounded.

    Thinned to evenly spaced order statistics, the middle one the median itself.
    """
    if metric.kind == "exact":
        return [float(sample) for sample in samples]
    kept = thinned([float(sample) for sample in samples], KEPT_SAMPLES)
    return [float(f"{sample:.{DIGITS}g}") for sample in kept]
