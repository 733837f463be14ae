"""The history of a suite: a JSON Lines file a run in one place, and since when a figure is what it is.

Every line is flat, so that a table reader takes the files as they are. Imports msgspec: load it only where a
history was asked for.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import cache
from typing import Any

import msgspec
from msgspec import Struct

from pytest_gpuperf.errors import GpuperfError
from pytest_gpuperf.figures import quantity
from pytest_gpuperf.git import of_commit
from pytest_gpuperf.records import Row
from pytest_gpuperf.report.history_place import ENDING, at
from pytest_gpuperf.report.results import Document, Figure, MetricResult, TestResult, encoded
from pytest_gpuperf.rules.tolerances import limit_of
from pytest_gpuperf.rules.verdict import EXACT_SLACK
from pytest_gpuperf.text import counted

SCHEMA = 1
MOST_RUNS = 500
"""Runs of a history that are read, the newest: their names begin with their date."""


class Line(Struct, frozen=True):
    """One metric in one run; ``low`` and ``high`` are the interval of the change.

    What is not known is null, or "" where it is text. ``commit`` is the checkout's, ``p50`` to ``p99_9`` are
    latencies of a LoadGen phase in seconds.
    """

    schema: int
    run: str
    date: str
    commit: str
    dirty: bool
    exit_code: int
    suite: str
    test: str
    metric: str
    unit: str
    better: str
    kind: str
    instrument: str
    outcome: str
    excuse: str
    cause: str
    pool: str
    backend: str
    device: str
    device_uuid: str
    driver: str
    compiler: str
    python: str
    gpuperf: str
    value: Figure = None
    baseline: Figure = None
    change: Figure = None
    low: Figure = None
    high: Figure = None
    tolerance: Figure = None
    samples: int | None = None
    queries: int | None = None
    bytes_per_second: Figure = None
    of_copy: Figure = None
    flops_per_second: Figure = None
    of_fp32: Figure = None
    p50: Figure = None
    p80: Figure = None
    p90: Figure = None
    p95: Figure = None
    p99: Figure = None
    p99_9: Figure = None


Series = Mapping[tuple[str, str, str, str], Sequence[Line]]
"""Lines by suite, test, metric and pool, the oldest first."""


# --------------------------------------------------------------------------- a run


def lines_of(document: Document) -> list[Line]:
    """Return a run's lines, those of metrics that have a figure."""
    found = document.metrics()
    return [_line(document, test, metric) for test, metric in found if metric.value is not None]


def _line(document: Document, test: TestResult, metric: MetricResult) -> Line:
    machine = document.machine(test)
    around: Mapping[str, Any] = machine.environment if machine else {}
    low, high = metric.interval or (None, None)
    rates = msgspec.structs.asdict(metric.rates) if metric.rates else {}
    return Line(
        schema=SCHEMA,
        run=document.run,
        date=document.date,
        commit=document.commit,
        dirty=document.dirty,
        exit_code=document.exit_code,
        suite=test.suite,
        test=test.name,
        metric=metric.name,
        unit=metric.unit,
        better=metric.better,
        kind=metric.kind,
        instrument=metric.instrument,
        outcome=metric.outcome,
        excuse=metric.excuse,
        cause=metric.cause or "",
        pool=machine.pool if machine else "",
        backend=str(machine.device.get("backend", "")) if machine else "",
        device=str(around.get("device_name", "")),
        device_uuid=str(around.get("device_uuid", "")),
        driver=str(around.get("driver", "")),
        compiler=str(around.get("compiler", "")),
        python=str(around.get("python", "")),
        gpuperf=document.version,
        value=metric.value,
        baseline=metric.baseline,
        change=metric.change,
        low=low,
        high=high,
        tolerance=metric.tolerance,
        samples=metric.samples.count if metric.samples else None,
        queries=metric.queries,
        **rates,
        **{name: each.seconds for name, each in metric.percentiles.items() if name in Line.__struct_fields__},
    )


def append(place: str, document: Document) -> None:
    """Add the run's file to a history; raises GpuperfError."""
    data = b"".join(encoded(line) + b"\n" for line in lines_of(document))
    if not data:
        return
    try:
        at(place).write(f"{document.run}{ENDING}", data)
    except Exception as error:
        raise GpuperfError(f"{_flag(place)}: not written ({_reason(error)})") from None


# --------------------------------------------------------------------------- all runs


def check(place: str) -> None:
    """Raise GpuperfError, one sentence, for a place that can hold no history; forget what was read."""
    read.cache_clear()
    try:
        at(place).names()
    except NotADirectoryError:
        raise GpuperfError(f"{_flag(place)} is a file: name a folder, in which each run adds one") from None
    except ImportError as error:
        raise GpuperfError(
            f"{_flag(place)} is a URL and needs fsspec ({error}): pip install 'pytest-gpuperf[history]', and "
            "the package for its protocol"
        ) from None
    except Exception as error:  # each protocol has its own
        raise GpuperfError(
            f"{_flag(place)}: cannot be read ({_reason(error)}): check the name and the rights to it"
        ) from None


@cache
def read(place: str) -> Series:
    """Return the lines of the newest runs of a history; what is no line of this version is passed over."""
    found: dict[tuple[str, str, str, str], list[Line]] = defaultdict(list)
    decoder = msgspec.json.Decoder(Line)
    there = at(place)
    with suppress(Exception):  # it was there when the run began; a report without trends is one all the same
        for data in there.contents(sorted(there.names())[-MOST_RUNS:]):
            with suppress(msgspec.DecodeError):
                for line in decoder.decode_lines(data):
                    if line.schema <= SCHEMA and line.value is not None:
                        found[line.suite, line.test, line.metric, line.pool].append(line)
    for lines in found.values():
        lines.sort(key=lambda line: (line.date, line.run))
    return found


def since(place: str, pool: str, row: Row) -> list[str]:
    """Return the line of a failure's text that says since when the figure is beyond its tolerance, if known.

    Earlier runs' figures are held to this run's baseline, whatever they were judged by then.
    """
    decided, unit = row.verdict, row.metric.unit
    lines = read(place).get((row.test.suite, row.test.name, row.metric.name, pool), ())
    if decided.baseline is None or not decided.exceeds or not lines:
        return []
    first = len(lines)
    while first and _beyond(row, lines[first - 1].value):
        first -= 1
    count = len(lines) - first
    text = f"{_when(lines[first])} ({counted(count, 'run')} before this one)" if count else "now"
    if first:
        before = lines[first - 1]
        text += f"; {quantity(before.value, unit)} on {_when(before)}"
    else:
        text += ", or longer: the history has no better run"
    return [f"  since     {text}"]


def _beyond(row: Row, value: float | None) -> bool:
    metric, baseline = row.metric, row.verdict.baseline or 0.0
    if value is None or metric.constants.identity:
        return value not in (None, baseline)
    limit = limit_of(metric, baseline, row.verdict.tolerance or 0.0)
    return (value - limit if metric.better == "lower" else limit - value) > EXACT_SLACK * abs(baseline)


def _when(line: Line) -> str:
    return line.date[:10] + of_commit(line.commit, line.dirty)


def _flag(place: str) -> str:
    return f"--gpuperf-history={re.sub('//[^/@]*@', '//', place)}"  # without a password


def _reason(error: Exception) -> str:
    text = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return " ".join(text.split()) or type(error).__name__
