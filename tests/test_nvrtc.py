"""Kernels compiled by NVRTC, which takes nvcc's options and finds the headers itself."""

from __future__ import annotations

import os
import shutil
from contextlib import nullcontext
from pathlib import Path

import pytest

from pytest_gpuperf.backends.cuda.machine_code import kernel_hash, symbols
from pytest_gpuperf.backends.cuda_core import nvrtc
from pytest_gpuperf.backends.cuda_core.headers import headers, missing_header
from pytest_gpuperf.backends.cuda_core.options import of_nvrtc
from pytest_gpuperf.errors import KernelError, Unavailable

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
    there = [name for name in ("cstdint", "type_traits", "stdint.h") if name in headers()]
    if len(there) < 3:
        pytest.skip("libcu++ is not installed")
    includes = "".join(f"#include <{name}>\n" for name in there)
    kernel = KERNEL % "std::uint32_t(sizeof(int8_t)) + std::is_same<float, double>::value"
    assert symbols(compiled(includes + kernel))[0] == ["k"]


def test_the_compiler_is_named_with_its_version(compiled):
    import re

    assert re.fullmatch(r"NVRTC \d+\.\d+\.\d+", nvrtc.compiler_version())
