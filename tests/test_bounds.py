"""Absolute bounds: without a baseline, beside one, and only after replicas agree."""

from __future__ import annotations

import pytest
from latencies import LATENCY, HostProject

from pytest_gpuperf.errors import GpuperfError
from pytest_gpuperf.measurement import Bounds, Kind, Measurement, Metric, Outcome, Verdict
from pytest_gpuperf.rules.decide import judge_bounds

SUITE = (
    LATENCY
    + """\
def test_latency(gpuperf):
    gpuperf.record("latency", latency(), "s", BOUNDS)
"""
)


def measured(value: float, kind: Kind = "noisy", **limits: float) -> Measurement:
    return Measurement(Metric("x", "s", "lower", kind, "record"), {}, (value,), bounds=Bounds(**limits))


def judged(value: float, *again: float, outcome: Outcome = Outcome.EQUAL, **limits: float) -> Verdict:
    decided = Verdict(outcome, now=value)
    return judge_bounds(decided, measured(value, **limits), [measured(a, **limits) for a in again])


def test_a_figure_within_its_bounds_leaves_the_verdict_alone():
    assert judged(1.0, max=1.0, min=1.0) == Verdict(Outcome.EQUAL, now=1.0)


@pytest.mark.parametrize("limits", [{"max": 1.0}, {"min": 3.0}])
def test_every_replica_beyond_the_bound_is_red_and_names_it(limits: dict[str, float]):
    found = judged(2.0, 2.1, 2.2, 2.3, 2.4, **limits)
    assert found.outcome is Outcome.REGRESSED
    assert found.now == pytest.approx(2.25)
    (name,) = limits
    assert f"{name}={limits[name]:g}" in found.reason


@pytest.mark.parametrize("again", [(), (2.0, 2.0)])
def test_too_few_replicas_are_never_a_red(again: tuple[float, ...]):
    found = judged(2.0, *again, max=1.0)
    assert found.outcome is not Outcome.REGRESSED
    if not again:
        assert (found.outcome, found.exceeds) == (Outcome.INCONCLUSIVE, True)


def test_one_replica_within_the_bound_neither_fails_nor_passes():
    found = judged(2.0, 2.0, 2.0, 2.0, 0.9, max=1.0)
    assert (found.outcome, found.exceeds) == (Outcome.INCONCLUSIVE, True)
    assert found.reason == "1 of 4 replicas were not above max=1"


def test_replicas_mostly_within_the_bound_clear_the_screen():
    assert judged(2.0, 0.9, 0.9, 0.9, 2.0, max=1.0).outcome is Outcome.EQUAL


def test_an_exact_value_beyond_its_bound_is_red_at_once():
    found = judge_bounds(Verdict(Outcome.NO_BASELINE), measured(2.0, "exact", max=1.0))
    assert found.outcome is Outcome.REGRESSED


@pytest.mark.parametrize("outcome", [Outcome.SHOWN, Outcome.UNMEASURED])
def test_what_is_not_judged_has_no_bounds(outcome: Outcome):
    assert judged(2.0, 2.0, 2.0, 2.0, 2.0, outcome=outcome, max=1.0).outcome is outcome


def test_an_exact_value_is_bounded_without_a_usable_baseline():
    found = judge_bounds(Verdict(Outcome.UNMEASURED), measured(2.0, "exact", max=1.0))
    assert found.outcome is Outcome.REGRESSED


def test_a_regression_stays_one_where_a_replica_keeps_the_bound():
    assert judged(2.0, 2.0, 2.0, 2.0, 0.9, outcome=Outcome.REGRESSED, max=1.0).outcome is Outcome.REGRESSED


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ((None, float("nan")), "max=nan is not a valid bound"),
        (("1", None), "min='1' is not a valid bound"),
        ((True, None), "min=True is not a valid bound"),
        ((2.0, 1.0), "min=2 is above max=1"),
    ],
)
def test_bounds_that_nothing_could_keep_are_one_sentence(given, words: str):
    with pytest.raises(GpuperfError, match=words):
        Bounds.of("gpuperf(...)", *given)


def test_a_shown_number_takes_no_bounds():
    with pytest.raises(GpuperfError, match="never judged"):
        Bounds.of("gpuperf(...)", None, 1.0, "shown")
    assert Bounds.of("gpuperf(...)", None, None, "shown") == Bounds()


class Project(HostProject):
    def run(self, limits: str, latencies: str, *flags: str) -> pytest.RunResult:
        self.pytester.makepyfile(test_suite=SUITE.replace("BOUNDS", limits))
        self.tell(latencies)
        return self.judge(*flags)


def test_a_bound_is_judged_without_a_baseline(project: Project):
    result = project.run("max=1.2", "1.3 1.31 1.29 1.3 1.3")
    assert result.ret == 1
    assert project.processes == 5
    result.stdout.fnmatch_lines(["regressed: latency", "*why*above max=1.2, the test's own*", "*now*1.300 s"])


def test_a_bound_holds_beside_a_baseline_that_would_let_it_pass(project: Project):
    assert project.run("max=1.005", "1.0", "--gpuperf-update").ret == 0
    assert project.run("max=1.005", "1.004").ret == 0
    assert project.processes == 1
    result = project.run("max=1.005", "1.01")
    assert result.ret == 1
    result.stdout.fnmatch_lines(["regressed: latency +1.00 %*", "*above max=1.005*", "*baseline*1 s*"])


def test_a_screen_beyond_the_bound_that_replicas_keep_is_green(project: Project):
    result = project.run("max=1.2", "1.3 1.0")
    assert result.ret == 0
    assert project.processes == 5


def test_a_bound_is_no_part_of_the_question(project: Project):
    assert project.run("", "1.0", "--gpuperf-update").ret == 0
    result = project.run("max=9", "1.0", "--gpuperf-strict=on")
    assert result.ret == 0, result.stdout.str()
    result.stdout.fnmatch_lines(["1 equal"])


def test_a_bound_reaches_an_isolated_tests_judge(project: Project):
    marker = "    import pytest\n    pytestmark = pytest.mark.gpuperf(isolated=True)\n"
    project.pytester.makepyfile(
        test_suite=marker + "    def test_it(gpuperf): gpuperf.record('x', 2.0, kind='exact', max=1.0)"
    )
    result = project.pytester.runpytest_subprocess("--gpuperf")
    assert result.ret == 1
    result.stdout.fnmatch_lines(["regressed: x", "*above max=1, the test's own bound"])


def test_a_wrong_bound_fails_with_its_line_even_unjudged(project: Project):
    project.run("min=2, max=1", "1.0")
    result = project.pytester.runpytest_subprocess()
    assert result.ret == 1
    result.stdout.fnmatch_lines(['test_suite.py:*gpuperf.record("latency"): min=2 is above max=1*'])


def test_a_timed_launch_carries_its_bounds(pytester: pytest.Pytester):
    pytester.makepyfile(
        """
        from pytest_gpuperf.measurement import Bounds
        from pytest_gpuperf.session import recorder_of

        def test_it(gpuperf, request):
            gpuperf(lambda: None, name="x", max=2.0, min=0.5)
            assert recorder_of(request.node).measurements["x"].bounds == Bounds(min=0.5, max=2.0)
        """
    )
    pytester.runpytest("--gpuperf", "--gpuperf-backend=emulated").assert_outcomes(passed=1)


class Laptop:
    """A project on a machine that has no GPU and is not dedicated to measuring."""

    def __init__(self, pytester: pytest.Pytester) -> None:
        self._pytester = pytester
        (pytester.path / "baselines").mkdir()

    def run(self, call: str, *flags: str) -> pytest.RunResult:
        self._pytester.makepyfile(test_suite=f"def test_it(gpuperf):\n    gpuperf{call}\n")
        return self._pytester.runpytest_subprocess("--gpuperf", "--gpuperf-backend=emulated", *flags)


@pytest.fixture
def laptop(pytester: pytest.Pytester) -> Laptop:
    return Laptop(pytester)


def test_what_is_no_time_or_rate_is_judged_on_any_host(laptop: Laptop):
    peak = ".record('peak memory', {}, 'B', 'lower')"
    assert laptop.run(peak.format("1e9"), "--gpuperf-update", "--gpuperf-runs=3").ret == 0
    assert laptop.run(peak.format("1e9"), "--gpuperf-strict=on").ret == 0
    result = laptop.run(peak.format("2e9"))
    assert result.ret == 1
    result.stdout.fnmatch_lines(["regressed: peak memory x2 *"])


def test_a_bound_of_no_time_or_rate_holds_on_any_host(laptop: Laptop):
    result = laptop.run(".record('peak memory', 20e9, 'B', 'lower', max=15e9)")
    assert result.ret == 1
    result.stdout.fnmatch_lines(["regressed: peak memory", "*why*above max=1.5e+10, the test's own bound"])


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (
            ".record('tokens', 1.0, 'tokens/s', 'higher', min=1000)",
            "bound not judged here (now below min=1000)",
        ),
        (".record('latency', 1.0, 's', 'lower', max=2)", "bound not judged here"),
        ("(len, (), name='kernel', max=1e-12)", "bound not judged here (now above max=1e-12)"),
    ],
)
def test_a_row_says_that_a_times_bound_is_not_judged_here(laptop: Laptop, call: str, words: str):
    result = laptop.run(call)
    assert result.ret == 0
    result.stdout.fnmatch_lines(["shown *", f" * {words}"], consecutive=True)
    host = "record" in call
    assert ("not dedicated to" in result.stdout.str()) == host
