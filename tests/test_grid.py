"""Kernels that synchronise their grid on CUDA: found in what the compiler made, launched cooperatively."""

from __future__ import annotations

import ctypes
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from pytest_gpuperf.backends.cuda import grid
from pytest_gpuperf.backends.cuda.compile import compile_cubin, find_nvcc
from pytest_gpuperf.backends.cuda.grid import Module, grid_kernels, noted
from pytest_gpuperf.backends.cuda.machine_code import kernel_hash, symbols
from pytest_gpuperf.backends.cuda.program import CudaProgram, pack
from pytest_gpuperf.backends.cuda_core import nvrtc
from pytest_gpuperf.backends.geometry import Geometry
from pytest_gpuperf.backends.kernels import Kernels
from pytest_gpuperf.errors import KernelError, Unavailable
from pytest_gpuperf.instruments.device_time import Settings, measure

SOURCE = """
#include <cooperative_groups.h>
namespace cg = cooperative_groups;
__device__ int rounds = 2;
__device__ __noinline__ void together() { cg::this_grid().sync(); }
// Every thread adds what another block wrote in the round before.
extern "C" __global__ void rotate(signed char by, double *x, double *y, int n) {
  int i = blockIdx.x * blockDim.x + threadIdx.x;
  for (int round = 0; round < rounds; round++) {
    y[(i + blockDim.x) % n] = x[i] + by;
    cg::this_grid().sync();
    x[i] = y[i];
    cg::this_grid().sync();
  }
}
extern "C" __global__ void far(double *x) { together(); x[0] = 1; }
template <class T> __global__ void typed(T *x) { cg::this_grid().sync(); x[0] = 1; }
template __global__ void typed<float>(float *);
namespace { __global__ void hidden(int *x) { cg::this_grid().sync(); x[0] = 1; } }
int main() { hidden<<<1, 1>>>(nullptr); }
extern "C" __global__ void ranks(int *x) { int i = cg::this_grid().thread_rank(); x[i] = i; }
extern "C" __global__ void blocks(int *x) { cg::this_thread_block().sync(); x[threadIdx.x] = threadIdx.x; }
"""
TYPED = "_Z5typedIfEvPT_"


def compile_nvcc(path: Path) -> bytes:
    return compile_cubin(path, (), (9, 0))[0]


def compile_nvrtc(path: Path) -> bytes:
    return nvrtc.compile_cubin(path, (), (9, 0), nullcontext).cubin


@pytest.mark.parametrize(
    ("needed", "compiled"), [(find_nvcc, compile_nvcc), (nvrtc.library, compile_nvrtc)], ids=["nvcc", "NVRTC"]
)
def test_the_compilers_tell_which_kernels_synchronise(needed, compiled, tmp_path, cache):
    try:
        needed()
    except Unavailable as error:
        pytest.skip(str(error))
    (tmp_path / "x.cu").write_text(SOURCE)
    (tmp_path / "plain.cu").write_text('extern "C" __global__ void k(int *x) { *x = 1; }')
    for _ in range(2):  # the second time from the cache
        cubin = compiled(tmp_path / "x.cu")
        found = {name for name in grid_kernels(cubin) if "hidden" not in name}
        assert found == {"rotate", "far", TYPED}
        assert grid_kernels(cubin) <= {*symbols(cubin)[0]}
    assert len(kernel_hash(cubin, "ranks")) == 16
    plain = compiled(tmp_path / "plain.cu")
    assert plain.startswith(b"\x7fELF")
    assert b"gpuperf" not in plain


PTX = r"""
.version 9.0
.file 1 "/a/{%envreg1}/x.cu" // %envreg2
.func _Z1av
()
;
.global .align 8 .u64 table[2] = {_Z1av, _Z1bv};
.global .align 1 .b8 text[4];
.func  (.param .b32 result) _Z1bv(.param .b64 b_0) { ret; }
.func _Z1av() { mov.u32 %r1, %envreg2; }
.visible .entry direct(.param .u64 direct_0) { { mov.u32 %r1, %envreg1; } }
.visible .entry old() .maxntid 64, 1, 1 { call.uni (r), cudaCGGetIntrinsicHandle, (p); }
.visible .entry calls() { call.uni _Z1av, (); }
.visible .entry by_table() { mov.u64 %rd1, table; }
.visible .entry other() { call.uni (r), _Z1bv, (p); mov.u64 %rd1, text; /* _Z1av */ mov.u32 %r2, %envreg12; }
"""


def test_functions_and_tables_in_between_are_followed():
    assert grid_kernels(noted(b"\x7fELF", PTX)) == {"direct", "old", "calls", "by_table"}
    assert noted(b"\x7fELF", PTX.replace("%envreg", "%r").replace("cudaCG", "")) == b"\x7fELF"


# --------------------------------------------------------------------------- launches, by a stand-in


class Driver:
    """libcuda as far as a launch needs it; each multiprocessor has room for ``room`` blocks."""

    def __init__(self, room=2, result=0):
        self.room, self.result, self.launched = room, result, []

    def cuModuleLoadData(self, module, image):
        assert image.startswith(b"\x7fELF")
        module._obj.value = 5
        return 0

    def cuModuleGetFunction(self, function, module, name):
        function._obj.value = {b"rotate": 11, b"ranks": 12}[name]
        return 0

    def cuModuleGetGlobal_v2(self, address, size, module, name):
        address._obj.value, size._obj.value = 4096, 4
        return 500 * (name != b"rounds")

    def cuFuncGetAttribute(self, value, attribute, function):
        value._obj.value = 10 * attribute.value
        return 0

    def cuFuncSetAttribute(self, function, attribute, value):
        self.launched.append((attribute.value, value.value))
        return 0

    def cuOccupancyMaxActiveBlocksPerMultiprocessor(self, blocks, function, threads, shared):
        self.asked = function.value, threads.value, shared.value
        blocks._obj.value = self.room
        return 0

    def cuLaunchKernel(self, *given):
        assert given[-1] is None
        return self.cuLaunchCooperativeKernel(*given[:-1], how="alone")

    def cuLaunchCooperativeKernel(self, function, *given, how="together"):
        *shape, stream, parameters = given
        kinds = {11: "bdqi", 12: "q"}[function.value]
        sizes = {"b": ctypes.c_int8, "d": ctypes.c_double, "q": ctypes.c_int64, "i": ctypes.c_int32}
        values = [sizes[k].from_address(p).value for k, p in zip(kinds, parameters, strict=True)]
        self.launched.append((how, [each.value for each in shape], stream.value, values))
        return self.result

    def cuGetErrorString(self, result, said):
        said._obj.value = {500: b"named symbol not found", 720: b"too many blocks"}[result]
        return 0


class DriverError(Exception):
    pass


@pytest.fixture
def launching(monkeypatch):
    """launching(**how): a program of SOURCE's kernels, its driver and its context."""

    def launch(errors=DriverError, **how):
        library = Driver(**how)
        monkeypatch.setattr(grid, "driver", lambda: library)
        context = SimpleNamespace(
            driver=SimpleNamespace(
                Error=errors, function_attribute=SimpleNamespace(MAX_DYNAMIC_SHARED_SIZE_BYTES=8)
            ),
            multiprocessors=132,
            device_name="a GPU",
            stream=SimpleNamespace(handle=77),
            explained=lambda doing: nullcontext(),
            explain=lambda error, doing: KernelError(f"{doing}: {error}"),
            address=lambda argument: argument,
        )
        ptx = ".entry rotate() { mov.u32 %r1, %envreg1; }"
        cubin = noted(b"\x7fELF", ptx)
        names = SimpleNamespace(symbol=lambda name: name)
        module = Module(context, cubin)
        return CudaProgram(context, Path("x.cu"), module, names), library, module

    return launch


ARGUMENTS = [np.int8(-3), np.float64(0.5), 4096, np.int32(9)]


def test_who_synchronises_is_launched_together(launching):
    program, library, module = launching()
    assert pack([np.int8(1), np.float64(2)])[:9] == b"\1" + bytes(8)
    launch = program.prepare("rotate", Geometry((4, 2, 1), (32, 2, 1), 50000), ARGUMENTS)
    launch()
    launch()
    asked = library.launched
    assert asked[0] == (8, 50000)
    assert asked[1] == asked[2] == ("together", [4, 2, 1, 32, 2, 1, 50000], 77, [-3, 0.5, 4096, 9])
    assert library.asked == (11, 64, 50000)
    stream = SimpleNamespace(__cuda_stream__=lambda: (0, 99))
    program.prepare("ranks", Geometry((10**6, 1, 1), (64, 1, 1), 0, stream), [4096])()
    assert asked[3] == ("alone", [10**6, 1, 1, 64, 1, 1, 0], 99, [4096])
    function = module.get_function("ranks")
    assert (function.num_regs, function.local_size_bytes, function.shared_size_bytes) == (40, 30, 10)
    assert module.get_global("rounds") == (4096, 4)


def test_a_grid_that_has_no_room_is_one_sentence(launching):
    program, library, _ = launching(room=3)
    program.prepare("rotate", Geometry((396, 1, 1), (64, 1, 1), 0), ARGUMENTS)
    with pytest.raises(KernelError) as caught:
        program.prepare("rotate", Geometry((397, 1, 1), (64, 1, 1), 0), ARGUMENTS)
    assert str(caught.value) == (
        "rotate (x.cu) synchronises its grid, so that all its 397 blocks must run at once, and a GPU has "
        "room for 396 (3 of 64 threads and 0 bytes of dynamic shared memory on each of its 132 "
        "multiprocessors); launch fewer, and let each do more."
    )
    assert library.launched == []


@pytest.mark.parametrize("errors", [DriverError, (DriverError, OSError)], ids=["PyCUDA", "cuda.core"])
def test_what_the_driver_refuses_is_the_bindings_error(launching, errors):
    program, _, module = launching(errors, result=720)
    with pytest.raises(KernelError, match=r"launching rotate .*: cuLaunchCooperativeKernel failed: too many"):
        program.prepare("rotate", Geometry((1, 1, 1), (1, 1, 1)), ARGUMENTS)()
    with pytest.raises(DriverError, match="cuModuleGetGlobal_v2 failed: named symbol not found"):
        module.get_global("nobody")


# --------------------------------------------------------------------------- on a device


@pytest.fixture
def kernels(gpu, tmp_path):
    (tmp_path / "x.cu").write_text(SOURCE)
    return Kernels(tmp_path, gpu)["x.cu"]


QUICK = Settings(seconds=0.05, warmup=0.0)


def rotated(x: np.ndarray, rounds: int) -> np.ndarray:
    for _ in range(rounds):
        x = np.roll(x + 3, 128)
    return x


@pytest.mark.gpu
@pytest.mark.parametrize("graph", [False, True], ids=["launch", "graph"])
def test_gpu_a_grid_synchronises(gpu, kernels, graph):
    n = 128 * 132
    host = np.arange(n, dtype=np.float64)
    x, y = gpu.to_device(host), gpu.empty(n, np.float64)
    launch = kernels.rotate[132, 128]
    launch(3, x, y, n)
    assert np.array_equal(x.get(), rotated(host, 2))
    kernels.constants["rounds"] = np.int32(5)
    x = gpu.to_device(host)
    timing = measure(gpu, launch, (3, x, y, n), QUICK, name="rotate", graph=graph)
    print(f"{gpu.device.binding}, graph {graph}: {timing.median * 1e6:.2f} us, {timing.details}")
    assert 1e-6 < timing.median < 1e-3
    assert np.array_equal(x.get(), rotated(host, 5))


@pytest.mark.gpu
def test_gpu_other_kernels_of_the_file_are_launched_as_ever(gpu, kernels):
    x = gpu.empty(64 * 10**5, np.int32)
    kernels.ranks[10**5, 64](x)
    assert np.array_equal(x.get(), np.arange(64 * 10**5))
    one = gpu.empty(1)
    kernels["typed<float>"][4, 32](one)
    assert one.get().tolist() == [1]


@pytest.mark.gpu
def test_gpu_a_grid_without_room_leaves_the_device_fine(gpu, kernels):
    x, y = gpu.empty(1024, np.float64), gpu.empty(1024, np.float64)
    with pytest.raises(
        KernelError, match=r"all its 100000 blocks must run at once, and .* has room for \d+ \("
    ) as said:
        kernels.rotate[100000, 1024](0, x, y, 1024)
    print(said.value)
    kernels.rotate[1, 1024](0, x, y, 1024)
    gpu.synchronize()
