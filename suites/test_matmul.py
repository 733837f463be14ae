"""Matrix products: kernels/matmul.cu."""

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

TILE_AND_BLOCK = {
    "matmul_naive": ((32, 8), (32, 8)),
    "matmul_tiled": ((32, 32), (32, 8)),
    "matmul_blocked": ((128, 128), 256),
}
each_matmul = pytest.mark.parametrize("name", TILE_AND_BLOCK)
extents = st.one_of(st.integers(1, 70), st.sampled_from([1, 31, 32, 33, 64]))


@pytest.fixture(scope="module")
def matmul(kernels):
    """matmul(name, m, n): that kernel on the grid that covers an m x n product."""

    def bind(name, m, n):
        (width, height), block = TILE_AND_BLOCK[name]
        grid = (max(1, -(-n // width)), max(1, -(-m // height)))
        return kernels["matmul.cu"][name][grid, block]

    return bind


@each_matmul
@settings(deadline=None, max_examples=20)
@given(m=extents, n=extents, k=extents, seed=st.integers(0, 2**32 - 1))
@example(m=1, n=1, k=1, seed=0)
@example(m=1, n=61, k=1, seed=0)
@example(m=61, n=1, k=67, seed=0)
@example(m=31, n=37, k=41, seed=0)
@example(m=64, n=64, k=64, seed=0)
def test_is_exact_on_small_integers(gpu, matmul, name, m, n, k, seed):
    """Sums of integers below 2^24 are exact in float32 in any order: no tolerance to hide behind."""
    rng = np.random.default_rng(seed)
    a = rng.integers(-8, 9, (m, k)).astype(np.float32)
    b = rng.integers(-8, 9, (k, n)).astype(np.float32)
    c = gpu.empty((m, n))
    matmul(name, m, n)(gpu.to_device(a), gpu.to_device(b), c, m, n, k)
    assert np.array_equal(c.get(), a @ b)


@each_matmul
def test_an_empty_sum_is_zero(gpu, matmul, name):
    nothing, c = gpu.random(1, seed=1), gpu.empty((5, 7))
    matmul(name, 5, 7)(nothing, nothing, c, 5, 7, 0)
    assert np.all(c.get() == 0)


@each_matmul
@pytest.mark.parametrize(("m", "n"), [(0, 0), (0, 5), (5, 0)])
def test_touches_nothing_of_an_empty_product(gpu, matmul, name, m, n):
    one, c = gpu.random((8, 8), seed=1), gpu.to_device(np.full((8, 8), 7, np.float32))
    matmul(name, m, n)(one, one, c, m, n, 1)
    assert np.all(c.get() == 7)


@each_matmul
def test_latency(gpu, matmul, gpuperf, side, name):
    n = side // 4
    a, b, c = gpu.random((n, n), seed=1), gpu.random((n, n), seed=2), gpu.empty((n, n))
    gpuperf(matmul(name, n, n), a, b, c, n, n, n, bytes=3 * a.nbytes, flops=2 * n**3)

    # Higham, Accuracy and Stability of Numerical Algorithms, eq. 3.13: |error| <= n u / (1 - n u) |A| |B|,
    # with u = 2^-24, whatever the order of the sums. All values are positive here, so |A| |B| is A B.
    exact = a.get().astype(np.float64) @ b.get().astype(np.float64)
    bound = n * 2.0**-24 / (1 - n * 2.0**-24)
    assert np.all(np.abs(c.get() - exact) <= bound * exact)


def test_each_rung_is_faster_than_the_one_before(gpu, matmul, climb, side):
    n = side // 4
    a, b, c = gpu.random((n, n), seed=1), gpu.random((n, n), seed=2), gpu.empty((n, n))
    rungs = {name: (matmul(name, n, n), a, b, c, n, n, n) for name in TILE_AND_BLOCK}
    climb(rungs, {"matmul_tiled": 0.7, "matmul_blocked": 0.55})


# Sectors per load and per store; of A the naive kernel reads one word a warp (1 sector), of B 32 (4 sectors).
# The blocked one's threads store four neighbouring words each, one after the other: 8 groups of 16 lanes.
SECTORS = {"matmul_naive": (2.5, 4), "matmul_tiled": (4, 4), "matmul_blocked": (4, 16)}


@pytest.mark.parametrize("name", SECTORS)
def test_sectors(gpu, matmul, counters, name):
    a, b, c = gpu.random((64, 64), seed=1), gpu.random((64, 64), seed=2), gpu.empty((64, 64))
    found = counters(matmul(name, 64, 64), a, b, c, 64, 64, 64)
    assert SECTORS[name] == (found.global_load.sectors_per_request, found.global_store.sectors_per_request)


@pytest.mark.parametrize(("m", "n", "k"), [(64, 64, 64), (31, 37, 41)])
def test_no_bank_conflicts(gpu, matmul, counters, m, n, k):
    a, b, c = gpu.random((m, k), seed=1), gpu.random((k, n), seed=2), gpu.empty((m, n))
    found = counters(matmul("matmul_tiled", m, n), a, b, c, m, n, k)
    assert found.shared_load.bank_conflicts == 0
    assert found.shared_store.bank_conflicts == 0
