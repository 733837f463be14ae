"""Sessions that want one machine at once: they wait for each other, with words and an end."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from waiting import wait_until

# A test that measures until the file "go" is there, so that the other session meets it at work.
SUITE = """
    import pathlib, time

    def test_holds({fixtures}):
        pathlib.Path("held-" + pathlib.Path("who").read_text()).touch()
        deadline = time.monotonic() + 60
        while not pathlib.Path("go").exists() and time.monotonic() < deadline:
            time.sleep(0.02)
        gpuperf.record("x", 1.0, kind="exact")
"""
HOST_INI = "[pytest]\ngpuperf_backend = emulated\ngpuperf_judge_host_times = true\n"


class Sessions:
    """pytest processes of one project, each with a name of its own."""

    def __init__(self, pytester: pytest.Pytester) -> None:
        self.path = pytester.path
        self.started: list[subprocess.Popen[str]] = []

    def start(self, who: str, *flags: str) -> subprocess.Popen[str]:
        (self.path / "who").write_text(who)
        command = [sys.executable, "-m", "pytest", "--gpuperf", "-p", "no:cacheprovider", *flags]
        process = subprocess.Popen(
            command, cwd=self.path, stdout=subprocess.PIPE, text=True, start_new_session=True
        )
        self.started.append(process)
        return process

    def holding(self, who: str) -> subprocess.Popen[str]:
        """A session whose test holds the lock, until go()."""
        process = self.start(who)
        wait_until((self.path / f"held-{who}").exists)
        return process

    def go(self) -> None:
        (self.path / "go").touch()


@pytest.fixture(params=["host", pytest.param("device", marks=pytest.mark.gpu)])
def sessions(request: pytest.FixtureRequest, pytester: pytest.Pytester) -> Iterator[Sessions]:
    """On a host whose times are judged, and on a CUDA device."""
    on_device = request.param == "device"
    pytester.makeini("[pytest]\n" if on_device else HOST_INI)
    pytester.makepyfile(test_suite=SUITE.format(fixtures="gpu, gpuperf" if on_device else "gpuperf"))
    found = Sessions(pytester)
    yield found
    for process in found.started:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()


def test_a_second_session_waits_and_says_for_whom(sessions: Sessions):
    first = sessions.holding("first")
    second = sessions.start("second", "--gpuperf-lock-timeout=60")
    lines = iter(second.stdout)
    waiting = next(line for line in lines if "waiting for device" in line)  # said while it waits
    assert f"held by process {first.pid} of " in waiting
    assert not Path(sessions.path / "held-second").exists()
    sessions.go()
    assert first.wait(60) == 0
    assert second.wait(60) == 0
    assert (sessions.path / "held-second").exists()


def test_a_session_that_waited_too_long_asks_to_run_elsewhere(sessions: Sessions):
    first = sessions.holding("first")
    second = sessions.start("second", "--gpuperf-lock-timeout=0.3", "--gpuperf-strict=on")
    output, _ = second.communicate(timeout=60)
    assert second.returncode == 20
    assert f"was not free within 0.3 s: it is held by process {first.pid} of " in output
    assert "Traceback" not in output
    assert not (sessions.path / "held-second").exists()


def test_a_killed_session_leaves_nothing_locked(sessions: Sessions):
    first = sessions.holding("first")
    os.killpg(first.pid, signal.SIGKILL)
    first.wait(60)
    sessions.go()
    second = sessions.start("second", "--gpuperf-lock-timeout=0.3")
    assert second.wait(60) == 0
    assert (sessions.path / "held-second").exists()


def test_a_test_that_measures_nothing_waits_for_nobody(sessions: Sessions):
    sessions.holding("first")
    (sessions.path / "test_other.py").write_text("def test_sum(): assert 1 + 1 == 2\n")
    second = sessions.start("second", "test_other.py", "--gpuperf-lock-timeout=0.3")
    assert second.wait(60) == 0


def test_where_host_times_are_only_shown_nobody_waits(pytester: pytest.Pytester):
    pytester.makeini("[pytest]\ngpuperf_backend = emulated\n")
    pytester.makepyfile(test_suite=SUITE.format(fixtures="gpuperf"))
    found = Sessions(pytester)
    first, second = found.holding("first"), found.holding("second")
    found.go()
    assert [process.wait(60) for process in (first, second)] == [0, 0]
    for process in (first, second):
        process.communicate()
