"""Print the table of LoadGen's latency percentiles, with the number of queries behind them."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from pytest_gpuperf.measurement import quantity
from pytest_gpuperf.records import Row

_COLUMN = 9
_QUERIES = 7


def show_percentiles(reporter: pytest.TerminalReporter, rows: Sequence[Row]) -> None:
    """Print a line a phase. A percentile without enough queries is in brackets and grey: it is not judged."""
    phases = [row for row in rows if "percentiles" in row.details]
    if not phases:
        return
    names = list(phases[0].details["percentiles"])
    room = 80 - _QUERIES - _COLUMN * len(names) - 1
    titles = "".join(f"{name.replace('_', '.'):>{_COLUMN}}" for name in names)
    reporter.write_line(f"{'latency':<{room}} {'queries':>{_QUERIES}}{titles}")
    for row in phases:
        reporter.write(f"{_end(row.test.name, room):<{room}} {row.details['queries']:>{_QUERIES}}")
        for seconds, enough in row.details["percentiles"].values():
            text = quantity(seconds, "s", 3).replace(" ", "")
            cell = text if enough else f"({text})"
            reporter.write(f"{cell:>{_COLUMN}}", light=not enough)
        reporter.write_line("")


def _end(name: str, width: int) -> str:
    """Return the end of a test's name, where its parameters are; the table above has the whole."""
    return name if len(name) <= width else f"…{name[1 - width :]}"
