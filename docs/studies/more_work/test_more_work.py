"""Shipped kernels with GPUPERF_STUDY_PERCENT more real work: more rows, vectors, values or products.

GPUPERF_STUDY_PERCENT=2 pytest docs/studies/more_work/test_more_work.py --gpuperf --gpuperf-calibrate=20

0 is the code that the others are judged by. Arrays have room for MOST percent more at any PERCENT, so that
the question stays the same: their shapes are part of a baseline's contract, and what of them is used is not.
"""

import os
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import pytest

# Short, since a series is a hundred processes. Arrays of 160 MB and more are beyond any L2 cache, and their
# launches long enough for a launch's own few microseconds not to hide what the work is.
pytestmark = pytest.mark.gpuperf(seconds=0.2, warmup=0.1)

PERCENT = int(os.environ.get("GPUPERF_STUDY_PERCENT", "0"))
MOST = 5
LENGTH, BLOCK = 64, 128  # of a vector, and vectors a block
STRIP = 256  # rows that are compared at a time, in half the time that all at once take
TILE_AND_BLOCK = {
    "transpose_naive": ((32, 8), (32, 8)),
    "transpose_tiled": ((32, 32), (32, 8)),
    "transpose_best": ((64, 64), (16, 16)),
}


class Work(NamedTuple):
    """A launch, its arguments, and whether what it wrote is right."""

    launch: Callable
    arguments: tuple
    is_right: Callable[[], bool]


def grown(hundreds, percent):
    """That many hundreds of units, and what ``percent`` more are."""
    return hundreds * (100 + percent)


def transpose(gpu, kernels, name, percent):
    """More rows; at any percent a row is whole sectors and float4s on both sides."""
    hundreds, cols = (128, 3200) if gpu.backend == "cuda" else (4, 40)
    rows, most = grown(hundreds, percent), grown(hundreds, MOST)
    src, dst = gpu.random((most, cols), seed=1), gpu.empty(most * cols)
    (width, height), block = TILE_AND_BLOCK[name]
    launch = kernels["transpose.cu"][name][(-(-cols // width), -(-rows // height)), block]

    def is_right():
        matrix, moved = src.get()[:rows], dst.get()[: rows * cols].reshape(cols, rows)
        strips = [slice(row, row + STRIP) for row in range(0, rows, STRIP)]
        return all(np.array_equal(moved[:, strip], matrix[strip].T) for strip in strips)

    return Work(launch, (src, dst, rows, cols), is_right)


def vectors(gpu, kernels, name, percent):
    """More vectors, a block of 128 each."""
    hundreds = 96 if gpu.backend == "cuda" else 1
    blocks, n = grown(hundreds, percent), grown(hundreds, percent) * BLOCK
    most = grown(hundreds, MOST) * BLOCK
    src, sums = gpu.random((most, LENGTH), seed=1), name == "row_sums_coalesced"
    dst = gpu.empty(most if sums else most * LENGTH)

    def is_right():
        given = src.get()[:n]
        if sums:
            expected = given.reshape(blocks, LENGTH, BLOCK).sum(axis=1, dtype=np.float64).ravel()
            return np.allclose(dst.get()[:n], expected, rtol=1e-5)
        expected = given.reshape(blocks, BLOCK, LENGTH).transpose(0, 2, 1)
        return np.array_equal(dst.get()[: given.size].reshape(expected.shape), expected)

    return Work(kernels["layout.cu"][name][blocks, BLOCK], (src, dst, n, LENGTH), is_right)


def block_sums(gpu, kernels, name, percent):
    """More values for each thread of the same grid."""
    blocks, threads, hundreds = (1024, 256, 4) if gpu.backend == "cuda" else (2, 64, 1)
    n, most = (blocks * threads * grown(hundreds, each) for each in (percent, MOST))
    values, partial = gpu.random(most, seed=1), gpu.empty(blocks)

    def is_right():
        exact = values.get()[:n].sum(dtype=np.float64)
        return np.isclose(partial.get().sum(dtype=np.float64), exact, rtol=1e-5)

    return Work(kernels["reduce.cu"][name][blocks, threads], (values, partial, n), is_right)


def matmul(gpu, kernels, name, percent):
    """More products for each element, whole tiles of 32."""
    size = 1024 if gpu.backend == "cuda" else 32
    k, most = grown(32, percent), grown(32, MOST)
    a, b, c = gpu.random(size * most, seed=1), gpu.random((most, size), seed=2), gpu.empty((size, size))

    def is_right():
        left = a.get()[: size * k].reshape(size, k).astype(np.float64)
        return np.allclose(c.get(), left @ b.get()[:k], rtol=1e-4)

    return Work(
        kernels["matmul.cu"][name][(size // 32, size // 32), (32, 8)], (a, b, c, size, size, k), is_right
    )


WORK = {
    **dict.fromkeys(TILE_AND_BLOCK, transpose),
    **dict.fromkeys(("linear_to_coalesced", "row_sums_coalesced"), vectors),
    "sum_coalesced": block_sums,
    "matmul_tiled": matmul,
}


@pytest.mark.parametrize("name", WORK)
def test_more_work(gpu, kernels, gpuperf, name):
    work = WORK[name](gpu, kernels, name, PERCENT)
    gpuperf(work.launch, *work.arguments)
    assert work.is_right()
