"""Compare two runs of --gpuperf-json, or the stored baselines of two git revisions.

A and B are result files, or revisions; without B the baselines are compared with this checkout's. Of two
result files of one commit, on an old and a new driver, it makes the table for the pull request that moves it.
"""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from pytest_gpuperf.command.folders import baselines, declare_baselines
from pytest_gpuperf.errors import GpuperfError

if TYPE_CHECKING:
    from pytest_gpuperf.command.sides import Change, Side

# In the order in which they are listed; the last is counted alone.
_MARKS = {
    "worse": "🔴",
    "unclear": "🟡",
    "another question": "🟡",
    "only in A": "🟡",
    "only in B": "🟡",
    "better": "🟢",
    "same": "",
}


def declare(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("a", metavar="A", help="a result file, or a git revision: the old side")
    parser.add_argument(
        "b", metavar="B", nargs="?", help="the new side, of the same kind (default: this checkout)"
    )
    parser.add_argument("--markdown", action="store_true", help="print a table for a pull request")
    parser.add_argument("--all", action="store_true", help="list what is the same, too")
    declare_baselines(parser)


def run(given: argparse.Namespace) -> int:
    """Print what differs: the environment first, then the figures."""
    from pytest_gpuperf.command.sides import changes

    old, new = _sides(given)
    found = sorted(changes(old, new), key=lambda change: [*_MARKS].index(change.word))
    shown = [change for change in found if given.all or change.word != "same"]
    lines = _markdown if given.markdown else _plain
    print("\n".join(lines(old, new, shown, _summary(found))))
    return 0


def _sides(given: argparse.Namespace) -> tuple[Side, Side]:
    from pytest_gpuperf.command.sides import of_results, of_store
    from pytest_gpuperf.git import resolve
    from pytest_gpuperf.storage.baselines import Store
    from pytest_gpuperf.storage.revisions import StoreAt

    files = [Path(each).is_file() for each in (given.a, given.b) if each is not None]
    if any(files):
        if given.b is None or not all(files):
            raise GpuperfError(
                f"{given.a if files[0] else given.b} is a file: give two result files of --gpuperf-json, "
                "or two git revisions"
            )
        return of_results(Path(given.a)), of_results(Path(given.b))
    for each in (given.a, given.b):
        if each is not None and each.endswith(".json"):
            raise GpuperfError(f"{each}: there is no such file; pytest --gpuperf-json={each} writes one")
    folder, _ = baselines(given.baselines, must_exist=given.b is None)
    old = resolve(Path.cwd(), given.a)
    first = of_store(StoreAt(folder, old), f"the baselines at {old}")
    if given.b is None:
        return first, of_store(Store(folder), "this checkout's baselines")
    new = resolve(Path.cwd(), given.b)
    return first, of_store(StoreAt(folder, new), f"the baselines at {new}")


def _summary(found: Sequence[Change]) -> str:
    counts = Counter(change.word for change in found)
    return ", ".join(f"{counts[word]} {word}" for word in _MARKS if counts[word]) or "nothing to compare"


def _plain(old: Side, new: Side, shown: Sequence[Change], summary: str) -> Iterator[str]:
    from pytest_gpuperf.command.sides import surroundings

    yield f"A  {old.label}\nB  {new.label}"
    for pool, differing in surroundings(old, new).items():
        yield f"environment  {pool}"
        yield from (f"  {line}" for line in differing)
    for word in _MARKS:
        some = [change for change in shown if change.word == word]
        if some:
            yield f"{word}"
        heading: tuple[str, str] | None = None
        for change in some:
            if heading != (change.pool, change.test):
                heading = change.pool, change.test
                yield f"  {change.test}  [{change.pool}]"
            yield f"    {change.metric}  {change.figures}"
            if change.why:
                yield f"      {change.why}"
    yield summary


def _markdown(old: Side, new: Side, shown: Sequence[Change], summary: str) -> Iterator[str]:
    from pytest_gpuperf.command.sides import surroundings

    yield f"**gpuperf: {summary}**\n\nA: {_cell(old.label)}  \nB: {_cell(new.label)}"
    for pool, differing in surroundings(old, new).items():
        yield f"\nWhat surrounds them on `{pool}`:\n"
        yield from (f"- {_cell(line)}" for line in differing)
    if shown:
        yield "\n| | pool | test | metric | A -> B | |\n|---|---|---|---|---|---|"
    for change in shown:
        what = f"{_MARKS[change.word]} {change.word}".strip()
        cells = (what, change.pool, f"`{change.test}`", f"`{change.metric}`", change.figures, change.why)
        yield f"| {' | '.join(map(_cell, cells))} |"


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")
