"""The header and the summary at the end of a run, readable at 80 columns, red first."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from _pytest.terminal import TerminalReporter

from pytest_gpuperf.measurement import Outcome, TestKey
from pytest_gpuperf.records import Row
from pytest_gpuperf.report.format import elide, percent, quantity
from pytest_gpuperf.report.percentiles import show_percentiles

_COLOURS = {
    Outcome.REGRESSED: {"red": True, "bold": True},
    Outcome.ENVIRONMENT_MOVED: {"red": True},
    Outcome.MISSING: {"yellow": True},
    Outcome.UNMEASURED: {"yellow": True},
    Outcome.CONTRACT_CHANGED: {"yellow": True},
    Outcome.UNFIT: {"yellow": True},
    Outcome.INCONCLUSIVE: {"yellow": True},
    Outcome.IMPROVED: {"green": True},
    Outcome.EQUAL: {"green": True},
}
_ORDER = {outcome: place for place, outcome in enumerate(Outcome)}
# What nobody has to act on is one line a test, where it has many metrics (counters come by the half dozen).
_MANY = 4
_FOLDED = {Outcome.NO_BASELINE, Outcome.EQUAL, Outcome.SHOWN, Outcome.IMPROVED}


def summarise(reporter: TerminalReporter, title: str, rows: Sequence[Row], lines: Sequence[str]) -> None:
    """The table, the counts by verdict, then ``lines``: findings, notes and what to do next."""
    reporter.write_sep("=", f"gpuperf: {title}")
    table = _table(rows)
    if table:
        width = max(80, min(reporter._tw.fullwidth, 120))
        header = ("verdict", "test", "now", "change", _rate_title(rows))
        widths = _widths([header, *(cells for _, cells in table)], width)
        reporter.write_line(_line(header, widths))
        for outcome, cells in table:
            reporter.write_line(_line(cells, widths), **_COLOURS.get(outcome, {}))
        counts = Counter((_rank(row), row.word) for row in rows)
        reporter.write_line(", ".join(f"{count} {word}" for (_, word), count in sorted(counts.items())))
    show_percentiles(reporter, rows)
    for line in lines:
        reporter.write_line(line)


def _table(rows: Sequence[Row]) -> list[tuple[Outcome, tuple[str, ...]]]:
    """The cells of each line, red first, then in the order of the suites."""
    groups: dict[tuple[int, TestKey, str, str], list[Row]] = {}
    several = Counter((row.test, row.word) for row in rows)
    for row in rows:
        folded = row.verdict.outcome in _FOLDED and several[row.test, row.word] >= _MANY
        metric = "" if folded else row.metric.name
        groups.setdefault((_rank(row), row.test, row.word, metric), []).append(row)
    crowded = {row.test for row in rows if several[row.test, row.word] > 1}
    return [
        (list(Outcome)[rank], _cells(group, key in crowded))
        for (rank, key, _, _), group in sorted(groups.items(), key=lambda entry: entry[0])
    ]


def _rank(row: Row) -> int:
    """The row's place in the summary; what is excused is nobody's red."""
    return _ORDER[Outcome.INCONCLUSIVE if row.excuse else row.verdict.outcome]


def _cells(group: Sequence[Row], name_metric: bool) -> tuple[str, ...]:
    row = group[0]
    if len(group) > 1:
        return row.word, row.test.name, f"{len(group)} metrics", "", ""
    name = f"{row.test.name} {row.metric.name}" if name_metric else row.test.name
    return row.word, name, _now(row), percent(row.verdict.change), _rate(row)


def _widths(table: Sequence[Sequence[str]], width: int) -> list[int]:
    """Each column as wide as its widest cell; the test gets what is left, at most what it needs."""
    widths = [max(len(cells[column]) for cells in table) for column in range(5)]
    room = width - sum(widths) + widths[1] - 2 * (sum(w > 0 for w in widths) - 1)
    widths[1] = min(widths[1], room)
    return widths


def _line(cells: Sequence[str], widths: Sequence[int]) -> str:
    verdict, test, *figures = widths
    text = f"{cells[0]:<{verdict}}  {elide(cells[1], test):<{test}}"
    for cell, width in zip(cells[2:], figures, strict=True):
        text += f"  {cell:>{width}}" if width else ""
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
