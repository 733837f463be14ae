"""Transposes: kernels/transpose.cu says what each of them is about."""

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

TILE_AND_BLOCK = {
    "transpose_naive": ((32, 8), (32, 8)),
    "transpose_tile16": ((16, 16), (16, 16)),
    "transpose_tile16_unpadded": ((16, 16), (16, 16)),
    "transpose_tiled": ((32, 32), (32, 8)),
    "transpose_best": ((64, 64), (16, 16)),
    "transpose_quads": ((128, 64), 128),
}
# Each takes at most this share of the time of the one before.
RUNGS = {
    "transpose_naive": 1,
    "transpose_tile16_unpadded": 0.5,
    "transpose_tile16": 1,
    "transpose_tiled": 0.9,
    "transpose_best": 1,
    "transpose_quads": 1.05,  # an H100's best; an H200 wants its blocks in another order: docs/ladder.md
}
each_transpose = pytest.mark.parametrize("name", TILE_AND_BLOCK)

# Around every tile's edge, and far enough to need several tiles.
extents = st.one_of(st.integers(1, 130), st.sampled_from([1, 15, 16, 17, 31, 32, 33, 63, 64, 65, 128]))


@pytest.fixture(scope="module")
def transpose(kernels):
    """transpose(name, rows, cols): that kernel on the grid that covers a rows x cols matrix."""

    def bind(name, rows, cols):
        (width, height), block = TILE_AND_BLOCK[name]
        grid = (max(1, -(-cols // width)), max(1, -(-rows // height)))
        return kernels["transpose.cu"][name][grid, block]

    return bind


@each_transpose
@settings(deadline=None, max_examples=25)
@given(rows=extents, cols=extents, seed=st.integers(0, 2**32 - 1))
@example(rows=1, cols=1, seed=0)
@example(rows=1, cols=97, seed=0)
@example(rows=97, cols=1, seed=0)
@example(rows=101, cols=103, seed=0)
@example(rows=128, cols=64, seed=0)  # whole tiles, rows of whole float4
@example(rows=127, cols=64, seed=0)  # only the loads can be float4
@example(rows=64, cols=127, seed=0)  # only the stores
@example(rows=257, cols=255, seed=0)
def test_moves_every_bit(gpu, transpose, name, rows, cols, seed):
    """Any bits at all, so NaN, infinities and denormals among them."""
    bits = np.random.default_rng(seed).integers(0, 2**32, (rows, cols), np.uint32)
    src, dst = gpu.to_device(bits.view(np.float32)), gpu.empty((cols, rows))
    transpose(name, rows, cols)(src, dst, rows, cols)
    assert np.array_equal(dst.get().view(np.uint32), bits.T)


@each_transpose
@pytest.mark.parametrize(("rows", "cols"), [(0, 0), (0, 5), (5, 0)])
def test_touches_nothing_of_an_empty_matrix(gpu, transpose, name, rows, cols):
    src, dst = gpu.random((1, 1), seed=1), gpu.to_device(np.full((8, 8), 7, np.float32))
    transpose(name, rows, cols)(src, dst, rows, cols)
    assert np.all(dst.get() == 7)


@each_transpose
def test_latency(gpu, transpose, gpuperf, side, name):
    src, dst = gpu.random((side, side), seed=1), gpu.empty((side, side))
    gpuperf(transpose(name, side, side), src, dst, side, side, bytes=2 * src.nbytes)
    assert is_transpose(dst.get(), src.get())


def is_transpose(moved, matrix, strip=256):
    """np.array_equal(moved, matrix.T) strip by strip, in half the time where the matrix is large."""
    rows = [slice(row, row + strip) for row in range(0, len(matrix), strip)]
    return moved.shape == matrix.T.shape and all(np.array_equal(moved[:, r], matrix[r].T) for r in rows)


def test_each_rung_is_faster_than_the_one_before(gpu, transpose, climb, side):
    src, dst = gpu.random((side, side), seed=1), gpu.empty((side, side))
    rungs = {name: (transpose(name, side, side), src, dst, side, side) for name in RUNGS}
    climb(rungs, RUNGS)


# Sectors per global load and store, wavefronts per shared load and store.
TRAFFIC = {
    "transpose_naive": (4, 32, None, None),
    "transpose_tile16": (4, 4, 2, 2),
    "transpose_tile16_unpadded": (4, 4, 8, 1),
    "transpose_tiled": (4, 4, 1, 1),
    "transpose_best": (16, 16, 1, 1),  # 32 lanes of 16 bytes cannot be fewer than 16 sectors
    "transpose_quads": (16, 16, 4, 4),  # nor than 4 wavefronts
}


@pytest.mark.parametrize("name", TRAFFIC)
def test_traffic(gpu, transpose, counters, name):
    src, dst = gpu.random((256, 256), seed=1), gpu.empty((256, 256))
    found = counters(transpose(name, 256, 256), src, dst, 256, 256)
    assert TRAFFIC[name] == (
        found.global_load.sectors_per_request,
        found.global_store.sectors_per_request,
        found.shared_load.wavefronts_per_request,
        found.shared_store.wavefronts_per_request,
    )


@pytest.mark.parametrize("name", ["transpose_tiled", "transpose_best", "transpose_quads"])
def test_no_bank_conflicts_at_the_edges_either(gpu, transpose, counters, name):
    src, dst = gpu.random((257, 255), seed=1), gpu.empty((255, 257))
    found = counters(transpose(name, 257, 255), src, dst, 257, 255)
    assert found.shared_load.bank_conflicts == 0
    assert found.shared_store.bank_conflicts == 0
