"""Makes baselines of recorded runs: what --gpuperf-update would have stored, had it measured them.

    python docs/studies/store_runs.py --runs 5 --baselines baselines unit-1.jsonl.xz unit-2.jsonl.xz

Takes the first runs of each file, one unit after the other. What the pool's files hold of these tests is
replaced, other tests are left alone. A run that was unfit, or whose commit had changes, is refused.
"""

from __future__ import annotations

import argparse
import sys
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

from pytest_gpuperf.measurement import Baseline
from pytest_gpuperf.modes.runs import NotRecorded, baselines_of
from pytest_gpuperf.records import Record
from pytest_gpuperf.storage.baselines import Store

sys.path.insert(0, str(Path(__file__).parent))
from side_by_side import recorded


def store(files: Sequence[Path], runs: int, folder: Path) -> list[Path]:
    """The baseline files that were written."""
    found: dict[tuple[str, str], dict[str, list[Record]]] = defaultdict(lambda: defaultdict(list))
    for file in files:
        taken = recorded(file)[:runs]
        if len(taken) < runs:
            raise SystemExit(f"{file}: has {len(taken)} runs of the {runs} that were asked for: record more")
        for run in taken:
            for name, test in run.items():
                environment = test.record.environment
                if test.record.unfit or environment.get("dirty") or not environment.get("commit"):
                    why = test.record.unfit or "it was not recorded at a commit without changes"
                    raise SystemExit(f"{file}: {name}: no baseline: {why}")
                suite, _, key = name.partition("::")
                found[test.pool, suite][key].append(test.record)
    # All of them before any is written, so that what is refused changes nothing.
    updates = {
        (pool, suite): {key: _baselines(f"{suite}::{key}", records) for key, records in tests.items()}
        for (pool, suite), tests in found.items()
    }
    written = [Store(folder).save(pool, suite, tests) for (pool, suite), tests in updates.items()]
    return [path for path in written if path]


def _baselines(where: str, records: Sequence[Record]) -> dict[str, Baseline]:
    try:
        return baselines_of(records[0], records, len(records))
    except NotRecorded as reason:
        raise SystemExit(f"{where}: no baseline: {reason}") from None


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("files", nargs="+", type=Path)
    parser.add_argument("--runs", type=int, default=5, help="runs of each file")
    parser.add_argument("--baselines", type=Path, required=True, help="the folder of the baselines")
    asked = parser.parse_args(arguments)
    for path in store(asked.files, asked.runs, asked.baselines):
        print(path)


if __name__ == "__main__":
    main()
