"""Write verdicts as properties of a test, which JUnit files carry: each figure by itself, for scripts."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence

from pytest_gpuperf.records import PROPERTY, Row


def properties(rows: Sequence[Row]) -> list[tuple[str, object]]:
    """Return a property for each figure: ``gpuperf.METRIC.value``, ``.baseline``, ``.change`` and so on.

    Figures are in the metric's unit, changes are fractions; what is not known has no property.
    """
    return [
        (sys.intern(f"{PROPERTY}{row.metric.name}.{name}"), value)
        for row in rows
        for name, value in _figures(row)
        if value is not None
    ]


def _figures(row: Row) -> Iterator[tuple[str, object]]:
    verdict = row.verdict
    yield "verdict", row.label
    yield "unit", row.metric.unit
    yield "value", verdict.now
    yield "baseline", verdict.baseline
    yield "change", verdict.change
    yield "change_low", verdict.interval[0] if verdict.interval else None
    yield "change_high", verdict.interval[1] if verdict.interval else None
    yield "tolerance", verdict.tolerance
