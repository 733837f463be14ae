"""A session that is interrupted, terminated or killed ends at once, at any stage, and leaves nothing."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from gitproject import BARE, Repository

from pytest_gpuperf.processes.checkouts import worktree

TEST = """
    import os, sys, time
    from pathlib import Path

    import pytest

    HERE = not any("gpuperf-child" in argument for argument in sys.argv)

    def stop(stage):
        if os.environ.get("STAGE") == stage:
            made = Path(os.environ["PIDS"], str(os.getpid()))
            made.touch()
            time.sleep(100)

    if HERE:
        stop("collecting")

    def test_s(gpuperf):
        stop("here" if HERE else "child")
        gpuperf.record("t", float(os.environ.get("VALUE", 1)), "s")

    @pytest.mark.gpuperf(isolated=True)
    def test_own(request):
        from pytest_gpuperf.session import SESSION
        stop("own")
        with request.config.stash[SESSION].phase():
            stop("phase")
"""
STAGES = {
    "collecting": ("collecting", ()),
    "measuring": ("here", ()),
    "replicas": ("child", ("--gpuperf-acquit=off",)),
    "recording": ("child", ("--gpuperf-update",)),
    "comparing": ("child", ("--gpuperf-against=HEAD",)),
    "calibrating": ("child", ("--gpuperf-calibrate=60", "--gpuperf-runs=3")),
    "isolated": ("own", ()),
    "phase": ("phase", ()),
}
CASES = [
    *((stage, (number,)) for stage in STAGES for number in (signal.SIGINT, signal.SIGKILL)),
    *((stage, (signal.SIGTERM,)) for stage in ("measuring", "recording", "comparing")),
    *((stage, (signal.SIGINT, signal.SIGINT)) for stage in ("recording", "comparing")),
]


@pytest.fixture
def repository(pytester: pytest.Pytester, monkeypatch, tmp_path_factory) -> Repository:
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")
    for name in ("PIDS", "TMPDIR"):
        monkeypatch.setenv(name, str(tmp_path_factory.mktemp(name)))
    made = Repository(pytester)
    made.write(".gitignore", ".gpuperf\n__pycache__\n.pytest_cache\n")
    made.write("pytest.ini", "[pytest]\ngpuperf_judge_host_times = true\n")
    made.write("test_s.py", TEST)
    made.write("baselines/.gitkeep", "")
    made.commit()
    return made


@pytest.mark.parametrize(("stage", "numbers"), CASES)
def test_a_signal_leaves_no_process_no_broken_file_and_no_worktree(
    repository: Repository, monkeypatch, stage: str, numbers: tuple[int, ...]
):
    where, flags = STAGES[stage]
    if stage == "replicas":
        assert repository.run("--gpuperf-update", "--gpuperf-runs=3").ret == 0
    monkeypatch.setenv("STAGE", where)
    monkeypatch.setenv("VALUE", "2")
    command = [sys.executable, "-m", "pytest", *BARE, "-q", "--gpuperf", *flags]
    session = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        stopped = _stopped(session)
        start = time.monotonic()
        for number in numbers:
            session.send_signal(number)
            time.sleep(0.1)
        session.wait(timeout=30)
    finally:
        session.kill()
        session.wait()
    assert time.monotonic() - start < 15
    _wait_until_gone(stopped)
    for file in repository.path.glob("baselines/**/*"):
        assert file.is_dir() or file.name == ".gitkeep" or json.loads(file.read_text())
    if signal.SIGKILL in numbers:  # of which the next session clears up
        with worktree(repository.path, "HEAD"):
            pass
    assert repository.worktrees == 1
    assert not list(Path(os.environ["TMPDIR"]).glob("gpuperf-*"))


def _stopped(session: subprocess.Popen[bytes]) -> list[int]:
    """Return the processes that stand where they are to be met, as soon as one does."""
    folder = Path(os.environ["PIDS"])
    for _ in range(600):
        if found := [int(path.name) for path in folder.iterdir()]:
            return found
        assert session.poll() is None, "the session ended before it came to the stage"
        time.sleep(0.05)
    raise AssertionError("the session did not come to the stage")


def _wait_until_gone(pids: list[int]) -> None:
    for _ in range(200):
        if not any(map(_alive, pids)):
            return
        time.sleep(0.05)
    raise AssertionError(f"{pids} outlived the session")


def _alive(pid: int) -> bool:
    """A zombie that nobody has reaped yet is dead."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False
