"""The kernels of emulated_speed.py in numba's simulator, which starts a Python thread for each CUDA thread.

    NUMBA_ENABLE_CUDASIM=1 python docs/studies/emulated_numba.py

Prints each kernel's name and microseconds for each of its threads, on arrays as small as such launches bear.
No access is checked there but by NumPy's own bounds.
"""

from __future__ import annotations

from time import perf_counter
from typing import Any

import numpy as np
from numba import cuda, float32, int32

TILE, INNER = 32, 32


@cuda.jit
def copy(src: Any, dst: Any) -> None:
    i = cuda.blockIdx.x * cuda.blockDim.x + cuda.threadIdx.x
    if i < src.size:
        dst[i] = src[i]


@cuda.jit
def transpose_naive(src: Any, dst: Any) -> None:
    x, y = cuda.grid(2)
    if y < src.shape[0] and x < src.shape[1]:
        dst[x, y] = src[y, x]


@cuda.jit
def transpose_tiled(src: Any, dst: Any) -> None:
    tile = cuda.shared.array((TILE, TILE + 1), float32)
    tx, ty = cuda.threadIdx.x, cuda.threadIdx.y
    for j in range(0, TILE, 8):
        tile[ty + j, tx] = src[cuda.blockIdx.y * TILE + ty + j, cuda.blockIdx.x * TILE + tx]
    cuda.syncthreads()
    for j in range(0, TILE, 8):
        dst[cuda.blockIdx.x * TILE + ty + j, cuda.blockIdx.y * TILE + tx] = tile[tx, ty + j]


@cuda.jit
def matmul_naive(a: Any, b: Any, c: Any) -> None:
    x, y = cuda.grid(2)
    total = float32(0)
    for i in range(INNER):
        total += a[y, i] * b[i, x]
    c[y, x] = total


@cuda.jit
def matmul_tiled(a: Any, b: Any, c: Any) -> None:
    a_tile, b_tile = (cuda.shared.array((TILE, TILE), float32) for _ in range(2))
    tx, ty = cuda.threadIdx.x, cuda.threadIdx.y
    for j in range(0, TILE, 8):
        a_tile[ty + j, tx], b_tile[ty + j, tx] = a[ty + j, tx], b[ty + j, tx]
    cuda.syncthreads()
    for j in range(0, TILE, 8):
        total = float32(0)
        for i in range(TILE):
            total += a_tile[ty + j, i] * b_tile[i, tx]
        c[ty + j, tx] = total


@cuda.jit
def histogram_shared(values: Any, bins: Any) -> None:
    mine = cuda.shared.array(256, int32)
    mine[cuda.threadIdx.x] = 0
    cuda.syncthreads()
    for i in range(cuda.grid(1), values.size, cuda.gridsize(1)):
        cuda.atomic.add(mine, values[i] & 255, 1)
    cuda.syncthreads()
    cuda.atomic.add(bins, cuda.threadIdx.x, mine[cuda.threadIdx.x])


@cuda.jit
def histogram_global(values: Any, bins: Any) -> None:
    for i in range(cuda.grid(1), values.size, cuda.gridsize(1)):
        cuda.atomic.add(bins, values[i] & 255, 1)


def main() -> None:
    square = np.random.default_rng(1).random((TILE, TILE), np.float32)
    values = np.arange(4096, dtype=np.int32)
    # Grid, block, arguments, and of how many threads of emulated_speed.py's this is the work.
    launches: list[tuple[Any, Any, Any, tuple[Any, ...], float]] = [
        (copy, 8, 256, (square.ravel(), np.zeros(1024, np.float32)), 2048),
        (transpose_naive, (1, 4), (32, 8), (square, np.zeros_like(square)), 1024),
        (transpose_tiled, 1, (32, 8), (square, np.zeros_like(square)), 256),
        (matmul_naive, 1, (32, 32), (square, square, np.zeros_like(square)), 1024 / 4),
        (matmul_tiled, 1, (32, 8), (square, square, np.zeros_like(square)), 256 / 4),
        (histogram_shared, 1, 256, (values, np.zeros(256, np.int32)), 256),
        (histogram_global, 1, 256, (values, np.zeros(256, np.int32)), 256),
    ]
    for kernel, grid, block, arrays, threads in launches:
        times = []
        for _ in range(3):
            begin = perf_counter()
            kernel[grid, block](*arrays)
            times.append(perf_counter() - begin)
        print(kernel.__name__, min(times) * 1e6 / threads, flush=True)


if __name__ == "__main__":
    main()
