"""Sums of all elements: kernels/reduce.cu."""

import math

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

THREADS = 256
PER_THREAD = 256  # values; 2^26 of them then fill an H100 once, with eight blocks on nearly every SM
SUMS = ["sum_strided", "sum_coalesced", "sum_vectorized"]  # each faster than the one before


@pytest.mark.parametrize("name", SUMS)
@settings(deadline=None, max_examples=30)
@given(
    n=st.integers(0, 5000),
    blocks=st.integers(1, 5),
    threads=st.sampled_from([1, 32, 64, 256]),
    seed=st.integers(0, 2**32 - 1),
)
@example(n=0, blocks=3, threads=32, seed=0)
@example(n=1, blocks=1, threads=256, seed=0)
@example(n=97, blocks=2, threads=64, seed=0)
@example(n=4096, blocks=2, threads=256, seed=0)
@example(n=4999, blocks=5, threads=256, seed=0)
def test_is_exact_on_small_integers(gpu, kernels, name, n, blocks, threads, seed):
    """Sums of integers below 2^24 are exact in float32 in any order: each value counts, and once."""
    host = np.random.default_rng(seed).integers(-1000, 1001, max(n, 1)).astype(np.float32)
    partial, total = gpu.empty(blocks), gpu.empty(1)
    kernel = kernels["reduce.cu"][name]
    kernel[blocks, threads](gpu.to_device(host), partial, n)
    kernel[1, threads](partial, total, blocks)
    assert total.get()[0] == host[:n].sum()


@pytest.mark.parametrize("name", SUMS)
def test_latency(gpu, kernels, gpuperf, side, name):
    n = side * side
    blocks = n // (THREADS * PER_THREAD)
    values, partial = gpu.random(n, seed=1), gpu.empty(blocks)
    gpuperf(kernels["reduce.cu"][name][blocks, THREADS], values, partial, n, bytes=values.nbytes, flops=n)

    # A value takes part in at most PER_THREAD additions in its thread and log2(THREADS) in the tree. With
    # that as k and u = 2^-24, the error is at most k u / (1 - k u) of the sum of the absolute values (Higham,
    # Accuracy and Stability of Numerical Algorithms, section 4.2); all values are positive.
    additions = PER_THREAD + math.log2(THREADS)
    bound = additions * 2.0**-24 / (1 - additions * 2.0**-24)
    exact = values.get().sum(dtype=np.float64)
    assert abs(partial.get().sum(dtype=np.float64) - exact) <= bound * exact


def test_each_rung_is_faster_than_the_one_before(gpu, kernels, climb, side):
    n = side * side
    blocks = n // (THREADS * PER_THREAD)
    values, partial = gpu.random(n, seed=1), gpu.empty(blocks)
    launches = {name: kernels["reduce.cu"][name][blocks, THREADS] for name in SUMS}
    rungs = {name: (launch, values, partial, n) for name, launch in launches.items()}
    climb(rungs, {"sum_coalesced": 0.7, "sum_vectorized": 0.9})


@pytest.mark.parametrize("name", SUMS)
def test_sectors_and_conflicts(gpu, kernels, counters, name):
    n = 8 * THREADS * 32
    values, partial = gpu.random(n, seed=1), gpu.empty(8)
    found = counters(kernels["reduce.cu"][name][8, THREADS], values, partial, n)
    assert (
        found.global_load.sectors_per_request
        == {"sum_coalesced": 4, "sum_strided": 32, "sum_vectorized": 16}[name]
    )
    assert found.global_store.sectors_per_request == 1
    assert found.shared_load.bank_conflicts == 0
    assert found.shared_store.bank_conflicts == 0
