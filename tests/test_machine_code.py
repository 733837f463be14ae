"""Hashes of one kernel's machine code: what moves them, and what must not."""

import re
import struct
import subprocess
from functools import cache
from pathlib import Path

import pytest
from gpuproject import needs_nvcc

from pytest_gpuperf.backends.cuda.compile import find_nvcc
from pytest_gpuperf.backends.cuda.machine_code import file_hash, kernel_hash

ROOT = Path(__file__).parent.parent
KEPT = Path(__file__).parent / "kept/two_kernels.cubin"  # of the file beside it, by nvcc 13.0.88 for sm_90


# ------------------------------------------------------------- a cubin's bytes, without a compiler


def sections(cubin):
    """The sections' names, with their places in the file and their bytes."""
    (at,) = struct.unpack_from("<Q", cubin, 0x28)
    count, names = struct.unpack_from("<2H", cubin, 0x3C)
    headers = [struct.unpack_from("<IIQQQQIIQQ", cubin, at + 64 * i) for i in range(count)]
    strings = headers[names][4]
    found = {}
    for header in headers:
        name = cubin[strings + header[0] : cubin.index(b"\0", strings + header[0])].decode()
        found[name] = (header[4], 0 if header[1] == 8 else header[5])  # 8: it has no bytes in the file
    return found


def hashes(cubin, names=("scale", "reverse")):
    return [kernel_hash(cubin, name) for name in names]


def changed(cubin, at):
    return cubin[:at] + bytes([cubin[at] ^ 1]) + cubin[at + 1 :]


def test_every_byte_of_a_kernels_sections_counts_for_it_alone():
    cubin = KEPT.read_bytes()
    scale, reverse = hashes(cubin)
    for name, (at, size) in sections(cubin).items():
        own = re.fullmatch(r"\.(text|nv\.constant0)\.(scale|reverse)", name)
        for place in range(at, at + size, 5) if own else ():
            moved = hashes(changed(cubin, place))
            assert (moved[0] != scale, moved[1] != reverse) == (own[2] == "scale", own[2] == "reverse")


@pytest.mark.parametrize("name", [".nv.constant3", ".nv.compat"])
def test_what_belongs_to_no_kernel_counts_for_all(name):
    cubin = KEPT.read_bytes()
    at, size = sections(cubin)[name]
    for place in range(at, at + size):
        moved = hashes(changed(cubin, place))
        assert not set(moved) & set(hashes(cubin))


@pytest.mark.parametrize("name", [".debug_frame", ".note.nv.tkinfo"])
def test_names_and_notes_do_not_count(name):
    cubin = KEPT.read_bytes()
    at, size = sections(cubin)[name]
    assert size
    for place in range(at, at + size, 3):
        assert hashes(changed(cubin, place)) == hashes(cubin)


def test_registers_bounds_shared_memory_and_architecture_count():
    cubin = KEPT.read_bytes()
    at, size = sections(cubin)[".nv.info"]
    told = cubin[at : at + size]
    registers = [at + m.start() + 8 for m in re.finditer(rb"\x04\x2f\x08\x00", told)]
    moved = [hashes(changed(cubin, place)) for place in registers]
    differs = [[a != b for a, b in zip(one, hashes(cubin), strict=True)] for one in moved]
    assert sorted(differs) == [[False, True], [True, False]]
    bounds, size = sections(cubin)[".nv.info.reverse"]
    limit = bounds + cubin[bounds : bounds + size].index(struct.pack("<BBH3I", 4, 5, 12, 64, 1, 1)) + 4
    assert hashes(changed(cubin, limit))[1] != hashes(cubin)[1]
    assert not set(hashes(changed(cubin, 0x31))) & set(hashes(cubin)), "the architecture"


def test_what_is_no_executable_cubin_is_hashed_whole():
    cubin = KEPT.read_bytes()
    kept = hashes(cubin)
    for other in (b"", b"PTX", cubin[:100], cubin[:3000], cubin[:16] + b"\1" + cubin[17:]):
        assert not set(hashes(other)) & set(kept)
        assert len(set(hashes(other))) == 1
    unknown = kernel_hash(cubin, "no_such_kernel")
    assert unknown not in kept
    assert unknown != kernel_hash(changed(cubin, sections(cubin)[".debug_frame"][0]), "no_such_kernel")
    assert file_hash(cubin) != file_hash(changed(cubin, 100))


# ------------------------------------------------------------- the shipped kernels, changed and not


KERNELS = {
    "layout.cu": ["linear_to_coalesced", "coalesced_to_linear", "row_sums_linear", "row_sums_coalesced"],
    "matmul.cu": ["matmul_naive", "matmul_tiled", "matmul_blocked"],
    "reduce.cu": ["sum_coalesced", "sum_strided", "sum_vectorized"],
    "transpose.cu": [
        "transpose_naive",
        "transpose_tile16",
        "transpose_tile16_unpadded",
        "transpose_tiled",
        "transpose_best",
    ],
}


@pytest.fixture
def compiled(tmp_path):
    """compiled(source, names): the hashes of kernels of a source file of some name."""

    def make(source, names, called="kernels.cu", arch="sm_90", *options):
        folder = tmp_path / "sources"
        folder.mkdir(exist_ok=True)
        (folder / called).write_text(source)
        return dict(zip(names, hashes(_cubin(source, called, arch, options, folder), names), strict=True))

    return make


@cache
def _cubin(source, called, arch, options, folder):
    output = folder / "made.cubin"
    nvcc = [str(find_nvcc()), "-cubin", f"-arch={arch}", "-std=c++17", *options]
    subprocess.run([*nvcc, "-o", str(output), called], cwd=folder, check=True)
    return output.read_bytes()


def mutated(source, edits):
    for old, new in edits:
        assert old in source, old
        source = source.replace(old, new)
    return source


def in_kernel(source, name, old, new):
    """Replace the first ``old`` at or after a kernel's name."""
    begin = source.index(f" {name}(") if f" {name}(" in source else source.index(f"\n{name}(")
    at = source.index(old, begin)
    return source[:at] + new + source[at + len(old) :]


@needs_nvcc
def test_a_kernels_line_numbers_do_not_count(compiled):
    source = (ROOT / "kernels/reduce.cu").read_text()
    lines = compiled("\n\n" + source, KERNELS["reduce.cu"], "other.cu", "sm_90", "-lineinfo")
    assert lines == compiled(source, KERNELS["reduce.cu"], "reduce.cu")


UNRELATED = """
/* Another kernel, before and behind the others by its name. */
__global__ void aaa_unrelated(float *p, int n) { p[threadIdx.x] = sqrtf(p[threadIdx.x + n]); }
extern "C" __global__ void zzz_unrelated(float *p, int n)
{
    __shared__ float kept[77];
    kept[threadIdx.x] = p[threadIdx.x];
    __syncthreads();
    p[threadIdx.x] = kept[threadIdx.x / 2] / n;
}
"""


@needs_nvcc
@pytest.mark.parametrize(
    ("file", "arch"),
    [*((file, "sm_90") for file in KERNELS), ("reduce.cu", "sm_80"), ("reduce.cu", "sm_100")],
)
def test_comments_names_and_other_kernels_leave_one_alone(compiled, file, arch):
    source, names = (ROOT / "kernels" / file).read_text(), KERNELS[file]
    others = UNRELATED if arch != "sm_100" else ""  # Blackwell's are told of each other
    noise = "/* A comment. */\n\n\n#define UNUSED 7\n" + others
    noise += re.sub(r"\n([^\n#\\]*[;{])\n", r"\n\n   \1  // here\n", source) + others.replace(
        "unrelated", "z"
    )
    assert compiled(noise, names, "renamed.cu", arch) == compiled(source, names, file, arch)


# For each round one mutant of each kernel that is named: what is replaced, and by what.
MUTANTS = {
    "layout.cu": [
        {"linear_to_coalesced": ("i < m", "i <= m"), "row_sums_linear": ("+=", "-=")},
        {"coalesced_to_linear": ("int i = 0", "int i = 1"), "row_sums_coalesced": ("0.0f", "1.0f")},
    ],
    "matmul.cu": [
        {"matmul_naive": ("i < k", "i < k - 1"), "matmul_tiled": ("first += 32", "first += 64")},
        {"matmul_naive": ("float sum = 0.0f", "double sum = 0.0"), "matmul_tiled": ("[32][32]", "[32][33]")},
        {"matmul_tiled": ("#pragma unroll\n        for (int i", "#pragma unroll 4\n        for (int i")},
        {"matmul_blocked": ("[EDGE + 4]", "[EDGE + 8]")},
    ],
    "reduce.cu": [
        {"sum_coalesced": ("+=", "*="), "sum_vectorized": ("unroll 8", "unroll 4")},
        {"sum_coalesced": ("i += threads", "i += 2 * threads"), "sum_strided": ("sums[256]", "sums[512]")},
        {"sum_strided": ("size_t i", "int i"), "sum_vectorized": ("(sum.x + sum.y)", "(sum.x * sum.y)")},
    ],
    "transpose.cu": [
        {"transpose_naive": ("cols + x]", "cols + x] + 1.0f"), "transpose_tile16": ("[16 + 1]", "[16 + 2]")},
        {"transpose_tiled": ("#pragma unroll", "#pragma unroll 1"), "transpose_best": ("% 4", "% 8")},
        {"transpose_tile16_unpadded": ("__syncthreads();", "")},
    ],
}


@needs_nvcc
@pytest.mark.parametrize(("file", "mutants"), [(file, each) for file in MUTANTS for each in MUTANTS[file]])
def test_a_changed_kernel_is_another_and_no_other_kernel_is(compiled, file, mutants):
    source = (ROOT / "kernels" / file).read_text()
    before, changed = compiled(source, KERNELS[file], file), source
    for name, edit in mutants.items():
        changed = in_kernel(changed, name, *edit)
    after = compiled(changed, KERNELS[file], file)
    assert {name for name in before if before[name] != after[name]} == set(mutants)


SHARED = """
#include "constants.h"
__constant__ float table[2] = {1.0f, 2.0f};
static __device__ __noinline__ float called(float x, int n) { for (; n > 0; --n) x = x * x + 3.0f; return x; }
extern "C" __global__ void plain(float *p) { p[threadIdx.x] += 1.0f; }
extern "C" __global__ void headed(float *p) { p[threadIdx.x] += OFFSET; }
extern "C" __global__ void calling(float *p, int n) { p[threadIdx.x] = called(p[threadIdx.x], n); }
extern "C" __global__ void looking(float *p, int n) { p[threadIdx.x] = table[n]; }
"""


@needs_nvcc
@pytest.mark.parametrize("arch", ["sm_90", "sm_100"])
def test_headers_functions_and_constants_count_where_used(compiled, arch):
    names = ["plain", "headed", "calling", "looking"]

    def moved(old="", new="", header="", called="kernels.cu"):
        text = SHARED.replace('#include "constants.h"', f"#define OFFSET 5.0f\n{header}")
        assert old in text
        now = compiled(text.replace(old, new), names, called, arch)
        return [name for name in names if now[name] != before[name]]

    before = compiled(SHARED.replace('#include "constants.h"', "#define OFFSET 5.0f\n"), names, "k.cu", arch)
    assert moved(header="// a header's comment\n#define MORE 1") == []
    assert moved("OFFSET 5.0f", "OFFSET 6.0f") == ["headed"]
    assert moved("+ 3.0f", "+ 4.0f") == ["calling"]
    assert moved("{1.0f, 2.0f}", "{1.0f, 2.5f}") == names, "which kernels read it cannot be told"
    assert moved("void plain", "void __launch_bounds__(64) plain") == ["plain"]
    if arch != "sm_100":
        assert moved("float *p) { p[threadIdx.x] += 1.0f", "double *p) { p[threadIdx.x] += 1.0f") == ["plain"]


@needs_nvcc
def test_a_kernel_that_another_launches_makes_its_file_one(compiled):
    source = SHARED.replace('#include "constants.h"', "#define OFFSET 5.0f")
    names, options = ["plain", "headed"], ("-rdc=true",)
    before = compiled(source, names, "kernels.cu", "sm_90", *options)
    after = compiled(source.replace("+ 3.0f", "+ 4.0f"), names, "kernels.cu", "sm_90", *options)
    assert before["plain"] != after["plain"], "what is not linked yet may be linked to anything"
