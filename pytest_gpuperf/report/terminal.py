"""The header and the summary at the end of a run, readable at 80 columns, red first."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from _pytest.terminal import TerminalReporter

from pytest_gpuperf.measurement import Outcome
from pytest_gpuperf.records import Row
from pytest_gpuperf.report.format import elide, percent, quantity

_COLOURS = {
    Outcome.REGRESSED: {"red": True, "bold": True},
    Outcome.MISSING: {"yellow": True},
    Outcome.UNMEASURED: {"yellow": True},
    Outcome.CONTRACT_CHANGED: {"yellow": True},
    Outcome.UNFIT: {"yellow": True},
    Outcome.INCONCLUSIVE: {"yellow": True},
    Outcome.IMPROVED: {"green": True},
    Outcome.EQUAL: {"green": True},
}
_ORDER = {outcome: place for place, outcome in enumerate(Outcome)}
_WIDTHS = (16, 10, 9, 10)  # verdict, now, change, GB/s and share of copy; the test gets the rest


def summarise(reporter: TerminalReporter, title: str, rows: Sequence[Row], lines: Sequence[str]) -> None:
    """The table, the counts by verdict, then ``lines``: findings, notes and what to do next."""
    reporter.section(f"gpuperf: {title}", sep="=")
    width = max(80, min(reporter._tw.fullwidth, 120))
    ordered = sorted(rows, key=lambda row: (_ORDER[row.verdict.outcome], row.test, row.metric.name))
    if ordered:
        reporter.write_line(_columns(("verdict", "test", "now", "change", _rate_title(rows)), width))
    several = Counter(row.test for row in rows)
    for row in ordered:
        name = f"{row.test.name} {row.metric.name}" if several[row.test] > 1 else row.test.name
        cells = (row.verdict.outcome.value, name, _now(row))
        text = _columns((*cells, percent(row.verdict.change), _rate(row)), width)
        reporter.write_line(text, **_COLOURS.get(row.verdict.outcome, {}))
    if ordered:
        counts = Counter(row.verdict.outcome for row in rows)
        reporter.write_line(
            ", ".join(f"{counts[outcome]} {outcome.value}" for outcome in Outcome if counts[outcome])
        )
    for line in lines:
        reporter.write_line(line)


def _columns(cells: Sequence[str], width: int) -> str:
    verdict, now, change, rate = _WIDTHS
    room = width - sum(_WIDTHS) - 4
    name = elide(cells[1], room)
    text = f"{cells[0]:<{verdict}} {name:<{room}} {cells[2]:>{now}} {cells[3]:>{change}} {cells[4]:>{rate}}"
    return text.rstrip()


def _now(row: Row) -> str:
    """Today's figure, or the stored one where there is none; a rate's unit goes short for the column."""
    value = row.verdict.now if row.verdict.now is not None else row.verdict.baseline
    unit = row.metric.unit
    return quantity(value, "/s" if unit.endswith("/s") else unit)


def _rate_title(rows: Sequence[Row]) -> str:
    return "GB/s copy" if any("bytes_per_second" in row.details for row in rows) else ""


def _rate(row: Row) -> str:
    """GB/s and the fraction of the device's own measured copy bandwidth, where bytes were declared."""
    rate, share = row.details.get("bytes_per_second"), row.details.get("of_copy")
    if rate is None:
        return ""
    return f"{rate / 1e9:.0f}" + (f" {100 * share:.0f} %" if share is not None else "")
