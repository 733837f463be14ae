"""Run the baseline's own code here and now, where a loss may be the machine's."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import pytest

from pytest_gpuperf.errors import GpuperfError
from pytest_gpuperf.git import SHOWN_DIGITS, Revision, resolve
from pytest_gpuperf.marker import takes_numbers
from pytest_gpuperf.measurement import Baseline
from pytest_gpuperf.modes.case import case_of
from pytest_gpuperf.modes.comparison import Comparison, SideRun, compare
from pytest_gpuperf.records import Record
from pytest_gpuperf.rules.case import Compared, Replicas
from pytest_gpuperf.session import GpuperfSession


class Asked(NamedTuple):
    """What the old code says by metric, or why it could not be asked; and this checkout's own processes."""

    found: dict[str, Compared | str]
    replicas: Replicas


class OldCode:
    """The comparisons with baselines' commits that one session made.

    Once ``max_confirm`` tests had to be compared with a commit, the next comparison measures all of the
    session's tests together: a roll-out of a driver would otherwise cost nine processes for every test.
    """

    def __init__(self, session: GpuperfSession) -> None:
        self._session = session
        self._most, self._blocks = session.options.max_confirm, session.options.blocks
        self._known: dict[str, list[tuple[frozenset[str], Comparison]]] = {}

    def ask(self, item: pytest.Item, record: Record, baselines: Mapping[str, Baseline]) -> Asked:
        """Compare a test, which measured ``record``, with the commits that its ``baselines`` are of."""
        found: dict[str, Compared | str] = {}
        replicas = Replicas()
        by_revision: dict[Revision, list[Baseline]] = {}
        for name, baseline in baselines.items():
            try:
                by_revision.setdefault(self._recorded_from(baseline), []).append(baseline)
            except GpuperfError as error:
                found[name] = str(error)
        for revision, asked in by_revision.items():
            names = frozenset(baseline.metric.name for baseline in asked)
            try:
                comparison = self._comparison(item, record, revision, names)
                if why := comparison.own(item.nodeid).failed(item.nodeid):
                    raise GpuperfError(f"this checkout {why}")
            except GpuperfError as error:
                found |= dict.fromkeys(names, str(error))
                continue
            found |= {each.metric.name: comparison.of(item.nodeid, each.metric) for each in asked}
            replicas = comparison.replicas(item.nodeid)
        return Asked(found, replicas)

    def _recorded_from(self, baseline: Baseline) -> Revision:
        """Return the commit that the baseline's newest run measured; raises GpuperfError if none is known."""
        environment = baseline.runs[-1].environment
        commit = str(environment.get("commit") or "")
        if not commit:
            raise GpuperfError("its runs do not name a commit")
        if environment.get("dirty"):
            raise GpuperfError(
                f"it was recorded with changes to {commit[:SHOWN_DIGITS]} that were not committed"
            )
        return resolve(self._session.config.rootpath, commit)

    def _comparison(
        self, item: pytest.Item, record: Record, revision: Revision, names: frozenset[str]
    ) -> Comparison:
        session = self._session
        known = self._known.setdefault(revision.commit, [])
        for nodeids, comparison in known:
            if item.nodeid in nodeids:
                return comparison
        session.free_memory()
        found = Comparison(revision, self._blocks)
        if len(known) < self._most:
            items = [item]
            found.here.append(SideRun(known={item.nodeid: record}))
        else:
            done = frozenset().union(*(nodeids for nodeids, _ in known))
            items = [i for i in item.session.items if takes_numbers(i) and i.nodeid not in done]

        def tolerances(each: pytest.Item, measured: Record) -> Mapping[str, float]:
            held = case_of(each, measured, session.project, session.options).tolerances
            return {name: value for name, value in held.items() if each is not item or name in names}

        compare(session.children, items, found, tolerances)
        known.append((frozenset(i.nodeid for i in items), found))
        return found
