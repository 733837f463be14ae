"""The verdict of two revisions measured in alternation: its properties, and its rates by simulation."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from gatesimulation import at_most
from hypothesis import given
from hypothesis import strategies as st

from pytest_gpuperf.errors import GpuperfError
from pytest_gpuperf.measurement import Measurement, Metric, Outcome
from pytest_gpuperf.rules.case import Compared
from pytest_gpuperf.rules.paired import block_differences, decided, judge, judge_compared, looks


def metric(instrument="record", better="lower", unit="s", kind="noisy"):
    return Metric("time", unit, better, kind, instrument)


def measurements(values, of=None, **contract):
    return [Measurement(of or metric(), contract, (float(value),)) for value in values]


def verdict(here, there, of=None, tolerance=None, blocks=6):
    return judge(measurements(here, of), measurements(there, of), tolerance=tolerance, blocks=blocks)


# Examples


def test_the_same_figures_are_equal():
    found = verdict([1.0] * 8, [1.0] * 8)
    assert found.outcome is Outcome.EQUAL
    assert (found.now, found.baseline, found.change) == (1.0, 1.0, 0.0)


def test_a_real_slowdown_is_regressed_with_its_size():
    found = verdict([1.2] * 8, [1.0] * 8)
    assert found.outcome is Outcome.REGRESSED
    assert found.change == pytest.approx(0.2)
    low, high = found.interval
    assert 0.05 < low < 0.2 < high


def test_a_throughput_that_falls_is_regressed():
    found = verdict([100] * 8, [120] * 8, of=metric(better="higher", unit="samples/s"))
    assert found.outcome is Outcome.REGRESSED
    assert found.change == pytest.approx(100 / 120 - 1)


def test_a_steady_slowdown_moves_both_sides_of_a_block_alike():
    """Process k of this - other - other - this is 1 % slower than process k - 1, in logs."""
    order = [0.01 * number for number in range(16)]
    here = [math.exp(order[4 * block + place]) for block in range(4) for place in (0, 3)]
    there = [math.exp(order[4 * block + place]) for block in range(4) for place in (1, 2)]
    assert block_differences(measurements(here), measurements(there)) == pytest.approx([0.0] * 4)
    assert verdict(here, there, tolerance=0.1).outcome is Outcome.EQUAL


def test_a_change_between_blocks_does_not_hide_a_slowdown():
    pace = [1.0, 1.0, 3.0, 3.0, 1.5, 1.5, 7.0, 7.0]
    assert verdict([1.2 * p for p in pace], pace).outcome is Outcome.REGRESSED


@pytest.mark.parametrize("slowdown", [0.5, 1.0, 9.0])
def test_one_block_decides_nothing(slowdown):
    found = verdict([slowdown] * 2, [1.0] * 2)
    assert found.outcome is Outcome.INCONCLUSIVE
    assert "1 complete block," in found.reason


def test_looks_come_after_2_3_and_4_blocks_and_at_the_end():
    assert looks(6) == (2, 3, 4, 6)
    assert looks(4) == (2, 3, 4)
    assert looks(2) == (2,)
    assert looks(12) == (2, 3, 4, 12)


def test_the_first_look_that_decides_counts():
    # Plain after two blocks, whatever came after them.
    assert verdict([1.5] * 4 + [1.0] * 8, [1.0] * 12).outcome is Outcome.REGRESSED
    assert verdict([1.0] * 4 + [1.5] * 8, [1.0] * 12).outcome is Outcome.EQUAL


def compared(here, there, **more):
    return Compared(revision="HEAD", here=measurements(here), there=measurements(there), **more)


def test_a_comparison_goes_on_until_a_look_decides():
    noisy = [1.0, 1.2, 1.2, 1.0, 1.3, 1.0, 1.0, 1.25, 1.0, 1.2, 1.0, 1.2]
    assert not decided(compared([1.5] * 2, [1.0] * 2), None), "one block is no look"
    assert decided(compared([1.5] * 4, [1.0] * 4), None)
    assert decided(compared([1.0] * 4, [1.0] * 4), None)
    assert not decided(compared(noisy[:4], [1.0] * 4), None)
    assert not decided(compared(noisy[:10], [1.0] * 10), None), "five blocks are no look"
    assert decided(compared(noisy, [1.0] * 12), None), "the last one"
    assert decided(compared(noisy[:4], [1.0] * 4, blocks=2), None)


def test_nothing_is_waited_for_that_cannot_be_compared():
    assert decided(compared([], [], why_not="has no such test"), None)
    assert decided(compared([1.0] * 2, [1.0] * 2, borrowed=["a.py"]), None)


def test_a_process_kept_from_measuring_takes_no_verdict_back():
    def outcome(here, there):
        now = measurements([1.0])[0]
        return judge_compared(now, compared(here, there, kept_from="lost"), None).outcome

    assert outcome([1.5] * 4, [1.0] * 4) is Outcome.REGRESSED
    assert outcome([1.0] * 4, [1.0] * 4) is Outcome.EQUAL
    assert outcome([1.5] * 2, [1.0] * 2) is Outcome.UNFIT
    assert outcome([], []) is Outcome.UNFIT


def test_one_wild_process_confirms_nothing():
    found = verdict([9.0] + [1.0] * 11, [1.0] * 12)
    assert found.outcome is Outcome.UNFIT
    assert "differ by more than the two sides" in found.reason


def test_a_loss_beyond_noise_but_not_tolerance_is_inconclusive():
    pace = [1.08, 1.02, 1.10, 1.03, 1.09, 1.02, 1.08, 1.04, 1.09, 1.02, 1.10, 1.04]
    found = verdict(pace, [1.0] * 12)
    assert found.outcome is Outcome.INCONCLUSIVE
    assert found.exceeds


def test_the_absolute_floor_holds_here_too():
    of = metric("device_time")
    assert verdict([1.5e-7] * 8, [1.0e-7] * 8, of=of).outcome is Outcome.EQUAL
    assert verdict([4.5e-7] * 8, [1.0e-7] * 8, of=of).outcome is Outcome.REGRESSED


def test_another_question_is_not_compared():
    here, there = measurements([9.0] * 8, shape="2"), measurements([1.0] * 8, shape="1")
    found = judge(here, there, tolerance=None)
    assert found.outcome is Outcome.CONTRACT_CHANGED
    assert "shape 1 -> 2" in found.reason


def test_processes_that_measure_different_things_do_not_compare():
    here = measurements([9.0] * 7, batch=1) + measurements([9.0], batch=2)
    found = judge(here, measurements([1.0] * 8, batch=1), tolerance=None)
    assert found.outcome is Outcome.CONTRACT_CHANGED
    assert "batch 1 -> 2" in found.reason


def test_exact_values_are_compared_directly_and_must_agree():
    of = metric("counters", unit="1", kind="exact")
    assert verdict([32.0], [4.0], of=of).outcome is Outcome.REGRESSED
    assert verdict([4.0], [4.0], of=of).outcome is Outcome.EQUAL
    assert verdict([4.0], [32.0], of=of).outcome is Outcome.IMPROVED
    found = verdict([4.0, 5.0], [4.0], of=of)
    assert found.outcome is Outcome.UNMEASURED
    assert "[4.0, 5.0]" in found.reason


def test_what_is_shown_is_not_judged():
    assert verdict([9.0], [1.0], of=metric(kind="shown")).outcome is Outcome.SHOWN


def test_equal_machine_code_is_said_of_a_red():
    here = [replace(m, code="abc") for m in measurements([1.5] * 8)]
    there = [replace(m, code="abc") for m in measurements([1.0] * 8)]
    assert "inputs are the same in both revisions" in judge(here, there, tolerance=None).reason
    there[3] = replace(there[3], code="abd")
    assert judge(here, there, tolerance=None).reason == ""


def test_what_cannot_be_judged_is_refused():
    with pytest.raises(GpuperfError, match="sample of 0"):
        verdict([0.0] * 8, [1.0] * 8)
    with pytest.raises(GpuperfError, match="tolerance -1"):
        verdict([1.0] * 8, [1.0] * 8, tolerance=-1)
    with pytest.raises(ValueError, match="7 and 8 processes"):
        verdict([1.0] * 7, [1.0] * 8)


# Properties

logs = st.floats(-3, 3)
sides = st.integers(1, 8).flatmap(
    lambda blocks: st.tuples(*[st.lists(logs, min_size=2 * blocks, max_size=2 * blocks)] * 2)
)
better = st.sampled_from(["lower", "higher"])


def judged(here, there, of=None, tolerance=0.05):
    return verdict(np.exp(here), np.exp(there), of=of or metric(), tolerance=tolerance)


@given(sides, better)
def test_only_one_of_two_sides_can_be_the_worse(values, direction):
    of = metric(better=direction)
    forth, back = judged(*values, of=of), judged(*values[::-1], of=of)
    if forth.outcome is Outcome.REGRESSED:
        assert back.change * forth.change < 0
        assert not back.exceeds
    assert not (forth.exceeds and back.exceeds)


@given(sides, st.sampled_from([1e-6, 1e-3, 1e3]))
def test_the_unit_does_not_matter(values, factor):
    plain = judged(*values)
    scaled = judged(*(np.add(side, math.log(factor)) for side in values))
    assert scaled.change == pytest.approx(plain.change, rel=1e-6, abs=1e-9)
    assert scaled.outcome is plain.outcome or _at_a_limit(plain)


@given(sides, st.floats(0.001, 2))
def test_more_slowdown_is_never_a_better_verdict(values, shift):
    here, there = values
    before, after = judged(here, there), judged(np.add(here, shift), there)
    if before.outcome is Outcome.REGRESSED:
        assert after.outcome is Outcome.REGRESSED
    if not after.exceeds:
        assert not before.exceeds


@given(sides, better)
def test_every_figure_is_a_number_and_lies_in_its_interval(values, direction):
    found = judged(*values, of=metric(better=direction))
    low, high = found.interval
    assert all(math.isfinite(figure) for figure in (found.now, found.baseline, found.change, low, high))
    assert low <= found.change <= high
    assert found.detectable is None or found.detectable > found.tolerance


def _at_a_limit(found):
    low, high = (math.log1p(bound) for bound in found.interval)
    limit = math.log1p(found.tolerance)
    return min(abs(abs(bound) - limit) for bound in (low, high)) < 1e-6


# Rates


def simulate(draw, *, instrument, slowdown=0.0, theta=None, blocks=6, trials=2000):
    """How often each outcome comes; ``draw(rng, shape)`` gives log medians of blocks x sides x processes."""
    rng = np.random.default_rng(20261123)
    logs = draw(rng, (trials, blocks, 2, 2))
    logs[:, :, 0] += math.log1p(slowdown)
    of = metric(instrument)
    found: Counter[Outcome] = Counter()
    for trial in np.exp(logs):
        here, there = trial[:, 0].ravel().tolist(), trial[:, 1].ravel().tolist()
        found[verdict(here, there, of=of, tolerance=theta, blocks=blocks).outcome] += 1
    return found


def normal(sd, between_blocks=0.0):
    def draw(rng, shape):
        pace = rng.normal(0, between_blocks, (*shape[:2], 1, 1))
        return pace + rng.normal(0, sd, shape)

    return draw


def drifting(sd, slope):
    """Processes of this - other - other - this that get slower steadily, by ``slope`` over all of them."""

    def draw(rng, shape):
        order = np.arange(4 * shape[1]).reshape(-1, 4)[:, [0, 3, 1, 2]].reshape(1, shape[1], 2, 2)
        return slope * order / (4 * shape[1]) + rng.normal(0, sd, shape)

    return draw


def bimodal(sd, share, jump):
    return lambda rng, shape: rng.normal(0, sd, shape) + math.log1p(jump) * (rng.random(shape) < share)


@pytest.mark.parametrize(
    ("instrument", "sd"), [("device_time", 0.001), ("loadgen", 0.02), ("host_time", 0.05)]
)
def test_unchanged_code_is_not_red(instrument, sd):
    found = simulate(normal(sd), instrument=instrument)
    assert at_most(found[Outcome.REGRESSED], 2000, 0.0005)
    if instrument == "device_time":
        assert found == {Outcome.EQUAL: 2000}


@pytest.mark.parametrize(
    ("instrument", "sd", "theta"),
    [
        ("device_time", 0.001, 0.02),
        ("device_time", 0.006, 0.02),
        ("loadgen", 0.025, 0.05),
        ("host_time", 0.05, 0.05),
        ("loadgen", 0.3, 0.05),
    ],
)
def test_at_the_tolerance_itself_reds_stay_below_half_a_percent(instrument, sd, theta):
    trials = 3000
    found = simulate(normal(sd), instrument=instrument, slowdown=theta, theta=theta, trials=trials)
    assert at_most(found[Outcome.REGRESSED], trials, 0.005)


def test_unchanged_code_on_a_noisy_shared_machine_is_not_red():
    """Ten processes a block's pace apart by a factor of two, each by 20 %: still nobody's regression."""
    trials = 3000
    found = simulate(normal(0.2, between_blocks=0.7), instrument="loadgen", trials=trials)
    assert at_most(found[Outcome.REGRESSED], trials, 0.003)


def test_a_machine_that_drifts_is_not_red():
    found = simulate(drifting(0.007, 0.06), instrument="device_time")
    assert at_most(found[Outcome.REGRESSED], 2000, 0.0005)


@pytest.mark.parametrize("share", [0.15, 0.5])
def test_two_modes_are_rarely_confirmed(share):
    trials = 3000
    found = simulate(bimodal(0.001, share, 0.12), instrument="device_time", trials=trials)
    assert at_most(found[Outcome.REGRESSED], trials, 0.001)


@pytest.mark.parametrize(
    ("instrument", "sd", "slowdown"),
    [("device_time", 0.001, 0.03), ("device_time", 0.006, 0.05), ("loadgen", 0.02, 0.20)],
)
def test_real_slowdowns_turn_red(instrument, sd, slowdown):
    found = simulate(normal(sd, between_blocks=0.1), instrument=instrument, slowdown=slowdown)
    assert at_most(found.total() - found[Outcome.REGRESSED], found.total(), 0.05)


def test_detectable_is_the_slowdown_caught_19_times_in_20():
    sd = 0.05
    pattern = sd * np.array([-1, 1, 1, -1, 1, -1, -1, 1, -1, 1, 1, -1])  # processes of about that sd
    size = verdict(np.exp(pattern), np.exp(np.roll(pattern, 3)), of=metric("loadgen")).detectable
    found = simulate(normal(sd), instrument="loadgen", slowdown=size, trials=3000)
    assert 0.90 < found[Outcome.REGRESSED] / found.total() < 0.99


def test_more_blocks_see_more_on_a_noisy_machine():
    few = simulate(normal(0.05), instrument="loadgen", slowdown=0.12, blocks=4, trials=500)
    many = simulate(normal(0.05), instrument="loadgen", slowdown=0.12, blocks=16, trials=500)
    assert many[Outcome.REGRESSED] > 400 > few[Outcome.REGRESSED] * 2
