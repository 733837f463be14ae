"""Check, read and write the text of a baseline file.

Imports msgspec, so baselines.py loads it only when a file is read or written. Run as a program it
prints the JSON Schema that ships as baseline.schema.json.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta, Struct

from pytest_gpuperf.constants import INSTRUMENTS
from pytest_gpuperf.errors import BaselineError
from pytest_gpuperf.measurement import Better
from pytest_gpuperf.storage.documents import (
    LARGEST,
    SMALLEST,
    Malformed,
    converted,
    json_schema_of,
    read_object,
    step,
)
from pytest_gpuperf.storage.environments import check_environment

SCHEMA: Literal[2] = 2
"""2 added origin and best, runs that are left out, hashes by kernel, and what the metrics of a test share."""
Figure = Annotated[float, Meta(ge=-LARGEST, le=LARGEST)]
Scalar = str | int | float | bool | None
_AFTER_CONFLICT = "take one side's entries whole, or delete the file and record again with --gpuperf-update"
_RECOVER = "restore the file from version control, or delete it and record again with --gpuperf-update"


_ON_A_LINE = ("metric", "origin", "best")


class RunRecord(Struct, forbid_unknown_fields=True, omit_defaults=True):
    """One process: the environment it ran in (a key of the file's ``runs``) and its samples, ascending.

    ``code`` is the hash of the work that it measured, by kernel where that is several. ``left_out``: it was
    too far from the others to be judged by.
    """

    run: str
    samples: Annotated[list[Figure], Meta(min_length=1)]
    code: str | dict[str, str] | None = None
    left_out: bool = False


class MetricRecord(Struct, forbid_unknown_fields=True):
    unit: str
    better: Better
    kind: Literal["noisy", "exact"]
    instrument: str


class MilestoneRecord(Struct, forbid_unknown_fields=True, omit_defaults=True):
    """A value that an entry once had, and when."""

    value: Figure
    date: str = ""
    commit: str = ""


class SharedRecord(Struct, forbid_unknown_fields=True):
    """What the contracts, and the places, of all metrics of one test have in common."""

    contract: dict[str, Scalar]
    place: dict[str, Scalar]


class EntryRecord(Struct, forbid_unknown_fields=True, omit_defaults=True):
    """One metric of one test. ``prior_sd`` is the instrument's constant when it was recorded.

    ``contract`` and ``place`` are what it has beside the test's. ``origin`` is its first value, ``best`` the
    best so far.
    """

    metric: MetricRecord
    prior_sd: Annotated[float, Meta(ge=0, le=LARGEST)]
    runs: Annotated[list[RunRecord], Meta(min_length=1)]
    contract: dict[str, Scalar] = {}
    place: dict[str, Scalar] = {}
    origin: MilestoneRecord | None = None
    best: MilestoneRecord | None = None


class BaselineFile(Struct, forbid_unknown_fields=True):
    """One suite file's baselines in one pool: ``entries[test][metric]``, and ``runs``, environments by id.

    ``common`` is what all of the environments share, stored once, and ``tests`` what the metrics of each test
    do; a run's own keys come before it, and an entry's. In schema 1 an entry has all of its own.
    """

    schema: Literal[1, 2]
    pool: str
    suite: str
    runs: dict[str, dict[str, Any]]
    entries: dict[str, dict[str, EntryRecord]]
    common: dict[str, Any] = {}
    tests: dict[str, SharedRecord] = {}


def parse(data: bytes, name: str, remedy: str = _RECOVER) -> BaselineFile:
    """Read and check a file's bytes; raises BaselineError with ``name``, the place in it and ``remedy``."""
    try:
        return _checked(data)
    except Malformed as bad:
        raise BaselineError(f"{name}: {bad}; {bad.remedy or remedy}") from None


def _checked(data: bytes) -> BaselineFile:
    document = read_object(data, "a baseline file holds", SCHEMA, _AFTER_CONFLICT)
    # Entry by entry, because msgspec's path says `[...]` where the name of the test belongs.
    emptied: dict[str, Any] = {key: {} for key in ("tests", "entries") if key in document}
    file = converted({**document, **emptied}, BaselineFile)
    for test, shared in converted(document.get("tests", {}), dict[str, Any], "$.tests").items():
        file.tests[test] = converted(shared, SharedRecord, f"$.tests{step(test)}")
    for name, environment in file.runs.items():
        check_environment({**file.common, **environment}, f"$.runs{step(name)}")
    for test, metrics in converted(document["entries"], dict[str, dict[str, Any]], "$.entries").items():
        file.entries[test] = {}
        for metric, entry in metrics.items():
            path = f"$.entries{step(test)}{step(metric)}"
            file.entries[test][metric] = found = converted(entry, EntryRecord, path)
            if lacking := {"contract", "place"} - entry.keys() if test not in file.tests else ():
                raise Malformed(f"{path}: Object missing required field `{min(lacking)}`")
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
    tests = {
        test: {"contract": _in_order(shared.contract), "place": _in_order(shared.place)}
        for test, shared in _in_order(file.tests).items()
    }
    return _lines({**head, "tests": tests, "entries": entries}) + "\n"


def _entry_lines(entry: EntryRecord) -> dict[str, Any]:
    built = msgspec.to_builtins(entry)
    own = {"contract": _in_order(entry.contract), "place": _in_order(entry.place)}
    built |= {key: value for key, value in own.items() if value}
    lines = {key: OneLine(value) if key in _ON_A_LINE else value for key, value in built.items()}
    return {**lines, "runs": entry.runs}


class OneLine(dict[str, Any]):
    """An object that is written on one line."""


def json_schema() -> str:
    return json_schema_of(BaselineFile, "baseline")


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
        if mark and metric.kind == "noisy" and mark.value < SMALLEST:
            yield f".{name}.value is {mark.value:g}, and a noisy metric's are above zero"
    for i, run in enumerate(entry.runs):
        if run.run not in file.runs:
            yield f".runs[{i}].run is {run.run!r}, which $.runs does not have"
        if isinstance(run.code, str) and run.code.startswith("{"):
            yield f".runs[{i}].code is {run.code!r}, not a hash"
        if metric.kind == "exact" and len(run.samples) != 1:
            yield f".runs[{i}].samples has {len(run.samples)} values, and an exact metric has one"
        low = next((j for j, sample in enumerate(run.samples) if sample < SMALLEST), None)
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


if __name__ == "__main__":
    print(json_schema(), end="")
