"""Which pool a test's figures belong to: a function of the test and the machine."""

from __future__ import annotations

import json

import pytest
from once import run_once

KERNEL = """extern "C" __global__ void copy(const float *src, float *dst, int n) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < n) dst[i] = src[i];
}
"""
COUNTED = """
def test_counters(gpu, kernels, counters):
    src, dst = gpu.random((256,), seed=1), gpu.empty((256,))
    counters(kernels["k.cu"].copy[1, 256], src, dst, 256)
"""
TIMED = """
def test_host(gpuperf): gpuperf.record("t", {}, "s")
"""


class Mixed:
    """A project on a machine without a GPU: one test of the emulator's, one of the host's."""

    def __init__(self, pytester: pytest.Pytester) -> None:
        self.path, self._pytester = pytester.path, pytester
        pytester.makeini("[pytest]\ngpuperf_backend = emulated\ngpuperf_judge_host_times = true\n")
        for name in ("baselines", "kernels"):
            (self.path / name).mkdir()
        (self.path / "kernels" / "k.cu").write_text(KERNEL)
        self.write(test_a=COUNTED, test_b=TIMED.format("1.0"))

    def write(self, **suites: str) -> None:
        for name, text in suites.items():
            (self.path / f"{name}.py").write_text(text)

    def run(self, *flags: str) -> pytest.RunResult:
        return self._pytester.runpytest_subprocess("--gpuperf", "--gpuperf-strict=on", *flags)

    @property
    def stored(self) -> set[str]:
        return {
            str(path.relative_to(self.path / "baselines")) for path in self.path.glob("baselines/**/*.json")
        }


@pytest.fixture
def mixed(pytester: pytest.Pytester) -> Mixed:
    found = Mixed(pytester)
    result = run_once(pytester, "--gpuperf", "--gpuperf-strict=on", "--gpuperf-update", "--gpuperf-runs=3")
    assert result.ret == 0, result.stdout.str()
    return found


def test_a_pool_depends_on_the_test_and_not_on_those_before_it(mixed: Mixed):
    assert mixed.stored == {"emulated/test_a.json", "cpu/test_b.json"}
    for flags in (["test_b.py"], ["test_b.py", "test_a.py"], ["-p", "xdist", "-n2"], ["-k", "host"]):
        result = mixed.run(*flags)
        assert result.ret == 0, result.stdout.str()


def test_a_hosts_figure_among_the_emulators_is_judged_as_before(mixed: Mixed):
    """Where it was stored while another test had started the emulator."""
    file = json.loads((mixed.path / "baselines" / "cpu" / "test_b.json").read_text())
    file["pool"] = "emulated"
    for shared in file["tests"].values():
        shared["place"] |= {"backend": "emulated", "counters": "modelled"}
    (mixed.path / "baselines" / "cpu" / "test_b.json").unlink()
    (mixed.path / "baselines" / "emulated" / "test_b.json").write_text(json.dumps(file))
    assert mixed.run().ret == 0
    mixed.write(test_b=TIMED.format("2.0"))
    assert mixed.run("--gpuperf-acquit=off").ret == 1


@pytest.mark.parametrize("gone", ["skipped", "deleted"])
def test_the_only_test_of_a_pool_is_missed(mixed: Mixed, gone: str):
    if gone == "skipped":
        mixed.write(test_b="import pytest\n@pytest.mark.skip(reason='slow')" + TIMED.format("1.0"))
    else:
        (mixed.path / "test_b.py").unlink()
    result = mixed.run()
    assert result.ret == 1
    result.stdout.fnmatch_lines(["missing *test_host*"])
