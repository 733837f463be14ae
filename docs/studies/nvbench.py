"""The shipped kernels' medians beside NVBench's (cuda-bench), and how long each tool held the GPU for them.

    python docs/studies/nvbench.py

Each tool in processes of its own, in turn, twice, on one GPU: the same machine code, grids and sizes, a cold
L2 cache. NVBench launches on arrays where they lie; this package moves them. Needs cuda-bench, CuPy and nvcc.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from statistics import median
from typing import Any

KERNELS = Path(__file__).resolve().parents[2] / "kernels"
SIDE = 8192
N = SIDE * SIDE
# name: file, kernel, grid, block, floats of each array, scalars
CASES: dict[str, tuple[str, str, Any, Any, Sequence[int], Sequence[int]]] = {
    "transpose_naive": ("transpose", "transpose_naive", (256, 1024), (32, 8), (N, N), (SIDE, SIDE)),
    "transpose_tile16": ("transpose", "transpose_tile16", (512, 512), (16, 16), (N, N), (SIDE, SIDE)),
    "transpose_tile16_unpadded": (
        *("transpose", "transpose_tile16_unpadded", (512, 512), (16, 16), (N, N), (SIDE, SIDE)),
    ),
    "transpose_tiled": ("transpose", "transpose_tiled", (256, 256), (32, 8), (N, N), (SIDE, SIDE)),
    "transpose_best, 200 us": ("transpose", "transpose_best", (128, 128), (16, 16), (N, N), (SIDE, SIDE)),
    "transpose_quads": ("transpose", "transpose_quads", (64, 128), (128,), (N, N), (SIDE, SIDE)),
    "transpose_tiled of 256, 2 us": (
        *("transpose", "transpose_tiled", (8, 8), (32, 8), (65536, 65536), (256, 256)),
    ),
    "sum_strided": ("reduce", "sum_strided", (1024,), (256,), (N, 1024), (N,)),
    "sum_coalesced": ("reduce", "sum_coalesced", (1024,), (256,), (N, 1024), (N,)),
    "sum_vectorized": ("reduce", "sum_vectorized", (1024,), (256,), (N, 1024), (N,)),
    "linear_to_coalesced": ("layout", "linear_to_coalesced", (8192,), (128,), (N, N), (N // 64, 64)),
    "coalesced_to_linear": ("layout", "coalesced_to_linear", (8192,), (128,), (N, N), (N // 64, 64)),
    "row_sums_linear": ("layout", "row_sums_linear", (8192,), (128,), (N, N // 64), (N // 64, 64)),
    "row_sums_coalesced": ("layout", "row_sums_coalesced", (8192,), (128,), (N, N // 64), (N // 64, 64)),
    "matmul_naive": ("matmul", "matmul_naive", (64, 256), (32, 8), (2**22,) * 3, (2048,) * 3),
    "matmul_tiled": ("matmul", "matmul_tiled", (64, 64), (32, 8), (2**22,) * 3, (2048,) * 3),
    "matmul_blocked": ("matmul", "matmul_blocked", (16, 16), (256,), (2**22,) * 3, (2048,) * 3),
    "matmul_naive of 8960, 200 ms": (
        *("matmul", "matmul_naive", (280, 1120), (32, 8), (8960**2,) * 3, (8960,) * 3),
    ),
}
ROUNDS = 2
Figures = dict[str, tuple[float, float]]  # median seconds of a launch, seconds that it took to find


def ours() -> Figures:
    """Time every case as the ``gpuperf`` fixture does."""
    from pytest_gpuperf.backends import select
    from pytest_gpuperf.backends.gpu import Gpu
    from pytest_gpuperf.backends.kernels import Kernels
    from pytest_gpuperf.instruments import device_time
    from pytest_gpuperf.instruments.stopwatch import Settings

    gpu = Gpu(select("cuda"))
    kernels, found = Kernels(KERNELS, gpu), {}
    for name, (file, kernel, grid, block, sizes, scalars) in CASES.items():
        launch = kernels[f"{file}.cu"][kernel][grid, block]
        arrays = [gpu.random(size, seed=number) for number, size in enumerate(sizes)]
        gpu.synchronize()
        start = time.perf_counter()
        timing = device_time.measure(gpu, launch, (*arrays, *scalars), Settings(l2="cold"))
        found[name] = (timing.median, time.perf_counter() - start)
    return found


def theirs() -> Figures:
    """Time every case with NVBench, by its own defaults."""
    with tempfile.TemporaryDirectory() as folder:
        result = Path(folder) / "nvbench.json"
        command = [sys.executable, __file__, "--nvbench", folder, "--jsonbin", str(result), "-d", "0"]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        read = [_read(each, Path(folder)) for each in json.loads(result.read_text())["benchmarks"]]
        return dict(zip(CASES, read, strict=True))


def _read(benchmark: Any, folder: Path) -> tuple[float, float]:
    import numpy as np

    (state,) = benchmark["states"]
    data = {each["tag"]: {v["name"]: v["value"] for v in each["data"]} for each in state["summaries"]}
    samples = np.fromfile(folder / data["nv/json/bin:nv/cold/sample_times"]["filename"], "<f4")
    return float(np.median(samples)), float(data["nv/cold/walltime"]["value"])


def nvbench(folder: Path, arguments: Sequence[str]) -> None:
    """Run NVBench in this process: one benchmark a case, in order."""
    import cuda.bench as bench
    import cupy

    for file in {case[0] for case in CASES.values()}:
        source, cubin = KERNELS / f"{file}.cu", folder / f"{file}.cubin"
        subprocess.run(["nvcc", "-O3", "-arch=native", "-cubin", "-o", cubin, source], check=True)

    def benchmark(number: int, case: Any) -> Any:
        file, kernel, grid, block, sizes, scalars = case

        def run(state: Any) -> None:
            function = cupy.RawModule(path=str(folder / f"{file}.cubin")).get_function(kernel)
            arrays = [cupy.random.random(size, dtype=cupy.float32) for size in sizes]
            numbers = [cupy.int32(scalar) for scalar in scalars]

            def launch(launched: Any) -> None:
                with cupy.cuda.ExternalStream(launched.get_stream().addressof()):
                    function(grid, block, (*arrays, *numbers))

            state.exec(launch, batched=False)

        run.__name__ = f"case_{number:02}"
        return run

    for number, case in enumerate(CASES.values()):
        bench.register(benchmark(number, case))
    bench.run_all_benchmarks([sys.argv[0], *arguments])


def table(mine: Sequence[Figures], other: Sequence[Figures]) -> Iterator[str]:
    yield "| kernel | ours, us | NVBench, us | differ by | ours, s | NVBench, s |"
    yield "|---" * 6 + "|"
    for name in CASES:
        (a, took), (b, needed) = (
            (median(run[name][0] for run in runs), median(run[name][1] for run in runs))
            for runs in (mine, other)
        )
        yield f"| {name} | {a * 1e6:,.2f} | {b * 1e6:,.2f} | {a / b - 1:+.2%} | {took:.2f} | {needed:.2f} |"


def main() -> None:
    if sys.argv[1:2] == ["--nvbench"]:
        return nvbench(Path(sys.argv[2]), sys.argv[3:])
    if sys.argv[1:] == ["--ours"]:
        return print(json.dumps(ours()))
    mine, other = [], []
    for finished in range(1, ROUNDS + 1):
        out = subprocess.run([sys.executable, __file__, "--ours"], check=True, stdout=subprocess.PIPE).stdout
        mine.append(json.loads(out))
        other.append(theirs())
        print(f"{finished} of {ROUNDS} rounds\n", *table(mine, other), sep="\n", flush=True)
    return None


if __name__ == "__main__":
    main()
