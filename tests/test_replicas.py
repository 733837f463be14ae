"""Child processes: what comes back from them, and that none outlives its parent or hangs it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import pytest

ISOLATED = """
    import os, pytest
    pytestmark = pytest.mark.gpuperf(isolated=True)
"""


def test_an_isolated_test_runs_in_a_process_of_its_own(pytester: pytest.Pytester, monkeypatch):
    monkeypatch.setenv("PARENT_PID", str(os.getpid()))
    pytester.makepyfile(ISOLATED + "    def test_pid(): assert os.getpid() != int(os.environ['PARENT_PID'])")
    pytester.inline_run().assertoutcome(passed=1)


def test_a_failure_in_the_child_is_the_tests_own(pytester: pytest.Pytester):
    pytester.makepyfile(ISOLATED + "    def test_sum(): assert 1 + 1 == 3")
    result = pytester.runpytest()
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["*assert (1 + 1) == 3*"])


def test_a_child_that_dies_fails_its_test_and_pytest_lives_on(pytester: pytest.Pytester):
    pytester.makepyfile(
        ISOLATED
        + """
    def test_dies():
        print("last words", flush=True)
        os.kill(os.getpid(), 11)

    def test_lives(): pass
    """
    )
    result = pytester.runpytest()
    result.assert_outcomes(passed=1, failed=1)
    result.stdout.fnmatch_lines(["*died of SIGSEGV*"])


ENDS = ["os._exit(0)", "os._exit(1)", "ctypes.CDLL(None).exit(0)", "ctypes.CDLL(None).exit(1)"]


@pytest.mark.parametrize("ends", ENDS)
@pytest.mark.parametrize("where", ["call", "teardown"])
def test_a_process_that_ends_in_a_test_fails_it_whatever_the_code(pytester: pytest.Pytester, ends, where):
    call, teardown = (ends, "pass") if where == "call" else ("pass", ends)
    pytester.makepyfile(
        ISOLATED
        + f"""
    import ctypes

    @pytest.fixture
    def resource():
        yield
        {teardown}

    def test_ends(resource): {call}
    """
    )
    result = pytester.runpytest()
    result.assert_outcomes(**({"failed": 1} if where == "call" else {"passed": 1, "errors": 1}))
    result.stdout.fnmatch_lines(["*ended with exit code [01] in the middle of it*"])


def test_a_child_that_ends_before_its_first_word_says_its_last_ones(pytester: pytest.Pytester):
    pytester.makeconftest(
        """
        import pytest, sys
        if any("gpuperf-child" in argument for argument in sys.argv):
            raise pytest.UsageError("no such host")
        """
    )
    pytester.makepyfile(ISOLATED + "    def test_never(): pass")
    result = pytester.runpytest_subprocess()
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["*test ended with exit code 4 before it finished*", "*no such host*"])


def test_a_silent_child_is_ended(pytester: pytest.Pytester):
    pytester.makeini("[pytest]\ngpuperf_child_timeout = 3\n")
    pytester.makepyfile(ISOLATED + "    def test_hangs(): import time; time.sleep(60)")
    start = time.monotonic()
    result = pytester.runpytest()
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["*silent for 3 s*gpuperf_child_timeout*"])
    assert time.monotonic() - start < 30


def test_the_parents_addopts_do_not_reach_the_child(pytester: pytest.Pytester, monkeypatch):
    pytester.makeini("[pytest]\naddopts = --junitxml=out.xml -p no:doctest\n")
    monkeypatch.setenv("PYTEST_ADDOPTS", "--maxfail=1")
    pytester.makepyfile(
        ISOLATED
        + """
    def test_options(request):
        assert request.config.option.xmlpath is None
        assert not request.config.option.maxfail
        assert "PYTEST_ADDOPTS" not in os.environ
    """
    )
    pytester.runpytest().assert_outcomes(passed=1)


def waiting(pytester: pytest.Pytester) -> tuple[subprocess.Popen[bytes], int]:
    """A session whose one test waits in a child: the parent, and the child's process id."""
    pytester.makepyfile(
        ISOLATED
        + """
    def test_waits():
        open("pid", "w").write(str(os.getpid()))
        import time
        time.sleep(120)
    """
    )
    parent = subprocess.Popen(
        [sys.executable, "-m", "pytest", "-q"], cwd=pytester.path, stdout=subprocess.PIPE
    )
    return parent, _wait_for_pid(pytester.path / "pid")


def test_an_interrupted_parent_leaves_no_child(pytester: pytest.Pytester):
    parent, pid = waiting(pytester)
    parent.send_signal(signal.SIGINT)
    assert parent.wait(timeout=30) == pytest.ExitCode.INTERRUPTED
    _assert_gone(pid)


def test_a_killed_parent_leaves_no_child(pytester: pytest.Pytester):
    parent, pid = waiting(pytester)
    parent.kill()
    parent.wait(timeout=30)
    _assert_gone(pid)


def _wait_for_pid(path) -> int:
    for _ in range(600):
        if path.exists() and path.read_text():
            return int(path.read_text())
        time.sleep(0.05)
    raise AssertionError("the child did not start")


def _assert_gone(pid: int) -> None:
    for _ in range(200):
        if not _alive(pid):
            return
        time.sleep(0.05)
    raise AssertionError(f"the child {pid} outlived its parent")


def _alive(pid: int) -> bool:
    """A zombie that nobody has reaped yet is dead."""
    try:
        with open(f"/proc/{pid}/stat") as stat:
            return stat.read().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_a_skip_in_a_child_is_a_skip(pytester: pytest.Pytester):
    pytester.makepyfile(ISOLATED + "    def test_skips(): pytest.skip('not today')")
    result = pytester.runpytest("-rs", "-n2")
    result.assert_outcomes(skipped=1)
    result.stdout.fnmatch_lines(["*not today*"])


def test_what_is_not_there_is_skipped_in_a_child_too_and_fails_once_under_strict(pytester: pytest.Pytester):
    pytester.makepyfile(
        ISOLATED
        + """
    def test_absent():
        from pytest_gpuperf.errors import Unavailable
        raise Unavailable("there is no flux capacitor; install one")
    """
    )
    result = pytester.runpytest("-rs")
    result.assert_outcomes(skipped=1)
    result.stdout.fnmatch_lines(["*install one*"])
    result = pytester.runpytest("--gpuperf", "--gpuperf-strict=on")
    result.assert_outcomes(failed=1)
    assert result.ret == 22
