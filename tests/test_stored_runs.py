"""Which stored runs count: those of this GPU, this software and this day, and how they spread."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
from verdictcases import HERE, LATENCY, OUR_UNIT, PLACE, decide, measured, recorded

from pytest_gpuperf.measurement import Outcome, Verdict
from pytest_gpuperf.rules.verdict import judge


def test_a_gpu_is_held_to_its_own_runs_where_there_are_enough():
    slower = [1.03] * 4
    own = recorded([1.0, 1.06] * 3, units=(OUR_UNIT, "GPU-2"))  # three of each
    assert decide(own, 1.03, slower).outcome is Outcome.REGRESSED
    assert decide(own, 1.03, slower).baseline == pytest.approx(1.0)


def test_one_run_of_its_own_counts_for_more_than_other_gpus():
    few = recorded([1.0, 1.06, 1.06, 1.06], units=(OUR_UNIT, "GPU-2", "GPU-2", "GPU-2"))
    assert decide(few, 1.03, [1.03] * 4).baseline == pytest.approx(1.0, abs=0.006)
    strange = recorded([1.06] * 4, units=("GPU-2",))
    assert decide(strange, 1.03, [1.03] * 4).baseline == pytest.approx(1.06)


def test_on_an_unknown_gpu_a_loss_must_exceed_unit_differences():
    strange = recorded([1e-3] * 5, units=("GPU-2",))
    little = decide(strange, 1.03e-3, [1.03e-3] * 4)
    assert little.outcome is Outcome.INCONCLUSIVE
    assert little.exceeds
    assert "0 runs of this GPU" in little.reason
    assert "--gpuperf-update=append" in little.reason
    assert decide(strange, 1.10e-3, [1.10e-3] * 4).outcome is Outcome.REGRESSED


def test_there_is_no_tolerance_at_which_nothing_is_judged():
    strange = recorded([1e-3] * 5, units=("GPU-2",))
    assert decide(strange, 10e-3, [10e-3] * 4, tolerance=0.005).outcome is Outcome.REGRESSED
    assert decide(strange, 10e-3, [10e-3] * 4, tolerance=0.0).outcome is Outcome.REGRESSED


def test_units_that_were_seen_to_differ_widen_the_interval():
    alike = recorded([1e-3] * 9, units=("GPU-2", "GPU-3", "GPU-4"))
    apart = recorded([1e-3, 1.02e-3, 0.98e-3] * 3, units=("GPU-2", "GPU-3", "GPU-4"))
    assert _width(decide(apart, 1e-3, [1e-3] * 4)) > 2 * _width(decide(alike, 1e-3, [1e-3] * 4))


def test_hosts_of_other_gpu_counts_may_differ_by_a_microsecond():
    short = recorded([20e-6] * 5, units=("GPU-2",))
    assert decide(short, 23e-6, [23e-6] * 4).outcome is Outcome.REGRESSED
    other = replace(
        short, runs=tuple(replace(run, environment={**run.environment, "gpus": 2}) for run in short.runs)
    )
    assert decide(other, 23e-6, [23e-6] * 4).outcome is Outcome.INCONCLUSIVE


def test_runs_of_this_software_come_before_runs_of_this_gpu():
    old = recorded([1.0e-3] * 3, driver="580")
    new = recorded([1.2e-3] * 3, units=("GPU-2",), driver="590")
    both = replace(old, runs=(*old.runs, *new.runs))
    screen = measured(1.2e-3)
    found = judge(both, screen, tolerance=None, place=PLACE, environment={**HERE, "driver": "590"})
    assert found.baseline == pytest.approx(1.2e-3)
    back = judge(both, screen, tolerance=None, place=PLACE, environment={**HERE, "driver": "580"})
    assert back.baseline == pytest.approx(1.0e-3)


def test_a_hosts_clock_may_differ_between_days():
    same_day = recorded([1.0] * 5, LATENCY)
    found = decide(same_day, 1.2, [1.2] * 4)
    assert found.outcome is Outcome.INCONCLUSIVE
    assert found.exceeds
    assert "between days" in found.reason
    assert decide(same_day, 1.5, [1.5] * 4).outcome is Outcome.REGRESSED


def test_a_lucky_baselines_spread_is_moderated():
    # Five identical runs say "no noise at all"; the instrument's constant says otherwise.
    lucky = recorded([1.0] * 5)
    low, high = decide(lucky, 1.0).interval
    # t(0.995; 6) = 3.7074; s = 0.001 * sqrt(2/6); sqrt(1/5 + 1) = 1.0954
    assert math.log1p(high) == pytest.approx(3.7074 * 0.001 * math.sqrt(1 / 3) * 1.0954, rel=1e-3)
    assert math.log1p(low) == pytest.approx(-math.log1p(high))


def _width(verdict: Verdict) -> float:
    return verdict.interval[1] - verdict.interval[0]
