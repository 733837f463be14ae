"""What more real work did to each kernel, unit by unit: its time, and how often this package was red.

    python docs/studies/by_kernel.py docs/studies/recordings/h100

Reads <unit>-work-<percent>.jsonl.xz, judges every series against the unit's own 0 %, at two tolerances, and
prints Markdown. Draws are side_by_side.py's: each run once as the screen, baseline and replicas from the
same ten runs, so that the entries of a cell are no independent trials.
"""

from __future__ import annotations

import math
import sys
from pathlib import Path
from statistics import fmean

from pytest_gpuperf.processes.trial import Series

sys.path.insert(0, str(Path(__file__).parent))
from side_by_side import cases, count, ours, recorded

PERCENTS = (0, 1, 2, 3, 5)
TOLERANCES = (0.01, 0.02)


def log_mean(series: Series) -> float:
    return fmean(math.log(measured.value) for measured in series.values.values())


def table(folder: Path) -> str:
    """Rows of kernel and unit; cells of the change in time and the red runs at each tolerance."""
    lines = [f"| kernel | unit | sd | {' | '.join(f'+{p} % work' for p in PERCENTS)} |", "|---" * 8 + "|"]
    totals = {(unit, p, t): [0, 0] for unit in units(folder) for p in PERCENTS for t in TOLERANCES}
    for unit in units(folder):
        runs = {percent: recorded(folder / f"{unit}-work-{percent}.jsonl.xz") for percent in PERCENTS}
        found = {p: cases(runs[0], runs[p]) if p else cases(runs[0]) for p in PERCENTS}
        for at, same in enumerate(found[0]):
            cells = []
            for percent in PERCENTS:
                case = found[percent][at]
                reds = [count(ours(tolerance), [case]).tests for tolerance in TOLERANCES]
                for tolerance, red in zip(TOLERANCES, reds, strict=True):
                    totals[unit, percent, tolerance][0] += sum(red)
                    totals[unit, percent, tolerance][1] += len(red)
                change = math.expm1(log_mean(case.new) - log_mean(same.old))
                shown = ", ".join(str(sum(red)) for red in reds)
                cells.append(f"{100 * change:+.2f} %: {shown}" if percent else shown)
            kernel = same.old.metric.name
            lines.append(f"| `{kernel}` | {unit} | {100 * same.old.spread():.2f} % | {' | '.join(cells)} |")
    for (unit, percent, tolerance), (red, trials) in totals.items():
        lines.append(f"{unit}, +{percent} % work, tolerance {100 * tolerance:g} %: {red} of {trials} red")
    return "\n".join(lines)


def units(folder: Path) -> list[str]:
    return sorted(path.name.partition("-")[0] for path in folder.glob("*-work-0.jsonl.xz"))


if __name__ == "__main__":
    print(table(Path(sys.argv[1])))
