"""Exit codes: 22 where only the set-up is at fault, and 1 for whatever else failed."""

from __future__ import annotations

import pytest
from gateproject import EXACT, Project, exact_project  # noqa: F401  (a fixture)


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


def test_a_session_ended_with_0_midway_is_set_up(project: Project):
    project.record()
    ends = "def test_first():\n    import pytest\n    pytest.exit('bye', 0)\n"
    (project.path / "test_a.py").write_text(ends)
    assert project.run("--gpuperf-strict=off").ret == 0
    result = project.run("--gpuperf-strict=on")
    assert result.ret == 22
    result.stdout.fnmatch_lines(["pytest.exit ended the session before all of its tests had run"])


def test_strict_is_on_in_ci(project: Project, monkeypatch):
    monkeypatch.setenv("CI", "true")
    assert project.run().ret == 22
    assert project.run("--gpuperf-strict=off").ret == 0


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


def test_nothing_judged_under_strict_is_a_matter_of_set_up(pytester: pytest.Pytester):
    pytester.makepyfile("def test_nothing(): pass")
    result = pytester.runpytest_subprocess("--gpuperf", "--gpuperf-strict=on")
    assert result.ret == 22
    result.stdout.fnmatch_lines(["nothing was judged in this run"])
