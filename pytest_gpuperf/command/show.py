"""List the stored baselines: of each pool its files, metrics, units, runs and age.

With FILE.py or FILE.py::TEST every metric of those is listed, with value, spread and where it comes from.
"""

from __future__ import annotations

import argparse
import datetime
import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from operator import itemgetter
from typing import TYPE_CHECKING

from pytest_gpuperf.command.folders import baselines, declare_baselines, is_of, suite_and_test
from pytest_gpuperf.errors import GpuperfError
from pytest_gpuperf.text import counted

if TYPE_CHECKING:
    from pytest_gpuperf.measurement import Baseline, Run
    from pytest_gpuperf.storage.baselines import Store


def declare(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("tests", nargs="*", metavar="FILE.py[::TEST]", help="list each metric of these")
    parser.add_argument("--pool", metavar="NAME", help="only this pool, by its folder's name")
    parser.add_argument("--all", action="store_true", help="list each metric of all tests")
    parser.add_argument("--json", action="store_true", help="print it as JSON, each metric of each test")
    declare_baselines(parser)


@dataclass(frozen=True, slots=True)
class Line:
    """One metric of one test in one pool, and how it was recorded."""

    pool: str
    suite: str
    test: str
    metric: str
    unit: str
    better: str
    kind: str
    instrument: str
    value: float
    spread: float | None
    runs: int
    left_out: int
    units: tuple[str, ...]
    first: str
    last: str
    commit: str
    dirty: bool
    drivers: tuple[str, ...]


def run(given: argparse.Namespace) -> int:
    """Print the pools, or the metrics that were asked for."""
    from pytest_gpuperf.figures import slug
    from pytest_gpuperf.storage.baselines import Store

    folder, owner = baselines(given.baselines)
    store = Store(folder)
    pools = store.pools()
    if given.pool is not None:
        if slug(given.pool) not in pools:
            raise GpuperfError(
                f"{folder} has no pool {given.pool!r}, but {', '.join(pools) or 'none at all'}"
            )
        pools = [slug(given.pool)]
    wanted = [suite_and_test(each, owner) for each in given.tests]
    lines = [line for line in _lines(store, pools) if not wanted or _is_wanted(line, wanted)]
    if wanted and not lines:
        raise GpuperfError(
            f"{folder} has no baselines of {' '.join(given.tests)}; gpuperf show lists its files"
        )
    if given.json:
        print(json.dumps([asdict(line) for line in lines], indent=2))
        return 0
    if not lines:
        print(f"{folder}: no baselines")
    for pool in pools:
        _print_pool(pool, [line for line in lines if line.pool == pool], each=bool(wanted) or given.all)
    if not wanted:
        _print_others(store)
    return 0


def _lines(store: Store, pools: Sequence[str]) -> Iterator[Line]:
    for pool in pools:
        for key, name, each in sorted(store.all_of(pool), key=itemgetter(0, 1)):
            yield _line(pool, key.suite, key.name, name, each)


def _line(pool: str, suite: str, test: str, name: str, baseline: Baseline) -> Line:
    metric, runs = baseline.metric, baseline.runs
    newest = runs[-1].environment
    dates = sorted(str(run.environment.get("date", ""))[:10] for run in runs)
    return Line(
        pool, suite, test, name, metric.unit, metric.better, metric.kind, metric.instrument,
        baseline.value, _spread(metric.kind, runs), len(runs), len(baseline.left_out),
        _distinct(runs, "device_uuid"), dates[0], dates[-1],
        str(newest.get("commit", "")), bool(newest.get("dirty")), _distinct(runs, "driver"),
    )  # fmt: skip


def _spread(kind: str, runs: Sequence[Run]) -> float | None:
    """Return how far apart the runs' values are, as a fraction; None for one run, or an exact figure."""
    values = [run.value for run in runs]
    return math.log(max(values) / min(values)) if kind == "noisy" and len(values) > 1 else None


def _distinct(runs: Sequence[Run], key: str) -> tuple[str, ...]:
    return tuple(sorted({str(run.environment[key]) for run in runs if run.environment.get(key)}))


def _is_wanted(line: Line, wanted: Sequence[tuple[str, str]]) -> bool:
    return any(line.suite == suite and is_of(line.test, test) for suite, test in wanted)


# --------------------------------------------------------------------------- printing


def _print_pool(pool: str, lines: Sequence[Line], each: bool) -> None:
    if not lines:
        return
    print(f"{pool}  {_summary(lines)}")
    for suite in dict.fromkeys(line.suite for line in lines):
        some = [line for line in lines if line.suite == suite]
        print(f"  {suite}  {_summary(some)}")
        for test in dict.fromkeys(line.test for line in some) if each else ():
            print(f"    {test}")
            for line in some:
                if line.test == test:
                    print(f"      {_figure(line)}")


def _summary(lines: Sequence[Line]) -> str:
    tests, units = (
        {(line.suite, line.test) for line in lines},
        {unit for line in lines for unit in line.units},
    )
    oldest, newest = min(line.last for line in lines), max(line.last for line in lines)
    parts = [counted(len(tests), "test"), counted(len(lines), "metric")]
    parts += [counted(len(units), "unit")] if units else []  # a CPU is named by no run
    parts.append(
        f"recorded {newest} ({_age(newest)})" if newest == oldest else f"recorded {oldest} to {newest}"
    )
    return ", ".join(parts)


def _figure(line: Line) -> str:
    from pytest_gpuperf.figures import quantity
    from pytest_gpuperf.git import of_commit

    spread = f" (runs within {100 * line.spread:.1f} %)" if line.spread is not None else ""
    runs = counted(line.runs, "run") + (f" on {len(line.units)} units" if len(line.units) > 1 else "")
    left_out = f", {line.left_out} left out" if line.left_out else ""
    value = f"{quantity(line.value, line.unit)}{spread}"
    when = f"{line.last}{of_commit(line.commit, line.dirty)}"
    return f"{value:<32}  {line.metric}  {runs}{left_out}, {when}"


def _age(day: str) -> str:
    try:
        days = (datetime.datetime.now(datetime.UTC).date() - datetime.date.fromisoformat(day)).days
    except ValueError:
        return "undated"
    return "today" if days < 1 else f"{counted(days, 'day')} ago"


def _print_others(store: Store) -> None:
    """Name the calibrations and the quarantine that stand beside the pools."""
    from pytest_gpuperf.storage.calibrations import results
    from pytest_gpuperf.storage.project import QUARANTINE, read_quarantine

    for path in results(store.folder, ""):
        print(f"calibration  {path.name}")
    today = datetime.date.today()
    for entry in read_quarantine(store.folder / QUARANTINE, store.folder, optional=True):
        state = "EXPIRED" if entry.expired(today) else "until"
        print(f"quarantine   {entry.test}  {state} {entry.expires}: {entry.reason} ({entry.owner})")
