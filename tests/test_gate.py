"""The whole way of a number: recorded, judged, confirmed by replicas, reported, and the exit code."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Sequence

import pytest
from latencies import INI, HostProject
from once import run_once

WITHIN_NOISE = "1.000 1.000 1.002 0.999 1.001 1.000"  # the session's own process, then five runs


class Project(HostProject):
    def run(self, *flags: str, latencies: str = "1.0") -> pytest.RunResult:
        self.tell(latencies)
        return self.judge(*flags)

    def record(self, latencies: str = WITHIN_NOISE) -> pytest.RunResult:
        self.tell(latencies)
        result = run_once(self.pytester, "--gpuperf", "--gpuperf-update")
        assert result.ret == 0, result.stdout.str()
        return result


def test_update_records_five_runs_and_not_the_first_process(project: Project):
    project.record("9.0 1.000 1.000 1.002 0.999 1.001")
    (metrics,) = project.stored["entries"].values()
    samples = [run["samples"] for run in metrics["latency"]["runs"]]
    assert samples == [[1.0], [1.0], [1.002], [0.999], [1.001]]


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


def test_no_baseline_is_green_and_says_how_to_arm_the_gate(project: Project):
    result = project.run("--gpuperf-strict=off")
    assert result.ret == 0
    result.stdout.fnmatch_lines(["no baseline *", "*To arm the gate:*", "*--gpuperf-update"])


def test_no_baseline_under_strict_is_a_matter_of_set_up(project: Project):
    result = project.run("--gpuperf-strict=on")
    assert result.ret == 22
    result.assert_outcomes(failed=1)
    # an exit code of our own is the summary's last line
    at = next(number for number, line in enumerate(result.outlines) if line.startswith("exit code 22: "))
    assert result.outlines[at + 1].startswith("===")


def test_a_session_ended_with_0_says_that_a_test_failed(project: Project):
    project.record()
    ends = "def test_zero(): assert False\ndef test_last():\n    import pytest\n    pytest.exit('bye', 0)\n"
    (project.path / "test_suite.py").write_text(ends)
    result = project.run()
    assert result.ret == 1
    result.stdout.fnmatch_lines(["exit code 1: a test failed, whatever the session was ended with"])


def test_strict_is_on_in_ci(project: Project, monkeypatch):
    monkeypatch.setenv("CI", "true")
    assert project.run().ret == 22
    assert project.run("--gpuperf-strict=off").ret == 0


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


@pytest.fixture
def renamed(project: Project) -> Project:
    """A project whose one test has baselines, and is now gone for another."""
    project.record()
    (project.path / "test_suite.py").write_text("def test_other(gpuperf): gpuperf.record('x', 1.0, 's')")
    return project


def test_an_update_keeps_what_it_did_not_see(renamed: Project):
    result = renamed.run("--gpuperf-update")
    assert result.ret == 0
    assert list(renamed.stored["entries"]) == ["test_latency", "test_other"]
    result.stdout.fnmatch_lines(
        ["Kept the baselines of test_suite.py::test_latency: not in this run.", "*--gpuperf-update=prune"]
    )


@pytest.mark.parametrize(
    ("write", "flags"),
    [
        ("", ["--ignore=test_suite.py"]),
        ("import pytest\npytest.importorskip('no_such_module')\n", []),
        ("import no_such_module\n", ["--continue-on-collection-errors"]),
    ],
    ids=["ignored", "skipped module", "collection error"],
)
def test_a_file_that_was_not_collected_loses_nothing(project: Project, write: str, flags: list[str]):
    project.record()
    suite = project.path / "test_suite.py"
    suite.write_text(write + suite.read_text())
    (project.path / "test_other.py").write_text(
        "def test_other(gpuperf): gpuperf.record('x', 1.0, kind='exact')"
    )
    project.run("--gpuperf-update", *flags)
    files = (project.path / "baselines").rglob("*.json")
    assert {name for file in files for name in json.loads(file.read_text())["entries"]} == {
        "test_latency",
        "test_other",
    }


def test_a_full_update_that_prunes_drops_what_is_gone(renamed: Project):
    result = renamed.run("--gpuperf-update=prune")
    assert result.ret == 0
    assert list(renamed.stored["entries"]) == ["test_other"]
    result.stdout.fnmatch_lines(["Dropped the baseline of test_suite.py::test_latency*"])


EXACT = "def test_count(gpuperf): gpuperf.record('sectors', {}, kind='exact')\n"


@pytest.fixture
def exact(pytester: pytest.Pytester) -> pytest.Pytester:
    """An exact metric whose baseline is 4."""
    (pytester.path / "baselines").mkdir()
    pytester.makeini("[pytest]\n")
    pytester.makepyfile(test_exact=EXACT.format("4.0"))
    assert run_once(pytester, "--gpuperf", "--gpuperf-update").ret == 0
    return pytester


def test_an_append_of_another_exact_value_is_refused(exact: pytest.Pytester):
    (file,) = (exact.path / "baselines").rglob("*.json")
    before = file.read_bytes()
    exact.makepyfile(test_exact=EXACT.format("8.0"))
    result = exact.runpytest_subprocess("--gpuperf", "--gpuperf-update=append")
    assert result.ret == 1
    result.stdout.fnmatch_lines(["not recorded: *sectors: it is exact, *8 cannot be appended to 4: replace*"])
    result.stdout.fnmatch_lines(["exit code 1: no test failed, but the run as a whole did, as said above"])
    assert file.read_bytes() == before
    exact.makepyfile(test_exact=EXACT.format("4.0"))
    assert exact.runpytest_subprocess("--gpuperf", "--gpuperf-update=append").ret == 0


@pytest.mark.parametrize("isolated", [False, True])
def test_a_mark_made_for_something_else_hides_no_verdict(exact: pytest.Pytester, isolated: bool):
    marks = "@pytest.mark.xfail(reason='rounding')\n"
    marks += "@pytest.mark.gpuperf(isolated=True)\n" if isolated else ""
    exact.makepyfile(test_exact="import pytest\n" + marks + EXACT.format("8.0"))
    result = exact.runpytest_subprocess("--gpuperf")
    assert result.ret == 1
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["regressed: sectors*"])
    exact.makepyfile(test_exact="import pytest\n" + marks + EXACT.format("1 / 0"))
    exact.runpytest_subprocess("--gpuperf", "--gpuperf-strict=off").assert_outcomes(xfailed=1)


def test_what_a_teardown_measures_is_refused(exact: pytest.Pytester):
    exact.makepyfile(
        test_exact="import pytest\n@pytest.fixture\ndef late(gpuperf):\n    yield\n"
        "    gpuperf.record('z', 5, max=1, kind='exact')\ndef test_count(late): pass\n"
        "KEPT = []\ndef test_keeps(gpuperf): KEPT.append(gpuperf)\n"
        "def test_of_another(): KEPT[0].record('y', 5, max=1, kind='exact')\n"
    )
    result = exact.runpytest_subprocess("--gpuperf", "--gpuperf-strict=off")
    assert result.ret == 1
    says = "was measured in the teardown of the test*, or in another test: measure it in the test that asks*"
    result.stdout.fnmatch_lines([f'*"z" {says}', f'*"y" {says}'])


def test_a_file_that_cannot_be_collected_is_no_matter_of_set_up(exact: pytest.Pytester):
    exact.makepyfile(test_broken="import no_such_module\n", test_new=EXACT.format("1.0"))
    result = exact.runpytest_subprocess("--gpuperf", "--gpuperf-strict=on", "--continue-on-collection-errors")
    assert result.ret == 1


def test_another_plugins_failure_is_no_matter_of_set_up(exact: pytest.Pytester):
    """As pytest-cov fails a run below its threshold."""
    exact.makepyfile(test_new=EXACT.format("1.0"))
    assert exact.runpytest_subprocess("--gpuperf", "--gpuperf-strict=on").ret == 22
    exact.makeconftest(
        "import pytest\n@pytest.hookimpl(wrapper=True)\ndef pytest_runtestloop(session):\n"
        "    result = yield\n    session.testsfailed += 1\n    return result\n"
    )
    assert exact.runpytest_subprocess("--gpuperf", "--gpuperf-strict=on").ret == 1


def test_collecting_alone_fails_nothing(exact: pytest.Pytester):
    assert exact.runpytest_subprocess("--gpuperf", "--gpuperf-strict=on", "--collect-only").ret == 0


def written(pytester: pytest.Pytester, calls: Sequence[str]) -> None:
    """Write test_it.py, whose test of number N makes the call of that number, in line 3 + N."""
    pytester.makeini("[pytest]\n")
    tests = (f"def test_{number}(gpuperf): {call}\n" for number, call in enumerate(calls))
    (pytester.path / "test_it.py").write_text("import fractions\nimport numpy as np\n" + "".join(tests))


def test_other_libraries_numbers_are_numbers(pytester: pytest.Pytester):
    values = ("np.float32(2)", "np.array(2)", "np.int64(2)", "(2,)", "fractions.Fraction(4, 2)")
    record = "gpuperf.record('sectors', {}, kind='exact')"
    written(pytester, [record.format(value) for value in values])
    (pytester.path / "baselines").mkdir()
    assert pytester.runpytest_subprocess("--gpuperf", "--gpuperf-update").ret == 0
    (file,) = (pytester.path / "baselines").rglob("*.json")
    entries = json.loads(file.read_text())["entries"]
    runs = {name: entry["sectors"]["runs"] for name, entry in entries.items()}
    stored = {name: [run["samples"] for run in each] for name, each in runs.items()}
    assert stored == {f"test_{number}": [[2.0]] for number in range(len(values))}


NO_NUMBER_OR_NAME = [
    ("'x', '123'", "give a number"),
    ("'x', b'123'", "give a number"),
    ("'x', None", "give a number"),
    ("'x', True", "give a number"),
    ("'x', ['1', '2']", "give a number"),
    ("'x', np.ones((2, 2))", "a flat sequence"),
    ("'x', bytearray(b'12')", "give a number"),
    ("'x', {1.0: 2.0}", "give a number"),
    ("'x', 1j", "give a number"),
    ("'x', np.array(['1', '2'])", "give a number"),
    ("'x', [1.0, None]", "give a number"),
    ("'x', []", "must be finite"),
    ("'x', float('nan'), kind='exact'", "must be finite"),
    ("'x', 10**400, kind='exact'", "must be finite"),
    ("'x', 0", "must be finite"),
    ("'x', 1e31", "a figure lies from 1e-30 to 1e+30"),
    ("'x', -1e31, kind='exact'", "give it in another unit"),
    ("'x', 1e-31", "give it in another unit"),
    ("'x', [1.0, 2.0], kind='exact'", "an exact number has one value, and these differ"),
    ("None, 1.0", "a name is printable text"),
    ("'x', 1.0, None", 'record("x"): unit=None; a unit is printable text'),
    ("'x', 1.0, ''", "a unit is printable text"),
    ("'x', 1.0, 's\\n'", "a unit is printable text"),
    ("'x', 1.0, b's'", "a unit is printable text"),
    ("'x', 1.0, 's', None", 'better=None; say "lower" or "higher"'),
    ("'x', 1.0, 's', kind=2", 'kind=2; say "noisy", "exact" or "shown"'),
    ("'x', 1.0, max=10**400", "is not a valid bound"),
    ("'', 1.0", "a name is printable text"),
    ("'a\\nb', 1.0", "a name is printable text"),
    ("3, 1.0", "a name is printable text"),
    ("'x', 1.0, max=np.float32('nan')", "max=nan is not a valid bound"),
]


def test_what_is_no_number_or_name_is_one_sentence(pytester: pytest.Pytester):
    """Each in a test of its own, whose failure says it."""
    written(pytester, [f"gpuperf.record({call})" for call, _ in NO_NUMBER_OR_NAME])
    result = pytester.runpytest_subprocess()
    assert result.ret == 1
    output = result.stdout.str()
    assert "Traceback" not in output
    _, *parts = re.split(
        r"^_+ test_(\d+) _+$", output.partition("= short test summary info =")[0], flags=re.M
    )
    said = dict(zip(map(int, parts[::2]), parts[1::2], strict=True))
    assert said.keys() == set(range(len(NO_NUMBER_OR_NAME)))
    for number, (call, words) in enumerate(NO_NUMBER_OR_NAME):
        assert words in said[number], call


def test_what_a_timed_launch_is_told_is_checked_too(pytester: pytest.Pytester):
    told = ("name=''", "name='a\\nb'", "name=3", "bytes='12'", "flops=-1", "bytes=float('nan')")
    written(pytester, [f"gpuperf(len, {each})" for each in told])
    result = pytester.runpytest_subprocess("--gpuperf-backend=emulated")
    assert result.ret == 1
    result.assert_outcomes(failed=len(told))
    result.stdout.fnmatch_lines([f"test_it.py:{3 + number}: gpuperf(...): *" for number in range(len(told))])


def test_text_and_numbers_of_numpy_can_be_stored(exact: pytest.Pytester):
    exact.makepyfile(
        test_exact="import numpy as np\ndef test_it(gpuperf):\n"
        "    gpuperf.record(np.str_('x'), np.ones(3), np.str_('B'), 'lower', kind=np.str_('exact'))\n"
        "    gpuperf(len, (), name=np.str_('y'), bytes=np.int64(4), flops=np.float32(2.5))\n"
    )
    assert exact.runpytest_subprocess("--gpuperf", "--gpuperf-update").ret == 0
    file = exact.path / "baselines" / "emulated" / "test_exact.json"
    assert json.loads(file.read_text())["entries"]["test_it"]["x"]["metric"]["unit"] == "B"


def test_a_row_says_which_way_was_taken_where_the_test_did_not(exact: pytest.Pytester):
    suite = "def test_it(gpuperf): gpuperf.record('x', {}, 'tokens/s'{}, kind='exact')\n"
    exact.makepyfile(test_exact=suite.format(100, ""))
    result = exact.runpytest_subprocess("--gpuperf", "--gpuperf-update")
    assert result.ret == 0
    told = 'lower is better (better= not given): for a rate such as tokens/s say better="higher"'
    result.stdout.fnmatch_lines([f"test_exact.py::test_it x: {told}"])
    exact.makepyfile(test_exact=suite.format(50, ""))
    result = exact.runpytest_subprocess("--gpuperf")
    result.stdout.fnmatch_lines(["improved *-50.00 %", f" * {told}", "* --gpuperf-update", f"  if {told}"])
    exact.makepyfile(test_exact=suite.format(200, ""))
    result = exact.runpytest_subprocess("--gpuperf")
    assert result.ret == 1
    result.stdout.fnmatch_lines(["regressed: x *", f"  better    {told}"])
    exact.makepyfile(test_exact=suite.format(100, ", better='lower'"))
    result = exact.runpytest_subprocess("--gpuperf")
    result.stdout.fnmatch_lines(["equal *"])
    assert "not given" not in result.stdout.str()


def test_a_metric_that_is_only_shown_now_does_not_vanish(exact: pytest.Pytester):
    exact.makepyfile(test_exact=EXACT.replace("exact'", "shown'").format(400.0))
    result = exact.runpytest_subprocess("--gpuperf", "--gpuperf-strict=on")
    assert result.ret == 1
    result.stdout.fnmatch_lines(["contract changed: sectors", "*metric.kind exact -> shown*"])
    assert exact.runpytest_subprocess("--gpuperf", "--gpuperf-strict=off").ret == 0


def test_an_exact_baseline_whose_runs_disagree_judges_nothing(exact: pytest.Pytester):
    (file,) = (exact.path / "baselines").rglob("*.json")
    document = json.loads(file.read_text())
    runs = document["entries"]["test_count"]["sectors"]["runs"]
    runs.append({**runs[0], "samples": [8.0]})
    file.write_text(json.dumps(document))
    result = exact.runpytest_subprocess("--gpuperf", "--gpuperf-strict=on")
    assert result.ret == 1
    result.stdout.fnmatch_lines(
        ["*it is exact, and the baseline's runs disagree (4, 8): record it anew with --gpuperf-update"]
    )
    result = exact.runpytest_subprocess("--gpuperf", "--gpuperf-strict=off")
    assert result.ret == 0
    result.stdout.fnmatch_lines(
        ["*::test_count unmeasured:", "  it is exact, and the baseline's runs disagree*"]
    )


def test_an_exact_figure_replicas_do_not_confirm_judges_nothing(project: Project):
    suite = project.path / "test_suite.py"
    exact = "\n    import os\n    gpuperf.record('pid', {}, kind='exact')\n"
    body = suite.read_text()
    suite.write_text(body + exact.format(1))
    project.record()
    suite.write_text(body + exact.format("os.getpid()"))
    result = project.run(latencies="1.2")
    assert result.ret == 1
    result.stdout.fnmatch_lines(
        ["unmeasured: pid *", "*it is exact, and processes of this checkout differ (*"]
    )


def test_a_numpy_bound_is_a_bound(exact: pytest.Pytester):
    exact.makepyfile(
        test_exact="import numpy as np\ndef test_it(gpuperf):\n"
        "    gpuperf.record('x', 2.0, kind='exact', max=np.float32(1))\n"
    )
    assert exact.runpytest_subprocess("--gpuperf", "--gpuperf-strict=off").ret == 1


def test_an_update_of_a_part_leaves_the_rest(project: Project):
    project.record()
    with (project.path / "test_suite.py").open("a") as file:
        file.write("\ndef test_more(gpuperf): gpuperf.record('y', 1.0, kind='exact')\n")
    assert project.run("--gpuperf-update", "-k", "more").ret == 0
    assert list(project.stored["entries"]) == ["test_latency", "test_more"]


def test_a_part_of_the_suite_misses_nothing(project: Project):
    project.record()
    with (project.path / "test_suite.py").open("a") as file:
        file.write("\ndef test_more(gpuperf): gpuperf.record('y', 1.0, kind='exact')\n")
    project.run("--gpuperf-update=new")
    assert project.run("--gpuperf-strict=on", "-k", "more").ret == 0
    assert project.run("--gpuperf-strict=on", "test_suite.py::test_more").ret == 0


def test_nothing_judged_under_strict_is_a_matter_of_set_up(pytester: pytest.Pytester):
    pytester.makepyfile("def test_nothing(): pass")
    result = pytester.runpytest_subprocess("--gpuperf", "--gpuperf-strict=on")
    assert result.ret == 22
    result.stdout.fnmatch_lines(["nothing was judged in this run"])


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


def test_update_new_leaves_what_is_there(project: Project):
    project.record()
    before = project.stored
    assert project.run("--gpuperf-update=new", latencies="5.0").ret == 0
    assert project.stored == before


def test_update_append_adds_runs(project: Project):
    project.record()
    assert project.run("--gpuperf-update=append", "--gpuperf-runs=2", latencies="1.0").ret == 0
    (metrics,) = project.stored["entries"].values()
    assert len(metrics["latency"]["runs"]) == 7


def test_a_failed_test_is_not_recorded(project: Project):
    project.tell("1.0")
    with (project.path / "test_suite.py").open("a") as file:
        file.write(
            "\ndef test_wrong(gpuperf):\n    gpuperf.record('z', 1.0, kind='exact')\n    assert False\n"
        )
    assert project.run("--gpuperf-update").ret == 1
    assert "test_wrong" not in project.stored["entries"]


def test_an_exact_metric_needs_one_run_and_turns_red_at_once(pytester: pytest.Pytester):
    suite = "def test_count(gpuperf): gpuperf.record('sectors', {}, kind='exact')"
    (pytester.path / "baselines").mkdir()
    path = pytester.makepyfile(test_exact=suite.format("4.0"))
    assert pytester.runpytest_subprocess("--gpuperf", "--gpuperf-update").ret == 0
    assert pytester.runpytest_subprocess("--gpuperf", "--gpuperf-strict=on").ret == 0
    path.write_text(suite.format("32.0"))
    result = pytester.runpytest_subprocess("--gpuperf")
    assert result.ret == 1
    result.stdout.fnmatch_lines(["regressed: sectors*"])


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


def test_measuring_one_name_twice_is_an_error(pytester: pytest.Pytester):
    pytester.makepyfile("def test_it(gpuperf):\n    gpuperf.record('x', 1.0)\n    gpuperf.record('x', 2.0)")
    result = pytester.runpytest("--gpuperf")
    assert result.ret == 1
    result.stdout.fnmatch_lines(['test_measuring*.py:3: this test measured "x" twice*'])


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
