"""Reports of whole sessions: all of them from one run, by xdist too, and what is refused before it."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from once import run_once

import pytest_gpuperf
from pytest_gpuperf.report.results import load

SUITE = """
    import os, pytest

    @pytest.mark.parametrize("size", [1, 2])
    def test_bytes(gpuperf, size):
        gpuperf.record("bytes", size * int(os.environ.get("TIMES", 1)), "B", kind="exact")

    def test_time(gpuperf):
        gpuperf.record("t", [1.0 + i / 1e4 for i in range(300)], "s")

    @pytest.mark.gpuperf(isolated=True)
    def test_alone(gpuperf):
        gpuperf.record("n", 1, "1", kind="exact")

    def test_skipped():
        pytest.skip("not today")

    def test_wrong():
        assert os.environ.get("TIMES", "1") == "1", "its own reason"
"""
REPORTS = (
    "--gpuperf-json=out/r.json",
    "--gpuperf-html=p.html",
    "--gpuperf-benchmark-json=b.json",
    "--gpuperf-history=h",
)


@pytest.fixture
def recorded(pytester: pytest.Pytester) -> pytest.Pytester:
    pytester.makepyfile(test_s=SUITE)
    pytester.mkdir("baselines")
    pytester.makeini(f"[pytest]\naddopts = {' '.join(REPORTS)}")
    done = run_once(pytester, "--gpuperf", "--gpuperf-update")
    assert done.ret == 0
    assert not list(pytester.path.glob("*.html"))  # nothing was judged, and so nothing is reported
    return pytester


def test_a_run_writes_all_reports(recorded: pytest.Pytester, monkeypatch):
    assert recorded.runpytest_subprocess("--gpuperf").ret == 0
    monkeypatch.setenv("TIMES", "2")
    done = recorded.runpytest_subprocess("--gpuperf", "-p", "xdist", "-n1")
    assert done.ret == 1
    done.stdout.fnmatch_lines(["  since     now; 1 B on 20*"])
    document = load(recorded.path / "out" / "r.json")
    assert document.exit_code == 1
    tests = {test.name: test for test in document.tests}
    assert (tests["test_skipped"].outcome, tests["test_skipped"].reason) == ("skipped", "not today")
    assert "its own reason" in tests["test_wrong"].reason
    (red,) = tests["test_bytes[2]"].metrics
    assert (red.outcome, red.cause, red.value, red.baseline) == ("regressed", "wrong", 4.0, 2.0)
    assert [run.value for run in red.stored] == [2.0]
    (shown,) = tests["test_time"].metrics
    assert (shown.samples.count, len(shown.samples.kept)) == (300, 101)
    assert tests["test_alone"].metrics[0].outcome == "equal"
    assert [machine.pool for machine in document.machines] == ["cpu"]
    page = (recorded.path / "p.html").read_text()
    assert "test_bytes[2]" in page
    assert 0 < page.find("its own reason") < page.find("Verdicts</h2>")
    times = json.loads((recorded.path / "b.json").read_text())["benchmarks"]
    assert [each["name"] for each in times] == ["test_time t"]
    assert len(list((recorded.path / "h").glob("*.jsonl"))) == 2
    _check_schema(recorded.path / "out" / "r.json")


def _check_schema(path: Path) -> None:
    jsonschema = pytest.importorskip("jsonschema")
    shipped = Path(pytest_gpuperf.__file__).parent / "report" / "results.schema.json"
    schema = json.loads(shipped.read_text())
    jsonschema.validate(json.loads(path.read_text()), schema)


def test_an_unreadable_baseline_file_stops_no_report(recorded: pytest.Pytester):
    """The session ended in a traceback, without the reports and without its own summary."""
    path = recorded.path / "baselines" / "cpu" / "test_s.json"
    path.write_text(path.read_text()[:99])
    result = recorded.runpytest_subprocess("--gpuperf", "--gpuperf-markdown=m.md", "--junitxml=j.xml")
    assert result.ret == 1
    result.stdout.fnmatch_lines(["*test_s.json: line * is not JSON*"])
    document = load(recorded.path / "out" / "r.json")
    assert "test_bytes[1]" in {test.name for test in document.tests}
    assert all((recorded.path / name).exists() for name in ("p.html", "b.json", "m.md", "j.xml"))


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        (["--gpuperf", "--gpuperf-json=file/r.json"], "*cannot be written (*file is no folder)*"),
        (["--gpuperf", "--gpuperf-markdown=file/r.md"], "*cannot be written (*file is no folder)*"),
        (["--gpuperf", "--gpuperf-html=."], "--gpuperf-html=.: cannot be written (it is no regular file)*"),
        (["--gpuperf", "--gpuperf-html=r", "--gpuperf-json=./r"], "*name one file: give each its own"),
        (["--gpuperf", "--gpuperf-history=file"], "*file is a file: name a folder*"),
        (["--gpuperf", "--gpuperf-json", "test_suite.py"], "*(it is there, and is no such report)*"),
        (["--gpuperf", "--gpuperf-html=test_suite.py"], "*(it is there, and is no such report)*"),
        (["--gpuperf", "--gpuperf-markdown=test_suite.py"], "*(it is there, and is no such report)*"),
        (["--gpuperf-json=r.json"], "--gpuperf-json is about *it needs --gpuperf beside it"),
        (["--gpuperf", "--gpuperf-update", "--gpuperf-html=r"], "*--gpuperf-update records: leave*"),
    ],
)  # fmt: skip
def test_a_report_that_cannot_be_is_refused_before_the_run(pytester: pytest.Pytester, flags, says):
    suite = pytester.makepyfile(test_suite="def test_a(): pass")
    pytester.makefile("", file="")
    done = pytester.runpytest_inprocess(*flags)
    assert done.ret == pytest.ExitCode.USAGE_ERROR
    assert suite.read_text() == "def test_a(): pass"
    done.stderr.fnmatch_lines([f"ERROR: {says}"])


@pytest.mark.parametrize("flag", ["--gpuperf-json=r", "--gpuperf-history=h", "--gpuperf-trace=t.json"])
def test_a_read_only_checkout_is_said_before_the_run(pytester: pytest.Pytester, monkeypatch, flag: str):
    monkeypatch.setattr("os.access", lambda path, mode: not mode & os.W_OK)
    pytester.makepyfile("def test_a(): pass")
    done = pytester.runpytest_inprocess("--gpuperf-backend=emulated", "--gpuperf", flag)
    assert done.ret == pytest.ExitCode.USAGE_ERROR
    done.stderr.fnmatch_lines(
        [f"ERROR: {flag.partition('=')[0]}=*: cannot be written (* may not be written)*"]
    )
