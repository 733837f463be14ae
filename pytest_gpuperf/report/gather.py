"""Gather the results of a run into the document that its reports are made from."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from typing import Any

from pytest_gpuperf.errors import GpuperfError
from pytest_gpuperf.measurement import Baseline, Measurement, Run
from pytest_gpuperf.records import Record, Row, Sampled
from pytest_gpuperf.report.results import (
    Machine,
    MetricResult,
    Percentile,
    Rates,
    Samples,
    StoredRun,
    TestResult,
    Traced,
)
from pytest_gpuperf.report.trace import shown
from pytest_gpuperf.rules.differences import environment_differences
from pytest_gpuperf.storage.project import Project
from pytest_gpuperf.traces import Trace

_RATES = ("bytes_per_second", "of_copy", "flops_per_second", "of_fp32")
_OF_A_PROCESS = ("date", "sentinels")
_TOLD_APART = {*_RATES, "percentiles", "queries", "notes"}


class Gathered:
    """The tests of a run and the machines that they measured on, each machine once.

    ``records`` are as Keeper keeps them for reports, and ``traces``, by node id. Under --gpuperf-against
    nothing is ``stored``. ``judged_by`` are the flags by which the run judged, for a test's command.
    """

    def __init__(
        self,
        project: Project,
        records: Mapping[str, Record],
        traces: Mapping[str, Trace],
        stored: bool,
        judged_by: str,
    ) -> None:
        self._project, self._records, self._stored = project, records, stored
        self._traces, self._judged_by = traces, judged_by
        self._machines: dict[str, int] = {}
        self._known: dict[tuple[int, ...], tuple[Any, list[str]]] = {}
        self.machines: list[Machine] = []

    def tests(
        self, rows: Sequence[Row], outcomes: Mapping[str, str], reasons: Mapping[str, str]
    ) -> list[TestResult]:
        """Return the tests in the order in which they ended, then those that are only stored."""
        of: dict[tuple[str, str], list[Row]] = {
            (nodeid, str(self._project.name(nodeid))): [] for nodeid in outcomes
        }
        for row in rows:
            of.setdefault((row.nodeid, str(row.test)), []).append(row)
        return [
            self._test(nodeid, found, outcomes.get(nodeid, ""), reasons.get(nodeid, ""))
            for (nodeid, _), found in of.items()
        ]

    def _test(self, nodeid: str, rows: Sequence[Row], outcome: str, reason: str) -> TestResult:
        key = rows[0].test if rows else self._project.name(nodeid)
        record = self._records.get(nodeid)
        baselines: Mapping[str, Baseline] = {}
        if record and self._stored:
            with suppress(GpuperfError):  # a file that cannot be read, for which the test has failed
                baselines = self._project.stored(nodeid, record.device)
        return TestResult(
            suite=key.suite,
            name=key.name,
            nodeid=nodeid,
            outcome=outcome,
            reason=reason,
            machine=self._machine(record) if record else None,
            metrics=[self._metric(row, record, baselines.get(row.metric.name)) for row in rows],
            calls=_traced(self._traces[nodeid]) if nodeid in self._traces else [],
        )

    def _machine(self, record: Record) -> int:
        """Return the place of a record's machine among all, whatever its sentinels took."""
        surrounds = {k: v for k, v in record.environment.items() if k not in _OF_A_PROCESS}
        parts = dict(record.device), dict(record.host), surrounds, record.unfit
        found = self._machines.setdefault(json.dumps(parts, sort_keys=True, default=str), len(self.machines))
        if found == len(self.machines):
            device, host, _, unfit = parts
            environment = dict(record.environment)
            self.machines.append(Machine(self._project.pool(device), device, host, environment, unfit))
        return found

    def _metric(self, row: Row, record: Record | None, baseline: Baseline | None) -> MetricResult:
        metric, verdict, details = row.metric, row.verdict, row.details
        measured = record.measurement(metric.name) if record else None
        percentiles = details.get("percentiles", {})
        runs = _stored(baseline) if baseline else []
        return MetricResult(
            name=metric.name,
            unit=metric.unit,
            better=metric.better,
            kind=metric.kind,
            instrument=metric.instrument,
            outcome=verdict.outcome.value,
            excuse=row.excuse,
            cause=row.cause,
            value=verdict.now,
            baseline=verdict.baseline,
            change=verdict.change,
            interval=verdict.interval,
            tolerance=verdict.tolerance,
            detectable=verdict.detectable,
            exceeds=verdict.exceeds,
            reason=verdict.reason,
            old_code=verdict.old_code,
            processes=verdict.processes,
            min=measured.bounds.min if measured else None,
            max=measured.bounds.max if measured else None,
            rates=_rates(details),
            queries=details.get("queries"),
            percentiles={name: Percentile(*found) for name, found in percentiles.items()},
            samples=_samples(measured) if measured else None,
            here=list(row.here),
            there=list(row.there),
            stored=runs,
            differs=self._differs(baseline, record) if baseline and record else [],
            contract=dict(measured.contract) if measured else {},
            details={name: value for name, value in details.items() if name not in _TOLD_APART},
            command=row.command and row.command + self._judged_by,
        )

    def _differs(self, baseline: Baseline, record: Record) -> list[str]:
        """Return what is not as it was in any of a baseline's runs; equal questions are answered once."""
        compared = [run.environment for run in baseline.runs], record.environment
        key = (*map(id, compared[0]), id(record.environment))
        if key not in self._known:
            self._known[key] = compared, environment_differences(*compared)  # what has an id must live on
        return self._known[key][1]


def _stored(baseline: Baseline) -> list[StoredRun]:
    runs = [_run(run, False) for run in baseline.runs] + [_run(run, True) for run in baseline.left_out]
    return sorted(runs, key=lambda run: run.date)


def _run(run: Run, left_out: bool) -> StoredRun:
    about = run.environment
    return StoredRun(
        value=run.value,
        samples=list(run.samples),
        date=_text(about, "date"),
        commit=_text(about, "commit"),
        dirty=bool(about.get("dirty")),
        device=_text(about, "device_name"),
        device_uuid=_text(about, "device_uuid"),
        left_out=left_out,
    )


def _text(environment: Mapping[str, Any], key: str) -> str:
    return str(environment.get(key) or "")


def _rates(details: Mapping[str, Any]) -> Rates | None:
    found = {name: details[name] for name in _RATES if name in details}
    return Rates(**found) if found else None


def _samples(measured: Measurement) -> Samples | None:
    if not measured.samples:
        return None
    all_of_them = measured.details.get("sampled") or Sampled.of(measured.samples)
    return Samples(all_of_them.count, all_of_them.mean, all_of_them.sd, list(measured.samples))


def newest(records: Iterable[Record]) -> Mapping[str, Any]:
    """Return the environment of a run's last record, {} if there is none."""
    return max(
        (record.environment for record in records), key=lambda found: str(found.get("date")), default={}
    )


def _traced(trace: Trace) -> list[Traced]:
    return [
        Traced(of.name, "device" if of.on_device else "host", of.count, of.total, of.first, of.rest)
        for of in shown(trace.calls)
    ]
