"""Write a run's verdicts as Markdown for a pull request, and its failures as GitHub's annotations."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType

from pytest_gpuperf.figures import percent
from pytest_gpuperf.measurement import Outcome
from pytest_gpuperf.records import Row
from pytest_gpuperf.report.message import from_to
from pytest_gpuperf.report.table import calm, counts, rank
from pytest_gpuperf.text import counted, printable

_HEAD = "| verdict | test | metric | baseline | now | change | interval |\n|---|---|---|--:|--:|--:|--:|"
MARKER = "<!-- gpuperf -->"
"""By which the workflow of docs/ci.md finds its own comment again."""
_COMMANDS = ("  pytest ", "  gpuperf ")
_MOST = 200  # rows of a table: GitHub takes a comment of 65,536 characters, and a summary of 1 MiB
_TO_DO = {
    0: "Nothing to do: what was measured is as fast as its baseline.",
    1: "Look at the tests below: something regressed, or a test failed.",
    20: "Run again, elsewhere: the machine was not fit to measure, or not free.",
    21: "Record new baselines: the machine or its software moved, not the code.",
    22: "Record or install what is missing: a baseline, a device or a tool.",
}


def markdown(
    title: str,
    rows: Sequence[Row],
    lines: Iterable[str],
    status: int,
    failed: Mapping[str, str] = MappingProxyType({}),
    judged_by: str = "",
) -> str:
    """Return the summary: the verdict first, then what changed; what did not, and the notes, are folded.

    ``failed`` is why each failed test did, by its name: one whose own assertion failed has no row.
    ``judged_by`` are the flags, each after a space, by which the run judged.
    """
    changed = sorted((row for row in rows if not calm(row)), key=rank)
    improved = [row for row in rows if row.verdict.outcome is Outcome.IMPROVED and not row.excuse]
    rest = [row for row in rows if calm(row) and row.verdict.outcome is not Outcome.IMPROVED]
    verdict = counts(rows) or "nothing was measured"
    parts = [
        f"**gpuperf: {'passed' if status == 0 else 'failed'}**: {verdict} on {_data(title)}",
        _TO_DO.get(status, f"The run ended with exit code {status}."),
    ]
    if changed or improved:
        parts.append(_table([*changed, *improved]))
    told = {str(row.test) for row in changed}
    others = [f"- {_data(test)}: {_data(why)}" for test, why in failed.items() if test not in told]
    if others:
        more = [f"- and {len(others) - _MOST} more"] if len(others) > _MOST else []
        parts.append("\n".join(["Failed otherwise:\n", *others[:_MOST], *more]))
    commands = dict.fromkeys(row.command + judged_by for row in changed if row.cause and row.command)
    if commands:
        again = "\n".join(f"    {printable(command)}" for command in list(commands)[:10])
        parts.append(f"To see it again:\n\n{again}")
    if rest:
        parts.append(_folded(counted(len(rest), "more metric"), _table(rest)))
    if said := "\n".join(map(_note, lines)):
        parts.append(_folded("Notes", said))
    return "\n\n".join([*parts, MARKER]) + "\n"


def _table(rows: Sequence[Row]) -> str:
    cells = [" | ".join(("", *map(_data, _cells(row)), "")).strip() for row in rows[:_MOST]]
    more = [f"\nand {len(rows) - _MOST} more"] if len(rows) > _MOST else []
    return "\n".join([_HEAD, *cells, *more])


def _cells(row: Row) -> tuple[str, ...]:
    then, now = from_to(row)
    low, high = row.verdict.interval or (None, None)
    between = "" if low is None else f"{percent(low)} to {percent(high)}"
    change = percent(row.verdict.change, row.verdict.baseline)
    return row.label, str(row.test), row.metric.name, then, now, change, between


def _note(text: str) -> str:
    """Return a line of the summary as an item of a list: commands, and what a failed test shows, as code."""
    said, code = list[str](), list[str]()
    for line in text.splitlines():
        wrapped = re.match(r"  \S", line) and not line.startswith(_COMMANDS)
        (code if said and not wrapped else said).append(line)
    shown = "".join(f"\n      {printable(line[2:] if line.startswith(_COMMANDS) else line)}" for line in code)
    return f"- {_data(' '.join(line.strip() for line in said))}" + (f"\n{shown}" if shown else "")


def _folded(title: str, text: str) -> str:
    return f"<details><summary>{title}</summary>\n\n{text}\n\n</details>"


def _data(text: str) -> str:
    """Return text that is shown as it is: no name is markup, a link, a mention or the end of a cell."""
    return re.sub(r"[^A-Za-z0-9 .,+%µ-]", lambda found: f"&#{ord(found[0])};", printable(text))


def write(text: str, asked: str | None, folder: Path) -> None:
    """Write the summary to the file that was ``asked`` for, and add it to GitHub's; raises OSError."""
    if asked:
        (folder / asked).write_text(text, encoding="utf-8")
    if step := os.environ.get("GITHUB_STEP_SUMMARY"):
        with open(step, "a", encoding="utf-8") as file:
            file.write(text)


def annotation(path: str, line: int, title: str, why: str) -> str:
    """Return GitHub's workflow command that marks a line; what is printed in it stays data."""
    place = f"file={_property(path)},line={line},title={_property(title)}"
    return f"::error {place}::{_message(why)}"


def _message(text: str) -> str:
    return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _property(text: str) -> str:
    return _message(text).replace(":", "%3A").replace(",", "%2C")
