"""Which backend a session ends up with, and what it says where the one asked for is not there."""

from __future__ import annotations

import pytest

from pytest_gpuperf.backends.cuda.driver import device_count

KERNEL_TEST = "def test_it(gpu): assert gpu.backend == 'emulated'"
without_gpu = pytest.mark.skipif(device_count() > 0, reason="is about machines without a GPU")


@without_gpu
def test_auto_emulates_where_there_is_no_device(pytester: pytest.Pytester):
    pytester.makepyfile(KERNEL_TEST)
    pytester.runpytest_subprocess().assert_outcomes(passed=1)


@without_gpu
def test_a_requested_gpu_that_is_missing_is_a_setup_failure(pytester: pytest.Pytester):
    pytester.makepyfile(KERNEL_TEST)
    result = pytester.runpytest_subprocess("--gpuperf", "--gpuperf-backend=cuda")
    assert result.ret == 22
    result.stdout.fnmatch_lines(["test_*.py:1: There is no CUDA device here*"])
    assert "Traceback" not in result.stdout.str()


@without_gpu
def test_without_a_compiler_kernel_tests_skip_with_the_package(pytester: pytest.Pytester, monkeypatch):
    monkeypatch.setenv("PATH", str(pytester.mkdir("empty")))
    monkeypatch.delenv("CXX", raising=False)
    pytester.makepyfile(KERNEL_TEST)
    result = pytester.runpytest_subprocess("-rs")
    result.assert_outcomes(skipped=1)
    result.stdout.fnmatch_lines(["*apt-get install g++*"])


@without_gpu
def test_strict_does_not_take_emulated_figures_for_a_gpus(pytester: pytest.Pytester):
    """The suite has baselines of a real device; a runner that lost its GPU must not pass on counters."""
    pytester.makepyfile(test_k="def test_it(gpu, gpuperf): gpuperf.record('x', 1.0, kind='exact')")
    (pytester.path / "baselines").mkdir()
    assert pytester.runpytest_subprocess("--gpuperf", "--gpuperf-update").ret == 0
    assert pytester.runpytest_subprocess("--gpuperf", "--gpuperf-strict=on").ret == 0
    (pytester.path / "baselines" / "emulated").rename(pytester.path / "baselines" / "nvidia-h100")
    file = pytester.path / "baselines" / "nvidia-h100" / "test_k.json"
    file.write_text(file.read_text().replace('"pool": "emulated"', '"pool": "NVIDIA H100"'))
    result = pytester.runpytest_subprocess("--gpuperf", "--gpuperf-strict=on")
    assert result.ret == 22
    result.stdout.fnmatch_lines(["test_k.py has CUDA baselines, but backend auto found no device*"])
