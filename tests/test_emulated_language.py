"""CUDA C++ as people write it runs on the emulated device and gives CUDA's results."""

from fractions import Fraction
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from scipy import special

from pytest_gpuperf.backends.declarations import read
from pytest_gpuperf.backends.geometry import Geometry
from pytest_gpuperf.backends.kernels import Kernels
from pytest_gpuperf.errors import KernelError

pytestmark = pytest.mark.usefixtures("kernel_cache")

SOURCE = Path(__file__).with_suffix(".cu").read_text()

ONE = (1, 1, 1)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("language")
    (folder / "parts").mkdir()
    (folder / "parts" / "scale.cuh").write_text("static __device__ float scale() { return 2; }\n")
    (folder / "language.cu").write_text(SOURCE)
    return folder


@pytest.fixture(scope="module")
def program(backend, folder):
    return backend.load(read(folder / "language.cu"), ["-DVALUE=17", "-use_fast_math", "-arch=sm_90"])


@pytest.fixture
def run(backend, program):
    """Launches a kernel whose last argument is a new array of ``shape``, and returns that on the host."""

    def run(name, block, *inputs, shape, dtype=np.float32, grid=ONE, shared=0):
        out = backend.empty(shape, dtype)
        given = [backend.to_device(i) if i.ndim else i[()] for i in map(np.asarray, inputs)]
        program.launch(name, Geometry.of(grid, (*block, 1, 1)[:3], shared), [*given, out])
        return out.get()

    return run


def test_indices(run):
    found = run("indices", (3, 2, 2), shape=(2 * 3 * 2, 12), dtype=np.int32, grid=(2, 3, 2))
    assert np.array_equal(found, np.arange(12)[:, None] * 1000 + np.arange(12))


def test_scalars(backend, program):
    out = backend.empty((7,), np.float64)
    values = [
        np.bool_(True),
        np.int8(-3),
        np.uint16(65535),
        np.int64(-(2**40)),
        np.float32(0.5),
        np.float64(0.1),
    ]
    program.launch("scalars", Geometry.of(ONE, ONE), [out, *values, np.uint64(2**50)])
    assert out.get().tolist() == [1, -3, 65535, -(2**40), 0.5, 0.1, 2**50]


def test_vector_types(run):
    widths = (2, "f4"), (3, "f4"), (4, "i4")
    two, three, four = (np.arange(n * 4, dtype=t).reshape(4, n) for n, t in widths)
    found = run("vectors", (4,), two, three, four, shape=(4,))
    assert np.array_equal(found, two[:, 0] + 10 * two[:, 1] + 100 * three[:, 2] + 1000 * four[:, 3] + 2)


def test_dynamic_shared_memory_at_file_scope(backend, program):
    host = np.arange(100, dtype=np.float32)
    out = backend.empty((100,), np.float32)
    program.launch(
        "reversed", Geometry.of(ONE, (64, 1, 1), 400), [backend.to_device(host), out, np.int32(100)]
    )
    assert np.array_equal(out.get(), host[::-1])


def test_templates_with_shared_memory(run):
    assert run("block_sums", (64,), np.arange(64.0), shape=(1,), dtype=np.float64) == [2016]
    assert run("block_sums_int", (64,), np.arange(64, dtype=np.int32), shape=(1,), dtype=np.int32) == [2016]


def test_shuffles(run):
    host = np.random.default_rng(0).integers(0, 9, (3, 2, 32)).astype(np.float32)
    assert np.array_equal(run("warp_sums", (64,), host, shape=(3, 2), grid=(3, 1, 1)), host.sum(2))
    lane = np.arange(32)
    expected = [
        np.full(32, 3), np.where(lane < 2, lane, lane - 2), np.where(lane % 8 > 5, lane, lane + 2), lane ^ 5,
        lane // 4 * 4 + 1, (lane ^ 1) // 2,
    ]  # fmt: skip
    assert np.array_equal(run("shuffles", (32,), shape=(6, 32), dtype=np.int32), expected)


def test_votes(run):
    lane = np.arange(32)
    found = run("votes", (32,), shape=(6, 32), dtype=np.uint32)
    expected = [
        np.full(32, sum(1 << i for i in range(0, 32, 3))), np.full(32, 3),
        np.where(lane % 2, 0xAAAAAAAA, 16), 0xFF << (lane // 8 * 8), np.where(lane < 8, 0xF0, 0xFFFFFF00),
        np.full(32, 105),
    ]  # fmt: skip
    assert np.array_equal(found, expected)


def test_synchronised_warps_do_not_race(run):
    assert run("warp_synchronous", (32,), shape=(1,)) == [496]


def test_equal_stores_by_several_threads_are_no_race(run):
    host = np.arange(32, dtype=np.int32)
    assert run("agreed_flag", (32,), host, shape=(32,), dtype=np.int32).tolist() == [1] * 32


def test_atomics(backend, program):
    n = 40 * 64
    types = [np.int32, np.uint32, np.uint64, np.float32, np.float64]
    i, u, wide, f, d = (backend.to_device(np.zeros(8, t)) for t in types)
    u.set(np.array([2**32 - 1, 0, 0, 0, 0, 0, 0, 0], np.uint32))
    wide.set(np.array([0, 100, 0, 0, 0, 0, 0, 0], np.uint64))
    program.launch("atomics", Geometry.of((40, 1, 1), (64, 1, 1)), [i, u, wide, f, d])
    assert i.get().tolist() == [n, n - 1, 1 - n, -2 * n, 2**31 - 1, 3 * n, 42, 0]
    assert u.get()[:5].tolist() == [0, 0, n % 100, 4000000000 + n - 1, (10 - n % 10) % 10]
    assert wide.get()[:2].tolist() == [n << 33, 7]
    assert (f.get()[0], d.get()[0]) == (n / 2, n / 4)


def test_atomics_across_blocks_on_several_threads(backend, program):
    host = np.random.default_rng(0).integers(0, 8, 100_000).astype(np.int32)
    out = backend.to_device(np.zeros(8, np.int32))
    program.launch(
        "shared_histogram",
        Geometry.of((60, 1, 1), (256, 1, 1)),
        [backend.to_device(host), out, np.int32(100_000)],
    )
    assert np.array_equal(out.get(), np.bincount(host, minlength=8))


def test_a_thread_that_waits_for_another_lets_it_run(backend, program):
    flag, out = backend.to_device(np.zeros(1, np.int32)), backend.empty((1,), np.int32)
    program.launch("handshake", Geometry.of(ONE, (2, 1, 1)), [flag, out])
    assert out.get() == [7]


def test_mathematics(run):
    x = 0.7
    found = run("mathematics", (1,), np.array([x], np.float32), shape=(16,))
    expected = [
        x**-0.5, x * x + 1, np.exp(x), np.log(x), x, 9, x, x / 2, 3, 2, np.sin(x), x * x, 1 / x, x,
        3, 0.6778012,
    ]  # fmt: skip
    assert found == pytest.approx(expected, rel=1e-6)


def test_bits(backend, program):
    x, out = 0x00F01234, backend.empty((11,), np.uint32)
    program.launch("bits", Geometry.of(ONE, ONE), [out, np.uint32(x)])
    reverse = int(f"{x:032b}"[::-1], 2)
    expected = [reverse, 0x3412F000, 0, 0x3F800000, 0x10, x.bit_count(), 8, 3, 64, 63, 12]
    assert out.get().tolist() == expected


def test_constant_tables_and_headers_beside_the_file(run):
    assert run("tables", (4,), shape=(4,)).tolist() == [5, 25, 203, 2005]


def test_device_variables_keep_their_value_between_launches(run):
    first = run("visited", (1,), shape=(1,), dtype=np.int32)[0]
    assert run("visited", (1,), shape=(1,), dtype=np.int32)[0] == first + 1


def test_printf(program, capfd):
    program.launch("prints", Geometry.of(ONE, (8, 1, 1)), [np.int32(2)])
    assert capfd.readouterr().out == "thread 0 of prints\nthread 1 of prints\n"


def test_definitions_count_and_nvccs_own_options_do_not(backend, folder, run):
    assert run("defined", (1,), shape=(1,), dtype=np.int32) == [17]
    out = backend.empty((1,), np.int32)
    (folder / "defined.cu").write_text(
        '#include <scale.cuh>\nextern "C" __global__ void defined(int *out) { out[0] = VALUE; }\n'
    )
    for options in (["-D", "VALUE=4"], ["--define-macro=VALUE=5", "--std=c++20"], ["-UVALUE", "-DVALUE=6"]):
        program = backend.load(read(folder / "defined.cu"), [*options, "-I", "parts", "-lineinfo"])
        program.launch("defined", Geometry.of(ONE, ONE), [out])
        assert out.get() == [int(options[-1][-1]) if "std" not in options[-1] else 5]


# ---- what came later: each line of docs/emulator.md ----


def test_cooperative_groups(run):
    i = np.arange(64)
    tile, lane = i // 8, i % 8
    odd = np.where(i % 2, i // 32 * 32 + 1 + 100 * 16 + 10000 * (i % 32 // 2), 0)
    expected = [
        np.where(i < 32, 496, 1520), tile * 8 + 7 + 100 * (tile % 4) + 1000 * (i // 32),
        np.where(lane < 5, i + 3, i) + 8, 10 * (lane + 1) + lane, 0xAA + (tile == 1), odd,
    ]  # fmt: skip
    assert np.array_equal(run("groups", (64,), shape=(6, 64), dtype=np.int32), expected)


def test_a_tile_of_any_parent_is_a_parameter(run):
    i = np.arange(16)
    found = run("tiles_as_parameters", (16,), shape=(16,), dtype=np.int32)
    assert np.array_equal(found, i % 8 * 10001 + i // 8 * 100)


def test_warp_functions_of_narrow_types_and_reductions(run):
    found = run("warp_functions", (32,), shape=(3, 32), dtype=np.int32)
    assert np.array_equal(found, [np.full(32, 13), np.full(32, 496 + 7), np.zeros(32)])


@pytest.mark.parametrize("n", [1, 7, 20, 32])
def test_a_shuffle_from_no_lane_whose_value_is_not_used(run, n):
    found = run("guarded_shuffles", (32,), np.int32(n), shape=(32,), dtype=np.int32)
    expected = [*range(1, n), -1]
    assert found[1:n].tolist() == expected[1:]
    assert found[0] == n


def test_conversions_clamp_and_round_as_they_say(run):
    found = run("conversions", (1,), np.float32(3e10), np.float64(1e-30), shape=(18,), dtype=np.float64)
    one = np.float32(1)
    expected = [
        2**31 - 1, -(2**31), 0, 0, 2**32 - 1, 2, 3, -3,
        1, np.nextafter(one, np.float32(2)), 0, np.nextafter(1.0, 2.0),
        1 / 3, 2**0.5, np.nextafter(np.float32(0.1), np.float32(0)), 2,
        -(2**31), 2**63,
    ]  # fmt: skip
    exact = np.float64(np.float32(1.1)) ** 2
    below = np.float32(exact)
    expected[10] = below if below <= exact else np.nextafter(below, np.float32(0))
    assert found.tolist() == [float(value) for value in expected]


def test_more_of_the_math_library(run):
    x = 0.3
    found = run("more_mathematics", (1,), np.float64(x), shape=(23,), dtype=np.float64)
    expected = [0.25, 7, 0.2, special.erfinv(x), special.erfinv(0.5), 1, -1, 0.5]
    expected += [special.erfcx(x), 0.5, 0, np.pi, 7, 5, 0.2, special.i0(x), -special.i1(x)]
    expected += [1 + x * x, 1 + x * x, -1 - x * x, np.tanh(0.5), 2.5, 3]
    assert np.allclose(found, expected, rtol=1e-7, atol=1e-15)
    toward_zero, up, down = found[17:20]
    assert Fraction(toward_zero) < 1 + Fraction(x) ** 2 < Fraction(up)
    assert up == np.nextafter(toward_zero, 2) == -down


def test_integer_and_simd_intrinsics(run):
    a, b = 0x7F80FF01, 0x01800102
    bytes_a, bytes_b = ([x >> i & 255 for i in (0, 8, 16, 24)] for x in (a, b))
    signed_a, signed_b = ([v - 256 * (v > 127) for v in values] for values in (bytes_a, bytes_b))

    def packed(values):
        return sum((v & 255) << 8 * i for i, v in enumerate(values))

    pairs = list(zip(bytes_a, bytes_b, strict=True))
    expected = [
        packed([x + y for x, y in pairs]), (0x7F80 - 0x0180) << 16 | (0xFF01 - 0x0102),
        packed([max(p) for p in pairs]), 0x0180 << 16 | 0xFF01, packed([abs(x - y) for x, y in pairs]),
        sum(abs(x - y) for x, y in pairs), packed([255 * (x == y) for x, y in pairs]),
        packed([min(255, x + y) for x, y in pairs]), 0x7FFF << 16 | (0xFF01 + 0x0102) & 0xFFFF,
        1 + sum(x * y for x, y in zip(signed_a, signed_b, strict=True)), 1 + sum(x * y for x, y in pairs),
        b, a - b + 2, 1, b, 2,
    ]  # fmt: skip
    found = run("simd", (1,), np.uint32(a), np.uint32(b), shape=(16,), dtype=np.uint32)
    assert found.tolist() == [value % 2**32 for value in expected]


def test_more_integer_intrinsics(run):
    """Comparisons within a word, the n-th bit that is set, and Hopper's minima and maxima."""
    found = run(
        "more_integers", (1,), np.uint32(0x7F80FF01), np.uint32(0x01800102), shape=(15,), dtype=np.uint32
    )
    assert [hex(value) for value in found] == [
        "0x1000000", "0x81", "0x7fff7fff", "0x7f0100ff", "0x17f7f02",
        "0x6", "0xe", "0xffffffff", "0x7",
        "0x0", "0xff00ff", "0x2",
        "0x81000005", "0x7f800102", "0x1",
    ]  # fmt: skip


def test_complex_numbers_scoped_atomics_clocks_and_architecture(run):
    host = np.array([1 + 2j, 3 - 1j], np.complex64)
    found = run("complex_numbers", (2,), host, shape=(2,), dtype=np.complex64)
    assert np.allclose(found, host * 2j / host.conj())
    assert run("times", (1,), shape=(1,), dtype=np.int32).tolist() == [1]
    assert run("of_the_device", (1,), shape=(1,), dtype=np.int32).tolist() == [900]


def test_atomics_of_a_scope(backend, program):
    out = backend.to_device(np.zeros(1, np.int32))
    program.launch("scopes", Geometry.of(ONE, ONE), [out])
    assert out.get().tolist() == [1]


def test_aliases_of_types_are_resolved(backend, folder):
    kernels = Kernels(folder, backend)
    out = backend.to_device(np.zeros(4, np.float32))
    kernels["language.cu", "-DVALUE=17"].aliased[1, 4](out, 2.0, 3, 2)
    assert out.get().tolist() == [4, 4, 4, 0]
    with pytest.raises(KernelError, match="a float64 array was given; it needs float32"):
        kernels["language.cu", "-DVALUE=17"].aliased[1, 4](backend.empty((4,), np.float64), 2.0, 3, 2)


def test_half_precision_is_rounded_as_numpy_does(backend, program):
    random = np.random.default_rng(0)
    a, b = (random.normal(size=32).astype(np.float16) * np.float16(s) for s in (3, 40))
    out = backend.empty((11, 32), np.float16)
    arguments = [backend.to_device(a), backend.to_device(b), out, np.int32(32)]
    program.launch("halves", Geometry.of(ONE, (32, 1, 1)), arguments)
    wide = a.astype(np.float64)
    pair = [(np.float64(v) * 2 + wide).astype(np.float16) for v in (a, b)]
    expected = [
        a + b, a - b, a * b, a / b, (wide * b + wide).astype(np.float16), np.sqrt(np.abs(a)),
        np.maximum(a, b), -a, a[np.arange(32) ^ 1], (a < b).astype(np.float16), pair[0] - pair[1],
    ]  # fmt: skip
    assert np.array_equal(out.get(), expected)


def test_floats_of_every_size_are_narrowed_to_the_nearest_half(run):
    edges = [
        0,
        -0.0,
        1e-8,
        2.98e-8,
        2.99e-8,
        6e-5,
        6.1e-5,
        65504,
        65519,
        65520,
        1e9,
        np.inf,
        -np.inf,
        0.1,
        1 + 2**-11,
    ]
    host = np.array([*edges, *(2.0 ** np.arange(-26, 17))], np.float32)
    with np.errstate(over="ignore"):
        expected = host.astype(np.float16)
    found = run("narrowed", host.shape, host, shape=host.shape, dtype=np.float16)
    assert np.array_equal(found.view(np.uint16), expected.view(np.uint16))


def test_bfloat16_is_rounded_to_the_nearest_even(run):
    def rounded(x):
        bits = x.astype(np.float32).view(np.uint32)
        return ((bits + 0x7FFF + (bits >> 16 & 1)) >> 16).astype(np.uint16)

    host = np.random.default_rng(1).normal(size=64).astype(np.float32)
    first = (rounded(host).astype(np.uint32) << 16).view(np.float32)
    found = run("brain_floats", (64,), host, shape=(64,), dtype=np.uint16)
    assert np.array_equal(found, rounded(first * np.float32(3)))


@pytest.mark.parametrize(("name", "fraction"), [("rounded_halves", 10), ("rounded_brain_floats", 7)])
def test_narrow_numbers_are_rounded_as_the_name_says(run, name, fraction):
    x = np.random.default_rng(2).normal(size=64).astype(np.float32) * np.float32(20)
    x[:6] = [0, -0.5, 2.5, -2.5, 1 + 2.0**-fraction, 1 + 2.0 ** -(fraction + 1)]
    found = run(name, (64,), x, shape=(8, 64), dtype=np.int32)
    bits = found[:4].astype(np.uint32)
    narrow = bits.astype(np.uint16).view(np.float16) if fraction == 10 else (bits << 16).view(np.float32)
    near, zero, down, up = narrow.astype(np.float64)
    assert (down <= x).all()
    assert (x <= up).all()
    assert (np.abs(zero) <= np.abs(x)).all()
    assert np.array_equal(near, np.where(np.abs(down - x) < np.abs(up - x), down, near))
    unit = 2.0 ** (np.floor(np.log2(np.maximum(np.abs(x), 0.1))) - fraction)
    assert (up - down <= unit).all()
    assert np.array_equal(zero, np.where(x < 0, up, down))
    whole = [np.rint(near), np.trunc(near), np.floor(near), np.ceil(near)]
    assert np.array_equal(found[4:], whole)


def test_pairs_of_narrow_numbers(run):
    found = run("pairs_of_halves", (1,), shape=(87,))
    nan = np.nan
    expected = [
        3.5, -1.25, 4, 0.5, 0.5, -1, 1, 0, 1.5, 0.5, 0, 0, 1, 1, 0, 1, nan, 2, 1.5, 2, -0.25, 1.5, -0.25, -1,
        1, -1, 2, 0, 1.5, 0.25, 1.5 * 2 + 1.5 - 0.25, -1.5 - 0.25 - 0.5,
        3.75, -0.5, 3.75, 1, 1, 0, 0, 1, 0, -1,
    ]  # fmt: skip
    assert len(expected) == 42
    assert np.array_equal(found[:42], expected, equal_nan=True)
    assert np.array_equal(found[42:84], expected, equal_nan=True)
    assert found[84:].tolist() == [1 + 2 * 2.0**-10, 1.5 + 2 * 2.0**-7, 2.0**62 + 2.0**55]


def test_shared_variables_of_classes_are_not_constructed(run):
    t = np.arange(8)
    found = run("shared_classes", (8,), shape=(2, 8), dtype=np.int32, grid=(2, 1, 1))
    assert np.array_equal(found, [7 - t + 10 * (t ^ 1) + 1100] * 2)


def cast(value, bits, signed, single):
    """Return what an H100 made of a float or double, by way of 32 bits to fewer."""
    value, wide = float(value), max(bits, 32)
    least, most = (-(2 ** (wide - 1)), 2 ** (wide - 1) - 1) if signed else (0, 2**wide - 1)
    if np.isnan(value):
        found = 0 if single and wide == 32 else 2 ** (wide - 1)
    else:
        found = least if value < least else most if value > most else int(value)
    found %= 2**bits
    return found - 2**bits if signed and found >= 2 ** (bits - 1) else found


def test_casts_to_integers_clamp(backend, program):
    x = [0, -0.5, 1.9, -1, -1.9, 127.5, 255.9, 256, 300, -300, 65535.5, 70000, -70000, 2**31 - 1, -(2**31)]
    x = np.array([*x, 2**31, 3e9, -3e9, 2**32 - 1, 2**32, 1e10, -1e10, 1.8e19, 1e30, np.inf, -np.inf, np.nan])
    singles, n = x.astype(np.float32), len(x)
    out = backend.empty((22, n), np.int64)
    given = [backend.to_device(x), backend.to_device(singles), out, np.int32(n)]
    program.launch("casts", Geometry.of(ONE, (n, 1, 1)), given)
    kinds = [(bits, signed) for bits in (8, 16, 32, 64) for signed in (False, True)]
    expected = []
    for single, values in ((False, x), (True, singles)):
        expected += [[cast(v, *kind, single) for v in values] for kind in kinds]
        expected += [[cast(v, 64, True, single) % 2**32 for v in values]]
    double, float_ = partial(cast, single=False), partial(cast, single=True)
    both = list(zip(x, singles, strict=True))
    expected += [
        [double(v * 0.5, 32, True) if v > 1 else float_(-w, 32, True) for v, w in both],
        [float_(w, 32, False) + double(v * 0.5, 64, True) for v, w in both],
        [
            float_(w * 0.5, 32, False) + 1 + double(v * 0.5, 16, False) + double(v * 0.25, 32, False)
            for v, w in both
        ],
        [float_(w * 2, 32, True) + float_(w * 2, 32, True) % 256 for w in singles],
    ]
    expected = [[(v + 2**63) % 2**64 - 2**63 for v in row] for row in expected]
    for row, (right, found) in enumerate(zip(expected, out.get().tolist(), strict=True)):
        assert found == right, row


def test_atomics_of_16_bits(backend, program):
    h, pair, b, s = (backend.to_device(np.zeros(2, t)) for t in ("f2", "f2", "u2", "u2"))
    program.launch("atomics_of_16_bits", Geometry.of((2, 1, 1), (32, 1, 1)), [h, pair, b, s])
    found = [h.get(), pair.get(), (b.get().astype(np.uint32) << 16).view(np.float32), s.get()]
    assert [array.tolist() for array in found] == [[32, 0], [64, 16], [128, 0], [0, 192]]
