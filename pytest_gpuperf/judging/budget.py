"""--gpuperf-budget: a bound on a run's measuring, spent on what is worth most."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from pytest_gpuperf.session import GpuperfSession


@dataclass(frozen=True, slots=True)
class Held:
    """A passed test whose screen tripped: its reports, kept back until replicas have had their turn."""

    item: pytest.Item
    reports: Sequence[pytest.TestReport]
    excess: float


@dataclass(slots=True)
class Budget:
    """``seconds`` from now; ``left`` are the tests that may still trip, while the held ones are confirmed."""

    seconds: float
    end: float = field(init=False)
    held: list[Held] = field(default_factory=list)
    left: list[pytest.Item] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.end = time.monotonic() + self.seconds

    @property
    def spent(self) -> bool:
        return time.monotonic() >= self.end

    def __str__(self) -> str:
        return f"the budget of {self.seconds / 60:g} minutes (--gpuperf-budget) was spent"


def tell(session: GpuperfSession) -> None:
    """Says how many tests the budget left unmeasured; strict does not let one of them pass."""
    rows = {str(row.test) for row in session.rows if row.over_budget}
    others = {str(session.key(nodeid)) for nodeid in session.left_out} - rows
    if rows or others:
        session.note(f"{len(rows | others)} test(s) could not be measured and judged: {session.budget}")
    if session.options.strict:
        for test in sorted(others):
            session.finding("setup", f"{test}: not measured: {session.budget}")
