"""Print the header and the summary at the end of a run, readable at 80 columns, failures first."""

from __future__ import annotations

import shlex
import shutil
import textwrap
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Sequence

import pytest

from pytest_gpuperf.backends import is_modelled
from pytest_gpuperf.figures import quantity
from pytest_gpuperf.measurement import JUDGED, Metric, Outcome, TestKey, Verdict
from pytest_gpuperf.options import Options
from pytest_gpuperf.records import Record, Row
from pytest_gpuperf.report.message import elide, percent
from pytest_gpuperf.report.update import WARNING, to_record
from pytest_gpuperf.rules.lacking import NEW_IN_PLUGIN
from pytest_gpuperf.text import inert

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
    Outcome.UNCHANGED: {"green": True},
}
_EXIT_CODES = {
    1: "no test failed, but the run as a whole did, as said above",
    20: "the machine was not fit, or not free: run again, elsewhere",
    21: "the machine or its software moved, not the code: record anew",
    22: "set-up is missing (baseline, device or tool): record, or install",
}
# What nobody has to act on is one line a test, where it has many metrics (counters come by the half dozen).
_MANY = 4
_UNIT = 16  # columns of the longest unit
_FOLDED = {Outcome.NO_BASELINE, Outcome.EQUAL, Outcome.SHOWN, Outcome.IMPROVED, Outcome.UNCHANGED}


def title(records: Iterable[Record]) -> str:
    """Name the devices that were measured on."""
    devices = {
        f"{record.environment.get('device_name', 'no device')} ({record.device.get('backend')})"
        for record in records
    }
    return ", ".join(sorted(devices)) or "nothing was measured"


def summarise(
    reporter: pytest.TerminalReporter, title: str, rows: Sequence[Row], lines: Iterable[str]
) -> None:
    """Print the table and the counts by verdict, then ``lines``."""

    def write(line: str, **markup: bool) -> None:
        reporter.write_line(inert(line), **markup)

    reporter.write_sep("=", inert(f"gpuperf: {title}"))
    table = _table(rows)
    if table:
        width = max(80, min(shutil.get_terminal_size().columns, 120))
        rate = "rate, share" if any(_rate(row) for row in rows) else ""
        header = ("verdict", "test", "now", "change", rate)
        widths = _widths([header, *(cells for _, cells, _ in table)], width)
        write(_line(header, widths))
        short = Counter(elide(cells[1], widths[1]) for _, cells, _ in table)
        for outcome, cells, told in table:
            verdict, name, *figures = cells
            alike = short[elide(name, widths[1])] > 1  # shortened, it would be another's name too
            first, *more = textwrap.wrap(name, max(1, widths[1]), break_on_hyphens=False) if alike else [name]
            write(_line((verdict, first, *figures), widths), **_COLOURS.get(outcome, {}))
            for rest in more:
                write(f"{'':<{widths[0]}}  {rest}")
            for text in told:
                write(f"{'':<{widths[0]}}    {text}")
        counts = Counter((_rank(row), row.label) for row in rows)
        write(", ".join(f"{count} {label}" for (_, label), count in sorted(counts.items())))
    show_percentiles(reporter, rows)
    for line in lines:
        loud = {"yellow": True, "bold": True} if line.startswith(WARNING) else {}
        write(line, **loud)


def settings(options: Options) -> str:
    """Return the header's line: how this run measures and what it compares with."""
    if options.against:
        compared = f"against {options.against} in {options.blocks} blocks"
    else:
        at = f" at {options.terms}" if options.terms else ""
        if options.accept:
            at = f", accepted whatever {options.baselines_from} has"
        compared = f"baselines {options.baselines}{at}"
    strict = "on" if options.strict else "off"
    return f"gpuperf: backend {options.backend}, strict {strict}, {compared}"


def next_steps(
    rows: Sequence[Row], records: Iterable[Record], options: Options, command: Callable[..., str]
) -> list[str]:
    """Say what the figures leave open: how to arm the gate, and what an improvement hides.

    ``command`` makes the one that measures some tests, by default those of this run.
    """
    lines = []
    update = f"{command()} --gpuperf-update"
    outcomes = {row.verdict.outcome for row in rows}
    if any(is_modelled(record.device) for record in records):
        lines.append("Emulated: times are this CPU's, shown and never judged; counters are modelled.")
        if options.pool:
            lines.append(f"Emulated figures join no pool of devices, and so not {options.pool!r}.")
    if any(_is_this_hosts(row) for row in rows):
        lines.append(
            "Times and rates of this host are shown, not judged: it has no GPU and is not dedicated to\n"
            "  measuring (ini key gpuperf_judge_host_times)."
        )
    if options.only_records or options.against:
        return lines
    if moved := [row for row in rows if row.verdict.outcome is Outcome.ENVIRONMENT_MOVED]:
        tests = dict.fromkeys(shlex.split(row.command)[1] for row in moved)
        lines.append(
            "The machine or its software moved, and the code did not. To take its figures\n"
            f"  as the new baseline:\n  {command(*tests)} --gpuperf-update"
        )
    for row in rows:
        if row.verdict.outcome is Outcome.IMPROVED and (loss := unseen_loss(row.metric, row.verdict)):
            way = f"\n  if {row.details['better']}" if "better" in row.details else ""
            lines.append(
                f"{row.test} improved: until its baseline is updated,\n  a later loss of "
                f"{100 * loss:.1f} % would pass unseen. To update it:\n  {row.command} --gpuperf-update{way}"
            )
    if new := sum(row.verdict.reason == NEW_IN_PLUGIN for row in rows):
        lines.append(
            f"{new} metric(s) are new in this version of pytest-gpuperf, and not judged yet. To record\n"
            f"  them:\n  {update}=new"
        )
    lines += to_record(rows, update)
    if Outcome.NO_BASELINE in outcomes and not outcomes & set(JUDGED):
        lines.append(f"Nothing was judged, since there is no baseline yet. To arm the gate:\n  {update}")
    elif Outcome.NO_BASELINE in outcomes:
        lines.append(f"Some metrics have no baseline. To record only those:\n  {update}=new")
    return lines


def _is_this_hosts(row: Row) -> bool:
    """Return whether a metric is only shown since nothing keeps the host's clock quiet."""
    shown = row.metric.kind == "shown" and row.metric.constants.where == "host"
    return shown and not {"kind", "warning"} & row.details.keys()


def exit_code(status: int, pytests: int) -> list[str]:
    """Say why the run ends with ``status`` where pytest alone would have ended with ``pytests``."""
    return [] if status == pytests else [f"exit code {status}: {_EXIT_CODES[status]}"]


def unseen_loss(metric: Metric, verdict: Verdict) -> float | None:
    """Return how much of today's figure could be lost again unseen while the old baseline stands.

    A fraction of ``verdict.now`` on the worse side: with a baseline of 10 ms, 8 ms now and a
    tolerance of 2 %, a later loss of 27.5 % passes. None where it is not a fraction (now is 0) or
    there is nothing to compare.
    """
    if verdict.baseline is None or verdict.tolerance is None or not verdict.now:
        return None
    slack = verdict.tolerance * abs(verdict.baseline)
    if metric.better == "lower":
        loss = verdict.baseline + slack - verdict.now
    elif metric.kind == "exact":
        loss = verdict.now - (verdict.baseline - slack)
    else:
        loss = verdict.now - verdict.baseline / (1 + verdict.tolerance)
    return max(0.0, loss / abs(verdict.now))


# --------------------------------------------------------------------------- the table


def _table(rows: Sequence[Row]) -> list[tuple[Outcome, tuple[str, ...], list[str]]]:
    """Return the cells of each line and what is told below it, failures first, then in the suites' order."""
    groups: dict[tuple[int, TestKey, str, str], list[Row]] = {}
    several = Counter((row.test, row.label) for row in rows)
    for row in rows:
        folded = row.verdict.outcome in _FOLDED and several[row.test, row.label] >= _MANY
        metric = "" if folded else row.metric.name
        groups.setdefault((_rank(row), row.test, row.label, metric), []).append(row)
    crowded = {row.test for row in rows if several[row.test, row.label] > 1}
    names = _names({row.test for row in rows})
    return [
        (list(Outcome)[rank], _cells(group, names[key], key in crowded), _told(group))
        for (rank, key, _, _), group in sorted(groups.items(), key=lambda entry: entry[0])
    ]


def _told(group: Sequence[Row]) -> list[str]:
    """Return what no failure's text says of a line's metrics: why they were not judged, or as what."""
    reasons = [row.verdict.reason for row in group if row.verdict.outcome in _FOLDED]
    reasons = [reason for reason in reasons if reason != NEW_IN_PLUGIN]  # next_steps says so once
    ways = [str(row.details.get("better", "")) for row in group]
    unclear = [_unclear(row) for row in group]
    return [text for text in dict.fromkeys((*reasons, *unclear, *ways)) if text]


def _unclear(row: Row) -> str:
    """Say between what a loss lies that was not confirmed and fails nothing, "" for anything else."""
    decided = row.verdict
    if (
        row.cause
        or decided.outcome is not Outcome.INCONCLUSIVE
        or not decided.exceeds
        or not decided.interval
    ):
        return ""
    low, high = decided.interval
    return f"somewhere from {percent(low)} to {percent(high)}, which fails under strict"


def _names(tests: Collection[TestKey]) -> dict[TestKey, str]:
    """Return what to call each test: its name, with its file where another file has a test of that name."""
    files = Counter(test.name for test in tests)
    return {test: str(test) if files[test.name] > 1 else test.name for test in tests}


def _rank(row: Row) -> int:
    """Return the row's place in the summary; what is excused is no failure."""
    return list(Outcome).index(Outcome.INCONCLUSIVE if row.excuse else row.verdict.outcome)


def _cells(group: Sequence[Row], test: str, name_metric: bool) -> tuple[str, ...]:
    row = group[0]
    if len(group) > 1:
        return row.label, test, f"{len(group)} metrics", "", ""
    name = f"{test} {row.metric.name}" if name_metric else test
    return row.label, name, _now(row), percent(row.verdict.change), _rate(row)


def _widths(table: Sequence[Sequence[str]], width: int) -> list[int]:
    """Make each column as wide as its widest cell; the test gets what is left, at most what it needs."""
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
    """Format today's figure, or the stored one if there is none, in the metric's own unit."""
    value = row.verdict.now if row.verdict.now is not None else row.verdict.baseline
    return quantity(value, elide(row.metric.unit, _UNIT))


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
    share, rate = max(found, key=lambda each: each[0], default=(0.0, ""))
    return f"{rate} {100 * share:3.0f} %" if share else rate


# --------------------------------------------------------------------------- LoadGen's percentiles

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
        # parameters are at a name's end; the table above has the whole
        name = row.test.name if len(row.test.name) <= room else f"…{row.test.name[1 - room :]}"
        reporter.write(f"{inert(name):<{room}} {row.details['queries']:>{_QUERIES}}")
        for seconds, enough in row.details["percentiles"].values():
            text = quantity(seconds, "s", 3).replace(" ", "")
            cell = text if enough else f"({text})"
            reporter.write(f"{cell:>{_COLUMN}}", light=not enough)
        reporter.write_line("")
