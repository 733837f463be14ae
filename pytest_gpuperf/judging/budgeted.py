"""A run under a budget: screens first, then replicas, the largest excess first.

The report of a test whose screen trips is held back until every other test has had its screen, so
that each test still fails as itself. An xdist worker confirms its tests at once.
"""

from __future__ import annotations

import time
from collections.abc import Sequence

import pytest

from pytest_gpuperf import per_test
from pytest_gpuperf.errors import GpuperfError
from pytest_gpuperf.judging.budget import Held
from pytest_gpuperf.records import payload_of
from pytest_gpuperf.session import GpuperfSession, isolates


def sort(session: GpuperfSession, items: list[pytest.Item]) -> None:
    """The tests that have a baseline come first: only they can turn red, or be missed."""
    items.sort(key=lambda item: not _has_baseline(session, item))


def _has_baseline(session: GpuperfSession, item: pytest.Item) -> bool:
    try:
        key, store = session.key(item.nodeid), session.store(item.path)
        return any(key.name in store.load(pool, key.suite) for pool in store.pools())
    except GpuperfError:
        return True  # a file that cannot be read is said when its test is judged


def run(session: GpuperfSession, item: pytest.Item, nextitem: pytest.Item | None) -> bool | None:
    """Runs a test and holds its reports back where its screen trips; None leaves it to pytest."""
    if session.budget is None:
        return None
    from _pytest.runner import runtestprotocol

    item.ihook.pytest_runtest_logstart(nodeid=item.nodeid, location=item.location)
    if isolates(item):
        reports = per_test.reports_of_child(session, item)
    else:
        reports = runtestprotocol(item, nextitem=nextitem, log=False)
    excess = _excess(session, item, reports)
    if excess is None:
        per_test.hand_on(session, item, reports, per_test.verdicts)
    else:
        session.budget.held.append(Held(item, reports, excess))
    return True


def _excess(session: GpuperfSession, item: pytest.Item, reports: Sequence[pytest.TestReport]) -> float | None:
    """How far the screen lies beyond what is allowed; None where nothing is to be held back."""
    from pytest_gpuperf.judging.gate import Case

    if hasattr(session.config, "workerinput"):
        return None  # an xdist worker must report a test before it begins the next
    for report in reports:
        record = payload_of(report).record
        if report.when == "call" and report.passed and record:
            try:
                case = Case(session, item, record)
            except GpuperfError:
                return None  # said when the test is judged, at once
            return case.excess if case.tripped else None
    return None


def settle(session: GpuperfSession) -> None:
    """Confirms what was held back, the largest excess first, and reports it."""
    if session.budget is None:
        return
    held = sorted(session.budget.held, key=lambda each: each.excess, reverse=True)
    session.budget.held = []
    for number, each in enumerate(held):
        session.budget.left = [other.item for other in held[number:]]
        per_test.hand_on(session, each.item, each.reports, per_test.verdicts)


def abandon(session: GpuperfSession) -> None:
    """Reports what was held back unconfirmed: the run was interrupted, or stopped at its first failure."""
    if session.budget is not None:
        session.budget.end = time.monotonic()
        settle(session)
