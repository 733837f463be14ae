"""Record baselines, --gpuperf-update: fresh processes measure again what the session measured."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import pytest

from pytest_gpuperf.errors import BaselineError
from pytest_gpuperf.marker import isolates
from pytest_gpuperf.measurement import Baseline, Measurement, Run
from pytest_gpuperf.modes.missing import scope_of, vanished
from pytest_gpuperf.modes.mode import Mode
from pytest_gpuperf.records import Cause, Record, payload_of
from pytest_gpuperf.session import GpuperfSession, Results
from pytest_gpuperf.storage.project import Project

Updates = dict[tuple[Path, str, str], dict[str, dict[str, Baseline]]]
"""New baselines by (suite file, pool, suite's name), test and metric."""


class Recording(Mode):
    """A run whose figures become baselines.

    This session is the first process, which is not kept: on a cold machine it is slower than the rest.
    """

    def finish(self, items: Sequence[pytest.Item], complete: bool) -> None:
        """Record a baseline of each metric that the selected tests measured, and say what was and was not.

        An exact metric needs one run, and every process must agree on it.
        """
        results, options = self._results, self._options
        measured = results.passed(items)
        noisy = [item for item in measured if results.records[item.nodeid].noisy]
        runs = list(fresh_runs(self._session, noisy, options.runs))
        updates = _updates(self._project, results, measured, runs)
        self._vanished(updates, options.update == "prune")
        for (path, pool, suite), tests in updates.items():
            self._write(path, pool, suite, tests)
        if not updates and "infrastructure" not in results.causes:  # which is why, then
            results.finding("setup", "nothing was measured that a baseline could keep")

    def _vanished(self, updates: Updates, prune: bool) -> None:
        """Drop the entries of tests that a full run no longer found, or say that they were kept."""
        scope = scope_of(self._session)
        kept = []
        for entry in vanished(self._project, self._results, scope):
            if prune:
                updates[entry.path, entry.pool, entry.key.suite][entry.key.name] = {}
                self._results.note(f"Dropped the baseline of {entry.key}, which is no longer there")
            else:
                kept.append(str(entry.key))
        if kept:
            more = f" and {len(kept) - 3} more" if len(kept) > 3 else ""
            self._results.note(
                f"Kept the baselines of {', '.join(kept[:3])}{more}: not in this run.\n"
                "  If they are gone for good: --gpuperf-update=prune"
            )

    def _write(self, path: Path, pool: str, suite: str, tests: dict[str, dict[str, Baseline]]) -> None:
        asked, keep, results = self._options.update, self._options.max_runs, self._results
        mode = asked if asked in ("append", "new") else "replace"
        store = self._project.store(path)
        try:
            dropped = _beyond(store.load(pool, suite), tests, keep) if mode == "append" else 0
            written = store.save(pool, suite, tests, mode=mode, keep=keep)  # type: ignore[arg-type]
        except BaselineError as error:
            results.finding("wrong", f"not recorded: {error}")
            return
        if written is None:
            results.note(f"nothing new to record in {pool}/{suite}")
            return
        metrics = sum(len(metrics) for metrics in tests.values())
        kept = sum(bool(metrics) for metrics in tests.values())
        shown = relative(written, self._session.config.invocation_params.dir)
        results.note(f"Recorded {metrics} metric(s) of {kept} test(s) in {shown}")
        if dropped:
            results.note(
                f"Dropped the oldest runs of {dropped} metric(s) there: a baseline keeps {keep} "
                "(ini key gpuperf_max_runs)"
            )


def _updates(
    project: Project, results: Results, measured: Sequence[pytest.Item], runs: Sequence[Mapping[str, Record]]
) -> Updates:
    found: Updates = defaultdict(dict)
    for item in measured:
        first = results.records[item.nodeid]
        try:
            records = [run[item.nodeid] for run in runs if item.nodeid in run]
            baselines = baselines_of(first, records, len(runs))
        except NotRecorded as reason:
            results.finding(reason.cause, f"not recorded: {item.nodeid}: {reason}")
            continue
        if baselines:
            key = project.key(item.nodeid)
            found[project.path(item.nodeid), project.pool(first.device), key.suite][key.name] = baselines
    return found


class NotRecorded(Exception):
    """Raised for measurements that cannot become a baseline, with the cause for the exit code."""

    def __init__(self, why: str, cause: Cause = "wrong") -> None:
        super().__init__(why)
        self.cause: Cause = cause


def fresh_runs(
    session: GpuperfSession, items: Sequence[pytest.Item], count: int
) -> Iterator[dict[str, Record]]:
    """Yield the records of ``count`` runs of ``items`` by node id, each run as it ends.

    Tests that ask for it get a process of their own. What fails becomes a finding.
    """
    results = session.results
    together = [item for item in items if not isolates(item)]
    batches = [batch for batch in (together, *([item] for item in items if isolates(item))) if batch]
    for number in range(1, count + 1 if items else 1):
        session.progress(f"gpuperf: recording run {number} of {count}, {len(items)} tests")
        found: dict[str, Record] = {}
        for batch in batches:
            settled = {item.nodeid: results.records[item.nodeid].batches for item in batch}
            result = session.children.run_fit(batch, settled)
            for report in result.reports:
                payload = payload_of(report)
                if payload.record and report.passed and not result.crashed(report.nodeid):
                    found[report.nodeid] = payload.record
                elif report.failed:
                    text = f"failed in run {number}: {report.nodeid}: {report.longreprtext}"
                    results.finding(payload.cause or "wrong", text)
            crashes = (why for item in batch if (why := result.crashed(item.nodeid)))
            if trouble := result.trouble or next(crashes, ""):
                results.finding("wrong", f"run {number}: the process {trouble}: {result.output[-500:]}")
        yield found


def baselines_of(first: Record, replicas: Sequence[Record], wanted: int) -> dict[str, Baseline]:
    """Return a test's baselines by metric: what ``wanted`` processes recorded of ``first``'s metrics.

    Raises NotRecorded if they lack a noisy metric, differ in an exact one, or were not fit.
    """
    found = {}
    for measurement in first.measurements:
        metric = measurement.metric
        if metric.kind == "shown":
            continue
        again = [m for r in replicas if (m := r.measurement(metric.name))]
        if metric.kind == "exact":
            if any(m.value != measurement.value for m in again):
                values = sorted({measurement.value, *(m.value for m in again)})
                raise NotRecorded(f"{metric.name} is exact, and processes differ: {values}")
            kept = [_run(measurement, first)]
        else:
            _check(measurement, again, replicas, wanted)
            kept = [_run(m, r) for m, r in zip(again, replicas, strict=True)]
        found[metric.name] = Baseline(
            metric, measurement.contract, first.place(metric), metric.constants.prior_sd, tuple(kept)
        )
    return found


def _check(first: Measurement, again: Sequence[Measurement], replicas: Sequence[Record], wanted: int) -> None:
    if len(again) < wanted or len(again) != len(replicas):
        # a process that failed is a finding with a cause of its own already
        cause: Cause = "wrong" if len(again) != len(replicas) else "infrastructure"
        raise NotRecorded(f"{first.metric.name} was measured in {len(again)} of {wanted} processes", cause)
    if any(dict(m.contract) != dict(first.contract) for m in again):
        raise NotRecorded(f"{first.metric.name} has another contract in another process")
    if unfit := [record.unfit for record in replicas if record.unfit]:
        raise NotRecorded(f"the machine was not fit to measure: {unfit[0]}", "infrastructure")


def _run(measurement: Measurement, record: Record) -> Run:
    return Run(measurement.samples, record.environment, measurement.code)


def _beyond(
    stored: Mapping[str, Mapping[str, Baseline]], tests: Mapping[str, Mapping[str, Baseline]], keep: int
) -> int:
    """Count the metrics that would have more runs than a baseline keeps."""
    counts = [
        len(old.runs) + len(baseline.runs)
        for test, metrics in tests.items()
        for name, baseline in metrics.items()
        if (old := stored.get(test, {}).get(name))
    ]
    return sum(count > keep for count in counts)


def relative(path: Path, folder: Path) -> Path:
    """Return ``path`` as seen from ``folder`` if it is below it."""
    return path.relative_to(folder) if path.is_relative_to(folder) else path
