"""Shipped kernels with GPUPERF_STUDY_PERCENT of their work done twice; 0 is the code that they are judged by.

GPUPERF_STUDY_PERCENT=2 pytest docs/studies/more_work --gpuperf --gpuperf-calibrate=20
"""

import os
import sys
from pathlib import Path

import numpy as np
import pytest

from pytest_gpuperf.backends.library import Kernels

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))
from more_work import enlarged, options, wrapped  # noqa: E402

# Short, since a series is a hundred processes; arrays of 80 MB are beyond any L2 cache still.
pytestmark = pytest.mark.gpuperf(seconds=0.2, warmup=0.1)

PERCENT = int(os.environ.get("GPUPERF_STUDY_PERCENT", "0"))
ROWS = 6400  # 100, 200 and 400 blocks: a percent of them is a whole number
LENGTH, BLOCK = 64, 128
TILE_AND_BLOCK = {
    "transpose_naive": ((32, 8), (32, 8)),
    "transpose_tile16": ((16, 16), (16, 16)),
    "transpose_tiled": ((32, 32), (32, 8)),
    "transpose_best": ((64, 64), (16, 16)),
}


@pytest.fixture(scope="session")
def launch(gpu, tmp_path_factory):
    """launch(file, kernel, grid, block): that kernel, with more work."""
    folder = tmp_path_factory.mktemp("kernels")
    for name in ("transpose.cu", "layout.cu"):
        (folder / name).write_text(wrapped((HERE.parents[2] / "kernels" / name).read_text()))
    kernels = Kernels(folder, gpu)

    def bind(file, kernel, grid, block):
        return kernels[(file, *options(grid))][kernel][enlarged(grid, PERCENT), block]

    return bind


@pytest.mark.parametrize("name", TILE_AND_BLOCK)
def test_transpose(gpu, gpuperf, launch, name):
    cols = ROWS // 2 if gpu.backend == "cuda" else 64
    (width, height), block = TILE_AND_BLOCK[name]
    src, dst = gpu.random((ROWS, cols), seed=1), gpu.empty((cols, ROWS))
    kernel = launch("transpose.cu", name, (-(-cols // width), ROWS // height), block)
    gpuperf(kernel, src, dst, ROWS, cols, bytes=2 * src.nbytes)
    assert np.array_equal(dst.get(), src.get().T)


@pytest.mark.parametrize("name", ["row_sums_linear"])
def test_row_sums(gpu, gpuperf, launch, name):
    count = BLOCK * 100 * (30 if gpu.backend == "cuda" else 1)
    values, sums = gpu.random((count, LENGTH), seed=1), gpu.empty(count)
    gpuperf(launch("layout.cu", name, (count // BLOCK, 1), BLOCK), values, sums, count, LENGTH)
    assert np.allclose(sums.get(), values.get().sum(axis=1), rtol=1e-4)
