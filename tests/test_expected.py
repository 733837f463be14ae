"""Expected regressions: an xfail until a day, and red when the day passes or the regression is gone."""

from __future__ import annotations

import datetime

import pytest
from latencies import LATENCY, HostProject
from once import run_once

from pytest_gpuperf.marker import test_options
from pytest_gpuperf.measurement import Metric, Outcome, TestKey, Verdict
from pytest_gpuperf.records import Row
from pytest_gpuperf.rules.waivers import Expectation

UNTIL = datetime.date(2026, 6, 1)
LATER = UNTIL + datetime.timedelta(days=1)
KNOWN = Expectation("waits for a driver", UNTIL)


def rows(*outcomes: Outcome, exceeds: bool = False) -> tuple[Row, ...]:
    metric = Metric("x", "s", "lower", "noisy", "record")
    key = TestKey("test_a.py", "test_it")
    return tuple(Row(key, metric, Verdict(outcome, exceeds=exceeds)) for outcome in outcomes)


def test_only_a_regression_is_excused_to_the_end_of_its_day():
    excused = KNOWN.excuse(rows(Outcome.REGRESSED, Outcome.EQUAL, Outcome.NO_BASELINE), UNTIL)
    assert [row.excuse for row in excused] == ["expected", "", ""]
    (unsure,) = KNOWN.excuse(rows(Outcome.INCONCLUSIVE, exceeds=True), UNTIL)
    assert unsure.excuse == "expected"


def test_past_its_day_a_regression_fails_and_says_so():
    (row,) = KNOWN.excuse(rows(Outcome.REGRESSED), LATER)
    assert row.excuse == ""
    assert row.verdict.reason == "expected until 2026-06-01: waits for a driver, and that day has passed"


@pytest.mark.parametrize("today", [UNTIL, LATER])
@pytest.mark.parametrize(
    ("outcomes", "broken"),
    [
        ([Outcome.EQUAL], True),
        ([Outcome.IMPROVED, Outcome.SHOWN], True),
        ([Outcome.INCONCLUSIVE], True),
        ([Outcome.EQUAL, Outcome.REGRESSED], False),
        ([Outcome.SHOWN], False),
        ([Outcome.NO_BASELINE], False),
        ([Outcome.EQUAL, Outcome.UNFIT], False),
        ([Outcome.EQUAL, Outcome.UNMEASURED], False),
        ([Outcome.EQUAL, Outcome.CONTRACT_CHANGED], False),
    ],
)
def test_an_expectation_breaks_where_nothing_got_slower(outcomes, broken: bool, today):
    found = KNOWN.broken(rows(*outcomes), today)
    assert bool(found) is broken
    assert ("passed" in found) is (broken and today == LATER)


SUITE = (
    LATENCY
    + """\
@pytest.mark.gpuperf(MARKER)
def test_latency(gpuperf):
    gpuperf.record("latency", latency(), "s")
"""
)
SOON = datetime.date.today() + datetime.timedelta(days=30)
HELD = f'expected="waits for a driver", until="{SOON}"'
PASSED = 'expected="waits for a driver", until="2020-12-31"'


class Project(HostProject):
    def __init__(self, pytester: pytest.Pytester) -> None:
        super().__init__(pytester)
        self.write("", "1.0")
        assert run_once(pytester, "--gpuperf", "--gpuperf-update").ret == 0

    def write(self, marker: str, latencies: str) -> None:
        self.pytester.makepyfile(test_suite=SUITE.replace("MARKER", marker))
        self.tell(latencies)

    def run(self, marker: str, latencies: str, *flags: str) -> pytest.RunResult:
        self.write(marker, latencies)
        return self.judge(*flags)


def test_an_expected_regression_is_an_xfail(project: Project):
    result = project.run(HELD, "1.3", "--gpuperf-strict=on", "-rx")
    assert result.ret == 0
    result.assert_outcomes(xfailed=1)
    result.stdout.fnmatch_lines(["expected *test_latency *+30.00 %", "1 expected", "XFAIL*waits for*"])
    assert project.run(HELD, "1.3", "--runxfail").ret == 1


@pytest.mark.parametrize(
    ("marker", "latencies"),
    [(f"{HELD}, isolated=True", "1.3"), (HELD, "1.0 1.3")],
    ids=["isolated", "one fast screen"],
)
def test_what_is_expected_all_the_same(project: Project, marker: str, latencies: str):
    result = project.run(marker, latencies)
    assert result.ret == 0
    result.assert_outcomes(xfailed=1)


def test_its_day_passes(project: Project):
    result = project.run(PASSED, "1.3")
    assert result.ret == 1
    result.stdout.fnmatch_lines(["regressed: latency*", "*waits for a driver, and that day has passed*"])


def test_what_regresses_no_more_is_red_and_says_what_to_do(project: Project):
    result = project.run(HELD, "1.0")
    assert result.ret == 1
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["*why *did not regress (*waits for a driver): take expected= and*"])


def test_an_expectation_ends_within_90_days(pytester: pytest.Pytester):
    last = datetime.date.today() + datetime.timedelta(days=90)
    for until, ret in ((last, 0), (last + datetime.timedelta(days=1), pytest.ExitCode.USAGE_ERROR)):
        marker = f"@pytest.mark.gpuperf(expected='why', until='{until}')"
        pytester.makepyfile(f"import pytest\n{marker}\ndef test_it(): pass")
        result = pytester.runpytest()
        assert result.ret == ret
    result.stderr.fnmatch_lines(
        [f"*::test_it: @pytest.mark.gpuperf: until='{until}' is more than 90 days*{last}"]
    )


def test_a_markers_values_are_pythons_own(pytester: pytest.Pytester):
    """NumPy's text, for one, could not be sent, and ended the session in an internal error."""
    item = pytester.getitem(
        """
        import enum, numpy, pytest

        class Layout(str, enum.Enum):
            NEW = "new"

        @pytest.mark.gpuperf(version=Layout.NEW, tolerance=numpy.float64(0.5), isolated=True)
        @pytest.mark.gpuperf(expected=numpy.str_("why"), until=numpy.str_("2000-01-01"))
        def test_func(): pass
        """
    )
    options = test_options(item)
    given = (options.version, options.tolerance, options.isolated, options.expected, options.until)
    assert given == ("new", 0.5, True, "why", "2000-01-01")
    assert [type(value) for value in given] == [str, float, bool, str, str]
