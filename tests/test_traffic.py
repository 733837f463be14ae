"""The traffic of a kernel from its baseline on: as a project without a GPU sees it."""

from __future__ import annotations

import json

import pytest
from once import run_once

SUITE = """
def test_traffic(gpu, kernels, counters):
    src, dst = gpu.random((1024,), seed=1), gpu.empty((1024,))
    counters(kernels["k.cu"].k[4, 256], src, dst, 1024)
"""
KERNEL = """extern "C" __global__ void k(const float *src, float *dst, int n) {
    __shared__ float tile[SPAN * 256 + 1];
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    BODY
}
"""
PLAIN = "dst[i] = 2 * src[i];"
AGAIN = "for (int r = 0; r < 2; ++r) { volatile const float *s = src; dst[i] = 2 * s[i]; __syncwarp(); }"
CONFLICTS = "tile[threadIdx.x * SPAN] = src[i]; __syncthreads(); dst[i] = 2 * tile[threadIdx.x * SPAN];"


class Traffic:
    def __init__(self, pytester: pytest.Pytester) -> None:
        self.path, self._pytester = pytester.path, pytester
        pytester.makeini("[pytest]\ngpuperf_backend = emulated\n")
        pytester.makepyfile(test_k=SUITE)
        for name in ("baselines", "kernels"):
            (self.path / name).mkdir()

    def run(self, body: str, *flags: str) -> pytest.RunResult:
        kernel = KERNEL.replace("BODY", body).replace("SPAN", "32" if "SPAN" in body else "1")
        (self.path / "kernels" / "k.cu").write_text(kernel)
        result = run_once(self._pytester, "--gpuperf", "--gpuperf-strict=on", *flags)
        if any(line.startswith("SKIPPED") or "skipped" in line for line in result.outlines):
            pytest.skip("no compiler to emulate with")
        return result


@pytest.fixture
def traffic(pytester: pytest.Pytester, kernel_cache: None) -> Traffic:
    return Traffic(pytester)


def test_twice_the_traffic_is_red(traffic: Traffic):
    assert traffic.run(PLAIN, "--gpuperf-update").ret == 0
    assert traffic.run(PLAIN).ret == 0
    result = traffic.run(AGAIN)
    assert result.ret == 1
    result.stdout.fnmatch_lines(["regressed: k global_load.requests x2, tolerance 0 %, 32 -> 64"])
    result.stdout.fnmatch_lines(["equal *2 metrics"])


def test_a_baseline_from_before_totals_fails_nothing(traffic: Traffic):
    assert traffic.run(PLAIN, "--gpuperf-update").ret == 0
    (file,) = traffic.path.glob("baselines/**/*.json")
    document = json.loads(file.read_text())
    metrics = document["entries"]["test_traffic"]
    document["entries"]["test_traffic"] = {n: m for n, m in metrics.items() if n.endswith("per_request")}
    file.write_text(json.dumps(document))
    result = traffic.run(AGAIN)
    assert result.ret == 0, result.stdout.str()
    result.stdout.fnmatch_lines(
        ["New in this version of pytest-gpuperf*: 4 metrics. To record:", "* --gpuperf-update=new"]
    )
    assert traffic.run(PLAIN, "--gpuperf-update=new").ret == 0
    assert json.loads(file.read_text())["entries"]["test_traffic"].keys() == metrics.keys()
    assert traffic.run(AGAIN).ret == 1


def test_bank_conflicts_that_go_improve_and_new_ones_are_told(traffic: Traffic):
    assert traffic.run(CONFLICTS, "--gpuperf-update").ret == 0
    result = traffic.run(PLAIN)
    assert result.ret == 0, result.stdout.str()
    result.stdout.fnmatch_lines(
        [
            "improved *8 of 14 metrics, up to *-100.00 %",
            "* the kernel makes no loads from shared memory any more",
        ]
    )
    assert traffic.run(PLAIN, "--gpuperf-update").ret == 0
    result = traffic.run(CONFLICTS)
    assert result.ret == 22
    result.stdout.fnmatch_lines(
        ["no baseline *8 of 14 metrics", "*new: 31 bank conflicts a request in loads *"]
    )
