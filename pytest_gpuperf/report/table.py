"""Lay out the table of verdicts: a file and a test are named once, what somebody must act on comes first."""

from __future__ import annotations

import re
import textwrap
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby

from pytest_gpuperf.figures import percent, quantity
from pytest_gpuperf.measurement import Outcome, TestKey
from pytest_gpuperf.records import Row
from pytest_gpuperf.report.message import elide, narrower
from pytest_gpuperf.rules.lacking import NEW_IN_PLUGIN

# What nobody has to act on is one line a test, from so many metrics on.
_MANY = {Outcome.EQUAL: 2, Outcome.UNCHANGED: 2} | dict.fromkeys(
    (Outcome.NO_BASELINE, Outcome.SHOWN, Outcome.IMPROVED), 4
)
_UNIT = 16  # columns of the longest unit
_LEAST = 10  # columns of the names, below which figures stand in lines of their own
_TITLES = ("now", "", "change", "rate, share")
_CELLS = 2  # of the bar on each side of the tolerance
_EIGHTHS = " ▏▎▍▌▋▊▉█"


@dataclass(frozen=True, slots=True)
class Line:
    """A line of the table: a file's, or a verdict's with its name and figures; ``told`` stands below it.

    ``outcome`` decides the colour; None for a file.
    """

    outcome: Outcome | None
    verdict: str
    name: str
    figures: tuple[str, ...] = ("", "", "", "")
    told: tuple[str, ...] = ()


def counts(rows: Sequence[Row]) -> str:
    """Count the metrics by verdict, in the table's order."""
    found = Counter((rank(row), row.label) for row in rows)
    return ", ".join(f"{count} {label}" for (_, label), count in sorted(found.items()))


def rank(row: Row) -> int:
    """Return the row's place in the summary; what is excused is no failure."""
    return list(Outcome).index(Outcome.INCONCLUSIVE if row.excuse else row.verdict.outcome)


def calm(row: Row) -> bool:
    """Return whether nobody has to act on a row."""
    return rank(row) > list(Outcome).index(Outcome.INCONCLUSIVE)


def table(
    rows: Sequence[Row], *, against: bool = False, verbose: bool = False, quiet: bool = False
) -> list[Line]:
    """Return the lines, failures first.

    ``verbose``: a line for each metric, with its interval; ``quiet``: only what somebody must act on.
    """
    tests: dict[TestKey, list[Row]] = {}
    for row in rows:
        tests.setdefault(row.test, []).append(row)
    worst = {test: min(map(rank, found)) for test, found in tests.items()}
    acting = {test: not all(map(calm, found)) for test, found in tests.items()}
    files: dict[tuple[bool, str], int] = {}
    for test, place in worst.items():
        key = acting[test], test.suite
        files[key] = min(place, files.get(key, place))
    order = sorted(
        (test for test in tests if acting[test] or not quiet),
        key=lambda test: (
            not acting[test],
            files[acting[test], test.suite],
            test.suite,
            worst[test],
        ),
    )
    lines: list[Line] = []
    before = None
    for (_, suite), group in groupby(order, key=lambda test: (acting[test], test.suite)):
        if before != suite:
            lines.append(Line(None, "", suite))
        before = suite
        for test in group:
            lines += _of_test(test, tests[test], against, verbose, quiet)
    return lines


def _of_test(test: TestKey, rows: Sequence[Row], against: bool, verbose: bool, quiet: bool) -> Iterator[Line]:
    """Yield a test's lines: one if it has one metric, or only metrics that are folded into one."""
    groups: dict[tuple[int, str, str], list[Row]] = {}
    alike = Counter(row.label for row in rows)
    for row in sorted(rows, key=lambda row: (rank(row), row.verdict.outcome is Outcome.EQUAL)):
        many = alike[row.label] >= _MANY.get(row.verdict.outcome, len(rows) + 1)
        folded = many and not verbose and not _rate(row)
        groups.setdefault((rank(row), row.label, "" if folded else row.metric.name), []).append(row)
    found = list(groups.values())
    first, count = found[0], alike[found[0][0].label]
    name = f"{test.name}: {f'{count} of ' if count < len(rows) else ''}{len(rows)} metrics"
    if len(rows) == 1:
        yield _line(first, _named(test, rows[0], verbose), against, verbose)
        return
    if len(first) == count > 1:
        yield _line(first, name, against, verbose)
        found = found[1:]
    else:
        yield Line(list(Outcome)[rank(first[0])], first[0].label, name)
    for group in found:
        if not (quiet and calm(group[0])):
            name = f"  {group[0].metric.name}" if len(group) == 1 else f"  {len(group)} metrics"
            yield _line(group, name, against, verbose)


def _named(test: TestKey, row: Row, verbose: bool) -> str:
    """Return a test's name, with that of its only metric where somebody must act and it says more."""
    metric = row.metric.name
    said = re.search(rf"(?<![^\W_]){re.escape(metric)}(?![^\W_])", test.name, re.IGNORECASE)
    if said or (calm(row) and not verbose):
        return test.name
    return f"{test.name} {metric}"


def _line(group: Sequence[Row], name: str, against: bool, verbose: bool) -> Line:
    row, verdict = group[0], group[0].verdict
    outcome, told = list(Outcome)[rank(row)], tuple(_told(group, against, verbose))
    if len(group) > 1:
        gains = [each.verdict.change or 0.0 for each in group if outcome is Outcome.IMPROVED]
        gain = max(gains, key=abs, default=0.0)
        figures = ("", "", percent(gain), "") if gain else ("",) * 4
        return Line(outcome, row.label, f"{name}, up to" if gain else name, figures, told)
    moved = percent(verdict.change, verdict.baseline)
    return Line(outcome, row.label, name, (_now(row), bar(row), moved, _rate(row)), told)


def _told(group: Sequence[Row], against: bool, verbose: bool) -> Iterator[str]:
    """Yield once what no failure's text says of a line's metrics: why they were not judged, or as what."""
    found = [row.verdict.reason for row in group if row.verdict.outcome in _MANY or _let_pass(row)]
    found = [reason for reason in found if reason != NEW_IN_PLUGIN]  # next_steps says so once
    found += [text for row in group for text in _unclear(row, against)]
    ways = [(row, str(row.details.get("better", ""))) for row in group]
    alike = (Outcome.EQUAL, Outcome.UNCHANGED)  # of which only the way of a rate is worth a line
    found += [way for row, way in ways if verbose or row.verdict.outcome not in alike or ":" in way]
    found += [_interval(row) for row in group if verbose]
    return (text for text in dict.fromkeys(found) if text)


def _let_pass(row: Row) -> bool:
    """Return whether a row fails nothing although its figure may be worse, so that no message says why."""
    return row.cause is None and row.verdict.outcome in (Outcome.UNFIT, Outcome.INCONCLUSIVE)


def _unclear(row: Row, against: bool) -> Iterator[str]:
    """Say between what an inconclusive change lies that fails nothing, and how to know better."""
    decided = row.verdict
    if row.cause or decided.outcome is not Outcome.INCONCLUSIVE or not decided.interval:
        return
    low, high = decided.interval
    strict = ", which fails under strict" if decided.exceeds else ""
    yield f"somewhere from {percent(low)} to {percent(high)}{strict}"
    if way := narrower(row, against):
        yield f"narrower by {way}"


def _interval(row: Row) -> str:
    """Return the tolerance, and where a change lies for sure."""
    if row.verdict.tolerance is None or row.verdict.outcome is Outcome.INCONCLUSIVE or not row.verdict.change:
        return ""
    low, high = row.verdict.interval or (None, None)
    between = f"{percent(low)} to {percent(high)}, " if row.metric.kind == "noisy" and low is not None else ""
    then = "" if row.verdict.baseline is None else f"was {quantity(row.verdict.baseline, row.metric.unit)}, "
    return f"{then}{between}tolerance {100 * row.verdict.tolerance:g} %"


def _now(row: Row) -> str:
    """Format today's figure, or the stored one if there is none, in the metric's own unit."""
    value = row.verdict.now if row.verdict.now is not None else row.verdict.baseline
    return quantity(value, elide(row.metric.unit, _UNIT))


def bar(row: Row) -> str:
    """Draw a change, a loss solid and a gain light; the stroke in the middle is the tolerance."""
    change, tolerance = row.verdict.change, row.verdict.tolerance
    if change is None or not tolerance:
        return ""
    loss = change if row.metric.better == "lower" else -change
    share = abs(loss) / tolerance
    cells = [_cell(8 * (share * _CELLS - number)) for number in range(2 * _CELLS)]
    if share > 2:
        cells[-1] = "▶"
    text = f"{''.join(cells[:_CELLS])}│{''.join(cells[_CELLS:])}"
    return text if loss >= 0 else "".join("░" if each in _EIGHTHS[1:] else each for each in text)


def _cell(eighths: float) -> str:
    return _EIGHTHS[max(0, min(8, round(eighths)))]


def _rate(row: Row) -> str:
    """Return the declared work's rate and its share of the most: what is nearer to its limit, of the two.

    Bytes are held to the device's own measured copy, operations to its fp32 units without tensor cores, which
    tensor cores may exceed: no share is shown then.
    """
    found = []
    if moved := row.details.get("bytes_per_second"):
        found.append((row.details.get("of_copy", 0.0), f"{moved / 1e9:.0f} GB/s"))
    if done := row.details.get("flops_per_second"):
        share = row.details.get("of_fp32", 0.0)
        found.append((share if share <= 1 else 0.0, f"{done / 1e12:.3g} TFLOP/s"))
    if watts := row.details.get("watts"):
        found.append((0.0, f"{watts:.0f} W"))
    share, rate = max(found, key=lambda each: each[0], default=(0.0, ""))
    return f"{rate} {100 * share:3.0f} %" if share else rate


# --------------------------------------------------------------------------- as text


def layout(lines: Sequence[Line], width: int, wrap: bool) -> Iterator[tuple[Line, str]]:
    """Yield the texts of each line, none wider than ``width`` and nothing cut; first come the titles.

    What is told below a line is one line too unless ``wrap``: a log is searched, a terminal is read.

    A name that leaves no room for its figures has them in the next line, in the same columns.
    """
    rated = any(line.figures[3] for line in lines)
    titles = Line(None, "verdict", "test", (*_TITLES[:3], _TITLES[3] if rated else ""))
    listed = [titles, *(line for line in lines if line.outcome is not None)]
    verdict = max(len(line.verdict) for line in listed)
    columns = [max(len(line.figures[column]) for line in listed) for column in range(4)]
    room = width - verdict - 2 - sum(2 + column for column in columns if column)
    name = min(room, max(len(line.name) for line in listed)) if room >= _LEAST else 0
    for line in (titles, *lines):
        if line.outcome is None and line is not titles:
            yield from ((line, text) for text in _wrapped(line.name, width, ""))
            continue
        cells = "".join(
            f"  {cell:>{size}}" for cell, size in zip(line.figures, columns, strict=True) if size
        ).rstrip()
        yield from ((line, text) for text in _texts(line, cells, verdict, name, width))
        for told in line.told:
            indent = " " * min(verdict + 4, width // 4)
            yield from ((line, text) for text in _wrapped(told, width if wrap else 10_000, indent, indent))


def _texts(line: Line, cells: str, verdict: int, name: int, width: int) -> Iterator[str]:
    """Yield a verdict's lines: name and figures in one, or the figures below."""
    if name and len(line.name) <= name:
        yield f"{line.verdict:<{verdict}}  {line.name:<{name}}{cells}".rstrip()
        return
    below = " " * (len(line.name) - len(line.name.lstrip()) + 2)
    yield from _wrapped(line.name.lstrip(), width, f"{line.verdict:<{verdict}}{below}", " " * verdict + below)
    if cells and name:
        yield " " * (verdict + 2 + name) + cells
    elif cells:
        yield from _wrapped("  ".join(filter(None, line.figures)), width, "    ")


def _wrapped(text: str, width: int, first: str, rest: str = "  ") -> list[str]:
    return textwrap.wrap(
        text, max(width, 20), initial_indent=first, subsequent_indent=rest, break_on_hyphens=False
    ) or [first]
