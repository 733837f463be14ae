"""Say what an update does not record, and why; and find what it records that no commit has."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence, Set
from contextlib import suppress
from dataclasses import replace

import pytest

from pytest_gpuperf.git import GitError, new_code
from pytest_gpuperf.marker import takes_numbers
from pytest_gpuperf.options import Options
from pytest_gpuperf.records import Record
from pytest_gpuperf.report.update import listed
from pytest_gpuperf.results import Results
from pytest_gpuperf.storage.baselines import Entries
from pytest_gpuperf.storage.project import Project
from pytest_gpuperf.text import counted

UNCOMMITTED = (
    "Recorded with changes that are not committed: the commit that a baseline names lacks them.\n"
    "  Commit the code first and record then, so that a failure can be compared with it"
)


def not_measured(results: Results, items: Sequence[pytest.Item]) -> Iterator[str]:
    """Yield a line for each reason for which tests that take numbers have none that could be recorded."""
    found: dict[str, list[str]] = defaultdict(list)
    passed = set(results.passed(items))
    for item in items:
        if item not in passed and takes_numbers(item):
            found[_why(results, item.nodeid)].append(item.nodeid)
    for why, tests in found.items():
        yield f"Not recorded: {listed(tests)}: {why}"


def _why(results: Results, nodeid: str) -> str:
    outcome = results.outcomes.get(nodeid)
    if outcome == "skipped":
        return f"skipped ({results.skipped[nodeid]})" if nodeid in results.skipped else "failed as expected"
    return {None: "not run", "passed": "measured nothing"}.get(outcome, "failed")


def only_shown(results: Results, measured: Sequence[pytest.Item]) -> str:
    """Name the tests, and of tests that record others the metrics, which are only shown here; "" for none.

    That a test itself says ``kind="shown"`` is no news where it records others.
    """
    names = []
    for item in measured:
        measurements = results.records[item.nodeid].measurements
        shown = [m for m in measurements if m.metric.kind == "shown"]
        if len(shown) == len(measurements):
            names.append(item.nodeid)
        else:
            names += [f"{item.nodeid} {m.metric.name}" for m in shown if "kind" not in m.details]
    return f"Only shown here, so nothing to record: {listed(names)}" if names else ""


def rates(results: Results, measured: Sequence[pytest.Item]) -> str:
    """Say which way is better where a test did not and is likely to mean the other; "" for none."""
    found = [
        (f"{item.nodeid} {m.metric.name}", str(m.details.get("better", "")))
        for item in measured
        for m in results.records[item.nodeid].measurements
    ]
    odd = [(name, way) for name, way in found if ":" in way]
    return f"{listed([name for name, _ in odd])}: {odd[0][1]}" if odd else ""


def written_lines(before: Entries, after: Entries, tests: Entries, file: str, mode: str) -> Iterator[str]:
    """Yield what became of the metrics of ``tests``, which were measured: recorded, left alone, dropped."""
    recorded = [
        test
        for test, metrics in tests.items()
        for name in metrics
        if after[test].get(name) != before.get(test, {}).get(name)
    ]
    stayed = sum(map(len, tests.values())) - len(recorded)
    if recorded:
        metrics, distinct = counted(len(recorded), "metric"), counted(len(set(recorded)), "test")
        yield f"Recorded {metrics} of {distinct} in {file}"
    if stayed:
        what = "Left as it was" if recorded else "Nothing new to record"
        why = "; =new adds only what is not there" if mode == "new" else ", exact and the same"
        yield f"{what} in {file}: {counted(stayed, 'metric')}{why}"
    lost = [f"{test} {name}" for test in tests for name in before.get(test, {}) if name not in after[test]]
    if lost:
        yield f"Dropped {listed(lost)} from {file}: the test records it no longer"


# --------------------------------------------------------------------------- the commit


def lacking_a_commit(
    project: Project, options: Options, records: Mapping[str, Record], items: Sequence[pytest.Item]
) -> Set[pytest.Item]:
    """Return the tests whose code is not that of the commit which their records name.

    Tracked files have changed, or beside the suite or among the kernels there is code that git does not know.
    """
    found, unknown = set(), {}
    for item in items:
        folders = [item.path.parent, project.owner(item.path, options.kernels) / options.kernels]
        for folder in folders:
            if folder not in unknown:
                unknown[folder] = False
                with suppress(GitError, OSError):
                    unknown[folder] = folder.is_dir() and bool(new_code(folder))
        if records[item.nodeid].environment.get("dirty") or any(unknown[folder] for folder in folders):
            found.add(item)
    return found


def as_changed(record: Record) -> Record:
    """Return a record that says that its commit lacks some of its code; as it is if it names no commit."""
    environment = record.environment
    return replace(record, environment={**environment, "dirty": True}) if "commit" in environment else record
