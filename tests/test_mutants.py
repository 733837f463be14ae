"""The shipped suites on spoilt kernels, without a GPU: each mutant turns its own tests red, and no other."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).parent.parent
EMULATED = ("--gpuperf", "--gpuperf-backend=emulated", "-p", "no:cacheprovider", "-q")


@pytest.fixture
def project(pytester: pytest.Pytester) -> pytest.Pytester:
    """The shipped kernels, suites and baselines, as a project of their own."""
    for name in ("kernels", "suites", "baselines"):
        shutil.copytree(CHECKOUT / name, pytester.path / name)
    pytester.makeini("[pytest]\n")
    return pytester


def spoil(project: pytest.Pytester, old: str, new: str) -> None:
    """Replaces ``old`` by ``new`` inside the tiled transpose."""
    file = project.path / "kernels" / "transpose.cu"
    head, name, body = file.read_text().partition("void transpose_tiled(")
    assert old in body.partition("\n}\n")[0], f"it no longer has {old!r}"
    file.write_text(head + name + body.replace(old, new, 1))


def run(project: pytest.Pytester) -> tuple[pytest.RunResult, set[str]]:
    """Run the suite, of which tests of the tiled transpose must be red and no others."""
    result = project.runpytest_subprocess("suites/test_transpose.py", *EMULATED)
    red = set(re.findall(r"^FAILED \S+::(\S+)", result.stdout.str(), re.MULTILINE))
    assert result.ret == 1
    assert red
    assert all("transpose_tiled" in name or "each_rung" in name for name in red)
    return result, red


def test_the_shipped_suites_are_green_under_strict(project: pytest.Pytester):
    kernels = [*sorted((project.path / "suites").glob("test_[!r]*.py")), "suites/test_reduce.py"]
    pytest.importorskip("pytest_benchmark")
    flags = ("-p", "pytest_benchmark.plugin", *EMULATED, "--gpuperf-strict=on")
    result = project.runpytest_subprocess(*kernels, *flags)
    assert result.ret == 0, result.stdout.str()


def test_lost_padding_is_red_on_its_counter(project: pytest.Pytester):
    spoil(project, "tile[32][32 + 1]", "tile[32][32]")
    result, _ = run(project)
    result.stdout.fnmatch_lines(["E*assert (4, 4, 1, 1) == (4.0, 4.0, 32.0, 1.0)"])


def test_lost_coalescing_is_red_on_its_counter(project: pytest.Pytester):
    """The right result, written a column apart."""
    for old, new in (
        ("x = blockIdx.y * 32 + threadIdx.x;", "x = blockIdx.y * 32 + threadIdx.y;"),
        ("y = blockIdx.x * 32 + threadIdx.y;", "y = blockIdx.x * 32 + threadIdx.x;"),
        ("if (x < rows && y + j < cols)", "if (x + j < rows && y < cols)"),
        ("dst[(size_t)(y + j) * rows + x]", "dst[(size_t)y * rows + x + j]"),
        ("tile[threadIdx.x][threadIdx.y + j];", "tile[threadIdx.y + j][threadIdx.x];"),
    ):
        spoil(project, old, new)
    result, red = run(project)
    assert not any(name.startswith("test_moves") for name in red), "the mutant computes the right result"
    result.stdout.fnmatch_lines(["E*assert (4, 4, 1, 1) == (4.0, 32.0, *"])


@pytest.mark.parametrize(
    ("old", "new", "what"),
    [
        ("    __syncthreads();\n", "", "race"),
        ("if (x < cols && y + j < rows)", "if (y + j < rows)", "past the end"),
    ],
)
def test_a_lost_barrier_or_check_is_red_with_its_line(
    project: pytest.Pytester, old: str, new: str, what: str
):
    spoil(project, old, new)
    result, _ = run(project)
    result.stdout.re_match_lines(
        [rf".*kernels/transpose\.cu:\d+: kernel transpose_tiled, block .*thread .*{what}.*"]
    )
