"""Check the quarantine files before a run, and tell at its end which entries mattered."""

from __future__ import annotations

import datetime
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path

from pytest_gpuperf.errors import GpuperfError
from pytest_gpuperf.modes.missing import Scope
from pytest_gpuperf.results import Results
from pytest_gpuperf.rules.tolerances import matches
from pytest_gpuperf.rules.waivers import QUARANTINED, Quarantine
from pytest_gpuperf.storage.project import Project


def check(project: Project, suites: Iterable[Path]) -> None:
    """Read every file that these suite files come under; raises GpuperfError before anything is measured."""
    for path in suites:
        project.quarantines(project.quarantine_file(path))


def summary_lines(project: Project, results: Results, scope: Scope) -> list[str]:
    """Name the entries that excused something, that expired, and that a full run had no test for."""
    today = datetime.date.today()
    keys: dict[Path, list[str]] = defaultdict(list)
    roots: dict[Path, Path] = {}
    lines = []
    for nodeid in results.outcomes:
        path = project.path(nodeid)
        file = project.quarantine_file(path)
        keys[file].append(nodeid)
        roots[file] = project.baselines_root(path)
    for file in keys:
        try:
            own = project.own_quarantines(file)
        except GpuperfError as error:  # the revision's counts, but merged, this one would stop every run
            results.finding("wrong", str(error))
            continue
        for entry in own:
            if entry not in project.quarantines(file):
                told = f"{entry.test} ({entry.owner}: {entry.reason})"
                lines.append(f"{file.name}: {told} is this change's own and does not count")
    held = {str(row.test) for row in results.rows if row.excuse == QUARANTINED}
    for file, nodeids in keys.items():
        for number, entry in enumerate(project.quarantines(file), 1):
            where = f"{file.name}: entry {number}, {entry.test} ({entry.owner}: {entry.reason}),"
            if entry.expired(today):
                lines.append(f"{where} expired on {entry.expires} and holds no longer")
            elif _any(entry, held):
                lines.append(f"{where} holds until {entry.expires}")
            elif _was_to_run(roots[file] / entry.beginning, scope) and not _any(
                entry, (str(project.name(nodeid)) for nodeid in nodeids)
            ):
                lines.append(f"{where} matches no test of this run: take it out")
    return lines


def _was_to_run(path: Path, scope: Scope) -> bool:
    """Return whether every test of a file or folder was to be run, if it is there at all."""
    return scope.full and (scope.covers(path) or not path.exists())


def _any(entry: Quarantine, names: Iterable[str]) -> bool:
    return any(matches(entry.test, name) for name in names)
