"""``@pytest.mark.gpuperf(expected="why", until="2026-12-31")``: a regression that is known, until a day."""

from __future__ import annotations

import datetime
from collections.abc import Sequence
from dataclasses import dataclass, replace

import pytest

from pytest_gpuperf.measurement import Outcome, Verdict
from pytest_gpuperf.options import test_options
from pytest_gpuperf.records import Row

EXPECTED = "expected"
_WITHIN = (Outcome.EQUAL, Outcome.IMPROVED, Outcome.INCONCLUSIVE)


@dataclass(frozen=True, slots=True)
class Expectation:
    """Why a test may regress, and the last day on which it may."""

    reason: str
    until: datetime.date

    def __str__(self) -> str:
        return f"expected until {self.until}: {self.reason}"

    def excuse(self, rows: Sequence[Row], today: datetime.date) -> tuple[Row, ...]:
        """The rows, those that regressed excused; past the day, told that they were."""
        return tuple(self._excused(row, today) if _regressed(row.verdict) else row for row in rows)

    def _excused(self, row: Row, today: datetime.date) -> Row:
        if today <= self.until:
            return replace(row, excuse=EXPECTED)
        reason = f"{self}, and that day has passed"
        said = f"{row.verdict.reason}; {reason}" if row.verdict.reason else reason
        return replace(row, verdict=replace(row.verdict, reason=said))

    def broken(self, rows: Sequence[Row], today: datetime.date) -> str:
        """Why the test is red though nothing in it regressed; "" where it did, or nobody can tell.

        Every metric that was judged was judged in replicas, so that one lucky run breaks nothing.
        """
        outcomes = [row.verdict.outcome for row in rows]
        unclear = {Outcome.UNFIT, Outcome.UNMEASURED, Outcome.CONTRACT_CHANGED} & set(outcomes)
        if unclear or any(_regressed(row.verdict) for row in rows) or not set(outcomes) & set(_WITHIN):
            return ""
        passed = ", and that day has passed" if today > self.until else ""
        return f"did not regress ({self}{passed}): take expected= and until= out of the test's marker"


def expectation(item: pytest.Item) -> Expectation | None:
    """What a test's marker expects; None with ``--runxfail``: judge everything as it is."""
    options = test_options(item)
    if options.expected is None or options.until is None or item.config.getoption("runxfail", False):
        return None
    return Expectation(options.expected, datetime.date.fromisoformat(options.until))


def _regressed(verdict: Verdict) -> bool:
    beyond = verdict.outcome is Outcome.INCONCLUSIVE and verdict.exceeds
    return verdict.outcome is Outcome.REGRESSED or beyond


def settle(item: pytest.Item, rows: Sequence[Row]) -> tuple[tuple[Row, ...], str, str]:
    """The rows of a test as its marker excuses them; why it is red all the same; why it is an xfail."""
    expected = expectation(item)
    if expected is None or any(row.excuse for row in rows):
        return tuple(rows), "", ""
    today = datetime.date.today()
    excused = expected.excuse(rows, today)
    broken = expected.broken(rows, today)
    return excused, broken, str(expected) if any(row.excuse for row in excused) else ""
