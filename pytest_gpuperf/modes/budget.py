"""Judge under --gpuperf-budget: every test's first measurement before any replicas, the largest excess first.

The report of a test that looks worse is held back until every other test has been measured once, so
that each test still fails as itself. An xdist worker confirms its tests at once.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import pytest

from pytest_gpuperf.errors import GpuperfError
from pytest_gpuperf.marker import isolates
from pytest_gpuperf.modes.case import case_of
from pytest_gpuperf.modes.judge import Judging
from pytest_gpuperf.modes.mode import Judged
from pytest_gpuperf.records import Payload, Record, payload_of
from pytest_gpuperf.rules.decide import screen
from pytest_gpuperf.session import Budget, GpuperfSession


@dataclass(frozen=True, slots=True)
class Held:
    """A passed test that looks worse: its reports, kept back until replicas have had their turn."""

    item: pytest.Item
    reports: Sequence[pytest.TestReport]
    excess: float


class Budgeted(Judging):
    """A run whose measuring is bounded and spent on what is worth most."""

    def __init__(self, session: GpuperfSession, budget: Budget) -> None:
        super().__init__(session)
        self._bound = budget
        self._held: list[Held] = []
        self._to_confirm: Sequence[Held] = ()

    def prepare(self, items: list[pytest.Item]) -> None:
        """Put the tests first that have a baseline: only they can fail, or be missed."""
        super().prepare(items)
        items.sort(key=lambda item: not self._has_baseline(item))

    def _has_baseline(self, item: pytest.Item) -> bool:
        try:
            return bool(self._project.other_pools(item.nodeid, ""))
        except GpuperfError:
            return True  # a file that cannot be read is told when its test is judged

    def run(self, item: pytest.Item, nextitem: pytest.Item | None) -> bool | None:
        """Run a test, and hold its reports back if it looks worse."""
        from _pytest.runner import runtestprotocol

        item.ihook.pytest_runtest_logstart(nodeid=item.nodeid, location=item.location)
        if isolates(item):
            reports = self.child_reports(item)
        else:
            reports = runtestprotocol(item, nextitem=nextitem, log=False)
        excess = None if self._session.in_worker else self._excess(item, reports)
        if excess is None:
            self.pass_on(item, reports)
        else:
            self._held.append(Held(item, reports, excess))
        return True

    def judge_call(self, item: pytest.Item, record: Record) -> Judged:
        """Leave the test to be judged from its report, after others have been measured once."""
        return Judged(Payload(record))

    def _excess(self, item: pytest.Item, reports: Sequence[pytest.TestReport]) -> float | None:
        """Return how far a test is beyond what is allowed; None if its reports need not be held back."""
        for report in reports:
            record = payload_of(report).record
            if report.when == "call" and report.passed and record:
                try:
                    found = screen(case_of(item, record, self._project, self._options), record)
                except GpuperfError:
                    return None  # told when the test is judged, at once
                return found.excess if found.tripped else None
        return None

    def _left(self, item: pytest.Item) -> Callable[[], Sequence[pytest.Item]]:
        if not self._to_confirm:  # in an xdist worker
            return super()._left(item)
        return lambda: [held.item for held in self._to_confirm]

    def settle(self, interrupted: bool = False) -> None:
        """Confirm what was held back, the largest excess first, and report it; unconfirmed if interrupted."""
        if interrupted:
            self._bound.end = time.monotonic()
        held = sorted(self._held, key=lambda each: each.excess, reverse=True)
        self._held = []
        for number, each in enumerate(held):
            self._to_confirm = held[number:]
            self.pass_on(each.item, each.reports)
