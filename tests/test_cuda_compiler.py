"""Kernels compiled by nvcc: what is compiled again, and what is said where that fails."""

import os
import re
import shutil

import pytest
from gpuproject import needs_nvcc

from pytest_gpuperf.backends.cuda import compile as cuda_compile
from pytest_gpuperf.backends.cuda.compile import compile_cubin, find_nvcc
from pytest_gpuperf.errors import KernelError, Unavailable

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
