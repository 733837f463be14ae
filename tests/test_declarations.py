"""What the parser reads from CUDA source, and what the argument check lets through."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from pytest_gpuperf.backends.arguments import check
from pytest_gpuperf.backends.declarations import parse, read
from pytest_gpuperf.errors import KernelError

FILE = Path("suite/kernels/sample.cu")


def kernel(parameters: str, name: str = "k"):
    found = parse(f'extern "C" __global__ void {name}({parameters}) {{ }}', FILE)
    return found.get(name) or found.others[0]


class Array:
    """A device array of the pretended device below."""

    def __init__(self, shape, dtype=np.float32, address=0x1000, strides=None):
        self.shape, self.dtype, self.device_address = shape, np.dtype(dtype), address
        self.nbytes = int(np.prod(shape)) * self.dtype.itemsize
        self.strides = strides


class Foreign:
    """What torch and CuPy show of their arrays."""

    def __init__(self, shape, typestr="<f4", strides=None, address=0x2000):
        self.__cuda_array_interface__ = {
            "shape": shape, "typestr": typestr, "strides": strides, "data": (address, False), "version": 3
        }  # fmt: skip


def _address(argument):
    if isinstance(argument, Array):
        if argument.device_address < 0:
            raise KernelError("its memory was given back.")
        return argument.device_address
    interface = getattr(argument, "__cuda_array_interface__", None)
    return interface["data"][0] if interface else None


DEVICE = SimpleNamespace(address=_address, device_name="Test Device")


def refused(declaration, *arguments) -> str:
    with pytest.raises(KernelError) as caught:
        check(declaration, arguments, DEVICE)
    return str(caught.value)


# --------------------------------------------------------------------------- parsing


@pytest.mark.parametrize(
    "source",
    [
        'extern "C" __global__ void k(float* a) {}',
        'extern   "C"\n__global__\nvoid\nk ( float *a )\n{}',
        'extern "C" __global__ void __launch_bounds__(256, 2) k(float* a) {}',
        'extern "C" __global__ __launch_bounds__(16 * (8 + 8)) void k(float* a) {}',
        'extern "C" void __global__ __cluster_dims__(2, 1, 1) k(float* a) {}',
        'extern "C" {\nint helper(int);\n__global__ void k(float* a) { if (1) { } }\n}',
        'namespace n { extern "C" __global__ void k(float* a) {} }',
        '// __global__ void dead(int);\n/* __global__ */ extern "C" __global__ void k(float* a) {}',
        'const char* s = "__global__ void dead(int) {"; extern "C" __global__ void k(float* a) {}',
        "const int million = 1'000'000; extern \"C\" __global__ void k(float* a) {}",
        'const char q = \'"\'; extern "C" __global__ void k(float* a) {}',
        '#define DEAD __global__ void dead(int x) \\\n  { x; }\nextern "C" __global__ void k(float* a) {}',
        'extern "C" __global__ void k(float* /* the data, in place */ a) {}',
    ],
)
def test_every_way_to_write_it(source):
    found = parse(source, FILE)
    assert list(found) == ["k"]
    assert not found.others
    (parameter,) = found["k"].parameters
    assert (parameter.name, parameter.type, parameter.pointer) == ("a", "float", True)


def test_lines_are_those_of_the_name_in_the_file():
    source = '/* one\n two */\n#define X \\\n  1\nextern "C" __global__\nvoid k(int n) {}\n'
    source += 'extern "C" __global__ void l() {}'
    found = parse(source, FILE)
    assert (found["k"].line, found["l"].line) == (6, 7)
    assert found["k"].where == "sample.cu:6"
    assert found["l"].parameters == ()


@pytest.mark.parametrize(
    ("text", "name", "kind", "pointer", "const", "dtype", "lanes"),
    [
        ("const float* __restrict__ src", "src", "float", True, True, "float32", 1),
        ("float const *src", "src", "float", True, True, "float32", 1),
        ("float* const src", "src", "float", True, False, "float32", 1),
        ("volatile unsigned int *flag", "flag", "unsigned int", True, False, "uint32", 1),
        ("unsigned n", "n", "unsigned int", False, False, "uint32", 1),
        ("long long unsigned int n", "n", "unsigned long long", False, False, "uint64", 1),
        ("const long n", "n", "long", False, True, "int64", 1),
        ("unsigned char c", "c", "unsigned char", False, False, "uint8", 1),
        ("signed char c", "c", "signed char", False, False, "int8", 1),
        ("signed s", "s", "int", False, False, "int32", 1),
        ("std::size_t n", "n", "size_t", False, False, "uint64", 1),
        ("uint16_t* out", "out", "uint16_t", True, False, "uint16", 1),
        ("bool flag", "flag", "bool", False, False, "bool", 1),
        ("const __half *x", "x", "__half", True, True, "float16", 1),
        ("double x[]", "x", "double", True, False, "float64", 1),
        ("const float4 *in", "in", "float4", True, True, "float32", 4),
        ("uchar4* pixels", "pixels", "uchar4", True, False, "uint8", 4),
        ("half2* h", "h", "half2", True, False, "float16", 2),
        ("void* raw", "raw", "void", True, False, None, 1),
        ("struct Config config", "config", "Config", False, False, None, 1),
        ("const __grid_constant__ Config config", "config", "Config", False, True, None, 1),
        ("Pair<float, 2> pair", "pair", "Pair<float, 2>", False, False, None, 1),
        ("float** rows", "rows", "float*", True, False, None, 1),
        ("unsigned int", "argument1", "unsigned int", False, False, "uint32", 1),
        ("size_t", "argument1", "size_t", False, False, "uint64", 1),
        ("float*", "argument1", "float", True, False, "float32", 1),
    ],
)  # fmt: skip
def test_parameter_types(text, name, kind, pointer, const, dtype, lanes):
    (parameter,) = kernel(text).parameters
    expected = np.dtype(dtype) if dtype else None
    assert (parameter.name, parameter.type, parameter.pointer, parameter.const) == (
        name,
        kind,
        pointer,
        const,
    )
    assert (parameter.dtype, parameter.lanes) == (expected, lanes)


def test_commas_inside_template_arguments_do_not_split():
    parameters = kernel("Pair<int, float> p, const float* src, int n").parameters
    assert [parameter.name for parameter in parameters] == ["p", "src", "n"]


def test_what_only_a_compiler_knows_is_not_plain():
    source = "namespace a { __global__ void f(int n); template <class T> __global__ void g(T* x) {} }"
    source += '\nextern "C" __global__ void h(real x) {}\nextern "C" __global__ void k(float** x, void* y) {}'
    found = parse(source, FILE)
    assert list(found) == ["k"]
    assert [(d.name, d.template, d.line) for d in found.others] == [
        ("a::f", "", 1), ("a::g", "<float>", 1), ("h", "", 2)
    ]  # fmt: skip


def test_template_says_what_to_write():
    source = "template <typename T, int N, bool B = true>\n__global__ void scale(T* x) {}"
    found = parse(source, FILE)
    says = r'sample.cu:2: scale is a template; .*, as in kernels\["sample.cu"\]\["scale<float, N>"'
    with pytest.raises(KernelError, match=says):
        raise found.unknown("scale")
    with pytest.raises(KernelError, match=r"name other arguments.* The compiler says: no\.$"):
        raise found.unknown("scale<3>", "no.")


@pytest.mark.parametrize(
    "head",
    [
        "template <typename T, int N> requires (N > 2)",
        "template <typename T, int N> __launch_bounds__(Traits<N>::threads)",
        "template <typename T, int N, std::enable_if_t<(sizeof(T) > 2), int> = 0>",
        "template <class T, Pair<int, 3> N, typename... More>",
    ],
)
def test_a_templates_parameters_end_where_they_do(head):
    (scale,) = parse(head + " __global__ void scale(T* x) {}", FILE).others
    assert (scale.name, scale.template) == ("scale", "<float, N>")


def test_a_comma_too_many_is_the_compilers_to_refuse():
    (scale,) = parse("template <typename T, >\n__global__ void scale(T* x) {}", FILE).others
    assert (scale.name, scale.template) == ("scale", "<float>")


def test_unknown_kernel_lists_what_is_there():
    found = parse('extern "C" __global__ void transpose(int n) {}', FILE)
    with pytest.raises(
        KernelError, match=r"no kernel 'transpos'\. It declares transpose; did you mean transpose\?"
    ):
        raise found.unknown("transpos")
    with pytest.raises(KernelError, match="declares no __global__ function"):
        raise parse("int x;", FILE).unknown("k")


def test_a_definition_replaces_its_forward_declaration():
    found = parse('extern "C" __global__ void k(int);\nextern "C" __global__ void k(int rows) {}', FILE)
    assert found["k"].line == 2
    assert found["k"].parameters[0].name == "rows"


def test_two_declarations_that_differ_are_left_to_the_compiler():
    one, other = (f'extern "C" __global__ void k({kind} n) {{}}' for kind in ("int", "float"))
    found = parse(f"#ifdef A\n{one}\n#else\n{other}\n#endif", FILE)
    assert not found
    with pytest.raises(KernelError, match=r'declared more than once.*kernels\["sample.cu"\]\["k\(\w+\)"\]'):
        raise found.unknown("k")


# --------------------------------------------------------------------------- arguments


def test_fitting_arguments_come_back_converted():
    array, foreign = Array((4, 4)), Foreign((16,))
    source = "float* out, const float* in, int n, size_t m, float f, double d, bool b, half h"
    checked = check(kernel(source), [array, foreign, 3, np.int64(7), 2, np.float32(0.5), True, 0.25], DEVICE)
    assert checked[0] is array
    assert checked[1] is foreign
    assert [type(value).__name__ for value in checked[2:]] == [
        "int32", "uint64", "float32", "float64", "bool", "float16"
    ]  # fmt: skip
    assert [value.item() for value in checked[2:]] == [3, 7, 2.0, 0.5, True, 0.25]


def test_the_message_names_kernel_place_argument_and_remedy():
    declaration = kernel("const float* src, int n", name="scale")
    message = refused(declaration, np.zeros(4, np.float32), 4)
    assert message == (
        "scale (sample.cu:1), argument 1 `const float* src`: a NumPy array on the host was given; "
        "pass gpu.to_device(array)."
    )
    assert "takes 2 arguments, 1 given: scale(const float* src, int n)" in refused(declaration, Array((4,)))


@pytest.mark.parametrize(
    ("parameter", "argument", "says"),
    [
        ("float* a", Array((4,), np.float64), "float64 array was given; it needs float32"),
        ("float* a", Array((4, 4), strides=(4, 16)), "not C-contiguous"),
        ("float* a", Array((4,), address=-1), "its memory was given back"),
        ("float* a", 3, "3 was given where a device array is needed"),
        ("float* a", None, "None was given, which is no live array of this device (Test Device)"),
        ("float* a", object(), "an object was given"),
        ("float* a", Foreign((4,), "<f8"), "float64 array was given"),
        ("float* a", Foreign((4, 4), strides=(4, 16)), "not C-contiguous"),
        ("float4* a", Array((6,)), "24 bytes were given, which is no multiple of the element's 16"),
        ("float4* a", Array((8,), address=0x1004), "no multiple of 16 bytes"),
        ("int n", Array((4,)), "an Array was given where a number is needed"),
        ("int n", np.zeros(1, np.int32), "a ndarray was given where a number is needed"),
        ("int n", 3.0, "3.0 was given where an integer is needed; write int(3.0)"),
        ("int n", np.float32(3), "where an integer is needed"),
        ("int n", 2**31, "2147483648 does not fit int32 (-2147483648 to 2147483647)"),
        ("unsigned n", -1, "-1 does not fit uint32"),
        ("unsigned char n", np.int64(256), "256 does not fit uint8"),
        ("float x", 1e300, "1e+300 does not fit float32"),
        ("half x", 10**6, "1000000 does not fit float16"),
        ("double x", 10**400, "does not fit float64"),
        ("float x", 1j, "where a real number is needed"),
        ("float x", "3", "a str was given where a number is needed"),
        ("bool b", 2, "it needs True or False"),
        ("Config c", 3, "a type that is not known here; pass a NumPy scalar"),
        ("float4 v", 3.0, "a type that is not known here"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_refused(parameter, argument, says):
    assert says in refused(kernel(parameter), argument)


@pytest.mark.parametrize("value", [float("inf"), float("nan"), np.float64("-inf")])
def test_infinities_given_on_purpose_pass(value):
    (checked,) = check(kernel("float x"), [value], DEVICE)
    assert type(checked) is np.float32
    assert not np.isfinite(checked)


def test_vectors_structs_and_unknown_pointers():
    quad, pair, raw = Array((8,)), Array((4,), np.complex64), Array((3,), np.int16)
    config = np.zeros((), np.dtype([("n", np.int32), ("x", np.float64)], align=True))[()]
    declaration = kernel("float4* q, float2* p, void* raw, Config* unknown, Config c")
    assert check(declaration, [quad, pair, raw, raw, config], DEVICE) == [quad, pair, raw, raw, config]


def test_unit_and_empty_dimensions_do_not_spoil_contiguity():
    declaration = kernel("float* a")
    for array in (
        Array((1, 4), strides=(999, 4)),
        Array((0, 4), strides=(4, 4)),
        Array((2, 3), strides=(12, 4)),
    ):
        assert check(declaration, [array], DEVICE) == [array]


def test_an_array_that_hides_its_memory_is_one_sentence():
    class Tensor(Array):
        @property
        def __cuda_array_interface__(self):
            raise RuntimeError("requires grad")

    assert "a Tensor does not show its memory: requires grad" in refused(kernel("float* a"), Tensor((4,)))


# ---- included files, encodings, linkage ----

K = 'extern "C" __global__ void k'


def test_a_default_argument_is_no_part_of_the_type():
    n, x = parse(K + "(int n = 1, float *x = nullptr) {}", FILE)["k"].parameters
    assert (n.type, n.pointer, x.type, x.pointer) == ("int", False, "float", True)


@pytest.mark.parametrize(
    "source",
    ['extern"C"__global__ void k(int *x) {}', 'extern"C"{ __global__ void k(int *x) {} }'],
)
def test_ways_to_give_a_kernel_c_linkage(source):
    assert parse(source, FILE)["k"].line == 1


def test_kernels_of_files_included_from_beside_it(tmp_path):
    (tmp_path / "parts").mkdir()
    (tmp_path / "parts" / "a.cuh").write_text('#include "b.cuh"\n' + K + "a(real *x) {}\n")
    (tmp_path / "parts" / "b.cuh").write_text('#include "a.cuh"\n#include "none.cuh"\ntypedef float real;\n')
    (tmp_path / "k.cu").write_text('#include "parts/a.cuh"\n' + K + "(real *x) {}\n")
    found = read(tmp_path / "k.cu")
    assert {(d.name, d.where) for d in found.others} == {("ka", "a.cuh:2"), ("k", "k.cu:2")}


def test_comments_in_another_encoding(tmp_path):
    (tmp_path / "k.cu").write_bytes(b"// \xa9 2020\n" + K.encode() + b"(int *x) {}")
    assert read(tmp_path / "k.cu")["k"].line == 2
