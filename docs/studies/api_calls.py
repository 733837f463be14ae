"""The CUDA API calls of two transposes, with the first of each kind apart from the others, as Markdown.

    python docs/studies/api_calls.py [SIDE]

A profiler's table averages all calls of a name; the first pays for a context, for code that is loaded, for
memory that is mapped. Each kernel runs in a process of its own, as a CUDA program does it: allocate, copy,
launch, wait, copy back, free, eleven times over. Needs a GPU, nvcc and CUPTI, as --gpuperf-trace does.
"""

from __future__ import annotations

import ctypes
import json
import subprocess
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path

from pytest_gpuperf.backends.cuda.activity import CuptiTracer
from pytest_gpuperf.backends.cuda.compile import find_nvcc
from pytest_gpuperf.figures import quantity
from pytest_gpuperf.traces import Calls, sum_up

KERNELS = Path(__file__).resolve().parents[2] / "kernels" / "transpose.cu"
ROUNDS = 11
TOLD = ("Malloc", "Memcpy", "Launch", "Synchronize", "Free")
PROGRAM = """
#include "%s"
#include <cstdlib>
extern "C" int run(int tiled, int side, int rounds) {
    size_t bytes = sizeof(float) * side * side;
    float *host = (float *)calloc(side, sizeof(float) * side), *src, *dst;
    for (int i = 0; i < rounds; ++i) {
        cudaMalloc(&src, bytes);
        cudaMalloc(&dst, bytes);
        cudaMemcpy(src, host, bytes, cudaMemcpyHostToDevice);
        if (tiled)
            transpose_tiled<<<dim3((side + 31) / 32, (side + 31) / 32), dim3(32, 8)>>>(src, dst, side, side);
        else
            transpose_naive<<<dim3((side + 31) / 32, (side + 7) / 8), dim3(32, 8)>>>(src, dst, side, side);
        cudaDeviceSynchronize();
        cudaMemcpy(host, dst, bytes, cudaMemcpyDeviceToHost);
        cudaFree(src);
        cudaFree(dst);
    }
    free(host);
    return cudaGetLastError();
}
"""


def trace(name: str, side: int) -> list[Calls]:
    """Run a kernel's program in this process and return its calls."""
    with tempfile.TemporaryDirectory() as folder:
        source, library = Path(folder, "program.cu"), Path(folder, "program.so")
        source.write_text(PROGRAM % KERNELS)
        command = [str(find_nvcc()), "-O3", "-arch=native", "-shared", "-Xcompiler=-fPIC"]
        subprocess.run([*command, "-o", str(library), str(source)], check=True)
        program, tracer = ctypes.CDLL(str(library)), CuptiTracer()
        tracer.start()
        if error := program.run(int(name == "transpose_tiled"), side, ROUNDS):
            raise SystemExit(f"{name}: CUDA error {error}")
        events = sorted(tracer.take(), key=lambda event: event.start)
    return sum_up(events)


def table(calls: list[Calls]) -> list[str]:
    lines = [
        "| | calls | total | mean of all | first | mean of the rest |",
        "|---|--:|--:|--:|--:|--:|",
    ]
    for each in calls:
        if each.on_device or any(word in each.name for word in TOLD):
            times = (each.total, each.total / each.count, each.first, each.rest)
            name = f"{each.name} on the device" if each.on_device else f"`{each.name}`"
            cells = " | ".join(quantity(seconds, "s") for seconds in times)
            lines.append(f"| {name} | {each.count} | {cells} |")
    return lines


def main(side: int = 8192) -> None:
    for name in ("transpose_naive", "transpose_tiled"):
        command = [sys.executable, __file__, str(side), name]
        done = subprocess.run(command, check=True, capture_output=True, text=True)
        calls = [Calls(**each) for each in json.loads(done.stdout.splitlines()[-1])]
        print(f"\n`{name}`, {side} x {side}, {ROUNDS} rounds of one process:\n", *table(calls), sep="\n")


if __name__ == "__main__":
    if len(sys.argv) > 2:
        print(json.dumps([asdict(each) for each in trace(sys.argv[2], int(sys.argv[1]))]))
    else:
        main(*map(int, sys.argv[1:]))
