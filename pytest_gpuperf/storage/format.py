"""Check, read and write the text of a baseline file.

Imports msgspec, so baselines.py loads it only when a file is read or written. Run as a program it
prints the JSON Schema that ships as baseline.schema.json.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta, Struct

from pytest_gpuperf.errors import BaselineError
from pytest_gpuperf.measurement import INSTRUMENTS, Baseline, Better, Metric, Milestone, Run
from pytest_gpuperf.storage.documents import Malformed, converted, read_object, step
from pytest_gpuperf.storage.environments import check_environment

SCHEMA = 2
"""2 added an entry's origin and best, and runs that are left out; a file without them is written as 1."""
KEPT_SAMPLES = 25
"""Samples kept of a run: enough to see its shape, few enough for a line. Odd, so that the median is one."""
DIGITS = 6
"""Significant digits of a noisy sample: five would move a median by up to 5e-5, a tenth of what device
times vary by between processes (prior_sd 6e-4); six move it by 5e-6 at most."""
Scalar = str | int | float | bool | None
_AFTER_CONFLICT = "take one side's entries whole, or delete the file and record again with --gpuperf-update"
_RECOVER = "restore the file from version control, or delete it and record again with --gpuperf-update"


class RunRecord(Struct, forbid_unknown_fields=True, omit_defaults=True):
    """One process: the environment it ran in (a key of the file's ``runs``) and its samples, ascending.

    ``left_out``: it was too far from the others to be judged by.
    """

    run: str
    samples: Annotated[list[float], Meta(min_length=1)]
    code: str | None = None
    left_out: bool = False


class MetricRecord(Struct, forbid_unknown_fields=True):
    unit: str
    better: Better
    kind: Literal["noisy", "exact"]
    instrument: str


class MilestoneRecord(Struct, forbid_unknown_fields=True, omit_defaults=True):
    """A value that an entry once had, and when."""

    value: float
    date: str = ""
    commit: str = ""


class EntryRecord(Struct, forbid_unknown_fields=True, omit_defaults=True):
    """One metric of one test. ``prior_sd`` is the instrument's constant when it was recorded.

    ``origin`` is its first value, ``best`` the best so far.
    """

    metric: MetricRecord
    contract: dict[str, Scalar]
    place: dict[str, Scalar]
    prior_sd: Annotated[float, Meta(ge=0)]
    runs: Annotated[list[RunRecord], Meta(min_length=1)]
    origin: MilestoneRecord | None = None
    best: MilestoneRecord | None = None


class BaselineFile(Struct, forbid_unknown_fields=True):
    """One suite file's baselines in one pool: ``entries[test][metric]``, and ``runs``, environments by id.

    ``common`` is what all of the environments share, stored once; a run's own keys come before it.
    """

    schema: Literal[1, 2]
    pool: str
    suite: str
    runs: dict[str, dict[str, Any]]
    entries: dict[str, dict[str, EntryRecord]]
    common: dict[str, Any] = {}


def parse(data: bytes, name: str, remedy: str = _RECOVER) -> BaselineFile:
    """Read and check a file's bytes; raises BaselineError with ``name``, the place in it and ``remedy``."""
    try:
        return _checked(data)
    except Malformed as bad:
        raise BaselineError(f"{name}: {bad}; {bad.remedy or remedy}") from None


def _checked(data: bytes) -> BaselineFile:
    document = read_object(data, "a baseline file holds", SCHEMA, _AFTER_CONFLICT)
    # Entry by entry, because msgspec's path says `[...]` where the name of the test belongs.
    without = {**document, "entries": {}} if "entries" in document else document
    file = converted(without, BaselineFile)
    for name, environment in file.runs.items():
        check_environment({**file.common, **environment}, f"$.runs{step(name)}")
    for test, metrics in converted(document["entries"], dict[str, dict[str, Any]], "$.entries").items():
        file.entries[test] = {}
        for metric, entry in metrics.items():
            path = f"$.entries{step(test)}{step(metric)}"
            file.entries[test][metric] = found = converted(entry, EntryRecord, path)
            for problem in _entry_problems(found, file):
                raise Malformed(path + problem)
    return file


def render(file: BaselineFile) -> str:
    """Write the file's text: keys in a lasting order and a line each run, so that a diff shows what moved."""
    entries = {
        test: {metric: _entry_lines(entry) for metric, entry in _in_order(metrics).items()}
        for test, metrics in _in_order(file.entries).items()
    }
    common = {"common": _in_order(file.common)} if file.common else {}
    head = {"schema": file.schema, "pool": file.pool, "suite": file.suite, **common, "runs": file.runs}
    return _lines({**head, "entries": entries}) + "\n"


def _entry_lines(entry: EntryRecord) -> dict[str, Any]:
    built = msgspec.to_builtins(entry)
    built |= {"contract": _in_order(entry.contract), "place": _in_order(entry.place), "runs": entry.runs}
    return {key: OneLine(value) if key in ("origin", "best") else value for key, value in built.items()}


class OneLine(dict[str, Any]):
    """An object that is written on one line."""


def json_schema() -> str:
    """Return the JSON Schema (2020-12) of a baseline file, as it ships."""
    schema = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "pytest-gpuperf baseline",
        **msgspec.json.schema(BaselineFile),
    }
    return json.dumps(schema, indent=2, sort_keys=True) + "\n"


def _entry_problems(entry: EntryRecord, file: BaselineFile) -> Iterator[str]:
    """Yield the problems that types cannot express, each with its path within the entry."""
    metric = entry.metric
    if metric.instrument not in INSTRUMENTS:
        known = ", ".join(INSTRUMENTS)
        yield f".metric.instrument is {metric.instrument!r}, unknown here (known: {known})"
    if metric.kind == "noisy" and entry.prior_sd <= 0:
        yield f".prior_sd is {entry.prior_sd:g}, and a noisy metric needs one above zero"
    if all(run.left_out for run in entry.runs):
        yield ".runs are all left out, and an entry needs one to be judged by"
    for name, mark in (("origin", entry.origin), ("best", entry.best)):
        if mark and metric.kind == "noisy" and mark.value <= 0:
            yield f".{name}.value is {mark.value:g}, and a noisy metric's are above zero"
    for i, run in enumerate(entry.runs):
        if run.run not in file.runs:
            yield f".runs[{i}].run is {run.run!r}, which $.runs does not have"
        if metric.kind == "exact" and len(run.samples) != 1:
            yield f".runs[{i}].samples has {len(run.samples)} values, and an exact metric has one"
        low = next((j for j, sample in enumerate(run.samples) if sample <= 0), None)
        if metric.kind == "noisy" and low is not None:
            yield f".runs[{i}].samples[{low}] is {run.samples[low]:g}, and a noisy metric's are above zero"


def _in_order(mapping: dict[str, Any]) -> dict[str, Any]:
    return dict(sorted(mapping.items()))


def _lines(value: Any, indent: str = "") -> str:
    inner = indent + "  "
    if isinstance(value, dict) and value and not isinstance(value, OneLine):
        items = [f"{inner}{json.dumps(key)}: {_lines(item, inner)}" for key, item in value.items()]
        return "{\n" + ",\n".join(items) + f"\n{indent}}}"
    if isinstance(value, list) and value and isinstance(value[0], RunRecord):
        return "[\n" + ",\n".join(f"{inner}{_run_line(run)}" for run in value) + f"\n{indent}]"
    return json.dumps(value)


def _run_line(run: RunRecord) -> str:
    code = {} if run.code is None else {"code": run.code}
    out = {"left_out": True} if run.left_out else {}
    return json.dumps({"run": run.run, **code, **out, "samples": run.samples})


# --------------------------------------------------------------------------- from and to our own types


def baselines_of(file: BaselineFile) -> dict[str, dict[str, Baseline]]:
    """Return a file's baselines by test name and metric name."""

    def convert(name: str, entry: EntryRecord) -> Baseline:
        of = entry.metric
        metric = Metric(name, of.unit, of.better, of.kind, of.instrument)
        runs = {
            out: tuple(
                Run(tuple(run.samples), {**file.common, **file.runs[run.run]}, run.code)
                for run in entry.runs
                if run.left_out is out
            )
            for out in (False, True)
        }
        origin, best = (
            Milestone(mark.value, mark.date, mark.commit) if mark else None
            for mark in (entry.origin, entry.best)
        )
        return Baseline(
            metric, entry.contract, entry.place, entry.prior_sd, runs[False], origin, best, runs[True]
        )

    return {
        test: {name: convert(name, entry) for name, entry in metrics.items()}
        for test, metrics in file.entries.items()
    }


def file_of(pool: str, suite: str, entries: Mapping[str, Mapping[str, Baseline]]) -> BaselineFile:
    """Return the file that holds ``entries``; raises ValueError or TypeError for what cannot be stored."""
    environments: dict[str, dict[str, Any]] = {}

    def convert(test: str, baseline: Baseline) -> EntryRecord:
        of = baseline.metric
        if of.kind == "shown":
            raise ValueError(f"{test}, {of.name} is only shown and has no baseline")
        _check_storable(baseline, f"{test}, {of.name}")
        runs = [
            RunRecord(_environment_id(run.environment, environments), _kept(of, run.samples), run.code, out)
            for out, some in ((False, baseline.runs), (True, baseline.left_out))
            for run in some
        ]
        metric = MetricRecord(of.unit, of.better, of.kind, of.instrument)
        origin, best = (_mark(of, mark) for mark in (baseline.origin, baseline.best))
        contract, place = dict(baseline.contract), dict(baseline.place)
        return EntryRecord(metric, contract, place, baseline.prior_sd, runs, origin, best)

    records = {
        test: {name: convert(test, baseline) for name, baseline in metrics.items()}
        for test, metrics in entries.items()
    }
    by_date = sorted(environments.items(), key=lambda item: (str(item[1].get("date", "")), item[0]))
    # Forty versions a run would hide what a review looks for.
    first, *others = [environment for _, environment in by_date] or [{}]
    common = {
        key: value
        for key, value in first.items()
        if others and all(key in other and other[key] == value for other in others)
    }
    own = {
        run: {key: value for key, value in environment.items() if key not in common}
        for run, environment in by_date
    }
    entered = [entry for metrics in records.values() for entry in metrics.values()]
    plain = not any(e.origin or e.best or any(run.left_out for run in e.runs) for e in entered)
    return BaselineFile(1 if plain else 2, pool, suite, own, records, common)


def _mark(metric: Metric, mark: Milestone | None) -> MilestoneRecord | None:
    return MilestoneRecord(_kept(metric, (mark.value,))[0], mark.date, mark.commit) if mark else None


def _check_storable(baseline: Baseline, where: str) -> None:
    """Raise ValueError for what JSON, or the file's shape, would not give back as it was."""
    for key, value in (*baseline.contract.items(), *baseline.place.items()):
        if not isinstance(value, str | int | float | None):
            raise ValueError(f"{where}: {key} is {value!r}, not a string, number, boolean or None")
    figures = [*baseline.contract.values(), *baseline.place.values()]
    figures += [sample for run in (*baseline.runs, *baseline.left_out) for sample in run.samples]
    for value in figures:
        if isinstance(value, float) and not math.isfinite(value):
            raise ValueError(f"{where}: {value} is not a number that can be compared")


def _environment_id(environment: Mapping[str, Any], known: dict[str, dict[str, Any]]) -> str:
    """Return an environment's id, made from its content: equal ones share it, rewriting keeps it."""
    text = json.dumps(environment, sort_keys=True, allow_nan=False)
    key = hashlib.sha256(text.encode()).hexdigest()[:12]
    known[key] = json.loads(text)
    return key


def _kept(metric: Metric, samples: tuple[float, ...]) -> list[float]:
    """Return the samples as stored: an exact value as it is; noisy ones ascending, thinned and rounded.

    Thinned to evenly spaced order statistics, the middle one the median itself.
    """
    if metric.kind == "exact":
        return [float(sample) for sample in samples]
    ordered = sorted(float(sample) for sample in samples)
    if (last := len(ordered) - 1) >= KEPT_SAMPLES:
        middle = (ordered[last // 2] + ordered[(last + 1) // 2]) / 2
        steps = KEPT_SAMPLES - 1
        ordered = [
            middle if 2 * i == steps else ordered[round(i * last / steps)] for i in range(KEPT_SAMPLES)
        ]
    return [float(f"{sample:.{DIGITS}g}") for sample in ordered]


if __name__ == "__main__":
    print(json_schema(), end="")
