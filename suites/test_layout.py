"""Vectors in linear and in coalesced storage: kernels/layout.cu has the formula."""

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

LENGTH = 64  # of each vector, where time or sectors are taken
BLOCK = 128

vectors = st.integers(1, 150)
lengths = st.integers(1, 40)
blocks = st.sampled_from([1, 7, 32, 64, 100])


def blocks_for(n, bd):
    return -(-n // bd)


def coalesced(linear, bd):
    """The coalesced storage of n vectors of length m, by the formula."""
    n, m = linear.shape
    storage = np.zeros(blocks_for(n, bd) * bd * m, np.float32)
    v, i = np.indices((n, m))
    bx, tx = v // bd, v % bd
    storage[m * bd * bx + i * bd + tx] = linear
    return storage


@settings(deadline=None, max_examples=30)
@given(n=vectors, m=lengths, bd=blocks, seed=st.integers(0, 2**32 - 1))
@example(n=1, m=1, bd=1, seed=0)
@example(n=97, m=1, bd=32, seed=0)
@example(n=1, m=37, bd=64, seed=0)
@example(n=128, m=16, bd=64, seed=0)
@example(n=131, m=31, bd=100, seed=0)
def test_rearranges_there_and_back(gpu, kernels, n, m, bd, seed):
    layout = kernels["layout.cu"]
    host = np.random.default_rng(seed).random((n, m), np.float32)
    linear, back = gpu.to_device(host), gpu.empty((n, m))
    storage = gpu.empty(blocks_for(n, bd) * bd * m)
    layout.linear_to_coalesced[blocks_for(n, bd), bd](linear, storage, n, m)
    assert np.array_equal(storage.get(), coalesced(host, bd))
    layout.coalesced_to_linear[blocks_for(n, bd), bd](storage, back, n, m)
    assert np.array_equal(back.get(), host)


@settings(deadline=None, max_examples=30)
@given(n=vectors, m=st.integers(0, 40), bd=blocks, seed=st.integers(0, 2**32 - 1))
@example(n=131, m=31, bd=100, seed=0)
@example(n=5, m=0, bd=32, seed=0)
def test_both_storages_give_the_exact_sums_of_integers(gpu, kernels, n, m, bd, seed):
    layout = kernels["layout.cu"]
    host = np.random.default_rng(seed).integers(-1000, 1001, (n, m)).astype(np.float32)
    if m == 0:  # nothing to read, whatever the storage
        linear = storage = gpu.random(1, seed=1)
    else:
        linear, storage = gpu.to_device(host), gpu.to_device(coalesced(host, bd))
    for kernel, values in ((layout.row_sums_linear, linear), (layout.row_sums_coalesced, storage)):
        sums = gpu.empty(n)
        kernel[blocks_for(n, bd), bd](values, sums, n, m)
        assert np.array_equal(sums.get(), host.sum(axis=1))


@pytest.fixture
def case(gpu, side):
    """The vectors that are timed: linear, coalesced and room for their sums, and how many there are."""
    n = side * side // LENGTH
    linear = gpu.random((n, LENGTH), seed=1)
    # What coalesced() gives where n fills its blocks; its index arrays would take gigabytes here.
    storage = linear.get().reshape(n // BLOCK, BLOCK, LENGTH).transpose(0, 2, 1)
    return linear, gpu.to_device(storage), gpu.empty(n), n


@pytest.mark.parametrize("direction", ["linear_to_coalesced", "coalesced_to_linear"])
def test_rearranging_latency(gpu, kernels, gpuperf, case, direction):
    linear, storage, _, n = case
    src, expected = (linear, storage) if direction == "linear_to_coalesced" else (storage, linear)
    dst = gpu.empty(expected.shape)
    launch = kernels["layout.cu"][direction][blocks_for(n, BLOCK), BLOCK]
    gpuperf(launch, src, dst, n, LENGTH, bytes=2 * src.nbytes)
    assert np.array_equal(dst.get(), expected.get())


@pytest.mark.parametrize("name", ["row_sums_linear", "row_sums_coalesced"])
def test_row_sums_latency(kernels, gpuperf, case, name):
    linear, storage, sums, n = case
    values = linear if name == "row_sums_linear" else storage
    launch = kernels["layout.cu"][name][blocks_for(n, BLOCK), BLOCK]
    gpuperf(launch, values, sums, n, LENGTH, bytes=values.nbytes + sums.nbytes, flops=n * LENGTH)

    # Adding one after the other, the error is at most m u / (1 - m u) of the sum of the absolute values, with
    # u = 2^-24 (Higham, Accuracy and Stability of Numerical Algorithms, eq. 4.4); all values are positive.
    exact = linear.get().sum(axis=1, dtype=np.float64)
    bound = LENGTH * 2.0**-24 / (1 - LENGTH * 2.0**-24)
    assert np.all(np.abs(sums.get() - exact) <= bound * exact)


def test_coalesced_row_sums_are_faster(kernels, climb, case):
    linear, storage, sums, n = case
    layout, grid = kernels["layout.cu"], blocks_for(n, BLOCK)
    rungs = {
        "row_sums_linear": (layout.row_sums_linear[grid, BLOCK], linear, sums, n, LENGTH),
        "row_sums_coalesced": (layout.row_sums_coalesced[grid, BLOCK], storage, sums, n, LENGTH),
    }
    climb(rungs, {"row_sums_coalesced": 0.7})


# Sectors per load and per store.
SECTORS = {
    "linear_to_coalesced": (32, 4),
    "coalesced_to_linear": (4, 32),
    "row_sums_linear": (32, 4),
    "row_sums_coalesced": (4, 4),
}


@pytest.mark.parametrize("name", SECTORS)
def test_sectors(gpu, kernels, counters, name):
    n = 2 * BLOCK
    src = gpu.random(n * LENGTH, seed=1)
    dst = gpu.empty(n if name.startswith("row_sums") else n * LENGTH)
    found = counters(kernels["layout.cu"][name][2, BLOCK], src, dst, n, LENGTH)
    assert SECTORS[name] == (found.global_load.sectors_per_request, found.global_store.sectors_per_request)
