"""Does a kernel's time depend on where its arrays lie? Identical launches on arrays in other places.

    python docs/studies/placement.py

First one process with arrays in many places, all alive at once, each place measured twice, the second time
in the opposite order: what differs between places and not between the two times is the place's. Then fresh
processes that differ in what else lies in memory: a row a condition, a column a kernel, in each cell the
medians of its processes in microseconds; measured where the arrays are, and then as the package does it, on
copies in many places. Without a GPU it runs emulated, which shows nothing.
"""

from __future__ import annotations

import argparse
import json
import random
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

KERNELS = Path(__file__).resolve().parents[2] / "kernels"
MIB = 2**20
TRANSPOSES = {
    "transpose_naive": ((32, 8), (32, 8)),
    "transpose_tiled": ((32, 32), (32, 8)),
    "transpose_best": ((64, 64), (16, 16)),
}
LENGTH, BLOCK = 64, 128
NAMES = [*TRANSPOSES, "coalesced_to_linear"]
REPEATED = 3
BALLASTS = (2, 6, 34, 130, 514, 1026)  # MiB, kept allocated before and while the kernels run
PLACES = 24


class Bench:
    """The kernels of this process's device, and one pair of arrays' medians."""

    def __init__(self) -> None:
        from pytest_gpuperf.backends import select
        from pytest_gpuperf.backends.gpu import Gpu
        from pytest_gpuperf.backends.kernels import Kernels

        self.gpu = Gpu(select("auto"))
        self.is_real = self.gpu.backend == "cuda"
        self.side = 8192 if self.is_real else 128
        self.kernels = Kernels(KERNELS, self.gpu)
        self.values = np.random.default_rng(1).random((self.side, self.side), np.float32)

    def arrays(self) -> tuple[Any, Any]:
        return self.gpu.to_device(self.values), self.gpu.empty((self.side, self.side))

    def ballast(self, mib: int) -> Any:
        return self.gpu.empty(mib * MIB // 4) if mib and self.is_real else None

    def seconds(self, name: str, src: Any, dst: Any, moved: bool = False) -> float:
        from pytest_gpuperf.instruments import device_time

        if name in TRANSPOSES:
            (width, height), block = TRANSPOSES[name]
            grid: Any = (-(-self.side // width), -(-self.side // height))
            launch = self.kernels["transpose.cu"][name][grid, block]
            args: tuple[Any, ...] = (src, dst, self.side, self.side)
        else:
            count = self.side * self.side // LENGTH
            launch = self.kernels["layout.cu"][name][-(-count // BLOCK), BLOCK]
            args = (src, dst, count, LENGTH)
        if moved:
            return device_time.measure(self.gpu, launch, args).median
        options = device_time.Settings(seconds=0.1, warmup=0.05)
        return device_time.measure(self.gpu, launch.bind(*args), (), options).median  # callables stay put


def measure(order: Sequence[str], ballast: int, moved: bool) -> dict[str, Any]:
    """A fresh process's median seconds of each kernel, and the addresses of the arrays that it used."""
    bench = Bench()
    kept = bench.ballast(ballast)
    found: dict[str, Any] = {}
    for name in order:
        arrays = bench.arrays()
        found[name] = [
            bench.seconds(name, *arrays, moved),
            *(bench.gpu.device.address(array) for array in arrays),
        ]
        for array in arrays:
            bench.gpu.device.free(array)
    del kept
    bench.gpu.close()
    return found


def many_places() -> None:
    """A table of how much places differ in one process, and how much the same place differs from itself."""
    bench, draw = Bench(), random.Random(1)
    kept, pairs = [], []
    for _ in range(PLACES if bench.is_real else 3):
        kept.append(bench.ballast(draw.randrange(0, 200, 2)))
        pairs.append(bench.arrays())
    first = [{name: bench.seconds(name, *pair) for name in NAMES} for pair in pairs]
    second = [{name: bench.seconds(name, *pair) for name in NAMES} for pair in pairs[::-1]][::-1]
    print(f"{len(pairs)} places in one process, % from their median\n")
    print("| kernel | median, us | places, each the mean of its two times | largest difference of the two |")
    print("|---|---|---|---|")
    for name in NAMES:
        both = [(one[name], other[name]) for one, other in zip(first, second, strict=True)]
        middle = median(sum(pair) / 2 for pair in both)
        places = " ".join(f"{100 * (sum(pair) / 2 / middle - 1):+.2f}" for pair in both)
        itself = max(abs(one - other) / middle for one, other in both)
        print(f"| {name} | {1e6 * middle:.1f} | {places} | {100 * itself:.2f} |")
    bench.gpu.close()


def fresh(order: Sequence[str], ballast: int = 0, moved: bool = False) -> dict[str, Any]:
    asked = {"order": list(order), "ballast": ballast, "moved": moved}
    command = [sys.executable, __file__, "--worker", json.dumps(asked)]
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
        print(json.dumps(measure(**asked.worker)))
        return
    many_places()
    between_processes(NAMES)


def between_processes(names: Sequence[str]) -> None:
    print(f"\n| condition | {' | '.join(names)} |\n{'|---' * (len(names) + 1)}|")
    print(row("alone", names, [fresh(names) for _ in range(REPEATED)]), flush=True)
    backwards = [fresh(names[::-1]) for _ in range(REPEATED)]
    print(row("alone, in the opposite order", names, backwards), flush=True)
    for ballast in BALLASTS:
        print(row(f"beside {ballast} MiB of its own", names, [fresh(names, ballast)]), flush=True)
    bench = Bench()  # as a session that confirms a red has its device open
    print(row("beside another process", names, [fresh(names) for _ in range(REPEATED)]), flush=True)
    beside = [fresh(names, moved=True) for _ in range(REPEATED)]
    print(row("moved, beside another process", names, beside), flush=True)
    kept = bench.ballast(300)
    print(row("beside another process with 300 MiB", names, [fresh(names) for _ in range(2)]), flush=True)
    del kept
    bench.gpu.close()
    alone = [fresh(names, moved=True) for _ in range(REPEATED)]
    print(row("moved, alone", names, alone), flush=True)
    backwards = [fresh(names[::-1], moved=True) for _ in range(REPEATED)]
    print(row("moved, alone, in the opposite order", names, backwards), flush=True)


if __name__ == "__main__":
    main()
