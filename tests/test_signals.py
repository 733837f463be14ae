"""A session that is interrupted, terminated or killed ends at once, at any stage, and leaves nothing."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from xml.etree import ElementTree

import pytest
from gitproject import Repository
from latencies import INI
from waiting import is_alive, wait_until

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
    def test_own():
        stop("own")
"""
# LoadGen runs: its first completed query says that the stage is reached, and it issues more for a minute.
LOADGEN = """
    import os
    from pathlib import Path

    import numpy as np
    from pytest_gpuperf.mlperf import Sut

    class Numbers:
        name = "numbers"
        labels = np.arange(64) % 10
        def __init__(self, count=None): pass
        def __len__(self): return 64
        def images(self, indices): return (np.asarray(indices) % 10).astype(np.float32)[:, None]

    runs = []

    def run(batch):
        runs.append(0)
        if len(runs) == 100:  # well past the warm-up
            Path(os.environ["PIDS"], str(os.getpid())).touch()
        return batch[:, 0].astype(np.int64)

    def test_model(loadgen):
        loadgen(Sut(name="echo", run=run, dataset=Numbers), "SingleStream", seconds=60)
"""
STAGES = {
    "collecting": ("collecting", ()),
    "measuring": ("here", ()),
    "replicas": ("child", ("--gpuperf-acquit=off",)),
    "recording": ("child", ("--gpuperf-update",)),
    "comparing": ("child", ("--gpuperf-against=HEAD",)),
    "calibrating": ("child", ("--gpuperf-calibrate=60", "--gpuperf-runs=3")),
    "isolated": ("own", ()),
    "loadgen": ("loadgen", ("test_l.py",)),
}
SIGNALS = {
    "SIGINT": (signal.SIGINT,),
    "SIGINT twice": (signal.SIGINT, signal.SIGINT),
    "SIGTERM": (signal.SIGTERM,),
    "SIGKILL": (signal.SIGKILL,),
}
INTERRUPTED = int(pytest.ExitCode.INTERRUPTED)
# Where a worktree must go again, SIGTERM unwinds as Ctrl-C does; elsewhere nothing has to be put in order.
ENDS = {
    "SIGINT": {INTERRUPTED},
    "SIGINT twice": {INTERRUPTED, -signal.SIGINT},
    "SIGTERM": {-signal.SIGTERM},
    "SIGKILL": {-signal.SIGKILL},
}


def _repository(pytester: pytest.Pytester) -> Repository:
    files = {
        ".gitignore": ".gpuperf\n__pycache__\n.pytest_cache\njunit.xml\n",
        "pytest.ini": INI,
        "test_s.py": TEST,
        "baselines/.gitkeep": "",
    }
    return Repository(pytester, files)


@pytest.fixture
def repository(pytester: pytest.Pytester, monkeypatch, tmp_path_factory) -> Repository:
    for name in ("PIDS", "TMPDIR"):
        monkeypatch.setenv(name, str(tmp_path_factory.mktemp(name)))
    return _repository(pytester)


@pytest.fixture(scope="module")
def baselines() -> dict[str, str]:
    """The files of baselines once recorded, for every case that needs some."""
    return {}


def _record(repository: Repository, baselines: dict[str, str]) -> None:
    if not baselines:
        assert repository.run("--gpuperf-update", "--gpuperf-runs=3").ret == 0
        written = repository.path.glob("baselines/**/*.json")
        baselines |= {str(path.relative_to(repository.path)): path.read_text() for path in written}
    for name, text in baselines.items():
        repository.write(name, text)


@pytest.mark.parametrize("sent", SIGNALS)
@pytest.mark.parametrize("stage", STAGES)
def test_a_signal_leaves_no_process_file_or_worktree(
    repository: Repository, baselines: dict[str, str], monkeypatch, stage: str, sent: str
):
    where, flags = STAGES[stage]
    if stage == "replicas":
        _record(repository, baselines)
    elif stage == "loadgen":
        pytest.importorskip("mlperf_loadgen", reason="needs mlcommons-loadgen")
        repository.write("test_l.py", LOADGEN)
    monkeypatch.setenv("STAGE", where)
    monkeypatch.setenv("VALUE", "2")
    command = [sys.executable, "-m", "pytest", "-q", "--junit-xml=junit.xml", "--gpuperf", *flags]
    with open("output", "wb") as output:
        session = subprocess.Popen(command, stdout=output, stderr=output)
    try:
        stopped = _stopped(session)
        start = time.monotonic()
        for number in SIGNALS[sent]:
            session.send_signal(number)
            time.sleep(0.1)
        session.wait(timeout=30)
    finally:
        session.kill()
        session.wait()
    assert time.monotonic() - start < 15
    wait_until(lambda: not any(map(is_alive, stopped)), seconds=10)
    ends = {INTERRUPTED} if (stage, sent) == ("comparing", "SIGTERM") else ENDS[sent]
    assert session.returncode in ends, Path("output").read_text()
    if session.returncode == INTERRUPTED:  # in order: what was done until then is reported
        assert ElementTree.parse("junit.xml").getroot().find("testsuite") is not None
    for file in repository.path.glob("baselines/**/*"):
        assert file.is_dir() or file.name == ".gitkeep" or json.loads(file.read_text())
    if sent == "SIGKILL":  # of which the next session clears up
        with worktree(repository.path, "HEAD"):
            pass
    assert repository.worktrees == 1
    assert not list(Path(os.environ["TMPDIR"]).glob("gpuperf-*"))


def _stopped(session: subprocess.Popen[bytes]) -> list[int]:
    """Return the processes that stand where they are to be met, as soon as one does."""
    folder = Path(os.environ["PIDS"])
    wait_until(lambda: any(folder.iterdir()) or session.poll() is not None, seconds=30)
    assert session.poll() is None, "the session ended before it came to the stage"
    return [int(path.name) for path in folder.iterdir()]
