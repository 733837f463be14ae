"""Does a kernel's time depend on where its arrays lie? Identical launches in processes that differ in that.

    python docs/studies/placement.py

Prints a Markdown table: a row a condition, a column a kernel, in each cell the medians of its processes in
microseconds. Where a row of several processes agrees within itself and not with the row above it, memory's
place is part of the figure. Takes about a minute on a GPU; without one it runs emulated, which shows nothing.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

KERNELS = Path(__file__).resolve().parents[2] / "kernels"
MIB = 2**20
TRANSPOSES = {
    "transpose_naive": ((32, 8), (32, 8)),
    "transpose_tiled": ((32, 32), (32, 8)),
    "transpose_best": ((64, 64), (16, 16)),
}
LENGTH, BLOCK = 64, 128
REPEATED = 5
BALLASTS = (2, 6, 34, 130, 514, 1026, 2050)  # MiB, kept allocated before and while the kernels run


def measure(order: Sequence[str], ballast: int) -> dict[str, Any]:
    """This process's median seconds of each kernel, and the addresses of the arrays that it used."""
    from pytest_gpuperf.backends import select
    from pytest_gpuperf.backends.library import Kernels
    from pytest_gpuperf.gpu import Gpu
    from pytest_gpuperf.instruments import device_time

    gpu = Gpu(select("auto"))
    side = 8192 if gpu.backend == "cuda" else 64
    kernels = Kernels(KERNELS, gpu)
    kept = gpu.empty(ballast * MIB // 4) if ballast and gpu.backend == "cuda" else None
    found: dict[str, Any] = {}
    for name in order:
        if name in TRANSPOSES:
            (width, height), block = TRANSPOSES[name]
            launch = kernels["transpose.cu"][name][(-(-side // width), -(-side // height)), block]
            src, dst = gpu.random((side, side), seed=1), gpu.empty((side, side))
            args: tuple[Any, ...] = (src, dst, side, side)
        else:
            count = max(BLOCK, side * side // LENGTH)
            launch = kernels["layout.cu"][name][count // BLOCK, BLOCK]
            src, dst = gpu.random((count * LENGTH,), seed=1), gpu.empty(count * LENGTH)
            args = (src, dst, count, LENGTH)
        seconds = device_time.measure(gpu, launch, args).median
        found[name] = [seconds, *(gpu.device.address(array) for array in (src, dst))]
        for array in (src, dst):
            gpu.device.free(array)
    del kept
    gpu.close()
    return found


def fresh(order: Sequence[str], ballast: int = 0) -> dict[str, Any]:
    command = [sys.executable, __file__, "--worker", json.dumps({"order": list(order), "ballast": ballast})]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"a process failed: {done.stderr[-2000:]}")
    return json.loads(done.stdout.splitlines()[-1])


def row(title: str, names: Sequence[str], runs: Sequence[dict[str, Any]]) -> str:
    cells = [" ".join(f"{1e6 * run[name][0]:.1f}" for run in runs) for name in names]
    for run in runs:
        print(
            title, {name: [hex(address or 0) for address in run[name][1:]] for name in names}, file=sys.stderr
        )
    return f"| {title} | {' | '.join(cells)} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--worker", type=json.loads, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.worker:
        print(json.dumps(measure(asked.worker["order"], asked.worker["ballast"])))
        return
    names = [*TRANSPOSES, "coalesced_to_linear"]
    print(f"| condition | {' | '.join(names)} |\n{'|---' * (len(names) + 1)}|")
    fresh(names)  # compiles, and warms the machine
    print(row("alone", names, [fresh(names) for _ in range(REPEATED)]), flush=True)
    backwards = [fresh(names[::-1]) for _ in range(REPEATED)]
    print(row("alone, in the opposite order", names, backwards), flush=True)
    for name in names:
        print(row(f"alone, only {name}", [name], [fresh([name]) for _ in range(2)]), flush=True)
    for ballast in BALLASTS:
        print(row(f"beside {ballast} MiB of its own", names, [fresh(names, ballast)]), flush=True)
    from pytest_gpuperf.backends import select
    from pytest_gpuperf.gpu import Gpu

    gpu = Gpu(select("auto"))  # as a session that confirms a red has its device open
    beside = [fresh(names) for _ in range(REPEATED)]
    print(row("beside another process", names, beside), flush=True)
    kept = gpu.empty(300 * MIB // 4) if gpu.backend == "cuda" else None
    print(row("beside another process with 300 MiB", names, [fresh(names) for _ in range(2)]), flush=True)
    del kept
    gpu.close()


if __name__ == "__main__":
    main()
