"""The results of a run, as programs read them: one document, from which the page and the history are made.

Imports msgspec: load it only when a report is read or written. Run as a program it prints the JSON Schema
that ships as results.schema.json.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import msgspec
from msgspec import Struct, field

from pytest_gpuperf.errors import GpuperfError
from pytest_gpuperf.files import read_file
from pytest_gpuperf.measurement import Better, Kind
from pytest_gpuperf.storage.documents import Malformed, converted, json_schema_of, read_object

SCHEMA: Literal[1] = 1
"""Fields may be added within a version; it goes up when one goes, or means something else."""
LARGEST = 512 << 20
"""Bytes that a file of results may have: more than a hundred thousand metrics."""
_AGAIN = "write it again with --gpuperf-json"
Figure = float | None
"""A number in the metric's unit; null where there is none, or it is not finite."""


class Percentile(Struct, frozen=True):
    """A latency of a LoadGen phase; ``enough``: as many queries stand behind it as MLPerf asks for."""

    seconds: Figure
    enough: bool


class Samples(Struct, frozen=True):
    """The samples of one process: how many, their mean and standard deviation, and the ``kept`` of them.

    These are ascending and evenly spaced in order of size, with the least, the median and the largest.
    """

    count: int
    mean: Figure
    sd: Figure
    kept: list[Figure]


class StoredRun(Struct, frozen=True):
    """A run of the baseline: its median, the samples that are kept of it, and where it was measured.

    ``left_out``: it was too far from the others to be judged by.
    """

    value: Figure
    samples: list[Figure]
    date: str = ""
    commit: str = ""
    dirty: bool = False
    device: str = ""
    device_uuid: str = ""
    left_out: bool = False


class Rates(Struct, frozen=True):
    """The rates of the declared work, with their shares: of a copy's bytes, and of the fp32 units' peak."""

    bytes_per_second: Figure = None
    of_copy: Figure = None
    flops_per_second: Figure = None
    of_fp32: Figure = None


class MetricResult(Struct, frozen=True):
    """The verdict on one metric and all that it rests on.

    ``outcome`` is the verdict; ``excuse`` is "quarantined" or "expected" where it fails nothing, ``cause``
    why it fails its test, null if it does not. ``value`` is today's, ``change`` is value / baseline - 1,
    ``interval`` its bounds, ``tolerance`` and ``detectable`` fractions, ``exceeds``: the estimate is beyond
    the tolerance. ``old_code`` is the commit whose code gave ``baseline`` here and now, "" where the stored
    runs did. ``samples`` are the test's own process's; ``here`` the values of the processes that measured
    it again, ``there`` those of the code it was compared with, ``stored`` the baseline's runs. ``differs``
    names what surrounds them that is not as it was.
    """

    name: str
    unit: str
    better: Better
    kind: Kind
    instrument: str
    outcome: str
    excuse: str = ""
    cause: str | None = None
    value: Figure = None
    baseline: Figure = None
    change: Figure = None
    interval: tuple[Figure, Figure] | None = None
    tolerance: Figure = None
    detectable: Figure = None
    exceeds: bool = False
    reason: str = ""
    old_code: str = ""
    processes: int = 0
    min: Figure = None
    max: Figure = None
    rates: Rates | None = None
    queries: int | None = None
    percentiles: dict[str, Percentile] = field(default_factory=dict)
    samples: Samples | None = None
    here: list[Figure] = field(default_factory=list)
    there: list[Figure] = field(default_factory=list)
    stored: list[StoredRun] = field(default_factory=list)
    differs: list[str] = field(default_factory=list)
    contract: dict[str, Any] = field(default_factory=dict)
    details: dict[str, Any] = field(default_factory=dict)
    command: str = ""

    @property
    def label(self) -> str:
        """Return the word that the summary has for the verdict."""
        return self.excuse or self.outcome


class Traced(Struct, frozen=True):
    """All calls of one function of CUDA's API in a test, or all launches, copies or memsets of one name.

    ``where`` is "host" for calls, "device" for its work. ``total``, ``first`` and ``rest`` (the mean of all
    but the first, which may include set-up) are in seconds.
    """

    name: str
    where: Literal["host", "device"]
    count: int
    total: Figure
    first: Figure = None
    rest: Figure = None


class TestResult(Struct, frozen=True):
    """A test: how it ended, with the reason of a skip or a failure, and its metrics.

    ``suite`` and ``name`` are its lasting name, from the folder that holds the baselines; ``nodeid`` is
    pytest's, "" where it was not in this run. ``outcome`` is passed, failed or skipped, "" where it was not
    run. ``machine`` is its place in the document's ``machines``, null where nothing was measured. ``calls``
    are those of --gpuperf-trace.
    """

    __test__ = False

    suite: str
    name: str
    nodeid: str = ""
    outcome: str = ""
    reason: str = ""
    machine: int | None = None
    metrics: list[MetricResult] = field(default_factory=list)
    calls: list[Traced] = field(default_factory=list)


class Machine(Struct, frozen=True):
    """A machine as tests measured on it: the device's and the host's part of the place, and what surrounds
    it.

    ``unfit`` says why it was not fit to measure, "" if it was.
    """

    pool: str
    device: dict[str, Any]
    host: dict[str, Any]
    environment: dict[str, Any]
    unfit: str = ""

    @property
    def name(self) -> str:
        """Return what the device is called."""
        return str(self.environment.get("device_name") or self.device.get("gpu") or "no device")


class Document(Struct, frozen=True):
    """The results of a run.

    ``date`` is its end, in UTC; ``commit`` and ``dirty`` the checkout's. ``against`` is the revision that
    --gpuperf-against compared with, ``baselines_from`` the one whose baselines counted, "" for none.
    ``findings`` are failures of the run as a whole, ``notes`` lines of its summary.
    """

    schema: Literal[1]
    version: str
    run: str
    date: str
    exit_code: int
    strict: bool
    command: str
    commit: str = ""
    dirty: bool = False
    against: str = ""
    baselines_from: str = ""
    machines: list[Machine] = field(default_factory=list)
    tests: list[TestResult] = field(default_factory=list)
    findings: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def metrics(self) -> Iterator[tuple[TestResult, MetricResult]]:
        """Yield every metric with its test."""
        for test in self.tests:
            for metric in test.metrics:
                yield test, metric

    def machine(self, test: TestResult) -> Machine | None:
        """Return the machine that a test measured on, None if it measured nothing."""
        return None if test.machine is None else self.machines[test.machine]


def render(document: Document) -> bytes:
    """Return the document's JSON, indented; a number that is not finite becomes null."""
    return msgspec.json.format(encoded(document), indent=1) + b"\n"


def encoded(value: Any) -> bytes:
    """Return the JSON of a value on one line, halves of surrogate pairs in it escaped."""
    try:
        return msgspec.json.encode(value)
    except UnicodeEncodeError:
        return msgspec.json.encode(_encodable(msgspec.to_builtins(value)))


def _encodable(value: Any) -> Any:
    if isinstance(value, dict):
        return {_encodable(key): _encodable(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_encodable(inner) for inner in value]
    return value.encode(errors="backslashreplace").decode() if isinstance(value, str) else value


def load(path: Path) -> Document:
    """Read a file that --gpuperf-json wrote; raises GpuperfError with the file and the place."""
    try:
        data = read_file(path, limit=LARGEST)
    except OSError as error:
        raise GpuperfError(
            f"{path}: cannot be read as the results of a run ({error.strerror or error}): "
            "give a file that --gpuperf-json wrote"
        ) from None
    try:
        document = converted(read_object(data, "a file of results holds", SCHEMA, _AGAIN), Document)
        for i, test in enumerate(document.tests):
            if test.machine is not None and not 0 <= test.machine < len(document.machines):
                raise Malformed(f"$.tests[{i}].machine is {test.machine}, which $.machines does not have")
        return document
    except Malformed as bad:
        raise GpuperfError(f"{path}: {bad}; {bad.remedy or _AGAIN}") from None


def json_schema() -> str:
    return json_schema_of(Document, "results")


if __name__ == "__main__":
    print(json_schema(), end="")
