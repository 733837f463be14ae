"""How long do emulated launches take, beside those of another checkout?

    python docs/studies/emulated_speed.py FOLDER [--numba PYTHON]

FOLDER is a checkout of the other commit. A process of each, on one core, launches each kernel in turns, so
that both see the same machine; the fewest seconds of the processor of each count, so that others may use it
too. All checks are on, counters are off; a third process has the kernels compiled without the calls that
check loads and stores. PYTHON is an interpreter with numba, whose simulator has the same work on smaller
arrays (emulated_numba.py), scaled here.
"""

from __future__ import annotations

import argparse
import importlib
import math
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from time import process_time
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parents[2]
OTHERS = """
extern "C" __global__ void copy(const float *in, float *out, int n) {
  int i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i < n) out[i] = in[i];
}
extern "C" __global__ void histogram_shared(const int *in, int *bins, int n) {
  __shared__ int mine[256];
  for (int i = threadIdx.x; i < 256; i += blockDim.x) mine[i] = 0;
  __syncthreads();
  for (int i = blockIdx.x * blockDim.x + threadIdx.x; i < n; i += gridDim.x * blockDim.x)
    atomicAdd(&mine[in[i] & 255], 1);
  __syncthreads();
  for (int i = threadIdx.x; i < 256; i += blockDim.x) atomicAdd(&bins[i], mine[i]);
}
extern "C" __global__ void histogram_global(const int *in, int *bins, int n) {
  for (int i = blockIdx.x * blockDim.x + threadIdx.x; i < n; i += gridDim.x * blockDim.x)
    atomicAdd(&bins[in[i] & 255], 1);
}
"""
# Name, file, grid, block, and which arrays it takes with which numbers.
KERNELS: list[tuple[str, str, Any, Any, str, tuple[int, ...]]] = [
    ("copy", "others.cu", 2048, 256, "floats", (1 << 19,)),
    ("transpose_naive", "transpose.cu", (16, 64), (32, 8), "floats", (512, 512)),
    ("transpose_tiled", "transpose.cu", (16, 16), (32, 8), "floats", (512, 512)),
    ("matmul_naive", "matmul.cu", (4, 4), (32, 32), "matrices", (128, 128, 128)),
    ("matmul_tiled", "matmul.cu", (4, 4), (32, 8), "matrices", (128, 128, 128)),
    ("histogram_shared", "others.cu", 64, 256, "integers", (1 << 18,)),
    ("histogram_global", "others.cu", 64, 256, "integers", (1 << 18,)),
]


def leave_out_checks() -> None:
    compiler = importlib.import_module("pytest_gpuperf.backends.emulated.compiler")
    flags = compiler._KERNEL_FLAGS
    flags[:] = [flag for flag in flags if flag != "--param" and not flag.startswith(("tsan-", "-fsanitize"))]


def serve(folder: str) -> None:
    """Launch the kernel whose number comes in, and answer with its seconds, until there are no more."""
    try:
        backends = importlib.import_module("pytest_gpuperf.backends.emulated.device")
        files = importlib.import_module("pytest_gpuperf.backends.kernels")
    except ModuleNotFoundError:  # before both were moved
        backends = importlib.import_module("pytest_gpuperf.backends.emulated")
        files = importlib.import_module("pytest_gpuperf.backends.library")
    device = backends.EmulatedBackend(threads=1)
    kernels = files.Kernels(Path(folder), device)
    draw = np.random.default_rng(1)
    floats, integers = draw.random(1 << 19, np.float32), draw.integers(0, 1 << 20, 1 << 18).astype(np.int32)
    arrays: dict[str, list[Any]] = {
        "floats": [device.to_device(floats), device.to_device(np.zeros_like(floats))],
        "matrices": [device.to_device(floats[: 128 * 128].copy()) for _ in range(3)],
        "integers": [device.to_device(integers), device.to_device(np.zeros(256, np.int32))],
    }
    for line in sys.stdin:
        name, file, grid, block, taken, numbers = KERNELS[int(line)]
        begin = process_time()
        try:
            kernels[file][name][grid, block](*arrays[taken], *map(np.int32, numbers))
            print(process_time() - begin, flush=True)
        except Exception:  # unchecked, an atomic meets shared memory that seems never written
            print("nan", flush=True)


def start(root: Path, folder: str, *more: str) -> subprocess.Popen[str]:
    command = [sys.executable, __file__, "--serve", folder, *more]
    environment = {**os.environ, "PYTHONPATH": str(root)}
    return subprocess.Popen(
        command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=folder
    )


def ask(process: subprocess.Popen[str], number: int) -> float:
    assert process.stdin
    assert process.stdout
    print(number, file=process.stdin, flush=True)
    return float(process.stdout.readline())


def simulated(python: str) -> dict[str, float]:
    """Return numba's microseconds a thread."""
    command = [python, str(Path(__file__).with_name("emulated_numba.py"))]
    environment = {**os.environ, "NUMBA_ENABLE_CUDASIM": "1"}
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True)
    return {name: float(time) for name, time in (line.split() for line in done.stdout.splitlines())}


def threads(extent: Any) -> int:
    return math.prod(extent) if isinstance(extent, tuple) else int(extent)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", help="a checkout of the other commit")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--numba", metavar="PYTHON", help="an interpreter that has numba")
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--unchecked", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.unchecked:
        leave_out_checks()
    if options.serve:
        serve(options.folder)
        return
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "others.cu").write_text(OTHERS)
        for file in ("transpose.cu", "matmul.cu"):
            Path(folder, file).write_bytes((ROOT / "kernels" / file).read_bytes())
        simulator = simulated(options.numba) if options.numba else {}
        processes = [start(Path(options.folder).resolve(), folder), start(ROOT, folder)]
        processes.append(start(ROOT, folder, "--unchecked"))
        print("| kernel | that checkout, ms | this one, ms | times faster | unchecked, ms | numba, s |")
        print("|---|---|---|---|---|---|")
        for number, (name, _, grid, block, *_) in enumerate(KERNELS):
            rounds = [[ask(process, number) for process in processes] for _ in range(options.rounds + 1)][1:]
            then, now, unchecked = (min(times) * 1000 for times in zip(*rounds, strict=True))
            each = simulator.get(name)
            scaled = f"{each * threads(grid) * threads(block) / 1000:,.0f}" if each else "-"
            print(
                f"| `{name}` | {then:.1f} | {now:.1f} | {then / now:.2f} | {unchecked:.1f} | {scaled} |",
                flush=True,
            )
        for process in processes:
            process.communicate()


if __name__ == "__main__":
    main()
