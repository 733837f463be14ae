"""Measure tests in alternating processes of this checkout and of a revision."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import pytest

from pytest_gpuperf.errors import GpuperfError
from pytest_gpuperf.git import Revision
from pytest_gpuperf.marker import by_process
from pytest_gpuperf.measurement import Measurement, Metric
from pytest_gpuperf.processes.checkouts import Checkout, check_inside, checkouts
from pytest_gpuperf.processes.child import Children
from pytest_gpuperf.processes.limits import paused
from pytest_gpuperf.processes.result import crash_line, not_fit
from pytest_gpuperf.records import Record, payload_of
from pytest_gpuperf.rules.case import Compared, Replicas
from pytest_gpuperf.rules.paired import PER_BLOCK, decided
from pytest_gpuperf.text import counted


@dataclass(slots=True)
class SideRun:
    """One run of one side: reports by node id, and why a test does not have all of them.

    ``known`` are records that this session's own process made, of tests that no report of a child is about.
    """

    reports: dict[str, list[pytest.TestReport]] = field(default_factory=dict)
    trouble: dict[str, str] = field(default_factory=dict)
    known: Mapping[str, Record] = field(default_factory=dict)

    def record(self, nodeid: str) -> Record | None:
        found = (p.record for r in self.reports.get(nodeid, ()) if (p := payload_of(r)).record)
        return next(found, self.known.get(nodeid))

    def failed(self, nodeid: str) -> str:
        """Return why the test did not pass here, "" if it did."""
        reports = self.reports.get(nodeid, ())
        for report in reports:
            if report.failed:
                return f"fails it: {crash_line(report)}"
            if report.skipped:
                reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else report.longreprtext
                return f"skips it: {reason.removeprefix('Skipped: ')}"
        if nodeid in self.trouble:
            return self.trouble[nodeid]
        return "" if reports or nodeid in self.known else "has no such test"

    def kept_from(self, nodeid: str) -> str:
        """Return why the machine kept the test from measuring here, "" if it did not."""
        return "" if nodeid in self.trouble else not_fit(self.reports.get(nodeid, ()))

    def borrowed(self, nodeid: str) -> list[str]:
        """Return files of the other side that were imported here and would make the two sides one."""
        return [name for r in self.reports.get(nodeid, ()) for name in getattr(r, "gpuperf_borrowed", ())]


@dataclass(slots=True)
class Comparison:
    """The runs of each side in the order of time; each side's first warms the machine and is not judged."""

    revision: Revision
    blocks: int
    here: list[SideRun] = field(default_factory=list)
    there: list[SideRun] = field(default_factory=list)

    def _failure_there(self, nodeid: str) -> str:
        first = self.there[0]
        ran = [run for run in self.there if run is first or nodeid in run.reports]
        return next((why for r in ran if not r.kept_from(nodeid) and (why := r.failed(nodeid))), "")

    def own(self, nodeid: str) -> SideRun:
        """Return this checkout's run that counts for the test: the first that failed, else the first.

        One that the machine kept from measuring counts only as the first.
        """
        ran = [run for run in self.here if nodeid in run.reports or nodeid in run.trouble]
        return next((r for r in ran if r.failed(nodeid) and not r.kept_from(nodeid)), self.here[0])

    def _series(self, nodeid: str, metric: str) -> tuple[list[Measurement], list[Measurement]]:
        """Return both sides' measurements of a noisy metric, of the blocks in which every process has one."""
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

    def _every(self, nodeid: str, metric: str) -> tuple[list[Measurement], list[Measurement]]:
        """Return both sides' measurements of an exact metric, of all their processes."""
        sides = [[_measured(run, nodeid, metric) for run in side] for side in (self.here, self.there)]
        here, there = ([m for m in side if m is not None] for side in sides)
        return here, there

    def _unfit(self, nodeid: str) -> str:
        """Return why the machine was not fit to measure in a judged process, "" if it was in all of them."""
        records = [record for run in (*self.here[1:], *self.there[1:]) if (record := run.record(nodeid))]
        return next((record.unfit for record in records if record.unfit), "")

    def of(self, nodeid: str, metric: Metric) -> Compared:
        """Return one metric of a test that this checkout passes, as both sides measured it."""
        here, there = (self._series if metric.kind == "noisy" else self._every)(nodeid, metric.name)
        return Compared(
            revision=str(self.revision),
            here=here,
            there=there,
            blocks=self.blocks,
            why_not=self._failure_there(nodeid),
            borrowed=sorted({name for run in self.there for name in run.borrowed(nodeid)}),
            unfit=self._unfit(nodeid),
            kept_from=next((why for r in (*self.here, *self.there) if (why := r.kept_from(nodeid))), ""),
        )

    def replicas(self, nodeid: str) -> Replicas:
        """Return this checkout's judged processes as replicas of a test that measured worse."""
        return Replicas([record for run in self.here[1:] if (record := run.record(nodeid))])

    def lost(self, nodeid: str, record: Record) -> list[Measurement]:
        """Return what the revision measures of a test and ``record``, this checkout's, does not have."""
        old = self.there[0].record(nodeid)
        return [
            measured
            for measured in (old.measurements if old else ())
            if measured.metric.kind != "shown" and record.measurement(measured.metric.name) is None
        ]

    def processes(self, nodeid: str) -> int:
        """Return how many processes of each side measured a test and are judged."""
        return sum(nodeid in run.reports for run in self.here[1:])

    def worth_alternating(self, nodeid: str) -> bool:
        """Return whether both sides pass and have something noisy to compare."""
        if self.here[0].failed(nodeid) or self.there[0].failed(nodeid):
            return False
        here, there = self.here[0].record(nodeid), self.there[0].record(nodeid)
        return bool(here and there) and any(
            m.metric.kind == "noisy" and there.measurement(m.metric.name)  # type: ignore[union-attr]
            for m in here.measurements  # type: ignore[union-attr]
        )

    def open(self, nodeid: str, tolerances: Mapping[str, float]) -> bool:
        """Return whether another block could tell more of a test's metrics, those that have tolerances."""
        record = self.here[0].record(nodeid)
        return any(
            not decided(self.of(nodeid, measured.metric), tolerances[measured.metric.name])
            for measured in (record.measurements if record else ())
            if measured.metric.kind == "noisy" and measured.metric.name in tolerances
        )


Tolerances = Callable[[pytest.Item, Record], Mapping[str, float]]


def compare(
    children: Children,
    items: Sequence[pytest.Item],
    comparison: Comparison,
    tolerances: Tolerances,
) -> None:
    """Measure ``items`` in blocks of this checkout, the revision, the revision, this checkout.

    One more process of each side goes first: it warms caches and clocks, tells what either side has, and
    settles how many launches make a sample; ``comparison`` may already have this checkout's. A test is
    measured until its metrics, those of ``tolerances``, are decided. Raises GpuperfError if there is no
    checkout to compare with.
    """
    for item in items:
        check_inside(children.config, item)
    revision, blocks = comparison.revision, comparison.blocks
    with paused(children.config), children.live, checkouts(children.config, revision.commit) as (here, there):
        sides = ((here, comparison.here), (there, comparison.there))
        children.stage(f"comparing with {revision}: a first process of each side")
        if not comparison.here:
            comparison.here.append(_run(children, here, items, {}))
        records = {i.nodeid: r for i in items if (r := comparison.here[0].record(i.nodeid))}
        settled = {nodeid: record.batches for nodeid, record in records.items()}
        comparison.there.append(_run(children, there, items, settled, revision))
        left = [item for item in items if comparison.worth_alternating(item.nodeid)]
        held = {item.nodeid: tolerances(item, records[item.nodeid]) for item in left}
        for block in range(1, blocks + 1):
            left = [item for item in left if comparison.open(item.nodeid, held[item.nodeid])]
            if not left:
                break
            said = f"comparing with {revision}: block {block} of {blocks}, {counted(len(left), 'test')}"
            children.stage(said, block - 1, blocks)
            for number in (0, 1, 1, 0):
                side, runs = sides[number]
                runs.append(_run(children, side, left, settled))


def _run(
    children: Children,
    side: Checkout,
    items: Sequence[pytest.Item],
    settled: Mapping[str, Mapping[str, int]],
    revision: Revision | None = None,
) -> SideRun:
    """Run all tests in one process, but for those that ask for one of their own.

    Raises GpuperfError if ``revision``, whose side it is, does not take the session's options: without them
    it would be another comparison.
    """
    run = SideRun()
    for batch in by_process(filter(side.has, items)):
        result = children.run(batch, settled, side)
        if revision and result.refusal:
            raise GpuperfError(
                f"{revision} {result.refusal}: leave that out, or compare with a revision that takes it"
            )
        for item in batch:
            reports = result.of(item.nodeid)
            if reports:
                run.reports[item.nodeid] = reports
            trouble = _trouble(item, result.collected)
            if (reports or result.trouble) and (why := result.crashed(item.nodeid)):
                trouble = f"has a process that {why}; {result.last_words}"
            if trouble:
                run.trouble[item.nodeid] = trouble
    return run


def _trouble(item: pytest.Item, collected: Mapping[str, pytest.TestReport]) -> str:
    """Return why the file or the folder of a test could not be collected, "" if it could."""
    parents = (node.nodeid for node in item.listchain())
    report = next((collected[nodeid] for nodeid in parents if nodeid in collected), None)
    if report is None:
        return ""
    lines = [line for line in report.longreprtext.splitlines() if line.strip()]
    return f"cannot collect it: {lines[-1].removeprefix('E').strip() if lines else 'no reason given'}"


def _measured(run: SideRun, nodeid: str, metric: str) -> Measurement | None:
    record = run.record(nodeid)
    return record.measurement(metric) if record and not run.failed(nodeid) else None
