"""Tolerances of the command line, the marker and the ini file, and which of them counts."""

from __future__ import annotations

import argparse
import shutil

import pytest
from once import run_once

from pytest_gpuperf.measurement import Metric
from pytest_gpuperf.rules.tolerances import Tolerance, Tolerances, matches, parse

COPY = Metric("copy 8192", "s", "lower", "noisy", "device_time")
P50 = Metric("Offline p50", "s", "lower", "noisy", "loadgen")
H100 = "NVIDIA H100 80GB HBM3"

INI = """
[pytest]
gpuperf_judge_host_times = true
gpuperf_tolerances =
    late* = 50 %
    record = {record}
"""
SUITE = """
    import pathlib
    import pytest

    {marker}
    def test_latency(gpuperf):
        folder = pathlib.Path(__file__).parent
        gpuperf.record("latency", float((folder / "latency.txt").read_text()), "s", kind="exact")
"""


@pytest.mark.parametrize(
    ("line", "parsed"),
    [
        ("device_time = 1 %", Tolerance("*", "device_time", 0.01)),
        ("loadgen=0.04", Tolerance("*", "loadgen", 0.04)),
        ("nvidia-h100-80gb-hbm3: device_time = 3%", Tolerance("nvidia-h100-80gb-hbm3", "device_time", 0.03)),
        ("*: a:b = .5 %", Tolerance("*", "a:b", 0.005)),
        ("a=b = 0", Tolerance("*", "a=b", 0.0)),
    ],
)
def test_a_line_states_pool_metric_and_value(line: str, parsed: Tolerance):
    assert parse(line) == parsed


@pytest.mark.parametrize(
    "line",
    ["3 %", "device_time", "= 3 %", ": x = 3 %", "x: = 3 %", "x = 100 %", "x = 1", "x = -1 %"],
)
def test_a_line_that_states_none_is_one_sentence(line: str):
    with pytest.raises(argparse.ArgumentTypeError, match="is not a"):
        parse(line)


@pytest.mark.parametrize(
    ("command", "marker", "ini", "chosen"),
    [
        (["* = 1 %"], 0.02, ["* = 3 %"], 0.01),
        (["other = 1 %"], 0.02, ["* = 3 %"], 0.02),
        (["other = 1 %"], 0.0, ["* = 3 %"], 0.0),
        ([], None, ["* = 3 %"], 0.03),
        ([], None, ["* = 3 %", "copy* = 4 %"], 0.04),
        ([], None, ["copy* = 4 %", "device_time = 5 %"], 0.05),
        ([], None, ["nvidia-h100-*: device_time = 6 %"], 0.06),
        ([], None, ["NVIDIA H100*: device_time = 7 %"], 0.07),
        ([], None, ["nvidia-a100-*: device_time = 8 %"], None),
        ([], None, ["loadgen = 9 %"], None),
        ([], None, [], None),
    ],
)
def test_the_command_line_wins_over_marker_and_ini(command, marker, ini, chosen):
    lines = [[parse(line) for line in source] for source in (command, ini)]
    assert Tolerances(lines[0], marker, lines[1]).stated(COPY, H100) == chosen


def test_an_instruments_line_leaves_other_instruments_alone():
    assert Tolerances(ini=[parse("device_time = 1 %"), parse("loadgen = 4 %")]).of(P50, H100) == 0.04


@pytest.mark.parametrize(
    ("pattern", "name", "found"),
    [
        ("test_a[x-1]", "test_a[x-1]", True),
        ("test_a[xy]", "test_ax", False),
        ("test_*::a?", "test_x::ab", True),
        ("test_a", "test_ab", False),
        ("a.b", "axb", False),
    ],
)
def test_a_pattern_has_two_wildcards_and_literal_brackets(pattern: str, name: str, found: bool):
    assert matches(pattern, name) is found


@pytest.fixture
def project(pytester: pytest.Pytester) -> pytest.Pytester:
    """One exact metric with a baseline of 1.00, now 1.20; an exact one needs no replica."""
    (pytester.path / "baselines").mkdir()
    pytester.makeini(INI.format(record="10 %"))
    pytester.makepyfile(test_suite=SUITE.format(marker=""))
    (pytester.path / "latency.txt").write_text("1.0")
    assert run_once(pytester, "--gpuperf", "--gpuperf-update").ret == 0
    (pytester.path / "latency.txt").write_text("1.2")
    return pytester


def test_the_ini_files_tolerance_is_judged_by(project: pytest.Pytester):
    result = project.runpytest_subprocess("--gpuperf")
    assert result.ret == 1
    result.stdout.fnmatch_lines(["regressed: latency +20.00 %, tolerance 10 %"])
    project.makeini(INI.format(record="25 %"))
    assert project.runpytest_subprocess("--gpuperf").ret == 0


def test_a_marker_wins_over_the_ini_and_flags_over_both(project: pytest.Pytester):
    project.makepyfile(test_suite=SUITE.format(marker="@pytest.mark.gpuperf(tolerance=0.3)"))
    assert project.runpytest_subprocess("--gpuperf").ret == 0
    assert project.runpytest_subprocess("--gpuperf", "--gpuperf-tolerance=latency = 15 %").ret == 1
    both = ("--gpuperf-tolerance=* = 15 %", "--gpuperf-tolerance=lat* = 25 %")
    assert project.runpytest_subprocess("--gpuperf", *both).ret == 0


def test_a_wrong_line_is_a_usage_error_that_names_it(project: pytest.Pytester):
    project.makeini(INI.format(record="ten"))
    result = project.runpytest_subprocess("--gpuperf")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["*tox.ini: gpuperf_tolerances: 'record = ten': 'ten' is not a tolerance*"])
    project.makeini("")
    result = project.runpytest_subprocess("--gpuperf", "--gpuperf-tolerance=3%")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["*'3%' is not a valid tolerance; write \"METRIC = 3 %\"*"])


def test_an_append_drops_the_oldest_runs_and_says_so(pytester: pytest.Pytester):
    import json

    (pytester.path / "baselines").mkdir()
    pytester.makeini("[pytest]\ngpuperf_judge_host_times = true\ngpuperf_max_runs = 6\n")
    pytester.makepyfile(test_suite=SUITE.format(marker="").replace('"exact"', '"noisy"'))

    def update(value: str, *flags: str) -> tuple[pytest.RunResult, list[float]]:
        (pytester.path / "latency.txt").write_text(value)
        result = pytester.runpytest_subprocess("--gpuperf", *flags)
        (file,) = (pytester.path / "baselines").rglob("*.json")
        return result, [
            run["samples"][0]
            for run in json.loads(file.read_text())["entries"]["test_latency"]["latency"]["runs"]
        ]

    result, kept = update("1.0", "--gpuperf-update", "--gpuperf-runs=4")
    assert kept == [1.0] * 4
    result, kept = update("1.1", "--gpuperf-update=append", "--gpuperf-runs=2")
    assert kept == [1.0] * 4 + [1.1] * 2
    assert "Dropped" not in result.stdout.str()
    result, kept = update("1.2", "--gpuperf-update=append", "--gpuperf-runs=3")
    assert kept == [1.0] + [1.1] * 2 + [1.2] * 3
    result.stdout.fnmatch_lines(["Dropped the oldest runs of 1 metric there*keeps 6*gpuperf_max_runs*"])
    result, kept = update("1.3", "--gpuperf-update=append", "--gpuperf-runs=7")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["*--gpuperf-runs=7 is more than the 6 runs*gpuperf_max_runs*"])
    assert len(kept) == 6


def test_an_exact_number_has_no_tolerance_unless_one_is_stated(project: pytest.Pytester):
    project.makeini("")
    (project.path / "latency.txt").write_text("1.001")
    result = project.runpytest_subprocess("--gpuperf")
    assert result.ret == 1
    result.stdout.fnmatch_lines(["regressed: latency +0.10 %, tolerance 0 %"])


def test_a_line_that_covers_nothing_is_named_after_a_full_run(project: pytest.Pytester):
    result = project.runpytest_subprocess("--gpuperf")
    result.stdout.no_fnmatch_line("*covers no metric*")
    lines = "latncy = 5 %\n    elsewhere: latency = 5 %\n    cpu: latency = 25 %\n"
    project.makeini(f"[pytest]\ngpuperf_tolerances =\n    {lines}")
    result = project.runpytest_subprocess("--gpuperf")
    assert result.ret == 0
    result.stdout.fnmatch_lines(
        [
            "gpuperf_tolerances: latncy = 5 % covers no metric, neither of this run nor stored: take it out",
            "gpuperf_tolerances: elsewhere: latency = 5 % covers no metric, *",
        ]
    )
    result.stdout.no_fnmatch_line("*25 %*")
    result = project.runpytest_subprocess("--gpuperf", "-k", "latency")
    result.stdout.no_fnmatch_line("*covers no metric*")


def test_a_line_for_another_machine_or_skip_is_not_named(project: pytest.Pytester):
    shutil.copytree(project.path / "baselines" / "cpu", project.path / "baselines" / "nvidia-h100")
    (file,) = (project.path / "baselines" / "nvidia-h100").iterdir()
    file.write_text(file.read_text().replace('"cpu"', '"NVIDIA H100"'))
    project.makeini("[pytest]\ngpuperf_tolerances =\n    NVIDIA H100: record = 5 %\n")
    result = project.runpytest_subprocess("--gpuperf")
    result.stdout.no_fnmatch_line("*covers no metric*")
    project.makeini("[pytest]\ngpuperf_tolerances =\n    loadgen = 5 %\n")
    project.makepyfile(test_other="import pytest\ndef test_skipped(): pytest.skip('no LoadGen')")
    result = project.runpytest_subprocess("--gpuperf")
    result.stdout.no_fnmatch_line("*covers no metric*")


@pytest.mark.parametrize("workers", [[], ["-p", "xdist", "-n1"]])
def test_a_line_of_the_command_that_covers_nothing_is_named(project: pytest.Pytester, workers: list[str]):
    flags = ("--gpuperf-tolerance=latncy = 5 %", "--gpuperf-tolerance=latency = 30 %")
    result = project.runpytest_subprocess("--gpuperf", "-k", "latency", *flags, *workers)
    assert result.ret == 0
    result.stdout.fnmatch_lines(['--gpuperf-tolerance="latncy = 5 %" covers no metric of this run'])
    result.stdout.no_fnmatch_line("*30 %*")


@pytest.mark.parametrize("line", ["a = 3 %", "gpu: a:b = 0.5 %", "*: a:b = 7 %", "a = 12.345 %"])
def test_a_line_is_written_as_it_is_read(line: str):
    assert str(parse(line)) == line
