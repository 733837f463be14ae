"""The rule, example by example and as properties; its error rates are in test_verdict_simulation.py."""

from __future__ import annotations

import math
from dataclasses import replace
from types import SimpleNamespace

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scipy import special, stats

from pytest_gpuperf.errors import GpuperfError
from pytest_gpuperf.measurement import Baseline, Measurement, Metric, Outcome, Run, TestKey, Verdict
from pytest_gpuperf.records import Record
from pytest_gpuperf.report.summary import improvements
from pytest_gpuperf.rules.case import Case
from pytest_gpuperf.rules.creep import unseen_loss
from pytest_gpuperf.rules.decide import screen
from pytest_gpuperf.rules.differences import changes, environment_differences
from pytest_gpuperf.rules.student import noncentrality, quantile
from pytest_gpuperf.rules.verdict import judge

TIME = Metric("time", "s", "lower", "noisy", "device_time")
LATENCY = Metric("p50", "s", "lower", "noisy", "loadgen")
QPS = Metric("qps", "1/s", "higher", "noisy", "loadgen")
CONFLICTS = Metric("bank_conflicts", "1", "lower", "exact", "counters")
ACCURACY = Metric("accuracy", "1", "higher", "exact", "accuracy")
BANDWIDTH = Metric("bandwidth", "B/s", "higher", "shown", "device_time")
PLACE = {"backend": "cuda", "gpu": "NVIDIA H100 80GB HBM3", "power_limit_w": 700}
CONTRACT = {"dtype": "float32", "shape": "8192x8192"}
OUR_UNIT = "GPU-1"
HERE = {"device_uuid": OUR_UNIT, "gpus": 1}
BASE = (1.000e-3, 1.001e-3, 0.999e-3, 1.0005e-3, 0.9995e-3)

quick = settings(max_examples=150, deadline=None, database=None)
values = st.floats(1e-6, 1e6)
some_runs = st.lists(st.floats(0.9, 1.1), min_size=3, max_size=7)
thetas = st.sampled_from([0.01, 0.02, 0.05, 0.1])


def measured(value, metric=TIME, contract=CONTRACT, code=None):
    return Measurement(metric, contract, (value,), code)


def recorded(values, metric=TIME, units=(OUR_UNIT,), code=None, **environment):
    runs = tuple(
        Run((value,), {"device_uuid": units[i % len(units)], "gpus": 1, **environment}, code)
        for i, value in enumerate(values)
    )
    return Baseline(metric, CONTRACT, PLACE, metric.constants.prior_sd, runs)


def decide(baseline, now, replicas=(), *, tolerance=None, place=PLACE, **more) -> Verdict:
    metric = baseline.metric if baseline else TIME
    again = [measured(value, metric) for value in replicas]
    return judge(
        baseline, measured(now, metric), again, tolerance=tolerance, place=place, environment=HERE, **more
    )


def passes(baseline, measurement, tolerance=None, unit=OUR_UNIT) -> bool:
    """Whether the test's own measurement is enough, without replicas."""
    name = measurement.metric.name
    tolerances = {} if tolerance is None else {name: tolerance}
    case = Case(
        key=TestKey("s.py", "t"),
        unit=unit,
        stored={name: baseline} if baseline else {},
        tolerances=tolerances,
    )
    return not screen(case, Record((measurement,), device=PLACE, environment=HERE)).tripped


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


# Which stored runs count


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


def test_compared_contracts_list_differences_sorted():
    assert changes(CONTRACT, dict(reversed(CONTRACT.items()))) == []
    assert changes({"b": 1, "a": None}, {"b": 2}) == ["a not set -> not set", "b 1 -> 2"]


def test_environment_differences_name_what_no_run_had():
    """What no run names, such as the version of cupy, is not known to differ."""
    old = [
        {"commit": "a", "date": "1", "driver": "570", "device_uuid": "GPU-1", "versions": {"numpy": "1"}},
        {"commit": "b", "date": "2", "driver": "575", "device_uuid": "GPU-2", "versions": {"numpy": "1"}},
    ]
    new = {
        "commit": "c",
        "dirty": True,
        "date": "3",
        "driver": "580",
        "device_uuid": "GPU-2",
        "versions": {"numpy": "2", "cupy": "14"},
    }
    assert environment_differences(old, new) == [
        "driver 570 or 575 -> 580",
        "versions.numpy 1 -> 2",
    ]
    assert environment_differences(old, old[0]) == []
    assert environment_differences([], new) == []


# How large a later loss would pass


def test_an_improvement_says_how_much_could_be_lost_again():
    faster = decide(recorded([10e-3] * 5), 8e-3)
    assert faster.outcome is Outcome.IMPROVED
    assert unseen_loss(TIME, faster) == pytest.approx(10 * 1.02 / 8 - 1)
    more = decide(recorded([100.0] * 5, QPS), 120.0)
    assert unseen_loss(QPS, more) == pytest.approx(1 - 100 / 1.05 / 120)
    better = decide(recorded([0.90], ACCURACY), 0.92)
    assert unseen_loss(ACCURACY, better) == pytest.approx(0.02 / 0.92)
    assert unseen_loss(CONFLICTS, decide(recorded([2048.0], CONFLICTS), 0.0)) is None
    assert unseen_loss(TIME, decide(None, 1.0)) is None


@quick
@given(base=values, now=values)
def test_a_loss_of_the_unseen_size_passes_and_a_larger_does_not(base, now):
    baseline = recorded([base] * 5, LATENCY)
    loss = unseen_loss(LATENCY, decide(baseline, now))
    assume(loss > 0)
    for factor, unseen in ((0.999, True), (1.001, False)):
        later = measured(now * (1 + loss) * factor, LATENCY)
        assert passes(baseline, later) is unseen


def test_several_improvements_of_a_test_are_one_note():
    def row(test, before, now):
        verdict = decide(recorded([before] * 5), now)
        return SimpleNamespace(test=test, command=f"pytest {test}", metric=TIME, verdict=verdict, details={})

    told = list(
        improvements([row("a", 10e-3, 9e-3), row("a", 10e-3, 8e-3), row("b", 2.0, 1.0), row("c", 1.0, 1.0)])
    )
    assert [each.split()[0] for each in told] == ["a", "b"]
    assert "a later loss of 27.5 % would pass unseen" in told[0]


# Quantiles


@pytest.mark.parametrize("freedom", [1, 2, 2.5, 4, 7.3, 19, 60.1, 1e3, 1e5, 1e7])
def test_quantiles_of_t_are_those_of_scipy(freedom):
    for probability in (0.9, 0.95, 0.99, 0.995, 0.9985):
        expected = special.stdtrit(freedom, probability)
        assert quantile(freedom, probability) == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("freedom", [2, 4, 5, 8, 17, 19, 200])
def test_noncentral_t_is_scipys(freedom):
    for probability, t in ((0.05, 3.1), (0.05, quantile(freedom, 0.9985)), (0.2, 2.0)):
        shift = noncentrality(freedom, probability, t)
        assert stats.nct.cdf(t, freedom, shift) == pytest.approx(probability, rel=1e-7)


# Properties


@quick
@given(base=some_runs, now=some_runs, theta=thetas)
def test_a_change_of_unit_changes_no_verdict(base, now, theta):
    plain = decide(recorded(base, LATENCY), now[0], now, tolerance=theta)
    scaled = [value * 1000 for value in now]
    other = decide(recorded([value * 1000 for value in base], LATENCY), scaled[0], scaled, tolerance=theta)
    assert plain.interval == pytest.approx(other.interval, abs=1e-9)
    assert plain.detectable == pytest.approx(other.detectable)
    assume(not _on_the_edge(plain))
    assert plain.outcome is other.outcome


@quick
@given(base=some_runs, now=some_runs, theta=thetas)
def test_time_and_its_reciprocal_rate_get_the_same_verdict(base, now, theta):
    time = decide(recorded(base, LATENCY), now[0], now, tolerance=theta)
    rates = [1 / value for value in now]
    rate = decide(recorded([1 / value for value in base], QPS), rates[0], rates, tolerance=theta)
    assert 1 + time.change == pytest.approx(1 / (1 + rate.change))
    assert 1 + time.interval[0] == pytest.approx(1 / (1 + rate.interval[1]))
    assume(not _on_the_edge(time))
    assert time.outcome is rate.outcome


@quick
@given(base=some_runs, now=some_runs, theta=thetas)
def test_swapping_the_sides_swaps_the_sign(base, now, theta):
    there = decide(recorded(base, LATENCY), now[0], now, tolerance=theta)
    back = decide(recorded(now, LATENCY), base[0], base, tolerance=theta)
    assert 1 + there.change == pytest.approx(1 / (1 + back.change))
    assert 1 + there.interval[0] == pytest.approx(1 / (1 + back.interval[1]))
    assume(not _on_the_edge(there))
    if there.outcome is Outcome.REGRESSED:
        assert back.outcome is Outcome.IMPROVED
    assert (there.outcome is Outcome.EQUAL) == (back.outcome is Outcome.EQUAL)


@quick
@given(base=some_runs, now=some_runs, theta=thetas, shifts=st.tuples(*[st.floats(0.5, 2.0)] * 2))
def test_slower_is_never_judged_better(base, now, theta, shifts):
    order = [Outcome.IMPROVED, Outcome.EQUAL, Outcome.INCONCLUSIVE, Outcome.REGRESSED]
    small, large = sorted(shifts)
    less, more = (
        decide(recorded(base, LATENCY), now[0], [value * shift for value in now], tolerance=theta)
        for shift in (small, large)
    )
    assert less.change <= more.change
    if less.outcome is Outcome.REGRESSED or more.outcome is Outcome.IMPROVED:
        assert order.index(less.outcome) == order.index(more.outcome)
    assert less.exceeds <= more.exceeds


@quick
@given(
    base=st.lists(values, min_size=1, max_size=6),
    now=st.lists(values, max_size=6),
    first=values,
    theta=thetas,
)
def test_never_regressed_on_too_few_runs_and_never_nan(base, now, first, theta):
    verdict = decide(recorded(base, LATENCY), first, now, tolerance=theta)
    if len(base) < 3 or len(now) < 3:
        assert verdict.outcome is not Outcome.REGRESSED
    figures = [verdict.now, verdict.baseline, verdict.change, *verdict.interval, verdict.detectable or 0.0]
    assert all(math.isfinite(figure) for figure in figures)
    assert verdict.interval[0] <= verdict.change <= verdict.interval[1]


def test_absurd_but_finite_figures_stay_finite():
    verdict = decide(recorded([1e-300, 1e300, 1e-300], LATENCY), 1e300, [1e300] * 4)
    assert all(math.isfinite(figure) for figure in (verdict.change, *verdict.interval, verdict.detectable))


def _on_the_edge(verdict: Verdict) -> bool:
    """Whether a rounding error could decide the outcome."""
    limit = math.log1p(verdict.tolerance)
    bounds = [math.log1p(bound) for bound in (*verdict.interval, verdict.change)]
    return any(abs(abs(bound) - limit) < 1e-9 for bound in bounds)
