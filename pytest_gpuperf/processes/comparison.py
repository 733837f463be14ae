"""Tests measured in alternating processes of this checkout and of a revision: what came back of each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import pytest

from pytest_gpuperf.git import Revision
from pytest_gpuperf.judging.paired import PER_BLOCK
from pytest_gpuperf.measurement import Measurement
from pytest_gpuperf.processes.checkouts import Checkout, check_inside, checkouts
from pytest_gpuperf.processes.replicas import crash_line, run_child
from pytest_gpuperf.records import Record, payload_of
from pytest_gpuperf.session import GpuperfSession, isolates


@dataclass(slots=True)
class SideRun:
    """One run of one side: the reports by node id, and why a test has no full set of them."""

    reports: dict[str, list[pytest.TestReport]] = field(default_factory=dict)
    trouble: dict[str, str] = field(default_factory=dict)

    def record(self, nodeid: str) -> Record | None:
        return next((p.record for r in self.reports.get(nodeid, ()) if (p := payload_of(r)).record), None)

    def failed(self, nodeid: str) -> str:
        """Why the test did not pass here, "" where it did."""
        reports = self.reports.get(nodeid, ())
        for report in reports:
            if report.failed:
                return f"fails it: {crash_line(report)}"
            if report.skipped:
                reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else report.longreprtext
                return f"skips it: {reason.removeprefix('Skipped: ')}"
        if nodeid in self.trouble:
            return self.trouble[nodeid]
        return "" if reports else "has no such test"

    def borrowed(self, nodeid: str) -> list[str]:
        """Files of the other side that were imported here, where they would make the two sides one."""
        return [name for r in self.reports.get(nodeid, ()) for name in getattr(r, "gpuperf_borrowed", ())]


@dataclass(slots=True)
class Comparison:
    """The runs of each side in the order of time; each side's first warms the machine and is not judged."""

    revision: Revision
    here: list[SideRun] = field(default_factory=list)
    there: list[SideRun] = field(default_factory=list)

    def failure_there(self, nodeid: str) -> str:
        return next(
            (why for run in self.there if nodeid in run.reports and (why := run.failed(nodeid))), ""
        ) or (self.there[0].failed(nodeid))

    def borrowed(self, nodeid: str) -> list[str]:
        return sorted({name for run in self.there for name in run.borrowed(nodeid)})

    def own(self, nodeid: str) -> SideRun:
        """This checkout's run that speaks for the test: the first that failed, else the first."""
        ran = [run for run in self.here if nodeid in run.reports or nodeid in run.trouble]
        return next((run for run in ran if run.failed(nodeid)), self.here[0])

    def series(self, nodeid: str, metric: str) -> tuple[list[Measurement], list[Measurement]]:
        """Both sides' measurements of a noisy metric, in the blocks of which every process has one."""
        here, there = (
            [_measured(run, nodeid, metric) for run in side[1:]] for side in (self.here, self.there)
        )
        found: tuple[list[Measurement], list[Measurement]] = ([], [])
        for start in range(0, min(len(here), len(there)), PER_BLOCK):
            pair = here[start : start + PER_BLOCK], there[start : start + PER_BLOCK]
            block = [[m for m in side if m is not None] for side in pair]
            if all(len(side) == PER_BLOCK for side in block):
                found[0].extend(block[0])
                found[1].extend(block[1])
        return found

    def every(self, nodeid: str, metric: str) -> tuple[list[Measurement], list[Measurement]]:
        """Both sides' measurements of an exact metric, of all their processes."""
        sides = [[_measured(run, nodeid, metric) for run in side] for side in (self.here, self.there)]
        here, there = ([m for m in side if m is not None] for side in sides)
        return here, there

    def unfit(self, nodeid: str) -> str:
        """Why the machine was not fit to measure in one of the judged processes, "" where it was in all."""
        records = [record for run in (*self.here[1:], *self.there[1:]) if (record := run.record(nodeid))]
        return next((record.unfit for record in records if record.unfit), "")

    def worth_alternating(self, nodeid: str) -> bool:
        """Whether both sides have something noisy to compare, and this side passes."""
        if self.here[0].failed(nodeid) or self.there[0].failed(nodeid):
            return False
        here, there = self.here[0].record(nodeid), self.there[0].record(nodeid)
        return bool(here and there) and any(
            m.metric.kind == "noisy" and there.measurement(m.metric.name)  # type: ignore[union-attr]
            for m in here.measurements  # type: ignore[union-attr]
        )


def compare(
    session: GpuperfSession, items: Sequence[pytest.Item], revision: Revision, blocks: int
) -> Comparison:
    """Measures ``items`` in ``blocks`` of this checkout, the revision, the revision, this checkout.

    One more process of each side goes first: it warms caches and clocks, tells what either side has, and
    settles how many launches make a sample. Raises GpuperfError where there is no checkout to compare with.
    """
    for item in items:
        check_inside(session.config, item)
    found = Comparison(revision)
    with checkouts(session.config, revision.commit) as (here, there):
        _say(session, f"comparing with {revision}: a first process of each side")
        found.here.append(_run(session, here, items, {}))
        settled = {i.nodeid: r.batches for i in items if (r := found.here[0].record(i.nodeid))}
        found.there.append(_run(session, there, items, settled))
        noisy = [item for item in items if found.worth_alternating(item.nodeid)]
        for block in range(1, blocks + 1 if noisy else 1):
            _say(session, f"comparing with {revision}: block {block} of {blocks}, {len(noisy)} test(s)")
            for side, runs in (
                (here, found.here),
                (there, found.there),
                (there, found.there),
                (here, found.here),
            ):
                runs.append(_run(session, side, noisy, settled))
    return found


def _run(
    session: GpuperfSession,
    side: Checkout,
    items: Sequence[pytest.Item],
    settled: Mapping[str, Mapping[str, int]],
) -> SideRun:
    """All tests in one process, but for those that ask for one of their own."""
    run = SideRun()
    together = [item for item in items if not isolates(item)]
    for batch in (together, *([item] for item in items if isolates(item))):
        there = [item for item in batch if side.has(item)]
        if not there:
            continue
        result = run_child(session.config, session.options, there, settled, side)
        collected = {report.nodeid: report for report in result.reports if report.when == "collect"}
        for item in there:
            reports = [report for report in result.of(item.nodeid) if report.when != "collect"]
            if reports:
                run.reports[item.nodeid] = reports
            trouble = _trouble(item, collected)
            if result.trouble and not any(report.when == "teardown" for report in reports):
                trouble = (
                    f"has a process that {result.trouble}; it printed last: {result.output.strip()[-400:]}"
                )
            if trouble:
                run.trouble[item.nodeid] = trouble
    return run


def _trouble(item: pytest.Item, collected: Mapping[str, pytest.TestReport]) -> str:
    """Why the file or the folder of a test could not be collected, "" where it could."""
    parents = (node.nodeid for node in item.listchain())
    report = next((collected[nodeid] for nodeid in parents if nodeid in collected), None)
    if report is None:
        return ""
    lines = [line for line in report.longreprtext.splitlines() if line.strip()]
    return f"cannot collect it: {lines[-1].removeprefix('E').strip() if lines else 'no reason given'}"


def _measured(run: SideRun, nodeid: str, metric: str) -> Measurement | None:
    record = run.record(nodeid)
    return record.measurement(metric) if record and not run.failed(nodeid) else None


def _say(session: GpuperfSession, text: str) -> None:
    session.progress(f"gpuperf: {text}")
