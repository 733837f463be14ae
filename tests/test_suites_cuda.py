"""The shipped suites on a GPU: recorded, green again and again, and red for a real loss and nothing else.

Takes about ten minutes. Figures are compared within this run only.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from gpuproject import red, run

pytestmark = pytest.mark.gpu
CHECKOUT = Path(__file__).parent.parent
SELECTED = ("suites", "-k", "latency or launch")


@pytest.fixture(scope="module")
def project(tmp_path_factory) -> Path:
    """The shipped kernels and suites, with baselines recorded here and now."""
    folder = tmp_path_factory.mktemp("project")
    for name in ("kernels", "suites"):
        shutil.copytree(CHECKOUT / name, folder / name)
    (folder / "baselines").mkdir()
    (folder / "pytest.ini").write_text("[pytest]\n")
    status, output = run(folder, *SELECTED, "--gpuperf-update")
    assert status == 0, output
    return folder


def spoilt(project: Path, tmp_path: Path, file: str, old: str, new: str) -> Path:
    copy = tmp_path / "spoilt"
    shutil.copytree(project, copy)
    kernel = copy / "kernels" / file
    assert kernel.read_text().count(old) >= 1, f"{file} no longer has {old!r}"
    kernel.write_text(kernel.read_text().replace(old, new, 1))
    return copy


@pytest.mark.parametrize("time", [1, 2, 3])
def test_the_same_code_is_green(project: Path, time: int):
    status, output = run(project, *SELECTED, "--gpuperf-strict=on")
    assert status == 0, output


def test_lost_padding_is_red_and_nothing_else(project: Path, tmp_path: Path):
    copy = spoilt(project, tmp_path, "transpose.cu", "tile[32][32 + 1]", "tile[32][32]")
    status, output = run(copy, *SELECTED)
    assert status == 1, output
    assert red(output) == {"test_latency[transpose_tiled]"}


def test_three_percent_more_time_is_red_and_nothing_else(project: Path, tmp_path: Path):
    """sum_coalesced reads 7 % of its elements twice; adding 0 times a float cannot be optimised away.

    Reading 3 % of them twice cost 1.4 % of an H200's time: some are in the cache still.
    """
    end = "    store_block_sum(sum, sums, partial);"
    more = (
        "    for (size_t i = (size_t)blockIdx.x * blockDim.x + threadIdx.x; i < n / 100 * 7; i += threads)\n"
        "        sum += 0.0f * values[i];\n"
    )
    copy = spoilt(project, tmp_path, "reduce.cu", end, more + end)
    status, output = run(copy, *SELECTED)
    assert status == 1, output
    assert red(output) == {"test_latency[sum_coalesced]"}
