"""Find what the baselines hold and a full run did not measure.

A run that an option, a conftest or a plugin made smaller does not ask for what it left out, and an update
drops only what is certainly gone.
"""

from __future__ import annotations

import ast
import datetime
import os
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum, auto
from functools import cached_property
from pathlib import Path

import pytest

from pytest_gpuperf.backends import DEVICELESS
from pytest_gpuperf.errors import Unavailable
from pytest_gpuperf.measurement import Baseline, Metric, Outcome, TestKey
from pytest_gpuperf.records import Cause, Row
from pytest_gpuperf.report.command import located, measuring
from pytest_gpuperf.report.update import listed
from pytest_gpuperf.results import Results
from pytest_gpuperf.rules.case import Case
from pytest_gpuperf.rules.decide import absent
from pytest_gpuperf.session import Budget, GpuperfSession
from pytest_gpuperf.storage.project import Project


@dataclass(frozen=True, slots=True)
class Scope:
    """The paths that were given, and whether they were run in ``full``: no test was picked out of them.

    ``pools`` are those that this machine measures for, whatever its tests did. ``command`` makes the one that
    runs a test of a file again. Not ``timed``: pytest-benchmark timed nothing.
    """

    paths: tuple[Path, ...]
    full: bool
    pools: frozenset[str] = frozenset()
    command: Callable[[Path, str], str] = lambda path, nodeid: ""
    timed: bool = True

    def covers(self, path: Path) -> bool:
        """Return whether a file or folder is one of the paths, or below one."""
        return any(path.is_relative_to(given) for given in self.paths)


def scope_of(session: GpuperfSession, complete: bool = True) -> Scope:
    """Return what a run was asked for; not ``complete``: it was cut off."""
    config = session.config
    deselected = session.results.deselected or not complete
    option = config.option
    picked = deselected or option.keyword or option.markexpr or option.deselect
    picked = picked or getattr(option, "lf", False)  # it leaves out whole files, and reports none of that
    nodeids = any("::" in argument for argument in config.args)
    here = config.invocation_params.dir
    paths = tuple(Path(os.path.normpath(here / argument)) for argument in config.args)

    def command(path: Path, nodeid: str) -> str:
        return measuring(config, located(config, path, nodeid))

    return Scope(paths, not picked and not nodeids, _pools(session), command, benchmarks_timed(config))


def benchmarks_timed(config: pytest.Config) -> bool:
    """Return whether pytest-benchmark's fixture times anything; not under -n or an option of its own."""
    return not getattr(getattr(config, "_benchmarksession", None), "disabled", False)


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
        n
        for n, outcome in results.outcomes.items()
        if outcome != "passed" and n not in results.records and n not in results.elsewhere
    ]
    beside = {project.store(path).folder: path for path in map(project.path, results.outcomes)}
    found: list[tuple[Metric, str]] = []
    for path in beside.values() if scope.full and not unknown else ():
        store, root = project.store(path), project.baselines_root(path)
        for pool in store.pools():
            if not all(scope.covers(root / suite) for suite in store.suites(pool)):
                return []
            found += [(baseline.metric, pool) for _, _, baseline in store.all_of(pool)]
    return found


class Absence(Enum):
    """Why a run has no figure of a stored test."""

    GONE = auto()
    """Its file, its function or its parameters are no longer there."""
    NOT_COLLECTED = auto()
    """Its function is there, and was not collected although its file was."""
    SKIPPED = auto()
    """It was skipped, or its file skipped itself."""
    SILENT = auto()
    """It passed and recorded nothing."""
    BROKEN = auto()
    """It failed, or its file could not be collected: that is told already."""
    LEFT_OUT = auto()
    """An option, a conftest or a plugin made the run smaller."""
    ELSEWHERE = auto()
    """Its marker says now that it is for other machines than this one."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One test in a baseline file that was not measured; ``path`` is its suite file.

    ``nodeid`` is the test in this run, "" if it was not run; ``why`` the reason of a skip.
    """

    path: Path
    pool: str
    key: TestKey
    metrics: Mapping[str, Baseline]
    nodeid: str
    absence: Absence
    why: str = ""


_UNTIMED = "pytest-benchmark is disabled: by -n of pytest-xdist, or an option of its own"
_WHY = {
    Absence.GONE: "in the baseline, but no such test was in this run",
    Absence.NOT_COLLECTED: "in the baseline and in its file, but pytest did not collect it",
    Absence.SILENT: "in the baseline, but the test passed without recording it",
    Absence.ELSEWHERE: 'in the baseline of machines without a GPU, but marked backend="cuda" by now',
}


def missing_rows(
    project: Project, results: Results, scope: Scope, strict: bool, budget: Budget | None
) -> list[Row]:
    """Return rows: `missing` (deleted, renamed or skipped) or `unmeasured` (passed, but recorded nothing)."""
    uuids = {str(record.environment.get("device_uuid")) for record in results.records.values()}
    today = datetime.date.today()
    rows: list[Row] = []
    entries = not_measured(project, results, scope)
    for entry in entries:
        if entry.absence in (Absence.BROKEN, Absence.LEFT_OUT):
            continue
        over = entry.nodeid in results.left_out
        silent = over or entry.absence is Absence.SILENT
        why = f"not measured: {budget}" if over else _WHY.get(entry.absence, entry.why)
        waiver = project.quarantine(entry.path, entry.key, entry.pool, uuids, today)
        # what may be there again can be run again; the rest is pruned
        again = entry.nodeid if entry.absence is Absence.SKIPPED else ""
        command = scope.command(entry.path, again) if again else ""
        case = Case(key=entry.key, pool=entry.pool, waiver=waiver, strict=strict, command=command)
        rows += absent(case, entry.metrics, Outcome.UNMEASURED if silent else Outcome.MISSING, why, over)
    if out := [str(entry.key) for entry in entries if entry.absence is Absence.LEFT_OUT]:
        results.note(
            f"Not asked for {listed(list(dict.fromkeys(out)))}:\n"
            "  an option, a conftest or a plugin left tests with baselines out of this run"
        )
    return rows


def findings(rows: Sequence[Row]) -> Iterator[tuple[Cause, str]]:
    """Yield the cause and a line for each test of which rows fail the run."""
    failing: dict[tuple[TestKey, Cause, str], list[Row]] = defaultdict(list)
    for row in rows:
        if row.cause:
            failing[row.test, row.cause, f"{row.verdict.outcome}: {row.verdict.reason}"].append(row)
    for (test, cause, text), found in failing.items():
        yield cause, f"{test}: {listed([row.metric.name for row in found])} {text}"


def vanished(project: Project, results: Results, scope: Scope) -> list[Entry]:
    """Return the tests in the baselines that a full run did not find, or that record nothing any more."""
    left_out = results.left_out
    gone = (Absence.GONE, Absence.SILENT, Absence.ELSEWHERE)
    found = not_measured(project, results, scope)
    return [entry for entry in found if entry.absence in gone and entry.nodeid not in left_out]


def not_measured(project: Project, results: Results, scope: Scope) -> list[Entry]:
    """Return the baselines' entries of the suites that were run in full, without the tests that measured.

    Pools are those of this run's own figures, and on a machine without a GPU those of such machines: other
    pools' entries are other machines' to measure.
    """
    if not scope.full:
        return []
    pools = sorted({project.pool(record.device) for record in results.records.values()} | scope.pools)
    run = _Run(project, results, scope)
    beside = {project.store(path).folder: path for path in run.files}
    found = []
    for path in beside.values():
        store, root = project.store(path), project.baselines_root(path)
        for pool in pools:
            for suite in store.suites(pool):
                if scope.covers(root / suite):
                    for name, metrics in store.due(pool, suite).items():
                        if (absence := run.absence(root / suite, name)) is not None:
                            key, nodeid = TestKey(suite, name), run.nodeids.get((root / suite, name), "")
                            why = run.why(root / suite, nodeid)
                            if absence is Absence.ELSEWHERE and not _is_deviceless(metrics):
                                continue
                            if metrics.keys() == {"benchmark"} and absence is Absence.SILENT:
                                absence, why = (absence, why) if scope.timed else (Absence.SKIPPED, _UNTIMED)
                            found.append(Entry(root / suite, pool, key, metrics, nodeid, absence, why))
    return found


class _Run:
    """What a run collected and ran, by suite file and test."""

    def __init__(self, project: Project, results: Results, scope: Scope) -> None:
        self._results, self._scope = results, scope
        self.nodeids = {_place(project, nodeid): nodeid for nodeid in results.outcomes}
        self._measured = {_place(project, nodeid) for nodeid in results.records}
        self._collected = {_place(project, nodeid) for nodeid in results.collected}
        self._collections = {
            project.path(nodeid): ended for nodeid, ended in results.collections.items() if "::" not in nodeid
        }
        self._written: dict[Path, set[str]] = {}

    @property
    def files(self) -> set[Path]:
        """Return the suite files that were seen."""
        return {path for path, _ in self._known} | {path for path in self._collections if path.suffix}

    @cached_property
    def _known(self) -> set[tuple[Path, str]]:
        return self._collected | self.nodeids.keys()

    @cached_property
    def _functions(self) -> set[tuple[Path, str]]:
        return {(path, name.partition("[")[0]) for path, name in self._known}

    def why(self, path: Path, nodeid: str) -> str:
        """Return the reason of a skip, of the test or of its file; pytest counts an xfail among them."""
        skipped = self._results.skipped.get(nodeid) or self._ended(path)[1]
        return f"skipped: {skipped}" if skipped else "failed as expected"

    def _ended(self, path: Path) -> tuple[str, str]:
        """Return how the collection of a file ended, or of a folder above it, if that was not well."""
        ends = (self._collections.get(at, ("", "")) for at in (path, *path.parents))
        return next((end for end in ends if end[0] in ("failed", "skipped")), ("", ""))

    def absence(self, path: Path, name: str) -> Absence | None:
        """Return why a test was not measured, None if it was."""
        if (path, name) in self._measured:
            return None
        if nodeid := self.nodeids.get((path, name)):
            if nodeid in self._results.elsewhere:
                return Absence.ELSEWHERE
            outcomes = {"passed": Absence.SILENT, "skipped": Absence.SKIPPED}
            return outcomes.get(self._results.outcomes[nodeid], Absence.BROKEN)
        if not path.exists():
            return Absence.GONE
        ended, _ = self._ended(path)
        if ended:
            return Absence.BROKEN if ended == "failed" else Absence.SKIPPED
        if (path, name) in self._collected:
            return Absence.LEFT_OUT
        function = name.partition("[")[0]
        if (path, function) in self._functions:
            return Absence.GONE  # a parameter of it
        if path not in self.files:
            return Absence.LEFT_OUT
        if function.rpartition("::")[2] not in self._defined(path):
            return Absence.GONE
        return Absence.NOT_COLLECTED

    def _defined(self, path: Path) -> set[str]:
        """Return the names of the functions that a suite file defines, wherever in it."""
        if path not in self._written:
            try:
                tree = ast.parse(path.read_bytes())
            except (OSError, SyntaxError, ValueError):
                tree = ast.Module([], [])
            defined = (ast.FunctionDef, ast.AsyncFunctionDef)
            self._written[path] = {node.name for node in ast.walk(tree) if isinstance(node, defined)}
        return self._written[path]


def _is_deviceless(metrics: Mapping[str, Baseline]) -> bool:
    """Return whether a machine without a GPU recorded a test: a pool may hold both kinds."""
    return any(baseline.place.get("backend") in DEVICELESS for baseline in metrics.values())


def _place(project: Project, nodeid: str) -> tuple[Path, str]:
    return project.path(nodeid), nodeid.partition("::")[2]
