"""Child processes: what comes back from them, and that none outlives its parent or hangs it."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time

import pytest
from once import run_once
from waiting import is_alive, wait_until

from pytest_gpuperf.processes.link import WAITING, Patience, exchange

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


def test_tests_of_both_kinds_may_follow_each_other(pytester: pytest.Pytester):
    # What a test here left set up for the next one of its file is torn down although that one runs elsewhere.
    text = """
    import pytest

    @pytest.fixture(scope="module")
    def shared():
        yield
        %s

    def test_here(shared): pass

    @pytest.mark.gpuperf(isolated=True)
    def test_elsewhere(): pass
    """
    pytester.makepyfile(test_a=text % "pass", test_b=text % "assert not 'torn down'", test_c=text % "pass")
    result = pytester.runpytest()
    result.assert_outcomes(passed=6, errors=1)
    result.stdout.fnmatch_lines(["ERROR test_b.py::test_* - *torn down*"])


ENDS = ["os._exit(0)", "os._exit(1)", "ctypes.CDLL(None).exit(0)", "ctypes.CDLL(None).exit(1)"]


@pytest.mark.parametrize("ends", ENDS)
@pytest.mark.parametrize("where", ["call", "teardown"])
def test_a_process_that_ends_in_a_test_fails_it(pytester: pytest.Pytester, ends, where):
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


def test_a_child_that_ends_at_once_says_its_last_words(pytester: pytest.Pytester):
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


ENDS_EARLY = """
    import os, pytest, sys
    if any("gpuperf-child" in argument for argument in sys.argv):
        %s
"""
WAYS = {
    "raise pytest.UsageError('no such host')": "code 4 *; it printed last: *no such host*",
    "sys.exit('no such host')": "code 1 and reported nothing of it; it printed last: no such host*",
    "raise OSError('no such host')": "code 4 *; it printed last: OSError: no such host*",
    "os._exit(3)": "code 3 *; it printed nothing*",
    "os._exit(0)": "code 0 and reported nothing of it; it printed nothing*",
}
MEASURES = "def test_s(gpuperf): gpuperf.record('t', 1.0, 's')"


@pytest.fixture
def recorded(pytester: pytest.Pytester) -> pytest.Pytester:
    pytester.makeini("[pytest]\ngpuperf_judge_host_times = true\ngpuperf_acquit = off\n")
    pytester.makepyfile(test_s=MEASURES)
    pytester.mkdir("baselines")
    assert run_once(pytester, "--gpuperf", "--gpuperf-update", "--gpuperf-runs=3").ret == 0
    return pytester


@pytest.mark.parametrize("way", WAYS)
def test_replicas_that_end_at_once_say_their_last_words(recorded: pytest.Pytester, way: str):
    recorded.makeconftest(ENDS_EARLY % way)
    recorded.makepyfile(test_s=MEASURES.replace("1.0", "2.0"))
    result = recorded.runpytest_subprocess("--gpuperf")
    assert result.ret == 1
    result.stdout.fnmatch_lines([f"*ended with exit {WAYS[way]}"])
    result.stdout.no_fnmatch_line("*Connection*")


def test_a_recording_that_ends_at_once_says_its_last_words(recorded: pytest.Pytester):
    recorded.makeconftest(ENDS_EARLY % "raise pytest.UsageError('no such host')")
    result = recorded.runpytest_subprocess("--gpuperf", "--gpuperf-update", "--gpuperf-runs=3")
    assert result.ret == 1
    result.stdout.fnmatch_lines(
        ["run 1: the process ended with exit code 4 *; it printed last: *no such host"]
    )


LEAVES_A_PROCESS = {
    "forked": "if os.fork() == 0: time.sleep(60); os._exit(0)",
    "waited for": "multiprocessing.get_context('fork').Process(target=time.sleep, args=(60,)).start()",
}


@pytest.mark.parametrize("way", LEAVES_A_PROCESS)
def test_a_process_that_a_child_leaves_behind_holds_nobody_up(pytester: pytest.Pytester, way):
    pytester.makepyfile(
        ISOLATED
        + f"""
    import multiprocessing, time

    def test_forks():
        {LEAVES_A_PROCESS[way]}
    """
    )
    start = time.monotonic()
    pytester.runpytest().assert_outcomes(passed=1)
    assert time.monotonic() - start < 30


def test_a_child_without_progress_is_ended_though_it_prints(pytester: pytest.Pytester):
    pytester.makeini("[pytest]\ngpuperf_child_timeout = 3\n")
    pytester.makepyfile(
        ISOLATED
        + """
    import time

    def test_hangs():
        for _ in range(600):
            print("still here", flush=True)
            time.sleep(0.1)
    """
    )
    start = time.monotonic()
    result = pytester.runpytest()
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["*made no progress for 3 s*gpuperf_child_timeout*"])
    assert time.monotonic() - start < 30


def test_a_child_that_gets_on_is_not_ended(pytester: pytest.Pytester):
    pytester.makeini("[pytest]\ngpuperf_child_timeout = 3\n")
    pytester.makepyfile(
        ISOLATED
        + """
    import time

    @pytest.fixture
    def first(): time.sleep(2)

    @pytest.fixture
    def second(first): time.sleep(2)

    def test_slow(second): pass

    def test_phase(request):
        from pytest_gpuperf.waking import session_of
        with session_of(request.config).phase():
            time.sleep(3.5)
    """
    )
    pytester.runpytest().assert_outcomes(passed=2)


def test_a_process_that_never_reads_its_task_is_ended():
    ours, theirs = socket.socketpair()
    with ours, theirs, subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"]) as process:
        try:
            with pytest.raises(TimeoutError, match="made no progress for 1 s"):
                list(exchange(ours, process, b"x" * 10_000_000, Patience(1, 60)))
        finally:
            process.kill()


def test_the_wait_for_the_lock_has_its_own_limit():
    ours, theirs = socket.socketpair()
    theirs.sendall(json.dumps(WAITING).encode() + b"\n")
    start = time.monotonic()
    with ours, theirs, subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"]) as process:
        try:
            with pytest.raises(TimeoutError):
                list(exchange(ours, process, b"", Patience(0.5, 2)))
        finally:
            process.kill()
    assert time.monotonic() - start >= 2.5


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
    file = pytester.path / "pid"
    wait_until(lambda: file.exists() and file.read_text())
    return parent, int(file.read_text())


def test_an_interrupted_parent_leaves_no_child(pytester: pytest.Pytester):
    parent, pid = waiting(pytester)
    parent.send_signal(signal.SIGINT)
    assert parent.wait(timeout=30) == pytest.ExitCode.INTERRUPTED
    wait_until(lambda: not is_alive(pid), seconds=10)


def test_a_killed_parent_leaves_no_child(pytester: pytest.Pytester):
    parent, pid = waiting(pytester)
    parent.kill()
    parent.wait(timeout=30)
    wait_until(lambda: not is_alive(pid), seconds=10)


def test_a_skip_in_a_child_is_a_skip(pytester: pytest.Pytester):
    pytester.makepyfile(ISOLATED + "    def test_skips(): pytest.skip('not today')")
    result = pytester.runpytest("-rs", "-p", "xdist", "-n2")
    result.assert_outcomes(skipped=1)
    result.stdout.fnmatch_lines(["*not today*"])


def test_what_is_missing_skips_in_a_child_and_fails_strict_once(pytester: pytest.Pytester):
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
