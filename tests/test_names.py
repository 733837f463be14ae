"""Kernels by C++ expressions, and variables by their names: on the emulator, and as CUDA's compilers do."""

import shutil

import numpy as np
import pytest

from pytest_gpuperf.backends.cuda_core import nvrtc
from pytest_gpuperf.backends.kernels import Kernels
from pytest_gpuperf.backends.planned.device import NvrtcPlannedBackend, PlannedBackend
from pytest_gpuperf.errors import KernelError, Unavailable

pytestmark = pytest.mark.usefixtures("kernel_cache")

SOURCE = """// \xa9
typedef float real;
template <class T> struct Of { typedef T type; };
template <class T, int N> __global__ void reduce(const typename Of<T>::type *x, T *o, int n)
{ __shared__ T s[N]; s[threadIdx.x] = x[threadIdx.x]; __syncthreads(); o[0] = s[n]; }
template <class T> __global__ void fill(T *o) { o[0] = T(hidden[0]); }
namespace ns {
__constant__ float table[2][4];
__global__ void k(real *o, int n) { o[0] = table[1][n]; }
__global__ void k(int *o) { o[0] = 1; }
}
namespace { __device__ int counter; __global__ void secret(int *o) { o[0] = hidden[0] + counter++; } }
__global__ void idle() {}
__device__ int helper(int n) { return n; }
#define MAKE(name, value) __global__ void name(int *o) { o[0] = value; }
MAKE(made, 41)
#if 1
extern "C" __global__ void either(real *o, int n = 1) { o[0] = n; }
#else
extern "C" __global__ void either(int *o) {}
#endif
int main() { made<<<1, 1>>>(nullptr); }
""".replace("template <class T> struct", "static __constant__ int hidden[3];\ntemplate <class T> struct")


@pytest.fixture
def file(backend, tmp_path):
    (tmp_path / "names.cu").write_text(SOURCE, encoding="latin-1")
    return Kernels(tmp_path, backend)["names.cu"]


@pytest.fixture(params=["nvcc", "NVRTC"])
def planned(tmp_path, request):
    (tmp_path / "names.cu").write_text(SOURCE, encoding="latin-1")
    if request.param == "nvcc":
        if not (shutil.which("nvcc") and shutil.which("g++")):
            pytest.skip("needs nvcc and g++")
        return Kernels(tmp_path, PlannedBackend("GPU", (9, 0), {}))["names.cu"]
    try:
        nvrtc.library()
    except Unavailable as error:
        pytest.skip(str(error))
    return Kernels(tmp_path, NvrtcPlannedBackend("GPU", (9, 0), {}))["names.cu"]


def test_kernels_by_expressions(file, backend):
    def run(name, dtype, *arguments):
        out = backend.to_device(np.zeros(1, dtype))
        file[name][1, 1](out, *arguments)
        return out.get()[0]

    assert run("made", "i4") == 41
    assert run("either", "f4", 3) == 3
    assert run("ns::k(int*)", "i4") == 1
    x, out = backend.to_device(np.arange(8, dtype="f4")), backend.to_device(np.zeros(1, "f4"))
    file["reduce<float, 256>"][1, 8](x, out, 3)
    assert out.get() == [3]
    assert str(file["reduce<float, 256>"].declaration).startswith("reduce<float, 256>(const typename Of<T>")
    with pytest.raises(KernelError, match=r"argument 1 .*a float64 array was given; it needs float32"):
        file["reduce<float, 256>"][1, 8](backend.to_device(np.zeros(8)), out, 3)
    with pytest.raises(KernelError, match=r"argument 1 .*a int32 array was given; it needs float32"):
        run("either", "i4", 3)


def test_launch_bounds_of_a_template_are_its_instances(backend, tmp_path):
    heads = (
        "__global__ void __launch_bounds__(N / 2, 2) k",
        "__launch_bounds__(sizeof(float) * N) __global__ void g",
    )
    source = "".join(f"template <int N> {head}(int *o) {{ o[0] = N; }}\n" for head in heads)
    (tmp_path / "bounds.cu").write_text(source)
    kernels, out = Kernels(tmp_path, backend)["bounds.cu"], backend.to_device(np.zeros(1, "i4"))
    for name, line, most in (("k<128>", 1, 64), ("k<64>", 1, 32), ("g<16>", 2, 64)):
        kernels[name][1, most](out)
        says = rf"bounds.cu:{line}: .* {most + 1} threads a block and has __launch_bounds__\({most}\)"
        with pytest.raises(KernelError, match=says):
            kernels[name][1, most + 1](out)


def test_variables_are_read_and_written(file, backend):
    out = backend.to_device(np.zeros(1, "i4"))
    file.constants["hidden"] = np.array([5, 6, 7], "i4")
    file["secret"][1, 1](out)
    assert (out.get(), file.constants["counter"], file.constants["hidden"].tolist()) == ([5], 1, [5, 6, 7])
    file["fill<int>"][1, 1](out)
    assert out.get() == [5]
    file.constants["hidden"] = np.array([8, 6, 7], "i4")
    file["fill<int>"][1, 1](out)
    assert out.get() == [8]
    file.constants["counter"] = 40
    file["secret"][1, 1](out)
    assert out.get() == [48]
    file.constants["ns::table"] = np.arange(8, dtype="f4").reshape(2, 4)
    real = backend.to_device(np.zeros(1, "f4"))
    file["ns::k(real*, int)"][1, 1](real, 2)
    assert real.get() == [6]


@pytest.mark.parametrize(
    ("name", "values", "says"),
    [
        ("hidden", 3, r"hidden \(int32\[3\]\) was given int; give it a NumPy array"),
        ("hidden", np.zeros(3), r"was given float64\[3\]; make the two equal.*astype\(np.int32\)"),
        ("ns::table", np.zeros(8, "f4"), r"\(float32\[2, 4\]\) was given float32\[8\].*reshape\(2, 4\)"),
        ("counter", 2**40, r"1099511627776, which does not fit"),
        ("none", 3, r"no variable 'none' that is __constant__ or __device__: 'none' was not declared"),
        ("made", 3, r"no variable 'made'.*that is no variable"),
        ("a; b", 3, r"that is no name"),
    ],
)
def test_what_does_not_fit_a_variable(file, name, values, says):
    with pytest.raises(KernelError, match=says):
        file.constants[name] = values


@pytest.mark.parametrize(
    ("name", "says"),
    [
        (
            "reduce",
            r'reduce is a template; name its arguments, as in kernels\["names.cu"\]\["reduce<float, N>"\]',
        ),
        ("reduce<float>", "is a template; name other arguments"),
        ("ns::k", r"ns::k is declared more than once; name one by its parameters"),
        ("k(int*)", r"did you mean ns::k"),
        ("counter", "no kernel 'counter'"),
    ],
)
def test_what_names_no_kernel(file, name, says):
    with pytest.raises(KernelError, match=says):
        _ = file[name]


def test_cudas_compilers_name_the_same_kernels_and_variables(planned):
    for name, own in (
        ("made", False), ("secret", False), ("ns::k(int*)", False), ("either", False), ("idle", False),
        ("fill<double>", True),
    ):  # fmt: skip
        launch = planned[name][1, 1]
        assert (launch.program is not planned.program) == own
    out = planned.backend.to_device(np.zeros(1))
    out.contents = "zeros"
    before = launch.work_hash(out)
    planned.constants["hidden"] = np.array([5, 6, 7], "i4")
    assert before != launch.work_hash(out)
    assert launch.declaration.parameters[0].dtype == np.float64
    with pytest.raises(KernelError, match=r"no kernel 'counter'.*that is no kernel"):
        _ = planned["counter"]
    with pytest.raises(KernelError, match=r"no kernel 'helper'.*that is n(o kernel|either)"):
        _ = planned["helper"]
    with pytest.raises(KernelError, match=r"hidden \(int32\[3\]\) was given int"):
        planned.constants["hidden"] = 3
