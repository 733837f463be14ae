"""Records on a GPU what side_by_side.py judges: runs of identical code, and of the same with more real work.

    python docs/studies/gpu_runs.py identical --runs 60 --out runs/
    python docs/studies/gpu_runs.py work --percent 0 1 2 3 5 --runs 20 --out runs/
    python docs/studies/gpu_runs.py model --more 0 1 2 --runs 20 --out runs/

Every run is fresh processes. `identical` measures the kernels of suites/, `work` those of more_work/, with
0 % as the code that the others are compared with, `model` LoadGen over ResNet-50 in fp16 as suites/ has it,
SingleStream and Offline, with so many blocks more; `--more 0 1 2 0 1 2` takes turns, and so drifts alike.
Files are named after what they hold and added to, so a session that was cut short goes on by the same
command; another unit's runs go into another folder. The repository's baselines are not written.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

STUDIES = Path(__file__).resolve().parent
ROOT = STUDIES.parents[1]
MORE_WORK = STUDIES / "more_work"
MODEL = "fp16-SingleStream or fp16-Offline"
KERNEL_SUITES = ("transpose", "matmul", "layout", "reduce")


def record(
    tests: Sequence[str], environment: Mapping[str, str], runs: int, file: Path, extra: Sequence[str]
) -> int:
    """Adds runs to ``file``, also those of a session that failed half-way; pytest's exit code."""
    before = _recorded()
    command = [sys.executable, "-m", "pytest", *tests, "--gpuperf", f"--gpuperf-calibrate={runs}"]
    command += [f"--gpuperf-baselines={file.parent.resolve() / 'baselines'}", "--gpuperf-strict=off", *extra]
    try:
        return subprocess.run(command, cwd=ROOT, env={**os.environ, **environment}).returncode
    finally:
        with file.open("ab") as kept:
            for new in sorted(_recorded() - before):
                kept.write(new.read_bytes())


def _recorded() -> set[Path]:
    return set((ROOT / ".gpuperf").glob("runs-*.jsonl"))


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("what", choices=["identical", "work", "model"])
    parser.add_argument("--runs", type=int, default=60)
    parser.add_argument("--percent", type=int, nargs="+", default=[0, 1, 2, 3, 5])
    parser.add_argument("--more", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--pytest", nargs="*", default=[], help="more options for pytest, such as -k=tiled")
    asked = parser.parse_args(arguments)
    asked.out.mkdir(parents=True, exist_ok=True)
    if asked.what == "identical":
        tests = [f"suites/test_{name}.py" for name in KERNEL_SUITES]
        file = asked.out / "identical.jsonl"
        return record(tests, {}, asked.runs, file, ["-k", "latency", *asked.pytest])
    if asked.what == "work":
        tests, selected, amounts = [str(MORE_WORK / "test_more_work.py")], [], asked.percent
    else:
        tests, selected, amounts = (
            ["suites/test_resnet50.py"],
            ["-k", f"performance and ({MODEL})"],
            asked.more,
        )
    return max(
        record(
            tests,
            variables(asked.what, amount),
            asked.runs,
            asked.out / f"{asked.what}-{amount}.jsonl",
            [*selected, *asked.pytest],
        )
        for amount in amounts
    )


def variables(what: str, amount: int) -> dict[str, str]:
    if what == "work":
        return {"GPUPERF_STUDY_PERCENT": str(amount)}
    path = os.pathsep.join(filter(None, (str(MORE_WORK), os.environ.get("PYTHONPATH"))))
    return {"GPUPERF_STUDY_MORE": str(amount), "PYTEST_PLUGINS": "more_blocks", "PYTHONPATH": path}


if __name__ == "__main__":
    sys.exit(main())
