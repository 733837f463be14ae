"""--gpuperf-calibrate from fresh processes to the header of a later run, and what it refuses."""

from __future__ import annotations

import json
import re

import msgspec
import pytest
from latencies import HostProject

from pytest_gpuperf.rules.calibration import Calibration
from pytest_gpuperf.storage.calibrations import read_result, read_runs

QUICK = "--gpuperf-runs=3"


@pytest.fixture
def project(pytester: pytest.Pytester) -> HostProject:
    made = HostProject(pytester)
    made.tell("9.0 1.00 1.01 0.99 1.0 1.02 0.98 1.0 1.01 1.0")
    return made


def test_from_fresh_runs_to_the_header_and_back_from_the_file(project: HostProject):
    result = project.judge("--gpuperf-calibrate=8", QUICK)
    assert result.ret == 0, result.stdout.str()
    assert project.processes == 9
    result.stdout.fnmatch_lines(
        [
            "gpuperf: each run is written to .gpuperf/runs-*.jsonl as it ends",
            "gpuperf: recording run 8 of 8, 1 test",
            "calibration: cpu, 8 runs of identical code",
            "red runs   0 of 8, at most 31.2 % (95% confidence)",
            "test_latency *5%*0/8*",
            "Stored in baselines/cpu.calibration.json",
        ]
    )
    (file,) = (project.path / ".gpuperf").glob("*.jsonl")
    assert re.fullmatch(r"runs-\d{8}T\d{6}-\d+", file.stem)  # another session's of the same second is another
    values = [run["test_suite.py::test_latency"].record.measurements[0].value for run in read_runs(file)]
    assert values == [1.0, 1.01, 0.99, 1.0, 1.02, 0.98, 1.0, 1.01]  # not the session's own 9.0
    assert (project.path / ".gpuperf" / ".gitignore").read_text() == "*\n"

    stored = project.path / "baselines" / "cpu.calibration.json"
    first = read_result(stored)
    stored.unlink()
    again = project.pytester.runpytest_subprocess(f"--gpuperf-calibrate=.gpuperf/{file.name}", QUICK)
    assert again.ret == 0
    again.stdout.fnmatch_lines(["calibration: cpu, 8 runs of identical code"])
    assert project.processes == 9  # nothing was measured
    assert read_result(stored) == first

    armed = project.judge()
    armed.stdout.fnmatch_lines(
        ["gpuperf: cpu: 0 false failures expected a run", "  (0 of 8 runs red, at most 31.2 %; 1 test, *)"]
    )
    # A GPU's, such as a repository has beside others', says nothing of a machine without one.
    stored.write_text(json.dumps({**json.loads(stored.read_text()), "devices": ["GPU-1"]}))
    elsewhere = project.judge("--gpuperf-backend=emulated")
    elsewhere.stdout.no_fnmatch_line("gpuperf: cpu: * expected a run")
    stored.write_text("{")
    broken = project.judge()
    assert broken.ret == armed.ret
    broken.stdout.fnmatch_lines(["gpuperf: *cpu.calibration.json: *not JSON*calibrate again with *"])


def test_runs_that_failed_in_part_are_said_and_the_rest_is_kept(project: HostProject):
    (project.path / "latency.txt").write_text("1.0 1.0 1.0 nonsense 1.0 1.0 1.0 1.0 1.0 1.0 1.0")
    result = project.judge("--gpuperf-calibrate=9", QUICK)
    assert result.ret == 1
    result.stdout.fnmatch_lines(["*failed in run 3: *test_latency*"])
    found = json.loads((project.path / "baselines" / "cpu.calibration.json").read_text())
    assert msgspec.convert(found, Calibration).tests["test_suite.py::test_latency"].reds.runs.trials == 8


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--gpuperf", "--gpuperf-calibrate=9"], "*one trial takes 10 runs (5 of a baseline, a screen*"),
        (["--gpuperf-calibrate=20"], "*needs --gpuperf beside it*"),
        (["--gpuperf", "--gpuperf-calibrate=20", "--gpuperf-update"], "*record different things; give one*"),
        (
            ["-p", "xdist", "--gpuperf", "--gpuperf-calibrate=20", "-n2"],
            "*--gpuperf-calibrate records*leave out -n*",
        ),
        (["--gpuperf-calibrate=nowhere.jsonl"], "*nowhere.jsonl: cannot be read (No such file*"),
        (["--gpuperf-calibrate=latency.txt"], "*latency.txt: run on line 1: *"),
        (["--gpuperf-calibrate=empty.jsonl"], "*no test was measured in 10 runs or more*"),
    ],
)
def test_what_cannot_be_calibrated_is_a_usage_error(project: HostProject, flags, words):
    (project.path / "empty.jsonl").write_text("")
    result = project.pytester.runpytest_subprocess(*flags)
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    output = result.stdout.str() + result.stderr.str()
    assert "Traceback" not in output
    pytest.LineMatcher(output.splitlines()).fnmatch_lines([words])
