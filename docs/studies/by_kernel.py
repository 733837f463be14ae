"""What more real work did to each metric, unit by unit: its time or rate, and how often this package was red.

    python docs/studies/by_kernel.py docs/studies/recordings/h100
    python docs/studies/by_kernel.py docs/studies/recordings/h100 --model

Reads <unit>-work-<percent>.jsonl.xz, or with --model <unit>-model-<blocks>.jsonl.xz; judges every series
against the unit's own with nothing more, kernels at two tolerances and the model's metrics each at its own,
and prints Markdown. Draws are side_by_side.py's: each run once as the screen, baseline and replicas from the
same runs, so that the entries of a cell are no independent trials.
"""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

from pytest_gpuperf.rules.trial import Series

sys.path.insert(0, str(Path(__file__).parent))
from side_by_side import Case, cases, count, ours, recorded


@dataclass(frozen=True)
class Study:
    """Series named ``what``: so many ``unit`` more, judged at these tolerances (None: the metric's own)."""

    what: str
    unit: str
    amounts: tuple[int, ...]
    tolerances: tuple[float | None, ...]


WORK = Study("work", "% work", (0, 1, 2, 3, 5), (0.01, 0.02))
MODEL = Study("model", "blocks", (0, 1, 2), (None,))


def log_mean(series: Series) -> float:
    return fmean(math.log(measured.value) for measured in series.values.values())


def table(folder: Path, study: Study = WORK, only: Sequence[str] = ()) -> str:
    """Rows of metric and unit; cells of the change and the red runs at each tolerance.

    ``only`` these units, all by default; an amount that one of them was not measured at is left out.
    """
    chosen = only or units(folder, study)
    amounts = [a for a in study.amounts if all(_file(folder, unit, study, a).exists() for unit in chosen)]
    more = [f"+{amount} {study.unit}" for amount in amounts]
    lines = [f"| metric | unit | sd | {' | '.join(more)} |", "|---" * (3 + len(more)) + "|"]
    totals: dict[tuple[str, int, float | None], list[bool]] = {}
    for unit in chosen:
        runs = {amount: recorded(_file(folder, unit, study, amount)) for amount in amounts}
        found = {a: cases(runs[0], runs[a]) if a else cases(runs[0]) for a in amounts}
        for at, same in enumerate(found[0]):
            cells = []
            for amount in amounts:
                case = found[amount][at]
                reds = [count(ours(tolerance), [case]).tests for tolerance in study.tolerances]
                for tolerance, red in zip(study.tolerances, reds, strict=True):
                    totals.setdefault((unit, amount, tolerance), []).extend(red)
                change = math.expm1(log_mean(case.new) - log_mean(same.old))
                shown = ", ".join(str(sum(red)) for red in reds)
                cells.append(f"{100 * change:+.2f} %: {shown}" if amount else shown)
            spread = f"{100 * same.old.spread():.2f} %"
            lines.append(f"| {_named(same, study)} | {unit} | {spread} | {' | '.join(cells)} |")
    for (unit, amount, tolerance), reds in totals.items():
        at_tolerance = "" if tolerance is None else f", tolerance {100 * tolerance:g} %"
        lines.append(f"{unit}, +{amount} {study.unit}{at_tolerance}: {sum(reds)} of {len(reds)} red")
    return "\n".join(lines)


def _named(case: Case, study: Study) -> str:
    if study is WORK:
        return f"`{case.old.metric.name}`"
    return f"`{case.old.test.partition('::')[2]}`, {case.old.metric.name}"


def _file(folder: Path, unit: str, study: Study, amount: int) -> Path:
    return folder / f"{unit}-{study.what}-{amount}.jsonl.xz"


def units(folder: Path, study: Study = WORK) -> list[str]:
    return sorted(path.name.partition("-")[0] for path in folder.glob(f"*-{study.what}-0.jsonl.xz"))


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--model", action="store_true", help="LoadGen's series instead of the kernels'")
    parser.add_argument("--only", nargs="+", default=[], metavar="UNIT", help="these units, not all")
    asked = parser.parse_args(arguments)
    print(table(asked.folder, MODEL if asked.model else WORK, asked.only))


if __name__ == "__main__":
    main()
