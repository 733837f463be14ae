"""Print the header and the summary at the end of a run, readable at 80 columns, failures first."""

from __future__ import annotations

import shlex
import shutil
import sys
import textwrap
from collections.abc import Callable, Iterable, Iterator, Sequence

import pytest

from pytest_gpuperf.backends import is_modelled
from pytest_gpuperf.figures import quantity
from pytest_gpuperf.measurement import JUDGED, Outcome, TestKey
from pytest_gpuperf.options import Options
from pytest_gpuperf.records import Record, Row
from pytest_gpuperf.report.table import counts, layout, table
from pytest_gpuperf.report.update import WARNING, to_record
from pytest_gpuperf.rules.creep import unseen_loss
from pytest_gpuperf.rules.lacking import NEW_IN_PLUGIN
from pytest_gpuperf.text import counted, inert

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
_ASCII = str.maketrans({"µ": "u", "…": "~", "│": "|", "▶": ">", "░": "-", **dict.fromkeys("▏▎▍▌▋▊▉█", "#")})
_EXIT_CODES = {
    1: "no test failed, but the run as a whole did, as said above",
    20: "the machine was not fit, or not free: run again, elsewhere",
    21: "the machine or its software moved, not the code: record anew",
    22: "set-up is missing (baseline, device or tool): record, or install",
}


def title(records: Iterable[Record]) -> str:
    """Name the devices that were measured on."""
    devices = set()
    for record in records:
        backend = str(record.device.get("backend"))
        name = str(record.environment.get("device_name", "the host"))
        devices.add(name if backend in name else f"{name} ({backend})")
    return ", ".join(sorted(devices)) or "nothing was measured"


def summarise(
    reporter: pytest.TerminalReporter,
    title: str,
    rows: Sequence[Row],
    lines: Iterable[str],
    *,
    verbosity: int = 0,
    against: bool = False,
) -> None:
    """Print the table and the counts by verdict, then ``lines``.

    ``verbosity`` is pytest's: with -qq only what somebody must act on has a line in the table, with -qqq
    nothing has.
    """
    width = _width()
    plain = _as_encoded()

    def write(line: str, **markup: bool) -> None:
        reporter.write_line(plain(inert(line)), **markup)

    reporter.write_sep("=", plain(inert(f"gpuperf: {title}")))
    found = table(rows, against=against, verbose=verbosity > 0, quiet=verbosity < -1)
    if found and verbosity >= -2:
        for line, text in layout(found, width, wrap=getattr(reporter, "isatty", False)):
            told = line.outcome is None or (text.startswith(" ") and text.strip() in line.told)
            write(text, **({} if told or line.outcome is None else _COLOURS.get(line.outcome, {})))
    if rows:
        write(counts(rows))
    if verbosity >= -1:
        show_percentiles(reporter, rows)
    for text in lines:
        loud = {"yellow": True, "bold": True} if text.startswith(WARNING) else {}
        for part in _fitting(text, width) if getattr(reporter, "isatty", False) else (text,):
            write(part, **loud)


def _width() -> int:
    return max(40, min(shutil.get_terminal_size().columns, 200))


def _fitting(text: str, width: int) -> Iterator[str]:
    """Yield the lines of a text as a terminal shows them best: words whole, and commands as they are."""
    for line in text.split("\n"):
        if line.startswith("  ") or len(line) <= width:  # a command to be pasted stands indented
            yield line
        else:
            yield from textwrap.wrap(line, width, break_long_words=False, break_on_hyphens=False)


def _as_encoded() -> Callable[[str], str]:
    """Return what makes text printable where the output is not Unicode; pytest would write escapes."""
    encoding = getattr(sys.__stdout__, "encoding", None) or "utf-8"
    try:
        "µ█│▶░…".encode(encoding)
    except (UnicodeEncodeError, LookupError):
        return lambda text: text.translate(_ASCII)
    return lambda text: text


def settings(options: Options) -> str:
    """Return the header's line: how this run measures and what it compares with."""
    if options.against:
        compared = f"against {options.against} in {options.blocks} blocks"
    else:
        at = f" at {options.terms}" if options.terms else ""
        if options.accept:
            at = f", accepted whatever {options.baselines_from} has"
        compared = f"baselines in {options.baselines}{at}"
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
    lines += improvements(rows)
    if new := sum(row.verdict.reason == NEW_IN_PLUGIN for row in rows):
        lines.append(
            "New in this version of pytest-gpuperf, and not judged yet: "
            f"{counted(new, 'metric')}. To record:\n  {update}=new"
        )
    judged_by = "" if options.accept else str(options.baselines_from or "")
    lines += to_record(rows, update, judged_by)
    if Outcome.NO_BASELINE in outcomes and not outcomes & set(JUDGED):
        lines.append(f"There is no baseline yet. To arm the gate:\n  {update}")
    elif Outcome.NO_BASELINE in outcomes:
        lines.append(f"Some metrics have no baseline. To record only those:\n  {update}=new")
    return lines


def improvements(rows: Sequence[Row]) -> Iterator[str]:
    """Yield what a later loss could hide behind, once a test: its metrics are recorded together."""
    tests: dict[tuple[TestKey, str, str], float] = {}
    for row in rows:
        if row.verdict.outcome is Outcome.IMPROVED and (loss := unseen_loss(row.metric, row.verdict)):
            way = f"\n  if {row.details['better']}" if "better" in row.details else ""
            key = row.test, row.command, way
            tests[key] = max(tests.get(key, 0.0), loss)
    for (test, command, way), loss in tests.items():
        yield (
            f"{test} improved: until its baseline is updated,\n  a later loss of "
            f"{100 * loss:.3g} % would pass unseen. To update it:\n  {command} --gpuperf-update{way}"
        )


def _is_this_hosts(row: Row) -> bool:
    """Return whether a metric is only shown since nothing keeps the host's clock quiet."""
    shown = row.metric.kind == "shown" and row.metric.constants.where == "host"
    return shown and not {"kind", "warning"} & row.details.keys()


def exit_code(status: int, pytests: int, failed: bool) -> list[str]:
    """Say why the run ends with ``status`` where pytest alone would have ended with ``pytests``.

    ``failed``: a test did.
    """
    why = "a test failed, whatever the session was ended with" if failed and status == 1 else ""
    return [] if status == pytests else [f"exit code {status}: {why or _EXIT_CODES[status]}"]


# --------------------------------------------------------------------------- LoadGen's percentiles

_COLUMN = 9
_QUERIES = 8
_LEAST = 10  # columns of the names, below which figures stand in lines of their own


def show_percentiles(reporter: pytest.TerminalReporter, rows: Sequence[Row]) -> None:
    """Print a line a phase. A percentile without enough queries is in brackets and grey: it is not judged."""
    phases = [row for row in rows if "percentiles" in row.details]
    if not phases:
        return
    files = {row.test.suite for row in phases}
    labels = [inert(row.test.name if len(files) == 1 else str(row.test)) for row in phases]
    names = list(dict.fromkeys(name for row in phases for name in row.details["percentiles"]))
    width = _width()
    room = width - _QUERIES - _COLUMN * len(names)
    if room < _LEAST:
        _list_percentiles(reporter, labels, phases, width)
        return
    room = min(room, max(_LEAST, *map(len, labels)))
    titles = "".join(f"{_percentile(name):>{_COLUMN}}" for name in names)
    reporter.write_line(f"{'latency':<{room}}{'queries':>{_QUERIES}}{titles}")
    for label, row in zip(labels, phases, strict=True):
        if len(label) > room:
            reporter.write_line(label)
        reporter.write(f"{label if len(label) <= room else '':<{room}}{row.details['queries']:>{_QUERIES}}")
        for name in names:
            cell, enough = _latency(*row.details["percentiles"].get(name, ()))
            reporter.write(f"{cell:>{_COLUMN}}", light=not enough)
        reporter.write_line("")


def _list_percentiles(
    reporter: pytest.TerminalReporter, labels: Sequence[str], phases: Sequence[Row], width: int
) -> None:
    """Print each phase's figures below its name, for a terminal too narrow for columns."""
    for label, row in zip(labels, phases, strict=True):
        found = row.details["percentiles"].items()
        cells = [f"{_percentile(name)} {_latency(*each)[0]}" for name, each in found]
        text = ", ".join([f"{row.details['queries']} queries", *cells])
        for part in (label, *textwrap.wrap(text, width, initial_indent="  ", subsequent_indent="  ")):
            reporter.write_line(part)


def _percentile(name: str) -> str:
    return name.replace("_", ".")


def _latency(seconds: float | None = None, enough: bool = True) -> tuple[str, bool]:
    text = quantity(seconds, "s", 3).replace(" ", "")
    return text if enough else f"({text})", enough
