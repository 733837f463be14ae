"""Exact figures: judged on one run, and never where runs or processes of one code disagree."""

from __future__ import annotations

import json

import pytest
from gateproject import EXACT, Project, exact_project  # noqa: F401  (a fixture)


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
