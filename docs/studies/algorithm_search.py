"""How much fresh processes of one model differ, by how ONNX Runtime chooses cuDNN's algorithms.

    python docs/studies/algorithm_search.py --processes 8

An exhaustive search times the candidates in every process anew, so that two processes may run other kernels;
the heuristic names the same ones every time. Prints a Markdown table: for each way of choosing, precision and
batch, the median milliseconds of a run (input copy included) over all processes, and how much the processes'
medians differ. Needs a CUDA GPU and onnxruntime-gpu; about six seconds a process.
"""

from __future__ import annotations

import argparse
import json
import math
import subprocess
import sys
from statistics import median, stdev
from time import perf_counter

SEARCHES = ("EXHAUSTIVE", "HEURISTIC", "DEFAULT")
PRECISIONS = ("fp16", "fp32")
BATCHES = (1, 8)
WARM_UP, MEASURED = 1.0, 1.0  # seconds


def measure(search: str, precision: str) -> dict[str, float]:
    """This process's median seconds of a run, by batch."""
    from pytest_gpuperf.mlperf import models, session

    session.CUDA_OPTIONS["cudnn_conv_algo_search"] = search
    opened = session.open_session(models.resolve(), "cuda", precision, BATCHES)  # type: ignore[arg-type]
    images = opened.model.dataset(64).images(list(range(64))).astype(opened.dtype)
    release = opened.hold(images)
    found = {}
    for batch in BATCHES:
        taken: list[float] = []
        begin = perf_counter()
        while (now := perf_counter()) - begin < WARM_UP + MEASURED:
            start = len(taken) * batch % len(images)
            opened.run(images[start : start + batch])
            if now - begin >= WARM_UP:
                taken.append(perf_counter() - now)
        found[str(batch)] = median(taken)
    release()
    return found


def fresh(search: str, precision: str) -> dict[str, float]:
    command = [sys.executable, __file__, "--worker", search, precision]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"a process failed: {done.stderr[-2000:].strip()}")
    return json.loads(done.stdout.splitlines()[-1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--processes", type=int, default=8, help="fresh processes of each kind, 2 or more")
    parser.add_argument("--worker", nargs=2, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.worker:
        from pytest_gpuperf.errors import GpuperfError

        try:
            print(json.dumps(measure(*asked.worker)))
        except GpuperfError as error:
            raise SystemExit(str(error)) from None
        return
    if asked.processes < 2:
        parser.error(f"--processes {asked.processes}: one process differs from nothing; give 2 or more")
    print("| search | precision | batch | median, ms | sd between processes | slowest over fastest |")
    print("|---|---|---|---|---|---|")
    for precision in PRECISIONS:
        # In turn, so that a machine that drifts is no difference between the ways of choosing.
        runs = [{search: fresh(search, precision) for search in SEARCHES} for _ in range(asked.processes)]
        for search in SEARCHES:
            for batch in map(str, BATCHES):
                each = [run[search][batch] for run in runs]
                spread, reach = stdev(map(math.log, each)), max(each) / min(each) - 1
                kind = f"| {search} | {precision} | {batch} "
                print(f"{kind}| {1e3 * median(each):.4f} | {spread:.2%} | {reach:.2%} |", flush=True)


if __name__ == "__main__":
    main()
