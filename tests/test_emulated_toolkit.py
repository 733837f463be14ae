"""Barriers of a grid, asynchronous copies and CUB on the emulator; what a GPU runs too, on a GPU as well."""

from pathlib import Path

import numpy as np
import pytest

from pytest_gpuperf.backends.kernels import Kernels
from pytest_gpuperf.errors import KernelError, Unsupported

SOURCE = Path(__file__).with_suffix(".cu").read_text()


def line_of(name):
    return next(n for n, line in enumerate(SOURCE.splitlines(), 1) if line.endswith(f"// {name}"))


def run(backend, name, grid, block, *arguments):
    """Launch a kernel with copies of NumPy arrays, and return what it left in them."""
    given = [backend.to_device(a) if isinstance(a, np.ndarray) else a for a in arguments]
    kernels = Kernels(Path(__file__).parent, backend)["test_emulated_toolkit.cu"]
    kernels[name][grid, block](*given)
    return [a.get() for a in given if not isinstance(a, int)]


@pytest.fixture(params=["emulated", pytest.param("cuda", marks=pytest.mark.gpu)])
def device(request):
    """The emulator, and a GPU where there is one."""
    if request.param == "emulated":
        yield request.getfixturevalue("backend")
        return
    from pytest_gpuperf.backends.cuda.device import CudaBackend

    made = CudaBackend()
    yield made
    made.close()


def smoothed(x, steps):
    for _ in range(steps):
        x = np.float32(0.5) * (np.roll(x, -1) + np.roll(x, 1))
    return x


@pytest.mark.parametrize(("grid", "block"), [(1, 32), (4, 64), (50, 64)])
def test_a_grid_that_synchronises(backend, grid, block):
    """Also one of more blocks than an SM holds."""
    x = np.random.default_rng(0).random(1000, np.float32)
    found, _ = run(backend, "smoothed", grid, block, x, np.zeros_like(x), 1000, 3, 0)
    assert np.array_equal(found, smoothed(x, 3))


def test_a_barrier_of_the_grid_that_is_missing(backend):
    x = np.arange(256, dtype=np.float32)
    says = rf"argument 1 'a' .* thread \(0, 0, 0\) writes in line {line_of('forgotten')}: .*\(race\)"
    with pytest.raises(KernelError, match=says):
        run(backend, "smoothed", 4, 32, x, np.zeros_like(x), 256, 2, 1)


def test_a_grid_that_is_too_large_for_its_barrier(backend):
    x = np.zeros(8, np.float32)
    line = rf"toolkit.cu:{line_of('smoothed')}: kernel smoothed"
    with pytest.raises(
        Unsupported, match=rf"{line}, .* a grid of 300 blocks, .* room for 64 of them"
    ) as caught:
        run(backend, "smoothed", 300, 256, x, x, 8, 1, 0)
    assert 'gpuperf(backend="cuda")' in str(caught.value)
    with pytest.raises(KernelError, match=rf"{line}, .* 1056 blocks .* 132 SMs .* 1057 of this") as caught:
        run(backend, "smoothed", 1057, 256, x, x, 8, 1, 0)
    assert not isinstance(caught.value, Unsupported)


def test_asynchronous_copies(device):
    x = np.arange(256, dtype=np.float32)
    _, found = run(device, "doubled", 1, 64, x, np.zeros_like(x), 4, 0)
    assert np.array_equal(found, 2 * x.reshape(4, 64)[:, ::-1].ravel())
    _, found = run(device, "staged", 1, 32, x, np.zeros(64, np.float32), 0, 0)
    quads = x.reshape(64, 4).copy()
    quads[31::32, 2:] = 0
    assert np.array_equal(found, quads.sum(1))


@pytest.mark.parametrize("name", ["doubled", "staged"])
def test_a_copy_that_nobody_waited_for_is_not_there(backend, name):
    x = np.arange(256, dtype=np.float32)
    with pytest.raises(
        KernelError, match=rf"toolkit.cu:{line_of(name)}: .* which no thread of the block has"
    ):
        run(backend, name, 1, 64 if name == "doubled" else 32, x, np.zeros_like(x), 4, 1)


def test_a_copy_beyond_an_array_is_named_where_it_was_asked_for(backend):
    x = np.zeros(200, np.float32)
    says = rf"toolkit.cu:{line_of('beyond')}: .* reads 16 bytes past the end of argument 1 'x'"
    with pytest.raises(KernelError, match=says):
        run(backend, "staged", 1, 32, x, x, 4, 0)


def test_groups_by_label_and_one_thread_of_them(device):
    (found,) = run(device, "elected", 1, 32, np.zeros(67, np.int32))
    label = np.arange(32) % 3
    sizes = np.bincount(label)
    assert np.array_equal(found[:32], 10000 + 100 * sizes[label] + np.arange(32) // 3)
    assert found[32:35].tolist() == [5, 6, 7]
    assert np.array_equal(found[35:], 7 + label)


def test_cub_reduces_and_scans_blocks_and_warps(device):
    x = np.random.default_rng(1).integers(0, 50, 64).astype(np.int32)
    _, found = run(device, "reduced_and_scanned", 1, 64, x, np.zeros(448, np.int32))
    assert found[:4].tolist() == [x.max() + 1, x[:10].sum(), x[:32].sum(), x[32:].sum()]
    before = np.maximum.accumulate(np.concatenate([[5], x[:-1]]))
    eights = x.reshape(8, 8)
    expected = [np.cumsum(x), np.full(64, x.sum()), before, np.cumsum(x) + np.arange(64)]
    expected += [(np.cumsum(eights, 1) - eights).ravel(), np.minimum.accumulate(eights, 1).ravel()]
    assert np.array_equal(found[64:].reshape(6, 64), expected)


def test_storage_of_cub_that_is_used_again_without_a_barrier(backend):
    x = np.ones(64, np.int32)
    with pytest.raises(KernelError, match=r"toolkit.cu:\d+: .* 'storage_used_again::storage' .*\(race\)"):
        run(backend, "storage_used_again", 1, 64, x, x)
