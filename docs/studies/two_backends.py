"""The shipped kernels' times by PyCUDA and nvcc, and by cuda.core and NVRTC, in one run on one GPU.

    python docs/studies/two_backends.py [--json FILE]

Each backend in processes of its own, in turn, twice. Prints Markdown: a row a kernel, with whether both
compilers made the same machine code of it; then what a launch costs the host, and how long a process takes to
its first kernel without anything compiled before. Needs PyCUDA with nvcc, and cuda.core with NVRTC.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any

from nvbench import CASES, KERNELS

BACKENDS = ("cuda", "cuda-core")
SLOW = ("matmul_naive of 8960, 200 ms",)
LAUNCHES = 2000


def timed(choice: str, began: float) -> dict[str, Any]:
    """Time every case as the ``gpuperf`` fixture does, in this process."""
    from pytest_gpuperf.backends import select
    from pytest_gpuperf.backends.gpu import Gpu
    from pytest_gpuperf.backends.kernels import Kernels
    from pytest_gpuperf.instruments.device_time import Settings, measure

    gpu = Gpu(select(choice))
    kernels = Kernels(KERNELS, gpu)
    kernels["empty.cu"].empty[1, 1]()
    gpu.synchronize()
    first = time.time() - began
    started = time.perf_counter()
    programs = [kernels[f"{file}.cu"].program for file in sorted({case[0] for case in CASES.values()})]
    compiled = time.perf_counter() - started
    assert programs
    found: dict[str, Any] = {}
    for name, (file, kernel, grid, block, sizes, scalars) in CASES.items():
        if name in SLOW:
            continue
        launch = kernels[f"{file}.cu"][kernel][grid, block]
        arrays = [gpu.random(size, seed=number) for number, size in enumerate(sizes)]
        timing = measure(gpu, launch, (*arrays, *scalars), Settings(seconds=0.25, warmup=0.05))
        found[name] = {"seconds": timing.median, "code": launch.code_hash}
    empty, costs = kernels["empty.cu"].empty[1, 1].bind(), []
    for _ in range(5):
        gpu.synchronize()
        started = time.perf_counter()
        for _ in range(LAUNCHES // 5):
            empty()
        costs.append((time.perf_counter() - started) / (LAUNCHES // 5))
    gpu.synchronize()
    software = {"compiler": gpu.device.compiler_version, **gpu.device.software()}
    return {
        **{"backend": choice, "gpu": gpu.name, "unit": gpu.uuid, "software": software, "kernels": found},
        **{"launch_seconds": median(costs), "first_kernel_seconds": first, "compile_seconds": compiled},
    }


def in_turn() -> list[dict[str, Any]]:
    """Run both backends twice, the first time with an empty cache."""
    runs = []
    with tempfile.TemporaryDirectory() as cache:
        environment = {**os.environ, "PYTEST_GPUPERF_CACHE": cache}
        for choice in (*BACKENDS, *BACKENDS):
            command = [sys.executable, __file__, "--backend", choice, "--began", str(time.time())]
            done = subprocess.run(command, env=environment, check=True, stdout=subprocess.PIPE)
            runs.append(json.loads(done.stdout))
    return runs


def report(runs: list[dict[str, Any]]) -> None:
    """Print the tables."""
    of = {choice: [run for run in runs if run["backend"] == choice] for choice in BACKENDS}
    software = " and ".join(
        f"{each[0]['software']['binding']} with {each[0]['software']['compiler']}" for each in of.values()
    )
    print(f"{runs[0]['gpu']}: {software}\n")
    print("| kernel | PyCUDA, us | cuda.core, us | differ by | between two runs | machine code |")
    print("|---|---|---|---|---|---|")
    for name in runs[0]["kernels"]:
        figures = {c: [run["kernels"][name]["seconds"] for run in of[c]] for c in BACKENDS}
        a, b = (median(figures[choice]) for choice in BACKENDS)
        spread = max(abs(x / y - 1) for x, y in figures.values())
        codes = {run["kernels"][name]["code"] for run in runs}
        code = "the same" if len(codes) == 1 else "another"
        print(f"| {name} | {a * 1e6:,.2f} | {b * 1e6:,.2f} | {b / a - 1:+.2%} | {spread:.2%} | {code} |")
    print("\n| | PyCUDA | cuda.core |\n|---|---|---|")
    for what, key, scale in (
        ("host's time of a launch, us", "launch_seconds", 1e6),
        ("process to its first kernel, nothing compiled, s", "first_kernel_seconds", 1),
        ("the same, compiled before, s", "first_kernel_seconds", 1),
        ("compiling the other four files, s", "compile_seconds", 1),
        ("the same, compiled before, s", "compile_seconds", 1),
    ):  # fmt: skip
        runs_of = [[run[key] * scale for run in of[choice]] for choice in BACKENDS]
        last = what.startswith("the same")
        print(f"| {what} | " + " | ".join(f"{each[-1 if last else 0]:.2f}" for each in runs_of) + " |")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--json", type=Path)
    parser.add_argument("--backend", help=argparse.SUPPRESS)
    parser.add_argument("--began", type=float, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.backend:
        print(json.dumps(timed(given.backend, given.began)))
        return
    runs = in_turn()
    report(runs)
    if given.json:
        given.json.write_text(json.dumps(runs, indent=1) + "\n")


if __name__ == "__main__":
    main()
