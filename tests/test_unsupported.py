"""What the emulator lacks is a skip that names it, and a test that needs a real GPU can say so."""

from __future__ import annotations

import json

import pytest
from once import run_once

from pytest_gpuperf.backends.cuda.driver import device_count

pytestmark = pytest.mark.skipif(device_count() > 0, reason="is about machines without a GPU")

KERNEL = "#include <mma.h>\n" + 'extern "C" __global__ void k(float *x) { x[0] = 1; }\n'
SUITE = """
    import pytest

    def test_judged(gpuperf):
        gpuperf.record("x", 1.0, kind="exact")

    {mark}
    def test_wmma(gpu, kernels, gpuperf):
        if {runs}: kernels["k.cu"].k[1, 1](gpu.empty(1))
        gpuperf.record("y", 1.0, kind="exact")
"""
MARK = '@pytest.mark.gpuperf(backend="cuda")'


class Project:
    def __init__(self, pytester: pytest.Pytester) -> None:
        self.pytester = pytester
        (pytester.mkdir("kernels") / "k.cu").write_text(KERNEL)
        pytester.mkdir("baselines")

    def record(self) -> None:
        """Record baselines of both tests, as a machine would that can run them."""
        self.pytester.makepyfile(test_k=SUITE.format(mark="", runs=False))
        flags = ("--gpuperf", "--gpuperf-backend=emulated", "--gpuperf-update")
        assert run_once(self.pytester, *flags).ret == 0

    def run(self, *flags: str) -> pytest.RunResult:
        return self.pytester.runpytest_subprocess("--gpuperf", "--gpuperf-backend=emulated", "-rs", *flags)


@pytest.fixture
def project(pytester: pytest.Pytester) -> Project:
    made = Project(pytester)
    made.record()
    return made


def test_it_is_a_skip_that_names_feature_and_line(project: Project):
    project.pytester.makepyfile(test_k=SUITE.format(mark="", runs=True))
    result = project.run("--gpuperf-strict=off")
    result.assert_outcomes(passed=1, skipped=1)
    result.stdout.fnmatch_lines(["SKIPPED *kernels/k.cu:1: the emulated backend cannot run wmma*"])


def test_strict_makes_it_set_up_and_names_the_marker(project: Project):
    project.pytester.makepyfile(test_k=SUITE.format(mark="", runs=True))
    result = project.run("--gpuperf-strict=on")
    result.assert_outcomes(passed=1, failed=1)
    result.stdout.fnmatch_lines([f"*kernels/k.cu:1: the emulated backend cannot run wmma*{MARK[1:]}*"])
    assert result.ret == 22


@pytest.mark.parametrize("isolated", ["", ", isolated=True"])
def test_a_marker_does_not_take_a_test_from_the_gate_unseen(project: Project, isolated: str):
    mark = MARK.replace(")", f"{isolated})")
    project.pytester.makepyfile(test_k=SUITE.format(mark=mark, runs=True))
    result = project.run("--gpuperf-strict=on")
    result.assert_outcomes(passed=1, skipped=1)
    result.stdout.fnmatch_lines(["SKIPPED *test_k.py:*needs a real GPU*"])
    result.stdout.fnmatch_lines(['test_k.py::test_wmma: y missing: *marked backend="cuda" by now'])
    assert result.ret == 1
    assert project.run("--gpuperf-update=prune").ret == 0
    result = project.run("--gpuperf-strict=on")
    result.assert_outcomes(passed=1, skipped=1)
    assert result.ret == 0
    assert "missing" not in result.stdout.str()


def test_a_gpus_figures_are_not_missed_without_one(project: Project):
    file = project.pytester.path / "baselines" / "emulated" / "test_k.json"
    project.pytester.makepyfile(test_k=SUITE.format(mark=MARK, runs=True))
    stored = json.loads(file.read_text())  # a pool that a user named may be of both kinds of machine
    stored["tests"]["test_wmma"]["place"]["backend"] = "cuda"
    file.write_text(json.dumps(stored))
    result = project.run("--gpuperf-strict=on")
    assert result.ret == 0
    assert "missing" not in result.stdout.str()


def test_a_run_of_marked_tests_alone_is_no_finding(project: Project):
    project.pytester.makepyfile(test_k=SUITE.format(mark=MARK, runs=True).replace("test_judged", "judged"))
    (project.pytester.path / "baselines" / "cpu").rename(project.pytester.path / "elsewhere")
    assert project.run("--gpuperf-strict=on", "-k", "wmma").ret == 0
