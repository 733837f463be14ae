"""Record baselines, --gpuperf-update: fresh processes measure again what the session measured."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence, Set
from contextlib import suppress
from pathlib import Path

import pytest

from pytest_gpuperf.errors import BaselineError
from pytest_gpuperf.marker import test_options
from pytest_gpuperf.measurement import Baseline, Metric, TestKey
from pytest_gpuperf.modes.missing import Scope, benchmarks_timed, scope_of, vanished
from pytest_gpuperf.modes.mode import Mode
from pytest_gpuperf.modes.runs import NotRecorded, baselines_of, fresh_runs
from pytest_gpuperf.modes.unrecorded import (
    UNCOMMITTED,
    as_changed,
    lacking_a_commit,
    not_measured,
    only_shown,
    rates,
    written_lines,
)
from pytest_gpuperf.records import Keeper, Record
from pytest_gpuperf.report.update import crept, left_out, listed, moved, two_modes
from pytest_gpuperf.rules.creep import begun
from pytest_gpuperf.rules.recording import far_runs, replaced, usual_spread
from pytest_gpuperf.rules.tolerances import Tolerances
from pytest_gpuperf.session import GpuperfSession
from pytest_gpuperf.storage.entries import KEPT_SAMPLES
from pytest_gpuperf.text import counted

Made = dict[pytest.Item, dict[str, Baseline]]
"""New baselines by test and metric."""


class Recording(Mode):
    """A run whose figures become baselines.

    This session is the first process, which is not kept: on a cold machine it is slower than the rest.
    """

    def __init__(self, session: GpuperfSession) -> None:
        super().__init__(session)
        self._spreads: dict[tuple[Path, str, str], float] = {}
        self._changed: Set[pytest.Item] = frozenset()
        self._keep = Keeper(KEPT_SAMPLES).record

    def settle(self, interrupted: bool = False) -> None:
        """Say that a run which was broken off records nothing."""
        self._results.note("Nothing was recorded: the run was broken off" if interrupted else "")

    def finish(self, items: Sequence[pytest.Item], complete: bool) -> None:
        """Record a baseline of each metric that the selected tests measured, and say what was and was not.

        An exact metric needs one run, and every process must agree on it.
        """
        results, options = self._results, self._options
        measured = results.passed(items)
        for line in (*not_measured(results, items), only_shown(results, measured), rates(results, measured)):
            results.note(line)
        self._changed = lacking_a_commit(self._project, options, results.records, measured)
        if self._changed:
            self._session.progress(f"gpuperf: {UNCOMMITTED.replace('Recorded', 'recording')}")
        noisy = [item for item in measured if results.records[item.nodeid].noisy]
        runs = list(fresh_runs(self._session, noisy, options.runs, self._keep))
        made: Made = {}
        for item in measured:
            if baselines := self._baselines(item, runs):
                made[item] = {name: begun(baseline) for name, baseline in baselines.items()}
        self._settle_far(made)
        files: dict[tuple[Path, str, str], Made] = defaultdict(dict)
        for item, baselines in made.items():
            suite = self._project.key(item.nodeid).suite
            files[self._project.path(item.nodeid), self._pool(item), suite][item] = baselines
        gone = self._vanished(scope_of(self._session, complete))
        for file in files | dict.fromkeys(gone):
            self._write(*file, files.get(file, {}), gone.get(file, ()))
        if not files and not gone and "infrastructure" not in results.causes:  # which is why, then
            results.finding("setup", "nothing was measured that a baseline could keep")

    def _baselines(self, item: pytest.Item, runs: Sequence[Mapping[str, Record]]) -> dict[str, Baseline]:
        """Return what ``runs`` recorded of a test; empty, with a finding, if it cannot become a baseline."""
        try:
            first, *records = [
                as_changed(record) if item in self._changed else record
                for record in (self._results.records[item.nodeid], *_of(item, runs))
            ]
            return baselines_of(first, records, len(runs))
        except NotRecorded as reason:
            self._results.finding(reason.cause, f"not recorded: {item.nodeid}: {reason}")
            return {}

    def _pool(self, item: pytest.Item) -> str:
        return self._project.pool(self._results.records[item.nodeid].device)

    def _tolerance(self, item: pytest.Item, metric: Metric) -> float:
        options = self._options
        stated = Tolerances(options.tolerance, test_options(item).tolerance, options.tolerances)
        return stated.of(metric, self._pool(item))

    # --------------------------------------------------------------------------- runs far from the others

    def _settle_far(self, made: Made) -> None:
        """Measure again, once, each test of which one run is far from the others, and leave that run out."""
        one: dict[pytest.Item, dict[str, int]] = defaultdict(dict)
        for item, baselines in made.items():
            for name, baseline in baselines.items():
                far = self._far(item, baseline)
                if len(far) == 1:
                    one[item][name] = far[0]
                elif far:
                    self._results.note(two_modes(self._project.key(item.nodeid), baseline))
        if not one:
            return
        tests = counted(len(one), "test")
        self._session.progress(f"gpuperf: a run of {tests} was far from the others: once more")
        again = list(fresh_runs(self._session, list(one), 1, self._keep))
        for item, places in one.items():
            baselines, key = self._baselines(item, again), self._project.key(item.nodeid)
            for name, place in places.items() if baselines else ():
                old, theta = made[item][name], self._tolerance(item, made[item][name].metric)
                new = replaced(old, place, baselines[name].runs[0], self._spread(item, old), theta)
                made[item][name] = begun(new)
                text = left_out(key, old, place) if new.left_out else two_modes(key, new)
                self._results.note(text)
            if not baselines:
                del made[item]

    def _far(self, item: pytest.Item, baseline: Baseline) -> list[int]:
        if baseline.metric.kind == "exact":
            return []
        values = [run.value for run in baseline.runs]
        return far_runs(values, self._spread(item, baseline), self._tolerance(item, baseline.metric))

    def _spread(self, item: pytest.Item, baseline: Baseline) -> float:
        """Return the usual spread of a metric's instrument in the pool, as far as its files can be read."""
        store, pool = self._project.store(self._project.path(item.nodeid)), self._pool(item)
        key = store.folder, pool, baseline.metric.instrument
        if key not in self._spreads:
            found: list[Baseline] = []
            for suite in store.suites(pool):
                with suppress(BaselineError):  # of another suite; its own is told when it is written
                    found += [b for metrics in store.load(pool, suite).values() for b in metrics.values()]
            self._spreads[key] = usual_spread(baseline.metric.constants, found)
        return self._spreads[key]

    # --------------------------------------------------------------------------- what is stored

    def _vanished(self, scope: Scope) -> dict[tuple[Path, str, str], list[str]]:
        """Return the tests to drop by file: those that a full run no longer found, if that was asked for."""
        gone: dict[tuple[Path, str, str], list[str]] = defaultdict(list)
        kept: dict[str, list[str]] = {"not in this run": [], "recorded nothing": []}
        prune = self._options.update == "prune"
        if prune and not scope.full:
            self._results.note("Nothing was dropped: this was a run of a part of the tests")
        try:
            entries = vanished(self._project, self._results, scope)
        except BaselineError as error:  # of one file: what was measured for the others is written
            self._results.finding("wrong", f"not recorded: {error}")
            return gone
        for entry in entries:
            if prune:
                gone[entry.path, entry.pool, entry.key.suite].append(entry.key.name)
                why = "which records nothing any more" if entry.nodeid else "which is no longer there"
                self._results.note(f"Dropped the baseline of {entry.key}, {why}")
            else:
                kept["recorded nothing" if entry.nodeid else "not in this run"].append(str(entry.key))
        for why, tests in kept.items():
            self._results.note(
                f"Kept the baselines of {listed(tests)}: {why}.\n"
                "  If they are gone for good: --gpuperf-update=prune"
                if tests
                else ""
            )
        return gone

    def _write(self, path: Path, pool: str, suite: str, made: Made, gone: Sequence[str]) -> None:
        asked, keep, results = self._options.update, self._options.max_runs, self._results
        mode = asked if asked in ("append", "new") else "replace"
        store, project = self._project.store(path), self._project
        keys = {item: project.key(item.nodeid) for item in made}
        tests: dict[str, dict[str, Baseline]] = {keys[item].name: metrics for item, metrics in made.items()}
        try:
            before = store.load(pool, suite)
            dropped = _beyond(before, tests, keep) if mode == "append" else 0
            given = tests | {name: {} for name in gone}
            if mode == "replace" and not benchmarks_timed(self._session.config):
                given |= _with_benchmarks(before, tests)
            written = store.save(pool, suite, given, mode=mode, keep=keep)  # type: ignore[arg-type]
            after = store.load(pool, suite)
        except BaselineError as error:
            results.finding("wrong", f"not recorded: {error}")
            return
        results.note(UNCOMMITTED if self._changed & made.keys() else "")
        file = relative(written or store.path(pool, suite), self._session.config.invocation_params.dir)
        for line in written_lines(before, after, tests, str(file), mode):
            results.note(line)
        if dropped:
            results.note(
                f"Dropped the oldest runs of {counted(dropped, 'metric')} there: a baseline keeps {keep} "
                "(ini key gpuperf_max_runs)"
            )
        for item, key in keys.items():
            self._tell_moved(item, key, before.get(key.name, {}), after[key.name])

    def _tell_moved(
        self, item: pytest.Item, key: TestKey, old: Mapping[str, Baseline], new: Mapping[str, Baseline]
    ) -> None:
        self._results.note(moved(key, old, new))
        for name, stored in new.items():
            if name in old and old[name].value != stored.value:  # what stays was told when it came
                tolerance = self._tolerance(item, stored.metric)
                self._results.note(crept(key, stored, tolerance, old[name].value))


def _of(item: pytest.Item, runs: Sequence[Mapping[str, Record]]) -> list[Record]:
    return [run[item.nodeid] for run in runs if item.nodeid in run]


def _with_benchmarks(
    stored: Mapping[str, Mapping[str, Baseline]], tests: Mapping[str, Mapping[str, Baseline]]
) -> dict[str, dict[str, Baseline]]:
    """Return the metrics of tests that also have a stored one of pytest-benchmark's, together with that."""
    known = {name: stored.get(name, {}).get("benchmark") for name in tests}
    return {name: {**tests[name], "benchmark": old} for name, old in known.items() if old}


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
