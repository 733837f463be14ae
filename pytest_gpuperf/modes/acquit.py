"""Run the baseline's own code here and now, where a regression may be the machine's."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from pytest_gpuperf.errors import GpuperfError
from pytest_gpuperf.git import SHOWN_DIGITS, Revision, resolve
from pytest_gpuperf.marker import takes_numbers
from pytest_gpuperf.measurement import Baseline
from pytest_gpuperf.modes.comparison import Comparison, compare
from pytest_gpuperf.rules.case import Compared
from pytest_gpuperf.session import GpuperfSession


class OldCode:
    """The comparisons with baselines' commits that one session made.

    Once ``max_confirm`` tests had to be compared with a commit, the next comparison measures all of the
    session's tests together: a roll-out of a driver would otherwise cost twenty processes for every test.
    """

    def __init__(self, session: GpuperfSession) -> None:
        self._children, self._free_memory = session.children, session.free_memory
        self._root, self._progress = session.config.rootpath, session.progress
        self._most, self._blocks = session.options.max_confirm, session.options.blocks
        self._known: dict[str, list[tuple[frozenset[str], Comparison]]] = {}

    def ask(self, item: pytest.Item, baselines: Mapping[str, Baseline]) -> dict[str, Compared | str]:
        """Compare a test with the commits its ``baselines`` are of; by metric, or why that cannot be done."""
        found: dict[str, Compared | str] = {}
        for name, baseline in baselines.items():
            try:
                found[name] = self._ask(item, baseline)
            except GpuperfError as error:
                found[name] = str(error)
        return found

    def _ask(self, item: pytest.Item, baseline: Baseline) -> Compared:
        comparison = self._comparison(item, self._recorded_from(baseline))
        if why := comparison.own(item.nodeid).failed(item.nodeid):
            raise GpuperfError(f"this checkout {why}")
        return comparison.of(item.nodeid, baseline.metric)

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
        return resolve(self._root, commit)

    def _comparison(self, item: pytest.Item, revision: Revision) -> Comparison:
        known = self._known.setdefault(revision.commit, [])
        for names, comparison in known:
            if item.nodeid in names:
                return comparison
        items = [item]
        if len(known) >= self._most:
            done = frozenset().union(*(names for names, _ in known))
            items = [i for i in item.session.items if takes_numbers(i) and i.nodeid not in done]
        self._free_memory()
        found = compare(self._children, items, revision, self._blocks, self._progress)
        known.append((frozenset(i.nodeid for i in items), found))
        return found
