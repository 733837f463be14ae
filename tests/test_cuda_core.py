"""The CUDA backend on cuda.core: with stand-ins for its driver, and with NVRTC where that is installed."""

from __future__ import annotations

import ctypes
import os
import shutil
import subprocess
import sys
import threading
from contextlib import nullcontext
from pathlib import Path
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest
from gpuproject import BINDINGS, opened

from pytest_gpuperf.backends import uses_cuda_core
from pytest_gpuperf.backends.cuda.context import CudaContext
from pytest_gpuperf.backends.cuda.machine_code import kernel_hash, symbols
from pytest_gpuperf.backends.cuda.program import pack
from pytest_gpuperf.backends.cuda_core import nvrtc
from pytest_gpuperf.backends.cuda_core.array import Array
from pytest_gpuperf.backends.cuda_core.headers import headers, missing_header
from pytest_gpuperf.backends.cuda_core.options import of_nvrtc
from pytest_gpuperf.backends.geometry import Geometry
from pytest_gpuperf.backends.kernels import Kernels
from pytest_gpuperf.backends.room import FREED
from pytest_gpuperf.constants import INSTRUMENTS
from pytest_gpuperf.errors import KernelError, Unavailable
from pytest_gpuperf.rules.differences import environment_differences, other_software

# --------------------------------------------------------------------------- which of the two


@pytest.mark.parametrize(
    ("choice", "pycuda", "core", "taken"),
    [
        ("auto", True, True, False),
        ("auto", False, True, True),
        ("auto", False, False, False),
        ("cuda", False, True, False),
        ("cuda-core", True, False, True),
    ],
)
def test_auto_takes_cuda_core_where_there_is_no_pycuda(choice, pycuda, core, taken, monkeypatch):
    def find_spec(name):
        if name == "cuda.core" and not core:
            raise ModuleNotFoundError("No module named 'cuda'")
        return object() if name == "cuda.core" or pycuda else None

    monkeypatch.setattr("importlib.util.find_spec", find_spec)
    assert uses_cuda_core(choice) is taken


@pytest.mark.parametrize(
    ("gpu", "compiler", "extras"),
    [("", True, "suites,mlperf,cpu"), ("/x", True, "suites,mlperf,cuda"), ("/x", False, "suites,cuda-core")],
)
def test_make_installs_what_the_machine_can_use(gpu, compiler, extras, tmp_path):
    """PyCUDA is built where there is a g++ to build it with; models run where what they need is installed."""
    make = shutil.which("make") or pytest.skip("there is no make here")
    if compiler:
        (tmp_path / "g++").touch(0o755)
    asked = [make, "-n", "suites", f"GPU={gpu}", f"VENV={tmp_path / 'venv'}"]
    root = Path(__file__).parent.parent
    said = subprocess.run(
        asked, cwd=root, env={"PATH": str(tmp_path)}, capture_output=True, text=True, check=True
    ).stdout
    assert f"-e '.[{extras}]'" in said
    assert ("install-pycuda.sh" in said) is ("cuda" in extras.split(","))
    assert ("--ignore=suites/test_resnet50.py" in said) is ("mlperf" not in extras.split(","))


@pytest.mark.parametrize("code", ["k-1", None], ids=["a kernel", "a callable"])
def test_the_other_bindings_baselines_are_other_software(code):
    """Older runs name no binding; the compiler tells."""
    old = {"compiler": "nvcc 13.0.88", "driver": "580.65.06", "cuda_pycuda": "13.0.0"}
    new = {
        "compiler": "NVRTC 13.0.88",
        "driver": "580.65.06",
        "cuda_bindings": "13.3.1",
        "binding": "cuda.core",
    }
    measured = SimpleNamespace(metric=SimpleNamespace(constants=INSTRUMENTS["device_time"]), code=code)
    for environment in (old, {**old, "binding": "PyCUDA"}):
        assert other_software(measured, [SimpleNamespace(environment=environment)], new)
    assert not other_software(measured, [SimpleNamespace(environment=new)], new)
    assert "compiler nvcc 13.0.88 -> NVRTC 13.0.88" in environment_differences([old], new)


# --------------------------------------------------------------------------- arrays, in the host's memory


class HostDriver:
    """A driver whose device is this host's memory."""

    def __init__(self):
        self.live = {}

    def call(self, function, *arguments):
        if function == "cuMemAlloc":
            memory = ctypes.create_string_buffer(*arguments)
            self.live[ctypes.addressof(memory)] = memory
            return ctypes.addressof(memory)
        assert function == "cuMemFree"
        return self.live.pop(*arguments) and ()

    def memcpy_htod(self, address, values):
        ctypes.memmove(address, values.ctypes.data, values.nbytes)

    def memcpy_dtoh(self, values, address):
        ctypes.memmove(values.ctypes.data, address, values.nbytes)


@pytest.fixture
def array():
    made = Array(HostDriver(), (3, 4), np.dtype(np.int16))
    made.set(HOST)
    return made


HOST = np.arange(12, dtype=np.int16).reshape(3, 4)


@pytest.mark.parametrize(
    "part",
    [
        lambda a: a[1],
        lambda a: a[-1, 2],
        lambda a: a[:, 1:3],
        lambda a: a[::-1, None],
        lambda a: a[..., 2],
        lambda a: a.T,
        lambda a: a.T[1:],
        lambda a: a.reshape(2, 6)[1],
        lambda a: a.reshape((4, 3)),
        lambda a: a.view(np.uint8),
    ],
)
def test_parts_of_an_array_are_numpys(array, part):
    found, expected = part(array), np.asarray(part(HOST))
    assert np.array_equal(found.get(), expected)
    assert (found.shape, found.dtype, found.nbytes) == (expected.shape, expected.dtype, expected.nbytes)
    interface = found.__cuda_array_interface__
    if expected.ndim:  # NumPy copies a single element
        offset = expected.ctypes.data - HOST.ctypes.data
        assert interface["data"][0] == array.own_address + offset
    assert interface["strides"] == (None if expected.flags.c_contiguous else expected.strides)
    assert found.base is array


def test_what_would_need_a_copy_is_refused(array):
    for refused in (lambda: array[[0, 1]], lambda: array[HOST > 3], lambda: array.T.reshape(12)):
        with pytest.raises(
            KernelError, match=r"indexed by integers and slices alone|only a C-contiguous array"
        ):
            refused()
    for values in (HOST.astype(np.int32), HOST[1:]):
        with pytest.raises(KernelError, match=r"does not fit <int16\[3, 4\] on the device>"):
            array.set(values)


def test_an_array_that_others_may_write_to_has_unknown_contents(array):
    array.contents = "known"
    array.get()
    assert array.own_address
    assert array.contents == "known"
    _ = array[1].__cuda_array_interface__
    assert array.contents is None


def test_memory_is_given_back_once_and_not_used_again(array):
    view, driver = array[1:], array._driver
    array.free()
    array.free()
    assert driver.live == {}
    for use in (array.get, view.get, lambda: array.set(HOST), lambda: view.ptr):
        with pytest.raises(KernelError, match=FREED[:30]):
            use()
    kept = Array(driver, (2,), np.dtype("f4"))
    assert len(driver.live) == 1
    del kept
    assert driver.live == {}


# --------------------------------------------------------------------------- the driver, by a stand-in


class Result(int):
    name = property(lambda self: f"CUDA_ERROR_{int(self)}")


class Driver(ModuleType):
    """As much of cuda.bindings.driver as a launch takes; ``result`` is what each call says."""

    result, seen = Result(0), None
    CUresult = SimpleNamespace(CUDA_ERROR_NOT_READY=Result(600))

    def __getattr__(self, name):
        if name.startswith("CU"):
            return type(name, (), {"__getattr__": lambda self, attribute: attribute})()
        raise AttributeError(name)

    def cuLaunchKernel(self, function, *rest):
        shape, (shared, stream, parameters, extra) = rest[:6], rest[6:]
        told = (ctypes.c_void_p * 5).from_address(extra)
        size = ctypes.c_size_t.from_address(told[3]).value
        self.seen = function, shape, shared, stream, parameters, ctypes.string_at(told[1], size), told[::2]
        return (self.result,)

    def cuMemGetInfo(self):
        return self.result, 1, 2

    def cuEventQuery(self, event):
        return (self.result,)

    def cuGetErrorString(self, result):
        return Result(0), {2: b"out of memory", 700: b"an illegal memory access was encountered"}[result]


@pytest.fixture
def driver(monkeypatch):
    """cuda_core's driver on a stand-in for cuda.bindings and cuda.core."""
    bindings, core = ModuleType("cuda.bindings"), ModuleType("cuda.core")
    bindings.driver = Driver("cuda.bindings.driver")
    core.Device = lambda index=0: SimpleNamespace(
        create_event=lambda options: SimpleNamespace(handle=5, timed=options), device=index
    )
    core.EventOptions = lambda timing_enabled: timing_enabled
    utils = ModuleType("cuda.core._utils.cuda_utils")
    utils.CUDAError = type("CUDAError", (Exception,), {})
    package = ModuleType("cuda")
    package.core, package.bindings = core, bindings
    made = {"cuda": package, "cuda.bindings": bindings, "cuda.bindings.driver": bindings.driver}
    made |= {"cuda.core": core, "cuda.core._utils": ModuleType("_utils"), utils.__name__: utils}
    for name, module in made.items():
        monkeypatch.setitem(sys.modules, name, module)
    name = "pytest_gpuperf.backends.cuda_core.driver"
    monkeypatch.delitem(sys.modules, name, raising=False)
    monkeypatch.delattr(name, raising=False)  # of its package, where the real one was imported
    from pytest_gpuperf.backends.cuda_core import driver

    yield driver
    sys.modules.pop(name, None)
    del sys.modules["pytest_gpuperf.backends.cuda_core"].driver


def test_a_launch_hands_the_driver_its_parameters_as_they_lie(driver):
    buffer = pack([np.int8(1), np.float64(0.5), np.int32(3)])
    stream = SimpleNamespace(__cuda_stream__=lambda: (0, 77))
    launch = driver.Function(None, 11).bound(Geometry((2, 3, 4), (32, 1, 1), 512), buffer, stream)
    for _ in range(2):
        launch()
        assert driver.cuda_driver.seen == (
            *(11, (2, 3, 4, 32, 1, 1), 512, 77, 0, buffer),
            [1, 2, None],  # CU_LAUNCH_PARAM_BUFFER_POINTER, _BUFFER_SIZE and _END
        )
        assert len(buffer) == 20
    driver.cuda_driver.result = Result(700)
    with pytest.raises(driver.DriverError, match="cuLaunchKernel failed: an illegal memory access"):
        launch()


def test_the_drivers_errors_have_its_own_words(driver):
    assert driver.mem_get_info() == (1, 2)
    driver.cuda_driver.result = Result(2)
    with pytest.raises(driver.MemoryError, match="cuMemGetInfo failed: out of memory"):
        driver.mem_get_info()
    driver.cuda_driver.result = Result(700)
    with pytest.raises(driver.Error, match="illegal memory access") as caught:
        driver.Event().query()
    assert not isinstance(caught.value, driver.MemoryError)


def test_a_driver_older_than_the_bindings_is_said(driver):
    def old(flags):
        raise RuntimeError("Failed to get cuGetProcAddress_v2")

    driver.cuda_driver.cuInit = old
    with pytest.raises(driver.DriverError, match=r"driver too old \(Failed to get cuGetProcAddress_v2\)"):
        driver.init()


def test_a_thread_without_a_context_loses_nothing(driver):
    """Every call of that thread fails, as all do once a kernel broke the context."""
    context = object.__new__(CudaContext)
    context.driver, context.lost = driver, ""
    error = driver.DriverError("cuLaunchKernel failed: invalid device context")
    said = context.explain(error, "launching k")
    assert isinstance(said, KernelError)
    assert str(said).startswith("No CUDA context is current on this thread, seen while launching k: cuLaunch")
    assert context.lost == ""


def test_an_event_that_has_not_happened_is_no_error(driver):
    assert driver.Event().query() is True
    driver.cuda_driver.result = Result(600)
    assert driver.Event().query() is False


@pytest.mark.parametrize(
    "stream",
    [
        7,
        SimpleNamespace(handle=7),
        SimpleNamespace(handle=8, __cuda_stream__=lambda: (0, 7)),
        SimpleNamespace(cuda_stream=7),
        SimpleNamespace(ptr=7),
        SimpleNamespace(handle=ctypes.c_void_p(7)),
    ],
    ids=["an address", "a handle", "the protocol", "torch's", "CuPy's", "Numba's"],
)
def test_streams_of_other_libraries_are_taken(driver, stream):
    assert driver.handle_of(stream) == 7
    assert Geometry.of(1, 1, 0, stream).stream is stream


def test_pycuda_takes_no_other_librarys_stream():
    own, context = type("Stream", (), {"handle": 5}), object.__new__(CudaContext)
    context.driver, context.stream = SimpleNamespace(Stream=own), own()
    function = SimpleNamespace(_launch_kernel=lambda *given: given)
    assert context.bound(function, Geometry.of(2, 3), b"x")()[-1] is context.stream
    with pytest.raises(KernelError, match="PyCUDA launches on its own streams alone; 7 was given"):
        context.bound(function, Geometry.of(2, 3, 0, 7), b"x")


# --------------------------------------------------------------------------- nvcc's options


@pytest.mark.parametrize(
    ("given", "made"),
    [
        ("-DTILE=16 -D N=3 --define-macro=M", "-DTILE=16 -DN=3 -DM"),
        ("-I ../include -Iparts --include-path=/x", "-I/k/include -I/k/kernels/parts -I/x"),
        ("-O3 -Xcompiler -Wall -ccbin g++ --expt-relaxed-constexpr -extended-lambda", ""),
        ("-lineinfo -use_fast_math -maxrregcount 32", "-lineinfo -use_fast_math -maxrregcount=32"),
        ("-Xptxas -v --std c++20", "--ptxas-options=-v -std=c++20"),
        ("-gencode arch=compute_90a,code=sm_90a", "-arch=sm_90a"),
        ("-arch=native -fmad=false", "-fmad=false"),
        ("-include first.h", "--pre-include=first.h"),
    ],
)
def test_nvccs_options_are_nvrtcs_but_for_the_hosts(given, made):
    found = of_nvrtc(given.split(), (9, 0), Path("/k/kernels/x.cu"))
    expected = made.split()
    expected += [] if "-arch" in made else ["-arch=sm_90"]
    expected += [] if "-std" in made else ["-std=c++17"]
    assert found == expected


def test_options_for_nvcc_in_the_environment_count_too(monkeypatch):
    monkeypatch.setenv("NVCC_PREPEND_FLAGS", "-DN=1")
    monkeypatch.setenv("NVCC_APPEND_FLAGS", "-lineinfo")  # of a process under compute-sanitizer
    assert of_nvrtc(["-DM"], (9, 0), Path("x.cu"))[:3] == ["-DN=1", "-DM", "-lineinfo"]


@pytest.mark.parametrize(
    ("header", "says"),
    [
        ("cub/cub.cuh", "pip install -U nvidia-cuda-cccl"),
        ("type_traits", "pip install -U nvidia-cuda-cccl"),
        ("cuda_fp16.h", "pip install nvidia-cuda-runtime"),
        ("cooperative_groups/reduce.h", "pip install nvidia-cuda-runtime"),
        ("mpi.h", r"the device alone and has no <mpi\.h>: .* take nvcc: --gpuperf-backend=cuda"),
    ],
)
def test_a_header_that_is_not_there_says_where_it_is(header, says):
    import re

    assert re.search(says, missing_header(f'x.cu(1): catastrophic error: cannot open source file "{header}"'))
    assert missing_header("x.cu(1): error: expected a ;") == ""


def test_headers_are_those_that_the_installed_libcu_has(tmp_path, monkeypatch):
    """That of CUDA 13.0 has no <algorithm>: it has to be said of that name, not of one inside ours."""
    monkeypatch.setattr("pytest_gpuperf.backends.cuda_core.headers._folder", lambda name: tmp_path)
    (tmp_path / "cuda/std").mkdir(parents=True)
    for name in ("array", "cstdint"):
        (tmp_path / "cuda/std" / name).touch()
    found = headers.__wrapped__()
    assert {"array", "cstdint", "stdint.h", "vector"} <= found.keys()
    assert not {"algorithm", "limits.h"} & found.keys()


# --------------------------------------------------------------------------- NVRTC itself


@pytest.fixture
def compiled(tmp_path, cache):
    """compiled(source, *options): the cubin of a file x.cu, for an H100."""
    try:
        nvrtc.library()
    except Unavailable as error:
        pytest.skip(str(error))

    def compile(source, *options, name="x.cu", capability=(9, 0)):
        (tmp_path / name).write_text(source)
        return nvrtc.compile_cubin(tmp_path / name, options, capability, nullcontext).cubin

    return compile


KERNEL = 'extern "C" __global__ void k(float* x) { x[0] = %s; }\n'


@pytest.mark.parametrize(
    "host",
    [
        'int main() { std::vector<float> v(3); k<<<1, 1>>>(v.data()); printf("}"); }',
        "void run(float* x) { cudaMalloc(&x, 4); /* { */ }\n#ifdef UNUSED\nint f() { return g(); }\n#endif",
        "#define CHECK(x) do { if (x) exit(1); } while (0)\nstatic void go() { CHECK(cudaFree(0)); }",
        "template <class T> void fill(T* x) { cudaMemset(x, 0, sizeof(T)); }",
    ],
    ids=["main", "a launcher", "a macro", "a template"],
)
def test_functions_of_the_host_are_left_out(compiled, host):
    """Those around a kernel change nothing of its machine code."""
    includes = "#include <vector>\n#include <cstdio>\n#include <cuda_runtime.h>\n"
    mixed = compiled(includes + host + "\n" + KERNEL % "1" + host.replace("main", "again"))
    assert symbols(mixed)[0] == ["k"]
    assert kernel_hash(mixed, "k") == kernel_hash(compiled(KERNEL % "1"), "k")


def test_what_does_not_say_where_it_runs_runs_on_the_device(compiled):
    methods = "struct P { float a; float get() const { return a; } };\nconstexpr int two() { return 2; }\n"
    assert symbols(compiled(methods + KERNEL % "P{3}.get() * two()"))[0] == ["k"]


@pytest.mark.parametrize(
    ("source", "options", "says"),
    [
        ("#include <mpi.h>\n" + KERNEL % "1", (), r"x\.cu\(1\): .*\"mpi\.h\"(.|\n)*has no <mpi\.h>"),
        (
            "\n" + KERNEL % "y",
            (),
            r"x\.cu does not compile:\nx\.cu\(2\): error: identifier \"y\" is undefined",
        ),
        (KERNEL % "1", ("-optf", "file"), "NVRTC has no -optf: leave it out, or take nvcc"),
        (
            "static int started = cudaFree(0);\n" + KERNEL % "1",
            (),
            r"identifier \"cudaFree\" is undefined(.|\n)*more of the host's than functions",
        ),
    ],
    ids=["a header", "a mistake", "an option", "a variable of the host's"],
)
def test_what_nvrtc_refuses_is_one_sentence(compiled, source, options, says):
    with pytest.raises(KernelError, match=says) as caught:
        compiled(source, *options)
    assert "Traceback" not in str(caught.value)


def test_a_gpu_that_nvrtc_does_not_know_asks_for_another(compiled):
    with pytest.raises(Unavailable, match=r"NVRTC [\d.]+ is not made for this GPU; pip install"):
        compiled(KERNEL % "1", capability=(3, 0))


def test_quotes_are_searched_beside_the_file_not_in_the_cwd(compiled, tmp_path, monkeypatch):
    for folder, value in (("", "3"), ("elsewhere", "4")):
        (tmp_path / folder / "parts").mkdir(parents=True)
        (tmp_path / folder / "value.cuh").write_text(f"#define VALUE {value}\n")
        (tmp_path / folder / "parts" / "a.cuh").write_text('#include "b.cuh"\n')
        (tmp_path / folder / "parts" / "b.cuh").write_text(f"#define MORE {value}\n")
    source = '#include "value.cuh"\n#include "parts/a.cuh"\n' + KERNEL % "VALUE + MORE"
    expected = kernel_hash(compiled(KERNEL % "6"), "k")
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert kernel_hash(compiled(source), "k") == expected


INCLUDES = {
    "quotes": ('#include "value.cuh"\n', (), True),
    "angles": ("#include <value.cuh>\n", ("-I.",), True),
    "a folder": ('#include "value.cuh"\n', ("-I", "."), True),
    "continued": ('#include \\\n"value.cuh"\n', (), True),
    "a comment": ('# /* tuned */ include "value.cuh"\n', (), True),
    "a macro": ('#define PART "value.cuh"\n#include PART\n', (), False),
    "a condition": ('#if __has_include("value.cuh")\n#include "value.cuh"\n#endif\n', (), False),
    "an option": ("", ("-include", "value.cuh", "-I."), False),
}


@pytest.mark.parametrize("include", INCLUDES)
def test_a_file_is_compiled_again_when_a_header_changes(compiled, include, tmp_path, monkeypatch):
    """NVRTC does not say what it has read: where the text does not tell either, nothing is kept."""
    line, options, kept = INCLUDES[include]
    (tmp_path / "value.cuh").write_text("#define VALUE 3\n")
    first = compiled(line + KERNEL % "VALUE", *options)
    with monkeypatch.context() as without_compiler:
        without_compiler.setattr(nvrtc, "_compiled", None)
        if kept:
            assert compiled(line + KERNEL % "VALUE", *options) == first
    (tmp_path / "value.cuh").write_text("#define VALUE 4\n")
    changed = compiled(line + KERNEL % "VALUE", *options)
    assert kernel_hash(changed, "k") == kernel_hash(compiled(KERNEL % "4"), "k") != kernel_hash(first, "k")


def test_machine_code_is_the_same_wherever_the_file_lies(compiled, tmp_path):
    source = KERNEL % "1" + "__global__ void checked(int* x) { assert(x[0]); }\n"
    first = compiled("namespace { __constant__ int c; }\n" + source)
    folder = tmp_path / "elsewhere"
    folder.mkdir()
    shutil.copy(tmp_path / "x.cu", folder)
    assert nvrtc.compile_cubin(folder / "x.cu", (), (9, 0), nullcontext).cubin == first
    assert os.fsencode(tmp_path) not in first


def test_a_kernel_may_include_standard_headers(compiled):
    if "algorithm" not in headers():
        pytest.skip("libcu++ is not installed, or has no <algorithm> yet")
    includes = "#include <cstdint>\n#include <type_traits>\n#include <stdint.h>\n#include <algorithm>\n"
    kernel = KERNEL % "std::min<std::uint32_t>(3, sizeof(int8_t)) + std::is_same<float, double>::value"
    assert symbols(compiled(includes + kernel))[0] == ["k"]


def test_the_compiler_is_named_with_its_version(compiled):
    import re

    assert re.fullmatch(r"NVRTC \d+\.\d+\.\d+", nvrtc.compiler_version())


# --------------------------------------------------------------------------- on a GPU


@pytest.fixture(params=BINDINGS)
def real(request):
    gpu = opened(request.param)
    yield gpu
    gpu.close()


@pytest.mark.gpu
def test_gpu_a_thread_without_a_context_loses_nothing(real):
    array, said = real.to_device(HOST), []

    def use():
        for call in (lambda: real.device.copy(array, array), lambda: real.empty(4)):
            try:
                call()
            except KernelError as error:
                said.append(str(error))

    thread = threading.Thread(target=use)
    thread.start()
    thread.join()
    print(said)
    assert said
    assert all(text.startswith("No CUDA context is current on this thread") for text in said)
    real.synchronize()
    assert np.array_equal(array.get(), HOST)


@pytest.mark.gpu
def test_gpu_a_launch_on_other_libraries_streams(real, tmp_path):
    (tmp_path / "k.cu").write_text('extern "C" __global__ void k(float* x) { x[threadIdx.x] = 7; }\n')
    torch, cupy = pytest.importorskip("torch"), pytest.importorskip("cupy")
    streams, kernel = [torch.cuda.Stream(), cupy.cuda.Stream()], Kernels(tmp_path, real)["k.cu"].k
    for stream in streams:
        array = real.to_device(np.zeros(32, np.float32))
        if real.device.binding == "PyCUDA":
            with pytest.raises(KernelError, match="PyCUDA launches on its own streams alone"):
                kernel[1, 32, 0, stream](array)
            continue
        kernel[1, 32, 0, stream](array)
        stream.synchronize()
        assert array.get().tolist() == [7] * 32
