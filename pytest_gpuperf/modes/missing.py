"""Find what the baselines hold and a full run did not measure."""

from __future__ import annotations

import datetime
import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from pytest_gpuperf.errors import Unavailable
from pytest_gpuperf.measurement import Baseline, Metric, Outcome, TestKey
from pytest_gpuperf.records import Row
from pytest_gpuperf.rules.case import Case
from pytest_gpuperf.rules.decide import absent
from pytest_gpuperf.session import Budget, GpuperfSession, Results
from pytest_gpuperf.storage.project import Project


@dataclass(frozen=True, slots=True)
class Scope:
    """The paths that were given, and whether they were run in ``full``: no test was picked out of them.

    ``pools`` are those that this machine measures for, whatever its tests did.
    """

    paths: tuple[Path, ...]
    full: bool
    pools: frozenset[str] = frozenset()

    def covers(self, path: Path) -> bool:
        """Return whether a file or folder is one of the paths, or below one."""
        return any(path.is_relative_to(given) for given in self.paths)

    def covers_all(self, path: Path) -> bool:
        """Return whether every test of a file or folder was to be run."""
        return self.full and self.covers(path)


def scope_of(session: GpuperfSession, complete: bool = True) -> Scope:
    """Return what a run was asked for; not ``complete``: it was cut off."""
    config = session.config
    deselected = session.results.deselected or not complete
    option = config.option
    # a controller of xdist workers is not told what they deselect
    picked = deselected or option.keyword or option.markexpr or option.deselect
    nodeids = any("::" in argument for argument in config.args)
    here = config.invocation_params.dir
    paths = tuple(Path(os.path.normpath(here / argument)) for argument in config.args)
    return Scope(paths, not picked and not nodeids, _pools(session))


def _pools(session: GpuperfSession) -> frozenset[str]:
    try:
        return frozenset() if session.expects_device() else session.project.deviceless_pools()
    except Unavailable:
        return frozenset()


def whole(project: Project, results: Results, scope: Scope) -> list[tuple[Metric, str]]:
    """Return every stored metric and its pool, if the run was asked for all tests that are stored.

    Nothing for a smaller run, or where a test was skipped or broke: what it would have measured is unknown.
    """
    unknown = [
        n for n, outcome in results.outcomes.items() if outcome != "passed" and n not in results.records
    ]
    beside = {project.store(path).folder: path for path in map(project.path, results.outcomes)}
    found: list[tuple[Metric, str]] = []
    for path in beside.values() if scope.full and not unknown else ():
        store, root = project.store(path), project.baselines_root(path)
        for pool in store.pools():
            for suite in store.suites(pool):
                if not scope.covers(root / suite):
                    return []
                tests = store.load(pool, suite).values()
                found += [(baseline.metric, pool) for metrics in tests for baseline in metrics.values()]
    return found


@dataclass(frozen=True, slots=True)
class Entry:
    """One test in a baseline file; ``path`` is its suite file, ``nodeid`` the test in this run or ""."""

    path: Path
    pool: str
    key: TestKey
    metrics: Mapping[str, Baseline]
    nodeid: str


def missing_rows(
    project: Project, results: Results, scope: Scope, strict: bool, budget: Budget | None
) -> list[Row]:
    """Return rows: `missing` (deleted, renamed or skipped) or `unmeasured` (passed, but recorded nothing)."""
    uuids = {str(record.environment.get("device_uuid")) for record in results.records.values()}
    today = datetime.date.today()
    rows: list[Row] = []
    for entry in not_measured(project, results, scope):
        outcome = results.outcomes.get(entry.nodeid)
        if outcome == "failed":
            continue  # it fails already
        over = entry.nodeid in results.left_out
        if over:
            kind, why = Outcome.UNMEASURED, f"not measured: {budget}"
        elif outcome == "passed":
            kind, why = Outcome.UNMEASURED, "in the baseline, but the test passed without recording it"
        else:
            kind = Outcome.MISSING
            why = results.skipped.get(entry.nodeid) or (
                "in the baseline, but no such test was in this run; where that is meant, "
                "a full run with --gpuperf-update=prune drops it"
            )
        waiver = project.quarantine(entry.path, entry.key, entry.pool, uuids, today)
        case = Case(key=entry.key, pool=entry.pool, waiver=waiver, strict=strict)
        rows += absent(case, entry.metrics, kind, why, over)
    return rows


def vanished(project: Project, results: Results, scope: Scope) -> list[Entry]:
    """Return the tests in the baselines that a full run did not find: deleted or renamed."""
    return [entry for entry in not_measured(project, results, scope) if not entry.nodeid]


def not_measured(project: Project, results: Results, scope: Scope) -> list[Entry]:
    """Return the baselines' entries of the suites that were run in full, without the tests that measured.

    Pools are those of this run's own figures, and on a machine without a GPU those of such machines: other
    pools' entries are other machines' to measure.
    """
    if not scope.full:
        return []
    pools = sorted({project.pool(record.device) for record in results.records.values()} | scope.pools)
    nodeids = {_place(project, nodeid): nodeid for nodeid in results.outcomes}
    measured = {_place(project, nodeid) for nodeid in results.records}
    beside = {project.store(path).folder: path for path, _ in nodeids}
    return [
        replace(entry, nodeid=nodeids.get((entry.path, entry.key.name), ""))
        for path in beside.values()
        for entry in _entries(project, path, pools, scope)
        if (entry.path, entry.key.name) not in measured
    ]


def _place(project: Project, nodeid: str) -> tuple[Path, str]:
    return project.path(nodeid), nodeid.partition("::")[2]


def _entries(project: Project, beside: Path, pools: list[str], scope: Scope) -> list[Entry]:
    store, root = project.store(beside), project.baselines_root(beside)
    return [
        Entry(root / suite, pool, TestKey(suite, name), metrics, "")
        for pool in pools
        for suite in store.suites(pool)
        if scope.covers(root / suite)
        for name, metrics in store.due(pool, suite).items()
    ]
