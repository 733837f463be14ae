"""A device that a kernel broke or does not give back: whose test fails, and what happens to the others."""

from __future__ import annotations

import pytest

# The emulated device, which pretends; `seen` collects the processes that ran each test.
SUITE = """
    import os, pathlib
    import pytest
    from pytest_gpuperf.errors import KernelError

    def seen(name):
        with pathlib.Path("seen.txt").open("a") as file:
            file.write(f"{name} {os.getpid()}\\n")

    def test_before(gpu): seen("before")

    def test_fault(gpu):
        gpu.device.lost = "an illegal memory access was encountered"
        raise KernelError("A kernel broke the CUDA context. The last launch was gather (kernels/gather.cu).")

    def test_after(gpu):
        seen("after")
        assert gpu.to_device(__import__("numpy").ones(3)).get().sum() == 3

    def test_host(): seen("host")
"""


def seen(pytester: pytest.Pytester) -> dict[str, str]:
    return dict(line.split() for line in (pytester.path / "seen.txt").read_text().splitlines())


def test_what_follows_a_lost_device_runs_in_a_fresh_process(pytester: pytest.Pytester):
    pytester.makepyfile(SUITE)
    result = pytester.runpytest_subprocess("--gpuperf-backend=emulated")
    result.assert_outcomes(passed=3, failed=1)
    result.stdout.fnmatch_lines(["*The last launch was gather (kernels/gather.cu)*"])
    found = seen(pytester)
    assert found["before"] == found["host"] != found["after"]


def test_a_kernel_that_does_not_end_ends_the_run_in_order(pytester: pytest.Pytester):
    pytester.makepyfile(
        SUITE.replace("gpu.device.lost =", "gpu.device.stuck = True; gpu.device.lost =").replace(
            "an illegal memory access was encountered", "gather has not ended after 60 s"
        )
    )
    result = pytester.runpytest_subprocess("--gpuperf-backend=emulated", "--gpuperf", "--junitxml=out.xml")
    assert result.ret == 1
    result.assert_outcomes(passed=1, failed=1)
    result.stdout.fnmatch_lines(["2 tests not run: gather has not ended after 60 s"])
    assert "The last launch was gather" in (pytester.path / "out.xml").read_text()


def test_an_endless_kernel_in_its_own_process_ends_nothing_else(pytester: pytest.Pytester):
    isolated = "@pytest.mark.gpuperf(isolated=True)\n    def test_fault(gpu):"
    pytester.makepyfile(
        SUITE.replace("def test_fault(gpu):", isolated).replace(
            "gpu.device.lost =", "gpu.device.stuck = True; gpu.device.lost ="
        )
    )
    result = pytester.runpytest_subprocess("--gpuperf-backend=emulated")
    assert result.ret == 1
    result.assert_outcomes(passed=3, failed=1)
    found = seen(pytester)
    assert found["before"] == found["after"] == found["host"]


def test_a_test_fails_by_its_own_kernels(pytester: pytest.Pytester):
    """A launch returns before its kernel runs: what that did is found out at the end of the test."""
    pytester.makepyfile(
        """
        from pytest_gpuperf.errors import KernelError

        def test_launches(gpu):
            def synchronize():
                gpu.device.synchronize = lambda: None
                raise KernelError("A kernel broke the CUDA context.")
            gpu.device.synchronize = synchronize

        def test_other(gpu): gpu.synchronize()
        """
    )
    result = pytester.runpytest_subprocess("--gpuperf-backend=emulated")
    result.assert_outcomes(passed=1, failed=1)
    result.stdout.fnmatch_lines(["*.py:*: A kernel broke the CUDA context.", "FAILED *::test_launches - *"])
