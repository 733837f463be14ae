"""What each unit's processes took: the median of their medians, and how much they differ (sd).

    python docs/studies/by_unit.py docs/studies/recordings/h100/*-identical.jsonl.xz
    python docs/studies/by_unit.py docs/studies/recordings/h100/2ccd0ac4-model-?.jsonl.xz

Prints Markdown: a row for each metric, in the order of the tests, and a column for each file. The sentinels,
which the processes took beside them, are the last rows.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from pathlib import Path
from statistics import median, stdev

from pytest_gpuperf.rules.trial import RecordedRun, every_series

sys.path.insert(0, str(Path(__file__).parent))
from side_by_side import recorded

FORMATS = {"s": ("{:,.1f} µs", 1e6), "1/s": ("{:,.0f} /s", 1.0)}
SENTINELS = {"bandwidth_s": "s", "compute_s": "s"}


def column(runs: Sequence[RecordedRun]) -> dict[str, str]:
    """The figures of a file by the metric's name, with the test's where that does not name it."""
    found = {}
    for series in every_series(runs):
        if series.metric.kind == "noisy":
            name, test = series.metric.name, series.test.rpartition("::")[2]
            title = f"`{name}`" if name in test else f"`{test}`, {name}"
            found[title] = cell([m.value for m in series.values.values()], series.metric.unit)
    taken = [{id(t.record.environment): t.record.environment for t in run.values()}.values() for run in runs]
    for name, unit in SENTINELS.items():
        processes = [e["sentinels"][name] for each in taken for e in each if name in e.get("sentinels", {})]
        if processes:
            found[f"sentinel {name}"] = cell(processes, unit)
    return found


def cell(values: Sequence[float], unit: str) -> str:
    pattern, factor = FORMATS.get(unit, ("{:,.4g} " + unit, 1.0))
    logs = [math.log(value) for value in values]
    spread = f" ({100 * stdev(logs):.2f} %)" if len(logs) > 1 else ""
    return pattern.format(factor * median(values)) + spread


def table(files: Sequence[Path]) -> str:
    columns, titles = [], []
    for file in files:
        runs = recorded(file)
        columns.append(column(runs))
        titles.append(f"{file.name.partition('.')[0]}, {len(runs)} runs")
    rows = list(dict.fromkeys(title for each in columns for title in each))
    lines = [f"| | {' | '.join(titles)} |", "|---" * (len(files) + 1) + "|"]
    lines += [f"| {row} | {' | '.join(each.get(row, '') for each in columns)} |" for row in rows]
    return "\n".join(lines)


if __name__ == "__main__":
    print(table([Path(argument) for argument in sys.argv[1:]]))
