"""The rule, example by example; its properties are in test_verdict_properties.py."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
from verdictcases import (
    ACCURACY,
    BANDWIDTH,
    BASE,
    CONFLICTS,
    CONTRACT,
    HERE,
    LATENCY,
    PLACE,
    QPS,
    TIME,
    decide,
    measured,
    passes,
    recorded,
)

from pytest_gpuperf.errors import GpuperfError
from pytest_gpuperf.measurement import Baseline, Measurement, Metric, Outcome, Run
from pytest_gpuperf.rules.verdict import judge

# What a clear case is called


def test_a_clear_slowdown_is_regressed_and_says_by_how_much():
    verdict = decide(recorded(BASE), 1.05e-3, [1.05e-3, 1.051e-3, 1.049e-3, 1.05e-3])
    assert verdict.outcome is Outcome.REGRESSED
    assert verdict.exceeds
    assert verdict.change == pytest.approx(0.05, abs=1e-4)
    assert verdict.interval[0] < verdict.change < verdict.interval[1]
    assert verdict.tolerance == 0.02
    assert verdict.now == pytest.approx(1.05e-3)
    assert verdict.baseline == pytest.approx(1e-3)


def test_a_falling_throughput_regresses_with_a_negative_change():
    verdict = decide(recorded([100, 101, 99, 100, 100], QPS), 50.0, [50.0, 50.3, 49.7, 50.0])
    assert verdict.outcome is Outcome.REGRESSED
    assert verdict.change == pytest.approx(-0.5, abs=1e-3)
    low, high = verdict.interval
    assert low < -0.5 < high < -0.3


def test_a_throughput_that_rises_is_improved_on_its_single_run():
    assert decide(recorded([100, 101, 99, 100, 100], QPS), 200.0).outcome is Outcome.IMPROVED


def test_the_same_figure_is_equal_on_its_single_run():
    verdict = decide(recorded(BASE), 1.0001e-3)
    assert verdict.outcome is Outcome.EQUAL
    assert not verdict.exceeds


def test_noise_as_wide_as_the_tolerance_is_inconclusive():
    noisy = recorded([1.0, 1.1, 0.9, 1.08, 0.95], LATENCY)
    verdict = decide(noisy, 1.01)
    assert verdict.outcome is Outcome.INCONCLUSIVE
    assert not verdict.exceeds
    assert verdict.reason == ""
    assert 0.3 < verdict.detectable < 0.8


def test_without_a_tolerance_the_instrument_gives_it():
    assert decide(recorded(BASE), 1e-3).tolerance == 0.02
    assert decide(recorded(BASE, LATENCY), 1e-3).tolerance == 0.05
    assert decide(recorded(BASE), 1e-3, tolerance=0.1).tolerance == 0.1


def test_shown_is_never_judged_even_with_a_baseline():
    assert decide(replace(recorded(BASE), metric=BANDWIDTH), 1.0).outcome is Outcome.SHOWN


# The screen


def test_the_screen_asks_for_replicas_beyond_the_tolerance():
    assert passes(recorded(BASE), measured(0.5e-3), 0.02)
    assert passes(recorded(BASE), measured(1.0199e-3), 0.02)
    assert not passes(recorded(BASE), measured(1.0201e-3), 0.02)


@pytest.mark.parametrize(
    ("baseline", "measurement"),
    [
        (None, measured(1.0)),
        (recorded([1.0], CONFLICTS), measured(9.0, CONFLICTS)),
        (recorded(BASE), measured(9.0, contract={"dtype": "float16"})),
        (recorded(BASE), measured(9.0, BANDWIDTH)),
    ],
    ids=["no baseline", "exact", "contract changed", "shown"],
)
def test_the_screen_asks_for_no_replicas_that_cannot_matter(baseline, measurement):
    assert passes(baseline, measurement)


def test_a_slow_screen_is_left_out_of_the_estimate():
    verdict = decide(recorded(BASE), 1.5e-3, [1e-3, 1.0002e-3, 0.9998e-3, 1e-3])
    assert verdict.outcome is Outcome.EQUAL
    assert verdict.now == pytest.approx(1e-3, rel=1e-3)


# What keeps a failure from being false


def test_a_single_run_never_regresses_however_slow():
    verdict = decide(recorded(BASE), 10.0)
    assert verdict.outcome is Outcome.INCONCLUSIVE
    assert verdict.exceeds
    assert "not measured again" in verdict.reason


def test_two_baseline_runs_are_too_few_to_fail_a_test():
    verdict = decide(recorded(BASE[:2]), 2e-3, [2e-3] * 4)
    assert verdict.outcome is Outcome.INCONCLUSIVE
    assert verdict.exceeds
    assert verdict.detectable is None
    assert "--gpuperf-update=append" in verdict.reason
    assert decide(recorded(BASE[:3]), 2e-3, [2e-3] * 4).outcome is Outcome.REGRESSED


def test_two_replicas_are_too_few_for_a_red():
    verdict = decide(recorded(BASE), 2e-3, [2e-3] * 2)
    assert verdict.outcome is Outcome.INCONCLUSIVE
    assert "only 2 replicas" in verdict.reason
    assert decide(recorded(BASE), 2e-3, [2e-3] * 3).outcome is Outcome.REGRESSED


def test_every_replica_must_be_beyond_the_tolerance():
    # Three runs far out and one at the baseline: the interval alone would call this regressed.
    verdict = decide(recorded(BASE), 1.3e-3, [1.3e-3, 1.3e-3, 1.3e-3, 1.019e-3], alpha=0.2)
    assert verdict.interval[0] > 0.02
    assert verdict.outcome is Outcome.INCONCLUSIVE
    assert "1 of 4 replicas stayed within the tolerance" in verdict.reason


def test_a_change_below_the_absolute_floor_is_no_regression():
    # 4 % of 2 us is 80 ns, below the 100 ns that device times are held to.
    small = recorded([2e-6, 2.0001e-6, 1.9999e-6, 2e-6, 2e-6])
    verdict = decide(small, 2.08e-6, [2.08e-6, 2.0801e-6, 2.0799e-6, 2.08e-6])
    assert verdict.outcome is not Outcome.REGRESSED
    assert not verdict.exceeds
    assert verdict.detectable >= 0.05
    assert passes(small, measured(2.08e-6), 0.02)
    beyond = decide(small, 2.2e-6, [2.2e-6, 2.2001e-6, 2.1999e-6, 2.2e-6])
    assert beyond.outcome is Outcome.REGRESSED


def test_a_loss_passes_the_floor_with_its_whole_interval():
    # 2.11 us are 110 ns more than 2.00, but the runs leave it open whether 90 or 130.
    small = recorded([2e-6, 2.01e-6, 1.99e-6, 2.005e-6, 1.995e-6])
    verdict = decide(small, 2.11e-6, [2.11e-6, 2.10e-6, 2.12e-6, 2.11e-6])
    assert verdict.outcome is Outcome.INCONCLUSIVE
    assert verdict.exceeds


def test_a_change_below_the_floor_too_noisy_to_bound_says_so():
    small = recorded([2e-6, 2.1e-6, 1.9e-6, 2e-6, 2.05e-6])
    verdict = decide(small, 2.08e-6, [2.0e-6, 2.15e-6, 2.1e-6, 2.13e-6])
    assert verdict.outcome is Outcome.INCONCLUSIVE
    assert "below the 1e-07 s" in verdict.reason


@pytest.mark.parametrize(
    ("metric", "contract", "details"),
    [
        (TIME, {"timing": "events", "batch": 64}, {}),
        (Metric("benchmark", "s", "lower", "noisy", "host_time"), {}, {"iterations": 1000}),
    ],
    ids=["launches a sample", "iterations a round"],
)
def test_the_floor_is_of_what_was_timed_before_division(metric, contract, details):
    # 0.2 us became 0.66: below the floors, but a sample lasted many times as long.
    def of(value):
        return Measurement(metric, contract, (value,), details=details)

    runs = tuple(Run((0.2e-6,), HERE) for _ in range(5))
    baseline = Baseline(metric, contract, PLACE, 0.0, runs)
    slow = [of(0.66e-6)] * 4
    found = judge(baseline, slow[0], slow, tolerance=None, place=PLACE, environment=HERE)
    assert found.outcome is Outcome.REGRESSED


# Numbers that cannot be judged


@pytest.mark.parametrize("bad", [0.0, -1.0, math.inf, math.nan])
def test_a_noisy_sample_must_be_a_positive_number(bad):
    with pytest.raises(GpuperfError, match=f"time has a measured sample of {bad} s"):
        decide(recorded(BASE), bad)
    with pytest.raises(GpuperfError, match="time has a measured sample"):
        decide(recorded(BASE), 1e-3, [1e-3, bad])
    with pytest.raises(GpuperfError, match="time has a baseline sample"):
        decide(recorded([*BASE, bad]), 1e-3)


def test_an_exact_value_may_be_zero_or_negative_but_not_nan():
    assert decide(recorded([0.0], CONFLICTS), 0.0).outcome is Outcome.EQUAL
    assert decide(recorded([-1.0], CONFLICTS), -2.0).outcome is Outcome.IMPROVED
    with pytest.raises(GpuperfError, match="a finite value"):
        decide(recorded([0.0], CONFLICTS), math.nan)


def test_no_samples_is_one_sentence():
    with pytest.raises(GpuperfError, match="no measured samples"):
        judge(None, Measurement(TIME, {}, ()), tolerance=None, place=PLACE)


@pytest.mark.parametrize("bad", [-0.01, math.nan, math.inf])
def test_a_tolerance_that_is_no_fraction_is_one_sentence(bad):
    with pytest.raises(GpuperfError, match=f"tolerance {bad}"):
        decide(recorded(BASE), 1e-3, tolerance=bad)


# Exact metrics


@pytest.mark.parametrize(
    ("metric", "old", "new", "tolerance", "outcome"),
    [
        (CONFLICTS, 2048.0, 2048.0, None, Outcome.EQUAL),
        (CONFLICTS, 2048.0, 2049.0, None, Outcome.REGRESSED),
        (CONFLICTS, 2048.0, 2047.0, None, Outcome.IMPROVED),
        (CONFLICTS, 0.0, 1.0, 0.5, Outcome.REGRESSED),
        (CONFLICTS, 100.0, 103.0, 0.05, Outcome.EQUAL),
        (CONFLICTS, 100.0, 106.0, 0.05, Outcome.REGRESSED),
        (CONFLICTS, 100.0, 97.0, 0.05, Outcome.EQUAL),
        (CONFLICTS, -100.0, -97.0, 0.05, Outcome.EQUAL),
        (CONFLICTS, 4.86, 4.86 * (1 + 1e-12), None, Outcome.EQUAL),
        (ACCURACY, 0.76456, 0.76454, None, Outcome.REGRESSED),
        (ACCURACY, 0.76456, 0.76458, None, Outcome.IMPROVED),
        (ACCURACY, 0.76456, 0.76454, 0.001, Outcome.EQUAL),
    ],
)
def test_exact_values_are_compared_directly(metric, old, new, tolerance, outcome):
    verdict = decide(recorded([old], metric), new, tolerance=tolerance)
    assert verdict.outcome is outcome
    assert verdict.exceeds is (outcome is Outcome.REGRESSED)
    assert verdict.interval is None


def test_an_exact_change_from_zero_has_no_relative_figure():
    assert decide(recorded([0.0], CONFLICTS), 3.0).change is None
    assert decide(recorded([0.0], CONFLICTS), 0.0).change == 0.0
    assert decide(recorded([4.0], CONFLICTS), 32.0).change == pytest.approx(7.0)


# What can be compared at all


def test_no_baseline():
    assert decide(None, 1e-3).outcome is Outcome.NO_BASELINE
    assert decide(recorded([]), 1e-3).outcome is Outcome.NO_BASELINE


def test_a_changed_contract_names_each_key_with_both_values():
    now = measured(1e-3, contract={"dtype": "float16", "l2": "cold", "shape": "8192x8192"})
    verdict = judge(recorded(BASE), now, tolerance=None, place=PLACE)
    assert verdict.outcome is Outcome.CONTRACT_CHANGED
    assert "dtype float32 -> float16" in verdict.reason
    assert "l2 not set -> cold" in verdict.reason
    assert "shape" not in verdict.reason


@pytest.mark.parametrize(
    ("field", "value"), [("unit", "ms"), ("better", "higher"), ("instrument", "host_time"), ("kind", "exact")]
)
def test_a_changed_metric_is_a_changed_contract(field, value):
    now = measured(1e-3, replace(TIME, **{field: value}))
    verdict = judge(recorded(BASE), now, tolerance=None, place=PLACE)
    assert verdict.outcome is Outcome.CONTRACT_CHANGED
    assert f"metric.{field} {getattr(TIME, field)} -> {value}" in verdict.reason


def test_another_place_is_no_baseline_and_it_is_said_why():
    verdict = decide(recorded(BASE), 9e-3, place={**PLACE, "power_limit_w": 500})
    assert verdict.outcome is Outcome.NO_BASELINE
    assert verdict.reason == "the baseline was recorded with power_limit_w 700, here 500"


def test_replicas_that_measured_something_else_are_an_error():
    replicas = [measured(1e-3), measured(1e-3, contract={**CONTRACT, "dtype": "float16"})]
    verdict = judge(recorded(BASE), measured(1e-3), replicas, tolerance=None, place=PLACE)
    assert verdict.outcome is Outcome.UNMEASURED
    assert "dtype float32 -> float16" in verdict.reason


def test_a_red_says_when_the_machine_code_is_the_baselines_own():
    slow = [measured(2e-3, code="abc") for _ in range(4)]
    same = judge(recorded(BASE, code="abc"), slow[0], slow, tolerance=None, place=PLACE)
    other = judge(recorded(BASE, code="abd"), slow[0], slow, tolerance=None, place=PLACE)
    assert same.outcome is other.outcome is Outcome.REGRESSED
    assert "this code did not change" in same.reason
    assert other.reason == ""
