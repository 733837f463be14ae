"""The figures of docs/ladder.md: every rung's time, rate and traffic, beside the device's copy and cuBLAS.

    python docs/studies/ladder.py

One process, arrays moved as the fixtures move them. Shares are of the device's own copy at that size
(transposes: bytes read and written; sums: bytes read) or of cuBLAS in fp32 without TF32, by torch where it is
installed. Without a GPU it runs emulated, on small arrays, which shows the counters only.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from pytest_gpuperf.backends import select
from pytest_gpuperf.backends.arguments import check
from pytest_gpuperf.backends.gpu import Gpu
from pytest_gpuperf.backends.kernels import Kernels, Launch
from pytest_gpuperf.errors import Unavailable
from pytest_gpuperf.instruments import counters, device_time

KERNELS = Path(__file__).resolve().parents[2] / "kernels"
TRANSPOSES = {
    "transpose_naive": ((32, 8), (32, 8)),
    "transpose_tile16_unpadded": ((16, 16), (16, 16)),
    "transpose_tile16": ((16, 16), (16, 16)),
    "transpose_tiled": ((32, 32), (32, 8)),
    "transpose_best": ((64, 64), (16, 16)),
    "transpose_quads": ((128, 64), 128),
}
SUMS = ("sum_strided", "sum_coalesced", "sum_vectorized")
MATMULS = {
    "matmul_naive": ((32, 8), (32, 8)),
    "matmul_tiled": ((32, 32), (32, 8)),
    "matmul_blocked": ((128, 128), 256),
}
THREADS, PER_THREAD = 256, 256  # of a sum


Rung = tuple[Launch, tuple[Any, ...]]


class Ladder:
    """The kernels of one device, bound to arrays of any size."""

    def __init__(self) -> None:
        self.gpu = Gpu(select("auto"))
        self.kernels = Kernels(KERNELS, self.gpu)

    def transpose(self, name: str, side: int) -> Rung:
        (width, height), block = TRANSPOSES[name]
        grid = (-(-side // width), -(-side // height))
        arrays = self.gpu.random((side, side), seed=1), self.gpu.empty((side, side))
        return self.kernels["transpose.cu"][name][grid, block], (*arrays, side, side)

    def sum(self, name: str, side: int) -> Rung:
        n = side * side
        blocks = max(1, n // (THREADS * PER_THREAD))
        arrays = self.gpu.random(n, seed=1), self.gpu.empty(blocks)
        return self.kernels["reduce.cu"][name][blocks, THREADS], (*arrays, n)

    def matmul(self, name: str, n: int) -> Rung:
        (width, height), block = MATMULS[name]
        grid = (-(-n // width), -(-n // height))
        factors = self.gpu.random((n, n), seed=1), self.gpu.random((n, n), seed=2)
        return self.kernels["matmul.cu"][name][grid, block], (*factors, self.gpu.empty((n, n)), n, n, n)

    def seconds(self, launch: Any, *args: Any) -> float:
        """Return the median device time, NaN where it is not the device's."""
        taken = device_time.measure(self.gpu, launch, args).median
        return taken if self.gpu.device.judges_times else math.nan

    def copy(self, side: int) -> float:
        """Return the seconds of the device's own copy of a matrix."""
        return self.seconds(self.gpu.device.copy, self.gpu.empty((side, side)), self.gpu.random((side, side)))

    def traffic(self, rung: Rung) -> str:
        """Return sectors a request of loads and stores, and bank conflicts a request of shared ones."""
        launch, args = rung
        checked = check(launch.declaration, args, launch.backend)
        try:
            found = counters.count(launch.file.program, launch.name, launch.geometry, checked)
        except Unavailable:
            return "not counted |"
        load, store = found.shared_load, found.shared_store
        sectors = found.global_load.sectors_per_request, found.global_store.sectors_per_request
        conflicts = load.bank_conflicts_per_request, store.bank_conflicts_per_request
        return " | ".join(
            " / ".join("-" if v is None else f"{v:.3g}" for v in pair) for pair in (sectors, conflicts)
        )


def row(ladder: Ladder, name: str, rung: Rung, small: Rung, rate: Callable[[float], str]) -> str:
    """Return a line of the table; ``small`` is the rung on few elements, which is what is counted."""
    launch, args = rung
    took = ladder.seconds(launch, *args)
    return f"| `{name}` | {took * 1e6:,.1f} | {rate(took)} | {ladder.traffic(small)} |"


def transposes(ladder: Ladder, side: int) -> Iterator[str]:
    copy, moved = ladder.copy(side), 8 * side * side
    yield f"| copy, {side} x {side} | {copy * 1e6:,.1f} | {moved / copy / 1e9:,.0f} GB/s | 100 % | | |"
    for name in TRANSPOSES:
        rungs = ladder.transpose(name, side), ladder.transpose(name, 256)
        yield row(ladder, name, *rungs, lambda s: f"{moved / s / 1e9:,.0f} GB/s | {100 * copy / s:.1f} %")


def sums(ladder: Ladder, side: int) -> Iterator[str]:
    read, copied = 4 * side * side, 8 * side * side / ladder.copy(side)
    for name in SUMS:
        rungs = ladder.sum(name, side), ladder.sum(name, 256)
        yield row(
            ladder, name, *rungs, lambda s: f"{read / s / 1e9:,.0f} GB/s | {100 * read / s / copied:.1f} %"
        )


def matmuls(ladder: Ladder, n: int) -> Iterator[str]:
    best, flops = cublas(ladder, n), 2 * n**3
    yield f"| cuBLAS, {n} x {n} | {best * 1e6:,.1f} | {flops / best / 1e12:.1f} TFLOP/s | 100 % | | |"
    for name in MATMULS:
        rungs = ladder.matmul(name, n), ladder.matmul(name, 64)
        yield row(ladder, name, *rungs, lambda s: f"{flops / s / 1e12:.1f} TFLOP/s | {100 * best / s:.1f} %")


def cublas(ladder: Ladder, n: int) -> float:
    """Return the median seconds of an n x n product in fp32 without TF32, NaN where torch has no GPU."""
    try:
        import torch
    except ImportError:
        return math.nan
    if not (ladder.gpu.device.judges_times and torch.cuda.is_available()):
        return math.nan
    torch.backends.cuda.matmul.allow_tf32 = False
    a, b = torch.rand((n, n), device="cuda"), torch.rand((n, n), device="cuda")
    c = torch.empty_like(a)
    torch.mm(a, b, out=c)  # cuBLAS makes its workspace at the first
    torch.cuda.synchronize()
    return ladder.seconds(lambda: torch.mm(a, b, out=c))


def main() -> None:
    ladder = Ladder()
    device, real = ladder.gpu.device, ladder.gpu.device.judges_times
    print(f"{device.device_name}, {device.uuid}, {device.compiler_version}\n")
    print("| | us | rate | share | sectors a load / store | conflicts a load / store |")
    print("|---|---|---|---|---|---|")
    for side in (8192, 16384) if real else (128,):
        print(*transposes(ladder, side), sep="\n")
    print(*sums(ladder, 8192 if real else 256), sep="\n")
    for n in (2048, 4096) if real else (64,):
        print(*matmuls(ladder, n), sep="\n")
    ladder.gpu.close()


if __name__ == "__main__":
    main()
