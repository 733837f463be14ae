"""The emulated device: what it says of itself, its arrays, its launches and their limits."""

import gc
import os
import subprocess
import sys
import time
from itertools import pairwise

import numpy as np
import pytest

from pytest_gpuperf.backends.declarations import read
from pytest_gpuperf.backends.emulated.device import EmulatedBackend
from pytest_gpuperf.backends.geometry import Geometry
from pytest_gpuperf.errors import KernelError

pytestmark = pytest.mark.usefixtures("kernel_cache")

SOURCE = r"""
G indices(int *out)
{
    int block = (blockIdx.z * gridDim.y + blockIdx.y) * gridDim.x + blockIdx.x;
    out[block * blockDim.x + threadIdx.x] = block * 1000 + threadIdx.x;
}
G warp_sums(const float *in, float *out)
{
    float v = in[blockIdx.x * blockDim.x + threadIdx.x];
    for (int d = 16; d; d >>= 1) v += __shfl_down_sync(0xffffffffu, v, d);
    if (threadIdx.x % 32 == 0) out[(blockIdx.x * blockDim.x + threadIdx.x) / 32] = v;
}
G unset(float *out)
{
    __shared__ float s[32];
    if (threadIdx.x < 4) s[threadIdx.x] = 1;
    out[threadIdx.x] = s[threadIdx.x];
}
G prints(int n) { if (threadIdx.x < n) printf("thread %d of %s\n", threadIdx.x, "prints"); }
G nothing() { }
""".replace("\nG ", '\nextern "C" __global__ void ')

ONE = (1, 1, 1)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("device")
    (folder / "device.cu").write_text(SOURCE)
    return folder


@pytest.fixture(scope="module")
def program(backend, folder):
    return backend.load(read(folder / "device.cu"))


# ---- what it says of itself ----


def test_its_name_and_place_have_no_compiler_or_processor(backend):
    assert (backend.name, backend.uuid, backend.compute_capability) == ("emulated", "emulated", None)
    assert (backend.context, backend.stream) == (None, None)
    assert backend.device_name.startswith("emulated (g++ ")
    assert backend.place() == {"backend": "emulated", "counters": "modelled"}


def test_its_machine_code_says_nothing_about_a_gpus(program):
    assert program.code_hash("nothing") is None


# ---- arrays ----


@pytest.mark.parametrize("dtype", ["float32", "int8", "uint64", "bool", "complex64"])
def test_arrays_come_back_as_they_went(backend, dtype):
    host = np.arange(24).reshape(2, 3, 4).astype(dtype)
    array = backend.to_device(host)
    assert (array.shape, array.dtype, array.nbytes, array.size, array.ndim) == (
        (2, 3, 4),
        host.dtype,
        host.nbytes,
        24,
        3,
    )
    assert array.flags.c_contiguous
    assert backend.address(array) % 256 == 0
    assert np.array_equal(array.get(), host)
    array.set(host[::-1])
    assert np.array_equal(array.get(), host[::-1])


def test_a_copy_is_c_contiguous_and_its_own(backend):
    host = np.arange(6.0).reshape(2, 3)
    array = backend.to_device(host.T)
    assert array.flags.c_contiguous
    copy = array.get()
    copy[:] = 0
    host[:] = 0
    assert array.get().tolist() == [[0, 3], [1, 4], [2, 5]]


def test_setting_another_shape_or_dtype_is_an_error(backend):
    array = backend.empty((3,), np.float32)
    for wrong in (np.zeros(4, np.float32), np.zeros(3)):
        with pytest.raises(KernelError, match=r"was given to set an array float32\[3\]"):
            array.set(wrong)


def test_what_was_never_written_shows(backend, program):
    assert np.isnan(backend.empty((4,), np.float32).get()).all()
    assert (backend.empty((4,), np.int32).get() == -1).all()
    out = backend.to_device(np.zeros(32, np.float32))
    program.launch("unset", Geometry.of(ONE, (4, 1, 1)), [out])
    assert out.get().tolist() == [1] * 4 + [0] * 28
    with pytest.raises(KernelError, match=r"reads 4 bytes of shared array 'unset::s', which no thread"):
        program.launch("unset", Geometry.of(ONE, (32, 1, 1)), [out])


def test_a_freed_array_is_an_error_and_freeing_twice_is_none(backend, program):
    array = backend.empty((4,), np.int32)
    backend.free(array)
    backend.free(array)
    with pytest.raises(KernelError, match=r"This array, int32\[4\], was freed"):
        array.get()
    with pytest.raises(KernelError, match="was freed"):
        backend.address(array)
    with pytest.raises(KernelError, match="was freed"):
        program.launch("indices", Geometry.of(ONE, ONE), [array])


def test_arrays_of_elsewhere_are_no_arrays_of_this_device(backend, program):
    foreign = EmulatedBackend().empty((4,), np.int32)
    for other in (foreign, np.zeros(4, np.int32), 7):
        assert backend.address(other) is None
        with pytest.raises(KernelError, match="indices, argument 1: an array of this device is needed"):
            program.launch("indices", Geometry.of(ONE, ONE), [other])


def test_memory_goes_back_with_its_array_and_with_the_device():
    backend = EmulatedBackend()
    arrays = [backend.empty((1 << 20,), np.uint8) for _ in range(3)]
    assert len(backend.memory.spans()) == 3
    del arrays[0]
    gc.collect()
    assert len(backend.memory.spans()) == 2
    backend.close()
    assert len(backend.memory.spans()) == 0
    with pytest.raises(KernelError, match="was freed"):
        arrays[0].get()


def test_arrays_lie_apart(backend):
    arrays = [backend.empty((n,), np.uint8) for n in (1, 100_000, 1, 5000)]
    spans = sorted((a.address, a.address + a.nbytes) for a in arrays)
    assert all(after[0] - before[1] >= 65536 for before, after in pairwise(spans))


# ---- launches ----


@pytest.mark.parametrize(
    ("grid", "block", "says"),
    [
        ((0, 1, 1), ONE, r"grid \(0, 1, 1\) has x = 0; it must be 1 to 2147483647"),
        ((1, 65536, 1), ONE, "has y = 65536; it must be 1 to 65535"),
        (ONE, (1, 1, 65), "has z = 65; it must be 1 to 64"),
        (ONE, (32, 33, 1), r"block \(32, 33, 1\) has 1056 threads; CUDA allows 1024"),
    ],
)
def test_geometry_beyond_cudas_limits(program, grid, block, says):
    with pytest.raises(KernelError, match=says):
        program.launch("nothing", Geometry.of(grid, block), [])


def test_shared_memory_beyond_cudas_limit(backend, program):
    with pytest.raises(KernelError, match="nothing: 232449 bytes of dynamic shared memory"):
        program.launch("nothing", Geometry.of(ONE, ONE, 232449), [])
    with pytest.raises(KernelError, match="beside 128 static ones; a block has 232448 at most"):
        program.launch("unset", Geometry.of(ONE, ONE, 232448 - 127), [backend.empty((1,), np.float32)])


def test_arguments_that_do_not_fit_the_compiled_kernel(backend, program):
    with pytest.raises(KernelError, match="prints takes 1 argument, 0 given"):
        program.launch("prints", Geometry.of(ONE, ONE), [])
    with pytest.raises(KernelError, match=r"prints, argument 1: 8 bytes \(int64\) were given, .* takes 4"):
        program.launch("prints", Geometry.of(ONE, ONE), [np.int64(1)])
    with pytest.raises(KernelError, match="prints, argument 1: a number is needed"):
        program.launch("prints", Geometry.of(ONE, ONE), [backend.empty((1,), np.int32)])


def test_an_unknown_kernel(program):
    with pytest.raises(KernelError, match=r"device.cu has no kernel 'nothign'; it has indices, nothing"):
        program.launch("nothign", Geometry.of(ONE, ONE), [])


def test_the_largest_block_and_results_independent_of_threads(folder):
    host = np.random.default_rng(0).random((50, 2, 32), np.float32)
    found = []
    for threads in (1, 3):
        backend = EmulatedBackend(threads=threads)
        program = backend.load(read(folder / "device.cu"))
        out = backend.empty((50, 2), np.float32)
        program.launch("warp_sums", Geometry.of((50, 1, 1), (64, 1, 1)), [backend.to_device(host), out])
        big = backend.empty((64, 1024), np.int32)
        program.launch("indices", Geometry.of((64, 1, 1), (1024, 1, 1)), [big])
        found.append((out.get().tobytes(), big.get().tobytes()))
    assert found[0] == found[1]


def test_a_small_launch_costs_well_under_a_millisecond(backend, program):
    out = backend.empty((12,), np.int32)
    costs = []
    for _ in range(50):
        begin = time.perf_counter()
        program.launch("indices", Geometry.of(ONE, (12, 1, 1)), [out])
        costs.append(time.perf_counter() - begin)
    assert min(costs) < 1e-3


def test_a_forked_child_can_launch(folder):
    """Fork takes none of the parent's threads along."""
    script = f"""
import os, numpy as np
from pathlib import Path
from pytest_gpuperf.backends.geometry import Geometry
from pytest_gpuperf.backends.declarations import read
from pytest_gpuperf.backends.emulated.device import EmulatedBackend
backend = EmulatedBackend()
program = backend.load(read(Path({str(folder / "device.cu")!r})))
out = backend.empty((4,), np.int32)
program.launch("indices", Geometry.of(1, 4), [out])
out.set(np.zeros(4, np.int32))
if os.fork() == 0:
    program.launch("indices", Geometry.of(1, 4), [out])
    os._exit(0 if out.get().tolist() == [0, 1, 2, 3] else 1)
raise SystemExit(os.waitstatus_to_exitcode(os.wait()[1]))
"""
    assert subprocess.run([sys.executable, "-c", script], timeout=60, env=os.environ).returncode == 0


def test_live_arrays_are_listed_though_one_goes_meanwhile(backend):
    """As when the collector, or another thread, frees an array in the middle of it."""

    class Torn(dict):
        torn = False

        def copy(self):
            return self

        def values(self):
            if not self.torn:
                self.torn = True
                raise RuntimeError("dictionary keys changed during iteration")
            return super().values()

    kept = backend.empty((8,), np.float32)
    backend.memory._live = Torn(backend.memory._live)
    assert kept in backend.memory.arrays()
    assert backend.memory._live.torn
