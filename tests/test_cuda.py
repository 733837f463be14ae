"""The CUDA backend: what can be checked without a device here, and on a device where there is one."""

import os
import re
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from gpuproject import BINDINGS, copy, needs_nvcc, side_stream

from pytest_gpuperf.backends import select
from pytest_gpuperf.backends.cuda import compile as cuda_compile
from pytest_gpuperf.backends.cuda import driver as cuda_driver
from pytest_gpuperf.backends.cuda.compile import compile_cubin, find_nvcc
from pytest_gpuperf.backends.cuda.program import pack
from pytest_gpuperf.backends.cuda.timer import _HOLD
from pytest_gpuperf.backends.kernels import Kernels
from pytest_gpuperf.errors import GpuperfError, KernelError, NotFit, Unavailable
from pytest_gpuperf.instruments import device_time, stopwatch
from pytest_gpuperf.instruments.device_time import Settings, measure

needs_compiler = pytest.mark.skipif(not shutil.which("gcc"), reason="needs gcc")

# --------------------------------------------------------------------------- is a device there


def with_driver(tmp_path: Path, body: str, code: str) -> subprocess.CompletedProcess:
    """Runs Python with a libcuda.so.1 made of ``body``, as a machine with that driver would."""
    library = tmp_path / "libcuda.so.1"
    subprocess.run(
        ["gcc", "-shared", "-fPIC", "-x", "c", "-", "-o", library], input=body, text=True, check=True
    )
    return subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)],
        env={**os.environ, "LD_LIBRARY_PATH": str(tmp_path), "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
    )


DRIVER = """
int cuInit(unsigned flags) { return %d; }
int cuDeviceGetCount(int *count) { *count = %d; return 0; }
int cuGetErrorName(int error, const char **name) { *name = "CUDA_ERROR_SYSTEM_DRIVER_MISMATCH"; return 0; }
int cuDeviceGet(int *device, int index) { *device = index; return 0; }
int cuDeviceGetUuid_v2(unsigned char *uuid, int device) {
    for (int i = 0; i < 16; i++) uuid[i] = 16 * device + i;
    return 0;
}
int cuDriverGetVersion(int *version) { *version = 13020; return 0; }
"""
COUNT = "from pytest_gpuperf.backends.cuda.driver import device_count; print(device_count())"


@needs_compiler
@pytest.mark.parametrize(("result", "count", "printed"), [(0, 2, "2"), (100, 9, "0"), (34, 9, "0")])
def test_devices_are_counted_by_the_driver(tmp_path, result, count, printed):
    done = with_driver(tmp_path, DRIVER % (result, count), COUNT)
    assert (done.stdout.strip(), done.stderr) == (printed, "")


@needs_compiler
def test_a_broken_driver_is_not_a_machine_without_a_gpu(tmp_path):
    done = with_driver(tmp_path, DRIVER % (803, 1), COUNT)
    assert "Unavailable: The CUDA driver does not start: CUDA_ERROR_SYSTEM_DRIVER_MISMATCH" in done.stderr


@needs_compiler
def test_auto_with_a_device_but_no_pycuda_is_never_emulated(tmp_path):
    code = """
        import sys
        sys.modules["pycuda"] = sys.modules["cuda"] = None  # as if they were not installed
        from pytest_gpuperf.backends import select
        try:
            print(select("auto").name)
        except Exception as error:
            print(type(error).__name__, error)
    """
    done = with_driver(tmp_path, DRIVER % (0, 1), code)
    assert done.stdout.startswith("Unavailable There is a CUDA device but PyCUDA cannot be imported")
    assert 'pip install "pytest-gpuperf[cuda]", or "pytest-gpuperf[cuda-core]"' in done.stdout


@needs_compiler
def test_a_units_uuid_is_written_as_nvidia_smi_does(tmp_path):
    code = "from pytest_gpuperf.backends.cuda.driver import device_uuid; print(device_uuid(1))"
    done = with_driver(tmp_path, DRIVER % (0, 2), code)
    assert done.stdout.strip() == "GPU-10111213-1415-1617-1819-1a1b1c1d1e1f"


@needs_compiler
def test_the_newest_cuda_is_the_drivers(tmp_path):
    code = "from pytest_gpuperf.backends.cuda.driver import cuda_version; print(cuda_version())"
    assert with_driver(tmp_path, DRIVER % (0, 1), code).stdout.strip() == "(13, 2)"


@pytest.mark.parametrize("choice", BINDINGS)
def test_asking_for_cuda_without_a_device_says_what_to_do(choice):
    if cuda_driver.device_count():
        pytest.skip("there is a device here")
    with pytest.raises(Unavailable, match=r"no CUDA device here.*install the NVIDIA driver, or choose"):
        select(choice)


def test_an_unknown_backend_lists_the_known():
    with pytest.raises(
        GpuperfError, match='no backend \'opencl\'; choose "auto", "cuda", "cuda-core" or "emulated"'
    ):
        select("opencl")


def test_what_nvml_does_not_tell_is_left_out():
    assert cuda_driver.settings("GPU-00000000-0000-0000-0000-000000000000") == {}


class Nvml:
    """As much of pynvml as a place asks for: a GPU whose power limit was changed, and a MIG slice of it."""

    class NVMLError(Exception):
        pass

    def __init__(self, **refused):
        self.opened, self.refused = 0, refused

    def nvmlInit(self):
        self.opened += 1

    def nvmlShutdown(self):
        pass

    def nvmlDeviceGetHandleByUUID(self, unit):
        return {"GPU-1": "whole", "MIG-1": "slice"}[unit]

    def nvmlDeviceGetDeviceHandleFromMigDeviceHandle(self, handle):
        return {"slice": "whole"}[handle]

    def nvmlDeviceGetAttributes_v2(self, handle):
        return {"slice": SimpleNamespace(gpuInstanceSliceCount=3, memorySizeMB=40448)}[handle]

    def nvmlDeviceGetEccMode(self, handle):
        return {"whole": [1, 1]}[handle]

    def nvmlDeviceGetPowerManagementLimit(self, handle):
        if self.refused:
            raise self.NVMLError
        return {"whole": 500_000}[handle]

    def nvmlDeviceGetPowerManagementDefaultLimit(self, handle):
        return {"whole": 700_000}[handle]


def test_a_units_set_up_is_asked_in_one_go(monkeypatch):
    nvml = Nvml()
    monkeypatch.setitem(sys.modules, "pynvml", nvml)
    gpu = {"ecc": True, "power_limit_w": 500.0, "power_limit_default_w": 700.0}
    assert cuda_driver.settings("GPU-1") == gpu
    assert nvml.opened == 1
    assert cuda_driver.settings("MIG-1") == {"mig": "3g.40gb", **gpu}
    monkeypatch.setitem(sys.modules, "pynvml", Nvml(limit=True))
    assert cuda_driver.settings("GPU-1") == {"ecc": True}


def test_nothing_heavy_is_imported():
    code = "import sys, pytest_gpuperf.backends.cuda.device, pytest_gpuperf.backends.gpu\n"
    code += "print([name for name in ('pycuda', 'pynvml', 'scipy', 'platformdirs') if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.strip() == "[]"


# --------------------------------------------------------------------------- parameters


def test_parameters_are_laid_out_as_the_cuda_abi_does():
    struct = np.dtype([("a", np.int8), ("b", np.float64)], align=True)
    values = [
        np.uint64(0x1122334455667788),
        np.int8(1),
        np.int32(2),
        np.bool_(True),
        np.float64(0.5),
        np.float16(1),
    ]
    buffer = pack([*values, np.zeros((), struct)[()]])
    assert buffer[:8] == np.uint64(0x1122334455667788).tobytes()
    assert buffer[8:12] == b"\1\0\0\0"
    assert buffer[12:16] == np.int32(2).tobytes()
    assert buffer[16:24] == b"\1" + bytes(7)
    assert buffer[24:32] == np.float64(0.5).tobytes()
    assert buffer[32:34] == np.float16(1).tobytes()
    assert len(buffer) == 40 + 16
    assert pack([]) == b""


# --------------------------------------------------------------------------- compiling

SOURCE = """
#include "scale.cuh"
#include <cuda_fp16.h>
#ifndef FACTOR
#define FACTOR 2
#endif
extern "C" __global__ void scale(float* x, int n) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < n) x[i] = scaled(x[i]) * FACTOR;
}
"""
HEADER = "__device__ inline float scaled(float x) { return x + %s; }\n"


@pytest.fixture
def scale(tmp_path):
    folder = tmp_path / "kernels"
    folder.mkdir()
    (folder / "scale.cuh").write_text(HEADER % "1")
    (folder / "scale.cu").write_text(SOURCE)
    return folder / "scale.cu"


@needs_nvcc
def test_a_file_is_recompiled_only_when_its_parts_change(scale, cache, monkeypatch):
    first, cached = compile_cubin(scale, (), (9, 0))
    assert first[:4] == b"\x7fELF"
    assert cached.read_bytes() == first
    stays = {cached.name + ending for ending in ("", ".lock", ".sha256")}
    assert {path.name for path in (cache / "cubin").iterdir()} == stays  # nothing temporary

    with monkeypatch.context() as without_compiler:
        without_compiler.setattr(cuda_compile, "run", None)
        assert compile_cubin(scale, (), (9, 0)) == (first, cached)

    keys = {cached}
    keys.add(compile_cubin(scale, ("-DFACTOR=3",), (9, 0))[1])
    keys.add(compile_cubin(scale, (), (8, 0))[1])
    (scale.parent / "scale.cuh").write_text(HEADER % "2")
    changed, key = compile_cubin(scale, (), (9, 0))
    assert changed != first
    assert len(keys | {key}) == 4


@needs_nvcc
def test_machine_code_ignores_paths_and_comments(scale, cache, tmp_path):
    first, key = compile_cubin(scale, (), (9, 0))
    shutil.copytree(scale.parent, tmp_path / "elsewhere")
    moved = tmp_path / "elsewhere" / "scale.cu"
    moved.write_text("// faster now\n" + SOURCE)
    again, other = compile_cubin(moved, (), (9, 0))
    assert other != key
    assert again == first


@needs_nvcc
def test_headers_of_include_folders_count(scale, cache, tmp_path):
    shared = tmp_path / "shared"
    shared.mkdir()
    (scale.parent / "scale.cuh").rename(shared / "scale.cuh")
    keys = set()
    for options in (("-I../shared",), ("-I", "../shared"), (f"--include-path={shared}",)):
        for value in ("1", "2"):
            (shared / "scale.cuh").write_text(HEADER % value)
            keys.add(compile_cubin(scale, options, (9, 0))[1])
    assert len(keys) == 6


@needs_nvcc
@pytest.mark.parametrize(
    "include",
    [
        '#define PART "scale.cuh"\n#include PART',
        '# /* tuned */ include "scale.cuh"',
        '#include \\\n"scale.cuh"',
        '#if __has_include("tuned.cuh")\n#define TUNED\n#endif\n#include "scale.cuh"',
    ],
    ids=["macro", "comment", "continued", "has_include"],
)
def test_a_header_counts_however_it_is_included(scale, cache, include):
    (scale.parent / "scale.cuh").write_text(
        "#ifdef TUNED\n" + HEADER % "3" + "#else\n" + HEADER % "1" + "#endif\n"
    )
    scale.write_text(SOURCE.replace('#include "scale.cuh"', include))
    first, _ = compile_cubin(scale, (), (9, 0))
    if "tuned.cuh" in include:
        (scale.parent / "tuned.cuh").write_text("")
    else:
        (scale.parent / "scale.cuh").write_text(HEADER % "2")
    assert compile_cubin(scale, (), (9, 0))[0] != first


@needs_nvcc
def test_options_that_nvcc_takes_from_elsewhere_count(scale, cache, tmp_path, monkeypatch):
    (tmp_path / "options").write_text("-maxrregcount=32")
    keys = {compile_cubin(scale, ("-optf", str(tmp_path / "options")), (9, 0))[1]}
    (tmp_path / "options").write_text("-fmad=false")
    keys.add(compile_cubin(scale, ("-optf", str(tmp_path / "options")), (9, 0))[1])
    monkeypatch.setenv("NVCC_APPEND_FLAGS", "-maxrregcount=32")
    keys.add(compile_cubin(scale, ("-optf", str(tmp_path / "options")), (9, 0))[1])
    assert len(keys) == 3


@needs_nvcc
def test_the_same_code_in_another_folder_is_not_compiled_again(scale, cache, tmp_path):
    key = compile_cubin(scale, (), (9, 0))[1]
    shutil.copytree(scale.parent, tmp_path / "elsewhere")
    assert compile_cubin(tmp_path / "elsewhere" / "scale.cu", (), (9, 0))[1] == key


@needs_nvcc
@pytest.mark.parametrize("keep", [0, 1000])
def test_a_damaged_cubin_is_compiled_again(scale, cache, keep):
    whole, path = compile_cubin(scale, (), (9, 0))
    os.truncate(path, keep)
    assert compile_cubin(scale, (), (9, 0))[0] == whole


@needs_nvcc
def test_an_architecture_and_a_standard_of_ones_own_win(scale, cache):
    cubin, _ = compile_cubin(scale, ("-arch=sm_90a", "-std=c++20"), (9, 0))
    assert cubin[:4] == b"\x7fELF"


@needs_nvcc
def test_a_compile_error_is_the_compilers_first_line(scale, cache):
    scale.write_text(SOURCE.replace("scaled(x[i])", "missing(x[i])"))
    with pytest.raises(KernelError) as caught:
        compile_cubin(scale, (), (9, 0))
    message = str(caught.value)
    assert message.startswith(f"{scale} does not compile:\nscale.cu(9): error")
    assert '"missing" is undefined' in message
    assert [path.suffix for path in (cache / "cubin").iterdir()] == [".lock"]


@needs_nvcc
def test_a_gpu_that_nvcc_does_not_know_asks_for_another_toolkit(scale, cache):
    with pytest.raises(Unavailable, match=r"not made for this GPU .*install another CUDA toolkit"):
        compile_cubin(scale, (), (3, 0))


@needs_nvcc
def test_a_missing_host_compiler_is_named(scale, cache, monkeypatch):
    nvcc = find_nvcc()
    monkeypatch.setattr(cuda_compile, "find_nvcc", lambda: nvcc)
    monkeypatch.setenv("PATH", str(scale.parent))
    with pytest.raises(Unavailable, match="install g\\+\\+"):
        compile_cubin(scale, ("-ccbin=no-such-compiler",), (9, 0))


@needs_nvcc
def test_a_cache_that_cannot_be_written_says_how_to_move_it(scale, cache):
    cache.write_text("a file where a folder should be")
    with pytest.raises(Unavailable, match="point PYTEST_GPUPERF_CACHE at a folder"):
        compile_cubin(scale, (), (9, 0))


def test_nvcc_is_found_where_it_may_be(tmp_path, monkeypatch):
    def place(*parts):
        nvcc = tmp_path.joinpath(*parts, "bin", "nvcc")
        nvcc.parent.mkdir(parents=True)
        nvcc.write_text("#!/bin/sh\n")
        nvcc.chmod(0o755)
        return nvcc

    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CUDA_HOME", raising=False)
    (tmp_path / "site" / "nvidia").mkdir(parents=True)
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    monkeypatch.setattr(cuda_compile, "_TOOLKIT", str(tmp_path / "usr" / "local" / "cuda"))
    with pytest.raises(Unavailable, match='pip install "cuda-toolkit'):
        find_nvcc()
    package = place("site", "nvidia", "cu13")
    assert find_nvcc() == package
    toolkit = place("usr", "local", "cuda")
    assert find_nvcc() == toolkit
    home = place("home")
    monkeypatch.setenv("CUDA_HOME", str(tmp_path / "home"))
    assert find_nvcc() == home
    on_path = place("path")
    monkeypatch.setenv("PATH", str(on_path.parent))
    assert find_nvcc() == on_path


@needs_nvcc
def test_the_compiler_is_named_with_its_version(monkeypatch, tmp_path):
    assert re.fullmatch(r"nvcc \d+\.\d+\.\d+", cuda_compile.compiler_version())
    monkeypatch.setattr(cuda_compile, "find_nvcc", lambda: tmp_path / "nvcc")
    assert cuda_compile.compiler_version() == ""


@needs_nvcc
@pytest.mark.parametrize("architecture", ["sm_75", "sm_90", "sm_120"])
def test_the_holding_kernel_assembles(tmp_path, architecture):
    ptxas = find_nvcc().resolve().parent / "ptxas"
    if not ptxas.exists():
        ptxas = Path(shutil.which("ptxas") or "/usr/local/cuda/bin/ptxas")
    if not ptxas.exists():
        pytest.skip("ptxas is not beside nvcc")
    (tmp_path / "hold.ptx").write_bytes(_HOLD.rstrip(b"\0"))
    command = [ptxas, f"-arch={architecture}", tmp_path / "hold.ptx", "-o", tmp_path / "hold.cubin"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


# --------------------------------------------------------------------------- on a device

KERNELS = """
extern "C" __global__ void scale(const float* src, float* dst, int n, float factor) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < n) dst[i] = src[i] * factor;
}
extern "C" __global__ void mixed(signed char a, double b, short c, float* out, bool d, long long e) {
    out[0] = a; out[1] = b; out[2] = c; out[3] = d; out[4] = e;
}
extern "C" __global__ void reversed(const float* src, float* dst) {
    extern __shared__ float tile[];
    for (int i = threadIdx.x; i < 16384; i += blockDim.x) tile[i] = src[i];
    __syncthreads();
    for (int i = threadIdx.x; i < 16384; i += blockDim.x) dst[i] = tile[16383 - i];
}
extern "C" __global__ __launch_bounds__(64) void narrow(float* x) { x[threadIdx.x] = threadIdx.x; }
extern "C" __global__ void astray(float* x) { x[1ll << 40] = 1; }
extern "C" __global__ void nothing() {}
"""


@pytest.fixture(scope="module")
def kernels(gpu, tmp_path_factory):
    folder = tmp_path_factory.mktemp("kernels")
    (folder / "sample.cu").write_text(KERNELS)
    return Kernels(folder, gpu)["sample.cu"]


@pytest.mark.gpu
def test_the_device_says_what_it_is(gpu):
    place = gpu.device.place()
    assert place["backend"] == gpu.backend == "cuda"
    assert place["gpu"] == gpu.name
    assert place["memory_gib"] > 1
    assert gpu.compute_capability >= (5, 0)
    assert gpu.uuid.startswith(("GPU-", "MIG-"))
    assert len(gpu.uuid) == 40
    if shutil.which("nvidia-smi"):
        assert gpu.uuid in subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True).stdout


@pytest.mark.gpu
def test_arrays_go_there_and_come_back(gpu):
    host = np.arange(12, dtype=np.int16).reshape(3, 4)
    array = gpu.to_device(host.T)
    assert np.array_equal(array.get(), host.T)
    assert np.array_equal(array[1:3].get(), host.T[1:3])
    assert np.array_equal(gpu.random((5, 7), seed=3).get(), gpu.random((5, 7), seed=3).get())


@pytest.mark.gpu
def test_a_kernel_computes(gpu, kernels):
    n = 1000
    src, dst = gpu.random(n, seed=1), gpu.empty(n)
    kernels.scale[4, 256](src, dst, n, 3)
    assert np.array_equal(dst.get(), src.get() * np.float32(3))
    kernels.nothing[1, 1]()
    gpu.synchronize()


@pytest.mark.gpu
def test_every_kind_of_parameter_arrives(gpu, kernels):
    out = gpu.empty(5)
    kernels.mixed[1, 1](-3, 0.25, 300, out, True, 2**20)
    assert out.get().tolist() == [-3, 0.25, 300, 1, 2**20]


@pytest.mark.gpu
def test_wrong_arguments_never_reach_the_device(gpu, kernels):
    src, dst = gpu.random(4), gpu.empty(4)
    for arguments, says in [
        ((src.get(), dst, 4, 1.0), "NumPy array on the host"),
        ((gpu.random(4, np.float64), dst, 4, 1.0), "it needs float32"),
        ((gpu.random((4, 4)).T, dst, 4, 1.0), "not C-contiguous"),
        ((src, dst, 4.5, 1.0), "integer is needed"),
        ((src, dst, 4), "takes 4 arguments, 3 given"),
    ]:
        with pytest.raises(KernelError, match=says):
            kernels.scale[1, 4](*arguments)
    gpu.synchronize()


@pytest.mark.gpu
def test_dynamic_shared_memory_beyond_48_kib(gpu, kernels):
    src, dst = gpu.random(16384, seed=2), gpu.empty(16384)
    kernels.reversed[1, 256, 4 * 16384](src, dst)
    assert np.array_equal(dst.get(), src.get()[::-1])


@pytest.mark.gpu
def test_a_launch_cuda_refuses_is_one_harmless_sentence(gpu, kernels):
    x = gpu.empty(1024)
    with pytest.raises(
        KernelError, match=r"CUDA refused while launching narrow \(sample.cu\).*block \(512, 1, 1\)"
    ):
        kernels.narrow[1, 512](x)
    with pytest.raises(KernelError, match="CUDA refused while launching nothing"):
        kernels.nothing[1, 1, 2**30]()
    kernels.narrow[1, 64](x)
    assert x.get()[63] == 63


@pytest.mark.gpu
def test_freed_memory_is_given_back_and_using_it_is_an_error(gpu, kernels):
    mark, before = gpu.mark(), gpu.device.free_memory()
    array = gpu.empty(2**28, np.uint8)
    view = array[16:32]
    floats = gpu.empty(16)
    assert gpu.device.free_memory() < before - 2**27
    gpu.free_since(mark)
    assert gpu.device.free_memory() > before - 2**26
    with pytest.raises(KernelError, match="memory was given back"):
        array.get()
    with pytest.raises(KernelError, match=r"argument 1.*memory was given back"):
        kernels.narrow[1, 1](floats)
    with pytest.raises(KernelError, match="memory was given back"):
        gpu.device.address(view)


@pytest.mark.gpu
def test_an_array_too_large_for_the_device(gpu):
    with pytest.raises(GpuperfError, match=r"no room for an array .*: 16,384\.00 GiB asked, .* GiB free of "):
        gpu.empty((2**14, 2**30), np.uint8)


@pytest.mark.gpu
def test_torch_tensors_are_arguments(gpu, kernels):
    torch = pytest.importorskip("torch")
    src = torch.arange(256, dtype=torch.float32, device="cuda")
    dst = torch.empty_like(src)
    kernels.scale[1, 256](src, dst, 256, 2.0)
    gpu.synchronize()
    assert torch.equal(dst, src * 2)
    with pytest.raises(KernelError, match="not C-contiguous"):
        kernels.scale[1, 256](src.reshape(16, 16).T, dst, 256, 2.0)
    with pytest.raises(KernelError, match="it needs float32"):
        kernels.scale[1, 256](src.double(), dst, 256, 2.0)


@pytest.mark.gpu
def test_other_libraries_share_arrays_and_the_stream(gpu, kernels):
    torch = pytest.importorskip("torch")
    pytest.importorskip("cuda.core")
    x = gpu.to_device(np.arange(12, dtype=np.float32).reshape(3, 4))
    taken = torch.from_dlpack(x)
    assert taken.data_ptr() == x.ptr == torch.as_tensor(x, device="cuda").data_ptr()
    assert x.contents is None, "they may write to it"
    taken += 1
    gpu.synchronize()
    assert x.get().tolist() == taken.tolist() == (np.arange(12).reshape(3, 4) + 1).tolist()
    assert gpu.stream.__cuda_stream__() == (0, int(gpu.stream.handle))
    with torch.cuda.stream(torch.cuda.ExternalStream(int(gpu.stream.handle))):
        doubled = taken * 2
    gpu.synchronize()
    assert doubled.tolist() == (2 * x.get()).tolist()


@pytest.mark.gpu
def test_templates_and_variables_are_found(gpu, tmp_path):
    from test_names import SOURCE

    (tmp_path / "names.cu").write_text(SOURCE, encoding="latin-1")
    file = Kernels(tmp_path, gpu)["names.cu"]
    out = gpu.to_device(np.zeros(1, np.int32))
    file.constants["hidden"] = np.array([5, 6, 7], np.int32)
    file["secret"][1, 1](out)
    assert (out.get()[0], file.constants["counter"]) == (5, 1)
    file["fill<int>"][1, 1](out)
    assert out.get()[0] == 5, "an instantiation has the file's constants"
    file["ns::k(int*)"][1, 1](out)
    assert out.get()[0] == 1
    x, sums = gpu.random(256, seed=1), gpu.empty(1)
    file["reduce<float, 256>"][1, 256](x, sums, 3)
    assert sums.get()[0] == x.get()[3]


@pytest.mark.gpu
def test_cupy_arrays_are_arguments(gpu, kernels):
    cupy = pytest.importorskip("cupy")
    src = cupy.arange(256, dtype=cupy.float32)
    dst = cupy.empty_like(src)
    kernels.scale[1, 256](src, dst, 256, 2.0)
    gpu.synchronize()
    assert bool((dst == src * 2).all())


@pytest.mark.gpu
def test_code_hash_belongs_to_the_machine_code(gpu, kernels, tmp_path):
    (tmp_path / "same.cu").write_text("// moved\n" + KERNELS)
    (tmp_path / "other.cu").write_text(KERNELS.replace("* factor", "+ factor"))
    here = Kernels(tmp_path, gpu)
    assert here["same.cu"].scale[1, 1].code_hash == kernels.scale[1, 1].code_hash
    assert here["other.cu"].scale[1, 1].code_hash != kernels.scale[1, 1].code_hash


# ------------------------------------------------------------- timing on a device


@pytest.mark.gpu
def test_a_copy_takes_as_long_as_the_memory_needs(gpu):
    rate = device_time.copy_bandwidth(gpu)
    assert 1e10 < rate < 2e13
    src, dst = gpu.empty(2**26, np.uint8), gpu.empty(2**26, np.uint8)
    timing = measure(gpu, gpu.device.copy, (dst, src))
    assert timing.details["gated"] is True
    assert timing.details["batch"] == 1
    assert 0.5 < 2 * src.nbytes / timing.median / rate < 4  # 64 MiB may profit from the cache
    assert len(timing.samples) >= stopwatch.FEWEST


@pytest.mark.gpu
def test_two_measurements_of_a_kernel_agree(gpu, kernels):
    n = 2**26
    src, dst = gpu.random(n, seed=1), gpu.empty(n)
    launch = kernels.scale[n // 256, 256]
    first, second = (measure(gpu, launch, (src, dst, n, 2.0)).median for _ in range(2))
    assert abs(first / second - 1) < 0.01


@pytest.mark.gpu
def test_whole_arrays_are_told_from_parts_and_foreign_ones(gpu):
    array = gpu.empty((4, 6))
    assert gpu.device.owns_memory(array)
    assert gpu.device.owns_memory(array.reshape(24))
    assert not gpu.device.owns_memory(array[1:])
    assert not gpu.device.owns_memory(SimpleNamespace(nbytes=96, base=None))


@pytest.mark.gpu
def test_arrays_are_measured_in_many_places_and_given_back(gpu, kernels):
    n = 2**22
    src, dst = gpu.random(n, seed=1), gpu.empty(n)
    launch, addresses = kernels.scale[n // 256, 256], set()
    bind = launch.bind
    launch.bind = lambda *args: (addresses.add(gpu.device.address(args[0])), bind(*args))[1]
    before = gpu.device.free_memory()
    timing = measure(gpu, launch, (src, dst, n, 2.0))
    assert timing.details["moved"] is True
    assert len(addresses) > 5
    assert gpu.device.free_memory() == before
    assert np.array_equal(dst.get(), 2 * src.get())


@pytest.mark.gpu
def test_an_empty_kernel_is_timed_in_batches(gpu, kernels):
    timing = measure(gpu, kernels.nothing[1, 1])
    assert timing.details["gated"] is True
    assert timing.details["batch"] >= 8
    assert 0.3e-6 < timing.median < 10e-6


@pytest.mark.gpu
def test_a_cold_cache_is_slower_than_a_hot_one(gpu, kernels):
    n = gpu.device.l2_bytes // 16
    src, dst = gpu.random(n, seed=1), gpu.empty(n)
    launch = kernels.scale[(n + 255) // 256, 256]
    hot = measure(gpu, launch, (src, dst, n, 2.0), Settings(l2="hot"), batch=1)
    cold = measure(gpu, launch, (src, dst, n, 2.0), Settings(l2="cold"))
    assert cold.details["gated"] is True
    assert cold.median > 1.1 * hot.median


@pytest.mark.gpu
def test_work_on_the_default_stream_is_seen(gpu):
    src, dst = gpu.empty(2**28, np.uint8), gpu.empty(2**28, np.uint8)
    own = measure(gpu, gpu.device.copy, (dst, src))

    other = measure(gpu, copy, (dst, src))
    assert other.details["gated"] is True
    assert other.median == pytest.approx(own.median, rel=0.05)


@pytest.mark.gpu
def test_work_on_a_stream_of_its_own_is_refused(gpu):
    src, dst = gpu.empty(2**28, np.uint8), gpu.empty(2**28, np.uint8)
    with pytest.raises(KernelError, match="non-blocking stream"):
        measure(gpu, copy, (dst, src, side_stream(gpu)))


@pytest.mark.gpu
def test_a_synchronising_callable_is_host_bound(gpu, kernels):
    def synchronising():
        kernels.nothing[1, 1]()
        gpu.synchronize()

    timing = measure(gpu, synchronising)
    assert timing.details["gated"] is False
    assert "host-bound" in timing.details


@pytest.mark.gpu
def test_the_hold_lasts_as_long_as_it_says(gpu):
    timer = gpu.device.timer()
    start, end = timer.event(), timer.event()
    for seconds in (1e-3, 16e-3):
        lasted = []
        for _ in range(5):
            timer.record(start)
            timer.hold(seconds)
            timer.record(end)
            timer.wait(end)
            lasted.append(timer.seconds(start, end))
        assert min(lasted) == pytest.approx(seconds, rel=0.05, abs=50e-6)


@pytest.mark.gpu
@pytest.mark.parametrize("choice", BINDINGS)
def test_an_illegal_access_is_named_and_the_process_is_unfit(choice, tmp_path):
    """In a process of its own, whose context it destroys."""
    (tmp_path / "sample.cu").write_text(KERNELS)
    code = f"""
        from pathlib import Path
        from pytest_gpuperf.backends import select
        from pytest_gpuperf.backends.kernels import Kernels
        from pytest_gpuperf.backends.gpu import Gpu
        gpu = Gpu(select({choice!r}))
        x = gpu.empty(4)
        Kernels(Path({str(tmp_path)!r}), gpu)["sample.cu"].astray[1, 1](x)
        for use in (x.get, gpu.synchronize, lambda: gpu.empty(4)):
            try:
                use()
            except Exception as error:
                print(type(error).__name__, error)
        gpu.close()
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True)
    lines = done.stdout.splitlines()
    assert done.returncode == 0, done.stderr
    assert lines[0].startswith(f"{KernelError.__name__} A kernel broke the CUDA context")
    assert "illegal memory access" in lines[0]
    assert "The last launch was astray (sample.cu)" in lines[0]
    assert [line.split()[0] for line in lines[1:]] == [NotFit.__name__] * 2
