"""The whole way of a number: recorded, judged, confirmed by replicas, and reported."""

from __future__ import annotations

import json
import re
import subprocess
import sys

import pytest
from gateproject import Project
from latencies import INI


@pytest.mark.parametrize(
    ("latencies", "processes", "lines"),
    [
        pytest.param("1.001", 1, [], id="a screen that passes needs no replica"),
        pytest.param("1.3 1.0 1.0 1.001 0.999", 5, [], id="a slow screen alone is no regression"),
        pytest.param(
            "1.3 1.3 1.3 1.3 1.0", 5, ["inconclusive *"], id="one fast replica clears a bimodal test"
        ),
        pytest.param(
            "1.1",
            5,
            ["inconclusive *test_latency *+9.9? %", " *somewhere from -*% to +*%, which fails under strict"],
            id="a loss that is not confirmed says between what it lies",
        ),
        pytest.param(
            "0.7",
            1,
            ["improved *-30.03 %*", "*a later loss of*", "*--gpuperf-update"],
            id="an improvement says what it hides",
        ),
    ],
)
def test_what_is_no_regression(project: Project, latencies: str, processes: int, lines: list[str]):
    project.record()
    result = project.run("--gpuperf-strict=off", latencies=latencies)
    assert result.ret == 0
    assert project.processes == processes
    result.stdout.fnmatch_lines(lines)


def test_a_real_regression_fails_its_test(project: Project):
    project.record()
    result = project.run("--junitxml=out.xml", latencies="1.3 1.301 1.299 1.3 1.3")
    assert result.ret == 1
    assert project.processes == 5
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(
        [
            "regressed: latency +29.95 % (+*% to +*%), tolerance 5 %",
            "*baseline*1.000 s*5 runs*",
            "*now*1.300 s*",
            "*again*pytest test_suite.py::test_latency --gpuperf",
            "regressed *test_latency *1.300 s*+29.95 %*",
            "1 regressed",
        ]
    )
    result.stdout.no_fnmatch_line("exit code *")  # 1 is what pytest says of a failed test by itself
    junit = (project.path / "out.xml").read_text()
    assert 'failures="1"' in junit
    found = dict(re.findall(r'name="gpuperf\.latency\.(\w+)" value="([^"]*)"', junit))
    assert (found["verdict"], found["unit"]) == ("regressed", "s")
    assert float(found["value"]) == pytest.approx(1.3)
    assert float(found["change_low"]) < float(found["change"]) < float(found["change_high"])
    assert float(found["value"]) / float(found["baseline"]) - 1 == pytest.approx(float(found["change"]))
    assert float(found["tolerance"]) == 0.05


def test_a_replica_that_fails_is_never_a_pass(project: Project):
    project.record()
    result = project.run(latencies="1.3 1.3 nonsense")
    assert result.ret == 1
    result.stdout.fnmatch_lines(["*unmeasured: latency*", "*measured it again failed*could not convert*"])


def test_without_the_flag_nothing_is_timed_judged_or_written(project: Project):
    project.tell("1.0")
    result = project.pytester.runpytest_subprocess()
    assert result.ret == 0
    assert "gpuperf:" not in result.stdout.str()
    assert not list((project.path / "baselines").rglob("*"))


def test_a_test_that_no_longer_records_is_unmeasured(project: Project):
    project.record()
    (project.path / "test_suite.py").write_text(
        "def test_latency(): pass\n\ndef test_other(gpuperf): gpuperf.record('x', 1.0, kind='exact')\n"
    )
    assert project.run("--gpuperf-strict=off").ret == 0
    result = project.run("--gpuperf-strict=on")
    assert result.ret == 1
    result.stdout.fnmatch_lines(["unmeasured *test_latency*"])


@pytest.mark.parametrize(
    "suite",
    [
        "def test_renamed(gpuperf): gpuperf.record('latency', 1.0, 's')",
        "import pytest\n@pytest.mark.skip(reason='why not')\ndef test_latency(gpuperf): pass\n"
        "def test_other(gpuperf): gpuperf.record('x', 1.0, 's')",
    ],
)
def test_a_test_that_vanished_is_missing(project: Project, suite: str):
    project.record()
    (project.path / "test_suite.py").write_text(suite)
    result = project.run("--gpuperf-strict=on")
    assert result.ret == 1
    result.stdout.fnmatch_lines(["missing *test_latency*"])


@pytest.mark.parametrize("named", ["../suites", "../ci/../suites", "."])
def test_a_deleted_test_is_missing_however_its_folder_is_named(pytester: pytest.Pytester, named):
    (pytester.path / "baselines").mkdir()
    (pytester.path / "ci").mkdir()
    (pytester.path / "suites").mkdir()
    pytester.makeini("[pytest]\n")
    suite = pytester.path / "suites" / "test_a.py"
    both = [f"def test_{name}(gpuperf): gpuperf.record('x', 1.0, kind='exact')\n" for name in "ab"]
    suite.write_text("".join(both))
    assert pytester.runpytest_subprocess("--gpuperf", "--gpuperf-update").ret == 0
    suite.write_text(both[0])
    command = (sys.executable, "-m", "pytest", named, "--gpuperf", "--gpuperf-strict=on")
    folder = pytester.path / ("suites" if named == "." else "ci")
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    assert done.returncode == 1, done.stdout
    assert "test_b: x missing" in done.stdout


def test_a_part_of_the_suite_misses_nothing(project: Project):
    project.record()
    with (project.path / "test_suite.py").open("a") as file:
        file.write("\ndef test_more(gpuperf): gpuperf.record('y', 1.0, kind='exact')\n")
    project.run("--gpuperf-update=new")
    assert project.run("--gpuperf-strict=on", "-k", "more").ret == 0
    assert project.run("--gpuperf-strict=on", "test_suite.py::test_more").ret == 0


def test_a_changed_contract_is_named(project: Project):
    project.record()
    suite = project.path / "test_suite.py"
    suite.write_text(
        suite.read_text().replace("def test_latency", "@pytest.mark.gpuperf(version=2)\ndef test_latency")
    )
    assert project.run("--gpuperf-strict=off", latencies="2.0").ret == 0
    result = project.run("--gpuperf-strict=on", latencies="2.0")
    assert result.ret == 1
    result.stdout.fnmatch_lines(["contract changed: latency*", "*version not set -> 2*"])


@pytest.mark.parametrize("version", [0, "", 7])
def test_a_version_is_part_of_every_contract(pytester: pytest.Pytester, version: int | str):
    """Also one that is not true as Python has it."""
    pytester.makeini(INI)
    (pytester.path / "baselines").mkdir()
    pytester.makepyfile(
        f"""
        import pytest
        pytestmark = pytest.mark.gpuperf(version={version!r})
        def test_record(gpuperf): gpuperf.record("x", 1.0, kind="exact")
        def test_counters(gpu, kernels, counters):
            data = gpu.random((32,), seed=1)
            counters(kernels["double.cu"].double_it[1, 32], data, 32)
        """
    )
    (pytester.path / "kernels").mkdir()
    (pytester.path / "kernels" / "double.cu").write_text(
        'extern "C" __global__ void double_it(float *x, int n) { if (threadIdx.x < n) x[threadIdx.x] *= 2; }'
    )
    result = pytester.runpytest_subprocess("--gpuperf", "--gpuperf-update", "--gpuperf-backend=emulated")
    assert result.ret == 0, result.stdout.str()
    contracts = [
        shared["contract"]["version"]
        for file in (pytester.path / "baselines").rglob("*.json")
        for shared in json.loads(file.read_text())["tests"].values()
    ]
    assert len(contracts) >= 2
    assert set(contracts) == {version}


def test_a_record_from_before_stored_zero_versions_is_judged(project: Project):
    project.record()
    suite = project.path / "test_suite.py"
    suite.write_text(
        suite.read_text().replace("def test_latency", "@pytest.mark.gpuperf(version=0)\ndef test_latency")
    )
    assert project.run("--gpuperf-strict=on").ret == 0
    assert project.run("--gpuperf-update").ret == 0
    (shared,) = project.stored["tests"].values()
    assert shared["contract"] == {"version": 0}


def test_tolerance_comes_from_the_marker(project: Project):
    project.record()
    suite = project.path / "test_suite.py"
    suite.write_text(
        suite.read_text().replace("def test_latency", "@pytest.mark.gpuperf(tolerance=0.5)\ndef test_latency")
    )
    result = project.run(latencies="1.3")
    assert result.ret == 0
    result.stdout.fnmatch_lines(["equal *test_latency *+29.95 %", "1 equal"])


def test_a_damaged_baseline_is_one_sentence_and_stays(project: Project):
    project.record()
    (file,) = (project.path / "baselines").rglob("*.json")
    file.write_text(file.read_text()[:-20])
    damaged = file.read_bytes()
    result = project.run()
    assert result.ret == 1
    assert file.name in result.stdout.str()
    assert "Traceback" not in result.stdout.str()
    assert file.read_bytes() == damaged


def test_under_xdist_rows_are_summarised_and_nothing_recorded(project: Project):
    project.record()
    result = project.run("-p", "xdist", "-n2", latencies="1.3")
    assert result.ret == 1
    result.stdout.fnmatch_lines(["regressed *test_latency*"])
    assert project.run("-p", "xdist", "-n2", "--gpuperf-update").ret == pytest.ExitCode.USAGE_ERROR


def test_a_function_of_less_than_a_microsecond_is_judged(pytester: pytest.Pytester, monkeypatch):
    """pytest-benchmark divides a round by its iterations, and the floor is of the round."""
    pytest.importorskip("pytest_benchmark")
    for name in ("PYTEST_XDIST_WORKER", "PYTEST_XDIST_WORKER_COUNT"):
        monkeypatch.delenv(name, raising=False)  # in a worker pytest-benchmark measures nothing
    pytester.makeini("[pytest]\ngpuperf_judge_host_times = true\n")
    pytester.mkdir("baselines")
    pytester.makepyfile(
        test_it="""
        from function import work

        def test_f(benchmark):
            benchmark.pedantic(work, iterations=20_000, rounds=5, warmup_rounds=1)
        """,
        function="def work(): return sum(range(20))",
    )
    flags = ("-p", "pytest_benchmark.plugin", "--gpuperf")
    assert pytester.runpytest_subprocess(*flags, "--gpuperf-update", "--gpuperf-runs=3").ret == 0
    pytester.makepyfile(function="def work(): return sum(range(200))")
    result = pytester.runpytest_subprocess(*flags, "--gpuperf-strict=on")
    assert result.ret == 1
    result.stdout.fnmatch_lines(["regressed: benchmark *"])
