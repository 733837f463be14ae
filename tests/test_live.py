"""Long work says how far it is, in one line of the terminal that is gone when it is done."""

from __future__ import annotations

import fcntl
import os
import re
import struct
import subprocess
import sys
import termios
from collections.abc import Callable
from types import SimpleNamespace

import pytest

from pytest_gpuperf.processes.live import Live, duration

COLUMNS = 100
SUITE = """
    import time
    def test_before(): pass
    def test_k(gpuperf):
        time.sleep(0.3)
        gpuperf.record("t", 1.0, "s", kind="noisy")
"""
LINE = re.compile(r"\x1b7\x1b\[K(.*?)\x1b8")


@pytest.fixture
def on_terminal(pytester: pytest.Pytester, bare_environment: dict[str, str]) -> Callable[..., str]:
    """Run pytest on a terminal and return every character that it wrote."""

    def run(*flags: str) -> str:
        ours, theirs = os.openpty()
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, COLUMNS, 0, 0))
        environment = {**bare_environment, "TERM": "xterm"}
        environment.pop("COLUMNS", None)
        command = [sys.executable, "-m", "pytest", *flags]
        with subprocess.Popen(
            command, cwd=pytester.path, env=environment, stdin=theirs, stdout=theirs, stderr=theirs
        ):
            os.close(theirs)
            written = b""
            try:
                while more := os.read(ours, 4096):
                    written += more
            except OSError:  # the other end is closed
                os.close(ours)
        return written.decode()

    return run


def test_recording_says_how_far_it_is_and_leaves_no_trace(pytester: pytest.Pytester, on_terminal):
    pytester.makepyfile(test_k=SUITE)
    flags = ("--gpuperf", "-ogpuperf_judge_host_times=true", "--gpuperf-runs=2", "--gpuperf-update")
    written = on_terminal(*flags)
    lines = LINE.findall(written)
    assert " recording run 1 of 2, 1 test" in lines
    assert re.search(r"\n recording run 2 of 2, 1 test, [1-9] s left\n", "\n".join(lines))
    assert any(line.startswith(" recording run 1 of 2, 1 test - test_k.py::test_k") for line in lines)
    assert lines[-1] == ""
    assert "run 1 of 2" not in LINE.sub("", written)
    assert "Recorded 1 metric of" in written

    plain = pytester.runpytest_subprocess(*flags)
    plain.stdout.fnmatch_lines(["gpuperf: recording run 2 of 2, 1 test"])
    assert "\x1b" not in plain.stdout.str()


def stand_in(column: int, isatty: bool = True) -> tuple[Live, list[str]]:
    written: list[str] = []
    file = SimpleNamespace(write=written.append, flush=lambda: None)
    writer = SimpleNamespace(_file=file, fullwidth=40, width_of_current_line=column)
    plugins = {"terminalreporter": SimpleNamespace(isatty=isatty, _tw=writer)}
    config = SimpleNamespace(pluginmanager=SimpleNamespace(get_plugin=plugins.get))
    return Live(config), written  # type: ignore[arg-type]


def test_the_line_never_reaches_the_next_one(monkeypatch):
    monkeypatch.setenv("TERM", "xterm")
    live, written = stand_in(column=20)
    with live:
        assert live.stage("block 2 of 6, 3 test(s), and more")
        live.show("too soon after the last")
    assert LINE.findall("".join(written)) == [" block 2 of 6, 3 te", ""]
    narrow, nothing = stand_in(column=30)
    assert narrow.stage("block 2 of 6")
    assert LINE.findall("".join(nothing)) == [""]


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.2, "1 s"), (89, "89 s"), (90, "2 min"), (5399, "90 min"), (9000, "2.5 h")]
)
def test_how_long_it_still_takes_in_words(seconds: float, text: str):
    assert duration(seconds) == text


def test_the_time_left_is_that_of_the_stages_left(monkeypatch):
    monkeypatch.setenv("TERM", "xterm")
    now = [100.0]
    monkeypatch.setattr("pytest_gpuperf.processes.live.time", SimpleNamespace(monotonic=lambda: now[0]))
    live, written = stand_in(column=0)
    for block in range(3):
        live.stage("block", block, 3)
        now[0] += 20
    assert LINE.findall("".join(written)) == [" block", " block, 40 s left", " block, 20 s left"]


@pytest.mark.parametrize(("isatty", "term"), [(False, "xterm"), (True, "dumb")])
def test_what_is_no_terminal_gets_nothing(monkeypatch, isatty: bool, term: str):
    monkeypatch.setenv("TERM", term)
    live, written = stand_in(0, isatty)
    with live:
        assert not live.stage("block 2 of 6")
    assert not written
