"""Data that travels between processes: one test's measurements, and the rows of the summary.

Both ride on pytest's own test reports (``report.gpuperf``), so that a child process, an xdist worker
and the session itself pass them on in the same way.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from statistics import fmean, median, stdev
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from pytest_gpuperf.errors import GpuperfError
from pytest_gpuperf.measurement import Measurement, Metric, Outcome, TestKey, Verdict
from pytest_gpuperf.traces import Trace

if TYPE_CHECKING:
    import pytest

Cause = Literal["wrong", "infrastructure", "setup", "environment"]
"""Why a test failed, for the exit code: a fault of the change, the machine, the set-up, or newer software."""


@dataclass(frozen=True, slots=True)
class Record:
    """One test in one process: its measurements, and the machine they were taken on.

    ``unchanged`` are metrics that were not measured, without samples: their work is the baseline's own.
    ``device`` is the device's part of the place, ``host`` the CPU's, ``environment`` what else is
    stored with a run; ``unfit`` says why the machine was not fit to measure, "" if it was.
    """

    measurements: tuple[Measurement, ...]
    device: Mapping[str, Any] = field(default_factory=dict)
    host: Mapping[str, Any] = field(default_factory=dict)
    environment: Mapping[str, Any] = field(default_factory=dict)
    unfit: str = ""
    unchanged: tuple[Measurement, ...] = ()

    def place(self, metric: Metric) -> dict[str, Any]:
        """Return a metric's place; the CPU is part of it where the host's clock or work is measured."""
        return {**self.device, **self.host} if metric.constants.where == "host" else dict(self.device)

    @property
    def batches(self) -> dict[str, int]:
        """Return the launches a sample of each timed metric, for processes that measure it again."""
        found = {m.metric.name: m.contract.get("batch") for m in self.measurements}
        return {name: batch for name, batch in found.items() if batch is not None}

    @property
    def noisy(self) -> bool:
        """Return whether any metric needs several processes to be judged or recorded."""
        return any(measured.metric.kind == "noisy" for measured in self.measurements)

    def measurement(self, name: str) -> Measurement | None:
        return next((m for m in self.measurements if m.metric.name == name), None)


@dataclass(frozen=True, slots=True)
class Row:
    """A line of the summary: one metric of one test and what was decided about it.

    ``excuse`` is why it does not fail its test although its outcome would: "quarantined" or "expected".
    ``over_budget``: unmeasured only because the run's time was up, so that strict alone decides. ``cause``
    is why it fails its test, None if it does not. ``here`` are the values of the fresh processes that
    measured it again, ``there`` those of the code that it was compared with. ``nodeid`` is the test's in
    this run, "" if it was not in it.
    """

    test: TestKey
    metric: Metric
    verdict: Verdict
    details: Mapping[str, Any] = field(default_factory=dict)
    command: str = ""
    excuse: str = ""
    over_budget: bool = False
    cause: Cause | None = None
    here: tuple[float, ...] = ()
    there: tuple[float, ...] = ()
    nodeid: str = ""

    @property
    def label(self) -> str:
        """Return the summary's word for it."""
        return self.excuse or self.verdict.outcome.value


@dataclass(frozen=True, slots=True)
class Payload:
    """The data on a test report; ``left_out``: not everything was measured, since the time was up.

    ``again``: the machine kept the test from measuring, and a fresh process may do.
    ``accepted`` are lines for the summary: what of the change's own judging the test needed to pass.
    ``elsewhere``: the test is for other machines than this one. ``trace`` is on the last report alone.
    """

    record: Record | None = None
    rows: tuple[Row, ...] = ()
    cause: Cause | None = None
    left_out: bool = False
    again: bool = False
    accepted: tuple[str, ...] = ()
    elsewhere: bool = False
    trace: Trace | None = None


def attach(report: pytest.TestReport, payload: Payload) -> None:
    """Put a payload on a report, as JSON-like data that every process can pass on."""
    import msgspec

    vars(report)["gpuperf"] = msgspec.to_builtins(payload)


def payload_of(report: pytest.TestReport) -> Payload:
    """Return a report's payload, an empty one if it has none."""
    data = vars(report).get("gpuperf")
    if data is None:
        return Payload()
    import msgspec

    return msgspec.convert(data, Payload, strict=False)


def detach(report: pytest.TestReport) -> None:
    """Take from a report what is ours, once everybody has read it: pytest keeps reports to the end."""
    vars(report).pop("gpuperf", None)
    report.user_properties = without_ours(report.user_properties)


PROPERTY = "gpuperf."
"""How the names of our properties of a test begin."""


def without_ours(properties: Sequence[tuple[str, object]]) -> list[tuple[str, object]]:
    """Return a test's properties without the figures among them."""
    return [each for each in properties if not str(each[0]).startswith(PROPERTY)]


REPORTED_SAMPLES = 101
"""Samples of a metric that reports show, evenly spaced in order of size. Odd, so that the median is one."""


@dataclass(frozen=True, slots=True)
class Sampled:
    """What all samples of a metric were; ``sd`` is their standard deviation, 0 of one."""

    count: int
    mean: float
    sd: float

    @classmethod
    def of(cls, samples: Sequence[float]) -> Sampled:
        mean = fmean(samples)
        return cls(len(samples), mean, stdev(samples, mean) if len(samples) > 1 else 0.0)


def thinned(samples: Sequence[float], most: int) -> tuple[float, ...]:
    """Return at most ``most`` samples (odd), ascending: evenly spaced order statistics, with the median."""
    ordered = sorted(samples)
    if (last := len(ordered) - 1) < most:
        return tuple(ordered)
    steps, middle = most - 1, median(ordered)
    return tuple(middle if 2 * i == steps else ordered[round(i * last / steps)] for i in range(most))


_T = TypeVar("_T")
_NAMES_DEVICE = ("device_name", "device_uuid")
_CALM = (Outcome.EQUAL, Outcome.UNCHANGED, Outcome.SHOWN)


class Keeper:
    """Makes what a session keeps of each test small: thousands of tests are nearly the same.

    Of a metric at most so many ``samples`` are kept (odd), ascending, and what all were (``Sampled``). With
    none, tests that measured metrics of the same names on the same machine share one record.
    """

    def __init__(self, samples: int = 0) -> None:
        self._samples = samples
        self._known: dict[Any, Any] = {}
        self._test: TestKey | None = None

    def record(self, record: Record) -> Record:
        """Return what is needed of a record once its test is judged: of which metrics, on which machine."""
        environment = record.environment
        if not self._samples:
            environment = {key: environment[key] for key in _NAMES_DEVICE if key in environment}
        device, host, environment = map(self._same, (record.device, record.host, environment))
        if self._samples:
            reported = tuple(map(self._reported, record.measurements))
            return Record(reported, device, host, environment, record.unfit)
        named = tuple(
            Measurement(m.metric, {}, (), details=self._same(_assumed(m))) for m in record.measurements
        )
        metrics = tuple((m.metric, id(m.details)) for m in named)
        key = metrics, id(device), id(host), id(environment), record.unfit
        return self._same(Record(named, device, host, environment, record.unfit), key)

    def _reported(self, measured: Measurement) -> Measurement:
        shown = {**_assumed(measured), "sampled": Sampled.of(measured.samples)}
        contract = self._same(dict(measured.contract))
        metric = self._same(measured.metric, measured.metric)
        samples = thinned(measured.samples, self._samples)
        return Measurement(metric, contract, samples, measured.code, shown, measured.bounds)

    def row(self, row: Row, nodeid: str = "") -> Row:
        """Return an equal row of the test ``nodeid`` that shares with others what they have in common.

        Its command is left out where nothing will name it: a report, a failure, or a line of what to do.
        """
        details, command = row.details, row.command
        if not any(isinstance(value, float | dict) for value in details.values()):  # figures are its own
            details = self._same(details)
        if not self._samples and row.verdict.outcome in _CALM and not row.cause:
            command = ""
        if row.test != self._test:  # the rows of a test come one after the other
            self._test = row.test
        metric = self._same(row.metric, row.metric)
        return replace(row, test=self._test, metric=metric, details=details, command=command, nodeid=nodeid)

    def _same(self, value: _T, key: Hashable = None) -> _T:
        """Return the first of the values that have this key, by default what they look like."""
        kept: _T = self._known.setdefault(key or repr(value), value)
        return kept


def _assumed(measured: Measurement) -> dict[str, Any]:
    """Return what was taken for granted of a metric, which a recording says: which way is better."""
    return {name: way for name, way in measured.details.items() if name == "better"}


class Recorder:
    """Collects what one test measures in this process.

    ``unfit`` says why the machine was not fit meanwhile, and ``result`` is what its report will carry.
    """

    def __init__(self) -> None:
        self.measurements: dict[str, Measurement] = {}
        self.unchanged: dict[str, Measurement] = {}
        self.closed = False
        self.unfit = ""
        self.result = Payload()

    def add(
        self, measurement: Measurement, unchanged: bool = False, hint: str = "give each its own name="
    ) -> None:
        """Keep a measurement, or what need not be measured since its work is ``unchanged``.

        Raises GpuperfError for a second one of the same name, or after the test.
        """
        name = measurement.metric.name
        if self.closed:
            raise GpuperfError(
                f'"{name}" was measured in the teardown of the test, after its figures were judged, or '
                "in another test: measure it in the test that asks for the fixture"
            )
        if name in self.measurements or name in self.unchanged:
            raise GpuperfError(f'this test measured "{name}" twice; {hint}')
        (self.unchanged if unchanged else self.measurements)[name] = measurement
