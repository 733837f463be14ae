"""Building for the emulated device: what is refused by name, the compiler's own errors, the cache."""

import os
import re
import shutil
import stat
import sys

import numpy as np
import pytest

from pytest_gpuperf.backends.declarations import read
from pytest_gpuperf.backends.emulated import compiler as emulated_compiler
from pytest_gpuperf.backends.emulated.device import EmulatedBackend
from pytest_gpuperf.backends.emulated.hooks import shortened
from pytest_gpuperf.backends.geometry import Geometry
from pytest_gpuperf.cache import cache_folder
from pytest_gpuperf.errors import KernelError, Unavailable, Unsupported

pytestmark = pytest.mark.usefixtures("kernel_cache")

KERNEL = 'extern "C" __global__ void k(int *out)\n{\n    out[0] = 7;\n}\n'


@pytest.fixture
def load(backend, tmp_path):
    def load(source, *options, name="x.cu"):
        (tmp_path / name).write_text(source)
        return backend.load(read(tmp_path / name), options)

    return load


def launched(backend, program):
    out = backend.empty((1,), np.int32)
    program.launch("k", Geometry.of((1, 1, 1), (1, 1, 1)), [out])
    return int(out.get()[0])


# ---- refusals ----


@pytest.mark.parametrize(
    ("line", "what"),
    [
        (
            "static __device__ void f() { cooperative_groups::this_cluster().sync(); }",
            "groups of a cluster",
        ),
        ("#  include <mma.h>", "wmma"),
        ("using namespace nvcuda;", "wmma"),
        ("#include <cuda/pipeline>", r"libcu\+\+ \(cuda::\)"),
        ("__device__ cuda::barrier<cuda::thread_scope_block> b;", r"libcu\+\+ \(cuda::\)"),
        ("static __device__ void f() { __pipeline_arrive_on(0); }", r"barriers in memory \(mbarrier\)"),
        ("#include <cub/device/device_scan.cuh>", "CUB beyond the reductions and scans"),
        ("typedef cub::BlockRadixSort<int, 32, 4> Sort;", "CUB beyond the reductions and scans"),
        ("#include <thrust/sort.h>", "Thrust"),
        ("#include <cute/tensor.hpp>", "CUTLASS"),
        ("#include <curand_kernel.h>", "cuRAND"),
        ("#include <cuda_fp4.h>", "floats of 4 to 8 bits"),
        ("#include <cuda_awbarrier.h>", r"barriers in memory \(mbarrier\)"),
        ("#include <cusparse_v2.h>", "what this header of CUDA declares"),
        ("__global__ void f(const __grid_constant__ CUtensorMap map) {}", r"tensor maps \(TMA\)"),
        ('static __device__ void f() { asm volatile("membar.gl;"); }', "inline assembly"),
        ("static __device__ float f(cudaTextureObject_t t);", "textures"),
        ("static __device__ float f(float x) { return tex2D<float>(x); }", "textures"),
        ("static __device__ void f(cudaSurfaceObject_t s);", "surfaces"),
        ("__global__ void f() { k<<<1, 1>>>(0); }", r"launches from a kernel file \(<<<>>>\)"),
        ("__managed__ int m;", r"managed memory \(__managed__\)"),
        ("__cluster_dims__(2, 1, 1)", "thread block clusters"),
        ("static __device__ void f() { __cluster_barrier_wait(); }", "thread block clusters"),
        ("static __device__ bool f(void *p) { return __isShared(p); }", "questions where a pointer points"),
        ("static __device__ void f(int *p) { __nv_atomic_add(p, 1, 0, 3); }", "this intrinsic"),
        (
            "template <class B> __device__ void f(B b) { b.barrier_wait(b.barrier_arrive()); }",
            "barriers of groups in two steps",
        ),
        ("template <class B> __device__ void f(B b) { tiled_partition<64>(b); }", "groups of several warps"),
        (
            "static __device__ void f() { cudaGridDependencySynchronize(); }",
            "calls of the CUDA runtime in a kernel",
        ),
        ("static __device__ void *f() { return malloc(4); }", "allocation inside a kernel"),
    ],
)
def test_what_the_device_lacks_is_refused_by_name_and_line(load, line, what):
    says = rf'x\.cu:6: the emulated backend cannot run {what}.*on a GPU, or mark it .*backend="cuda"'
    with pytest.raises(Unsupported, match=says):
        load(f"{KERNEL}// wmma::, asm(), __nv_fp8 in a comment\n{line}\n")


def test_words_in_comments_and_strings_are_not_refused(load, backend):
    source = f'/* asm */ // wmma::\n#define NAME "wmma:: <<<"\n{KERNEL}// malloc(3) new x\n'
    assert launched(backend, load(source)) == 7


@pytest.mark.parametrize(
    "source",
    [
        "#ifdef USE_FP8\n#include <cuda_fp8.h>\n#else\ntypedef int real;\n#endif\n",
        '#define LOAD(x) asm volatile("ld" : x)\n#if 0\nasm("");\n#endif\n',
        "#include <stdlib.h>\nstatic float *buffer(int n) { return (float *)malloc(n * 4); }\n",
        "struct S { int x; };\n#include <iostream>\nint main()\n{\n    k<<<1, 1>>>(new int[3]);\n}\n",
        "template <class T> void run(T *p) { if (p) { cudaMalloc(&p, 4); } k<<<1, 1>>>(p); }\n",
        "#include <stdio.h>\n#include <iostream>\nvoid fail(char **e) { *e = NULL; fputs(*e, stderr); }\n",
        "namespace a { namespace { void host() { std::cout << 1; } } __device__ int one() { return 1; } }\n",
        "struct Timer { cudaEvent_t a; Timer() { cudaEventCreate(&a); } ~Timer() { cudaFree(a); } };\n",
        "template <class T> class Run { int n{1}; public: Run(T *p) : n{2}, p(p) { k<<<1, 1>>>(p); } T *p;\n"
        "struct In { In() { cudaFree(0); } __device__ int two() { return 2; } }; };\n"
        "__device__ int of(Run<int> &r, Run<int>::In in) { return *r.p + in.two(); }\n",
    ],
    ids=[
        "a branch that is off",
        "an unused macro",
        "host malloc",
        "main",
        "a template",
        "NULL",
        "namespaces",
        "a class of events",
        "a class that launches",
    ],
)
def test_what_is_not_compiled_for_the_device_is_not_refused(load, backend, source):
    forward = 'extern "C" __global__ void k(int *out);\n'
    assert launched(backend, load(forward + source + KERNEL)) == 7
    with pytest.raises(KernelError, match=rf"x\.cu:{source.count(chr(10)) + 4}: 'seven' was not declared"):
        load(forward + source + KERNEL.replace("7", "seven"))


def test_the_versions_are_those_of_cuda_13(load, backend):
    asked = "#include <cuda.h>\n#if !defined(__NVCC__) || __CUDACC_VER_MAJOR__ * 1000 != CUDART_VERSION"
    asked += " || CUDA_VERSION != CUDART_VERSION || CUDART_VERSION < 13000\n#error old\n#endif\n"
    assert launched(backend, load(asked + KERNEL)) == 7


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("\n\n#include <mma.h>\n", "3: the emulated backend cannot run wmma"),
        ("\nint broken = ;\n", "2: expected"),
    ],
)
def test_what_is_wrong_in_a_header_names_the_header(load, tmp_path, text, says):
    (tmp_path / "part.cuh").write_text(text)
    with pytest.raises(KernelError, match=rf"part\.cuh:{says}"):
        load('#include "part.cuh"\n' + KERNEL)


def test_a_folder_may_be_called_as_a_library_is(backend, tmp_path):
    for name in ("cuda", "cub"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "k.cu").write_text('#include "../cuda/part.cuh"\n' + KERNEL)
        (tmp_path / "cuda" / "part.cuh").write_text("")
        assert launched(backend, backend.load(read(tmp_path / name / "k.cu"), [])) == 7


def test_a_variable_named_half_is_no_half_precision(load, backend):
    source = KERNEL.replace("out[0] = 7", "int half = 14; half /= 2; out[0] = half")
    assert launched(backend, load(source)) == 7


# ---- the compiler's own errors ----


def test_a_kernel_that_returns_a_value(load, backend):
    with pytest.raises(KernelError, match=r"x\.cu:1: kernel f returns a value; a kernel returns void"):
        load("static __global__ __launch_bounds__(32) int f(void *x) { return 1; }\n" + KERNEL)
    assert launched(backend, load(KERNEL.replace("void k(int *out)", "auto k(int *out) -> void"))) == 7


def test_a_file_that_does_not_compile(load):
    with pytest.raises(KernelError) as caught:
        load(KERNEL.replace("out[0] = 7", "out[0] = seven"))
    assert "x.cu does not compile: " in str(caught.value)
    assert "x.cu:3: 'seven' was not declared in this scope" in str(caught.value)


def test_a_function_of_the_host_in_a_kernel(load):
    source = "namespace n { int seven(int x) { return x; } }\n" + KERNEL.replace("7", "n::seven(7)")
    says = r"x\.cu:4: seven is a function for the host; declare it __device__"
    with pytest.raises(KernelError, match=says):
        load(source)


def test_a_function_that_is_nowhere_defined(load):
    source = "__device__ int elsewhere(int);\n" + KERNEL.replace("= 7", "= elsewhere(7)")
    with pytest.raises(
        KernelError, match=r"x\.cu does not link: elsewhere\(int\) is declared but not defined"
    ):
        load(source)


def test_too_much_static_shared_memory(load):
    source = KERNEL.replace("out[0] = 7", "__shared__ float s[12289]; s[out[1]] = 1; out[0] = s[out[2]]")
    with pytest.raises(
        KernelError, match=r"x\.cu: k has 49156 bytes of static shared memory; CUDA allows 49152"
    ):
        load(source)


def test_a_file_that_is_not_there_or_no_text(backend, tmp_path):
    with pytest.raises(KernelError, match=r"nowhere.cu cannot be read"):
        backend.load(read(tmp_path / "nowhere.cu"))
    (tmp_path / "binary.cu").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(KernelError, match=r"binary.cu cannot be read as UTF-8"):
        backend.load(read(tmp_path / "binary.cu"))


# ---- the cache ----


@pytest.fixture
def compilations(monkeypatch):
    seen = []
    run = emulated_compiler.run
    monkeypatch.setattr(
        emulated_compiler, "run", lambda command, folder: (seen.append(command), run(command, folder))[1]
    )
    return seen


def test_a_file_is_compiled_once(load, backend, compilations):
    source = KERNEL.replace("7", "71")
    assert launched(backend, load(source)) == 71
    assert len(compilations) == 2  # compile, link
    assert launched(backend, load(source)) == 71
    assert len(compilations) == 2


def test_source_headers_and_options_are_part_of_the_key(load, backend, tmp_path):
    source = '#include "part.cuh"\n' + KERNEL.replace("7", "VALUE + PART")
    (tmp_path / "part.cuh").write_text("#define PART 1\n")
    assert launched(backend, load(source, "-DVALUE=10")) == 11
    assert launched(backend, load(source, "-DVALUE=20")) == 21
    (tmp_path / "part.cuh").write_text("#define PART 2\n")
    assert launched(backend, load(source, "-DVALUE=20")) == 22
    assert launched(backend, load(source + "\n#define UNUSED\n", "-DVALUE=20")) == 22


INCLUDES = {
    "by_macro": '#define PART_FILE "part.cuh"\n#include PART_FILE',
    "with_a_comment": '# /* tuned */ include /* here */ "part.cuh"',
    "on_a_continued_line": '#inc\\\nlude \\\n"part.cuh"',
    "as_a_digraph": '%: include "part.cuh"',
    "after_a_comment": '/* why */ #include "part.cuh"',
    "by_option": "",
    "as_next": "#include_next <part.cuh>",
    "unquoted": "#define STRING(name) #name\n#define QUOTED(name) STRING(name)\n#include QUOTED(part.cuh)",
}


@pytest.mark.parametrize("how", INCLUDES)
def test_a_header_is_part_of_the_key_however_it_is_included(load, backend, tmp_path, how):
    source = INCLUDES[how] + "\n" + KERNEL.replace("7", "PART")
    options = ["-I.", f"-DHOW_{how}"]
    if how == "by_option":
        source, options = f"#include INCLUDED\n{source}", [*options, '-DINCLUDED="part.cuh"']
    for value in (1, 2):
        (tmp_path / "part.cuh").write_text(f"#define PART {value}\n")
        assert launched(backend, load(source, *options)) == value


def test_a_header_that_comes_before_another_is_compiled(load, backend, tmp_path):
    for folder in ("first", "second"):
        (tmp_path / folder).mkdir()
    (tmp_path / "second" / "part.cuh").write_text("#define PART 1\n")
    source = "#include <part.cuh>\n" + KERNEL.replace("7", "PART")
    assert launched(backend, load(source, "-Ifirst", "-I", "second")) == 1
    (tmp_path / "first" / "part.cuh").write_text("#define PART 2\n")
    assert launched(backend, load(source, "-Ifirst", "-I", "second")) == 2


def test_a_header_that_is_only_asked_for_is_part_of_the_key(load, backend, tmp_path):
    source = '#if __has_include("tuned.cuh")\n#define PART 2\n#else\n#define PART 1\n#endif\n'
    source += KERNEL.replace("7", "PART")
    assert launched(backend, load(source)) == 1
    (tmp_path / "tuned.cuh").write_text("")
    assert launched(backend, load(source)) == 2


def test_a_search_path_of_the_environment_is_part_of_the_key(load, backend, tmp_path, monkeypatch):
    source = "#include <part.cuh>\n" + KERNEL.replace("7", "PART")
    for value in (1, 2):
        folder = tmp_path / f"environment{value}"
        folder.mkdir()
        (folder / "part.cuh").write_text(f"#define PART {value}\n")
        monkeypatch.setenv("CPATH", str(folder))
        assert launched(backend, load(source)) == value


def test_what_is_missing_is_refused_in_a_searched_header(load, tmp_path):
    (tmp_path / "part").mkdir()
    (tmp_path / "part" / "wmma.cuh").write_text("#include <mma.h>\n")
    with pytest.raises(KernelError, match=r"part/wmma\.cuh:1: the emulated backend cannot run wmma"):
        load("#include <wmma.cuh>\n" + KERNEL, "-Ipart")


@pytest.mark.parametrize("keep", [0, 100, 4096, 0.5])
def test_a_damaged_library_is_built_again(backend, tmp_path, keep):
    """Loaded as it is, it would be an error of the linker or kill the session."""
    (tmp_path / "damaged.cu").write_text(f"// {keep}\n" + KERNEL)
    file = read(tmp_path / "damaged.cu")
    compiler = emulated_compiler.find_compiler(None)
    library = emulated_compiler.build_kernels(compiler, emulated_compiler.build_runtime(compiler), file, ())
    os.truncate(library, int(library.stat().st_size * keep) if isinstance(keep, float) else keep)
    assert launched(backend, backend.load(file)) == 7


def test_nothing_half_built_stays_in_the_cache(load):
    with pytest.raises(KernelError):
        load("int broken = ;\n" + KERNEL, name="half_built.cu")
    left = (cache_folder() / "emulated").glob("*half_built*")  # others may build meanwhile
    assert [path.name for path in left if path.suffix != ".lock"] == []


def test_a_cache_that_cannot_be_written(load, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("PYTEST_GPUPERF_CACHE", str(tmp_path / "file"))
    with pytest.raises(
        Unavailable, match=r"The cache .*file/emulated cannot be written .*PYTEST_GPUPERF_CACHE"
    ):
        load(KERNEL)


def test_a_second_cache_folder_serves_the_same_runtime(load, backend, tmp_path, monkeypatch):
    """Kernels bind to the runtime that was loaded first; a backend must not talk to another copy."""
    (tmp_path / "cache" / "emulated").mkdir(parents=True)
    for file in (cache_folder() / "emulated").glob("libgpuperf_simt-*"):
        shutil.copy(file, tmp_path / "cache" / "emulated")
    monkeypatch.setenv("PYTEST_GPUPERF_CACHE", str(tmp_path / "cache"))
    other = EmulatedBackend(threads=1)
    assert other.runtime is backend.runtime
    (tmp_path / "y.cu").write_text(KERNEL)
    assert launched(other, other.load(read(tmp_path / "y.cu"))) == 7


# ---- the compiler ----


def compiler(tmp_path, text, status=0):
    path = tmp_path / "c++"
    path.write_text(f"#!{sys.executable}\nimport sys\nprint({text!r})\nsys.exit({status})\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return str(path)


def test_no_compiler_names_the_package(monkeypatch):
    monkeypatch.delenv("CXX", raising=False)
    monkeypatch.setenv("PATH", "/nowhere")
    emulated_compiler.find_compiler.cache_clear()
    with pytest.raises(
        Unavailable, match=r"emulated with g.., and g.. is not there; install it with `apt-get install g"
    ):
        EmulatedBackend()


def test_a_compiler_that_does_not_run(monkeypatch):
    monkeypatch.setenv("CXX", "/nowhere/c++")
    with pytest.raises(Unavailable, match=r"CXX names /nowhere/c\+\+, which does not run; install"):
        EmulatedBackend()


@pytest.mark.parametrize(
    ("said", "reason"),
    [
        ("Debian clang version 14.0.6\nTarget: x86_64", "its counters differ from those of g"),
        ("Intel(R) oneAPI DPC++/C++ Compiler", "its counters differ from those of g"),
        ("g++ (GCC) 9.4.0\nCopyright (C) 2019 Free Software Foundation, Inc.", "is too old"),
    ],
)
def test_other_compilers_are_refused_by_name(monkeypatch, tmp_path, said, reason):
    monkeypatch.setenv("CXX", compiler(tmp_path, said))
    with pytest.raises(Unavailable, match=reason) as caught:
        EmulatedBackend()
    assert said.splitlines()[0] in str(caught.value)


def test_a_compiler_that_compiles_nothing(monkeypatch, tmp_path):
    """As g++ without its headers or its assembler: found when the device is opened, not in a test."""
    said = "g++ (GCC) 12.0.0\nCopyright (C) 2022 Free Software Foundation, Inc."
    path = compiler(tmp_path, said)
    script = f"import sys\nif sys.argv[1:] != ['--version']:\n    sys.exit('no as')\nprint({said!r})\n"
    (tmp_path / "c++").write_text(f"#!{sys.executable}\n{script}")
    monkeypatch.setenv("CXX", path)
    with pytest.raises(Unavailable, match=r"cannot build a library \(no as\); install it with"):
        EmulatedBackend()


@pytest.mark.parametrize(("system", "machine"), [("darwin", "x86_64"), ("linux", "aarch64")])
def test_other_machines_are_refused_by_name(monkeypatch, system, machine):
    emulated_compiler.find_compiler.cache_clear()
    monkeypatch.setattr("sys.platform", system)
    monkeypatch.setattr("platform.machine", lambda: machine)
    with pytest.raises(Unavailable, match=f"x86-64 Linux only, and this is {machine} {system}"):
        EmulatedBackend()


def test_cxx_chooses_the_compiler(monkeypatch, backend, tmp_path):
    monkeypatch.setenv("CXX", "g++ -DFROM_CXX=9")
    chosen = EmulatedBackend(threads=1)
    (tmp_path / "z.cu").write_text(KERNEL.replace("7", "FROM_CXX"))
    assert launched(chosen, chosen.load(read(tmp_path / "z.cu"))) == 9
    assert os.environ["CXX"]


def test_cublas_brings_the_narrow_types_as_nvidias_does(load):
    program = load("#include <cublas_v2.h>\n__global__ void k(const __nv_bfloat16 *x, half *y) {}\n")
    assert len(program.signature("k").rows) == 2


# ---- the kernel's assembly ----


def test_accesses_beyond_the_table_of_sites_keep_their_hook():
    calls = shortened("\tcall\t__tsan_read4@PLT\n\tcall\t__tsan_write8@PLT\n" * 8193)
    assert calls.count("gpuperf_read4@") == calls.count("gpuperf_write8@") == 8192
    assert calls.endswith(f"${16383 * 64}, %rsi\n\tcall\t*gpuperf_write8@GOTPCREL(%rip)\n"
                          "\tcall\t__tsan_read4@PLT\n\tcall\t__tsan_write8@PLT\n")  # fmt: skip


def test_what_a_kernel_does_most_calls_nobody():
    asked = "\tcall\t__tls_get_addr@PLT\n"
    shared = f"\tleaq\ttile@tlsld(%rip), %rdi\n{asked}\taddq\t$tile@dtpoff, %rax\n"
    index = f"\tdata16\tleaq\tblockIdx@tlsgd(%rip), %rdi\n\t.value\t0x6666\n\trex64\n{asked}"
    made = shortened(f"{shared}{index}\tret\n")
    assert "gpuperf_anchor@" in made
    assert "blockIdx@gottpoff" in made
    assert not re.search(r"\b(call|ret)\b", made)
    kept = index.replace("blockIdx", "mine")
    assert shortened(kept) == kept
