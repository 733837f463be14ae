"""The verdict of two revisions measured in alternation: its properties, and its rates by simulation."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import bdtr

from pytest_gpuperf.errors import GpuperfError
from pytest_gpuperf.measurement import Measurement, Metric, Outcome
from pytest_gpuperf.rules.paired import MIN_BLOCKS, block_differences, judge

OPPOSITE = {Outcome.REGRESSED: Outcome.IMPROVED, Outcome.IMPROVED: Outcome.REGRESSED}


def metric(instrument="record", better="lower", unit="s", kind="noisy"):
    return Metric("time", unit, better, kind, instrument)


def measurements(values, of=None, **contract):
    return [Measurement(of or metric(), contract, (float(value),)) for value in values]


def verdict(here, there, of=None, tolerance=None):
    return judge(measurements(here, of), measurements(there, of), tolerance=tolerance)


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


def test_a_machine_that_slows_steadily_moves_both_sides_of_a_block_alike():
    """Process k of this - other - other - this is 10 % slower than process k - 1, in logs."""
    order = [0.1 * number for number in range(16)]
    here = [math.exp(order[4 * block + place]) for block in range(4) for place in (0, 3)]
    there = [math.exp(order[4 * block + place]) for block in range(4) for place in (1, 2)]
    assert block_differences(measurements(here), measurements(there)) == pytest.approx([0.0] * 4)
    assert verdict(here, there).outcome is Outcome.EQUAL


def test_a_machine_that_changes_between_blocks_does_not_hide_a_slowdown():
    pace = [1.0, 1.0, 3.0, 3.0, 1.5, 1.5, 7.0, 7.0]
    assert verdict([1.2 * p for p in pace], pace).outcome is Outcome.REGRESSED


@pytest.mark.parametrize("blocks", range(1, MIN_BLOCKS))
@pytest.mark.parametrize("slowdown", [0.5, 1.0, 9.0])
def test_fewer_blocks_decide_nothing(blocks, slowdown):
    found = verdict([slowdown] * 2 * blocks, [1.0] * 2 * blocks)
    assert found.outcome is Outcome.INCONCLUSIVE
    assert found.detectable is None
    assert str(MIN_BLOCKS) in found.reason


def test_one_wild_process_confirms_nothing():
    found = verdict([1.0] * 7 + [9.0], [1.0] * 8)
    assert found.outcome is Outcome.INCONCLUSIVE
    assert found.exceeds


def test_the_absolute_floor_holds_here_too():
    of = metric("device_time")
    assert verdict([1.5e-7] * 8, [1.0e-7] * 8, of=of).outcome is Outcome.EQUAL
    assert verdict([2.5e-7] * 8, [1.0e-7] * 8, of=of).outcome is Outcome.REGRESSED
    found = verdict([1.0e-7, 1.0e-7, 2.2e-7, 2.2e-7] * 2, [1.0e-7] * 8, of=of)
    assert found.outcome is Outcome.INCONCLUSIVE
    assert "1e-07 s" in found.reason


def test_another_question_is_not_compared():
    here, there = measurements([9.0] * 8, shape="2"), measurements([1.0] * 8, shape="1")
    found = judge(here, there, tolerance=None)
    assert found.outcome is Outcome.CONTRACT_CHANGED
    assert "shape 1 -> 2" in found.reason


def test_processes_of_one_side_that_disagree_about_the_question_are_not_compared():
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
    assert "machine code is the same" in judge(here, there, tolerance=None).reason
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
def test_swapping_the_sides_swaps_the_verdict(values, direction):
    of = metric(better=direction)
    forth, back = judged(*values, of=of), judged(*values[::-1], of=of)
    assert back.outcome is OPPOSITE.get(forth.outcome, forth.outcome)
    assert math.log1p(back.change) == pytest.approx(-math.log1p(forth.change), abs=1e-9)


@given(sides, st.sampled_from([1e-6, 1e-3, 1e3]))
def test_the_unit_does_not_matter(values, factor):
    plain = judged(*values)
    scaled = judged(*(np.add(side, math.log(factor)) for side in values))
    assert scaled.change == pytest.approx(plain.change, rel=1e-6, abs=1e-9)
    assert scaled.outcome is plain.outcome or _at_a_limit(plain)


@given(sides, st.floats(0.001, 2))
def test_more_slowdown_is_never_a_better_verdict(values, shift):
    rank = [Outcome.IMPROVED, Outcome.EQUAL, Outcome.INCONCLUSIVE, Outcome.REGRESSED]
    here, there = values
    before, after = judged(here, there), judged(np.add(here, shift), there)
    if before.outcome is Outcome.REGRESSED:
        assert after.outcome is Outcome.REGRESSED
    if after.outcome is Outcome.IMPROVED:
        assert before.outcome is Outcome.IMPROVED
    assert after.change > before.change
    assert {before.outcome, after.outcome} <= set(rank)


@given(sides, better)
def test_every_figure_is_a_number_and_lies_in_its_interval(values, direction):
    found = judged(*values, of=metric(better=direction))
    low, high = found.interval
    assert all(math.isfinite(figure) for figure in (found.now, found.baseline, found.change, low, high))
    assert low <= found.change <= high
    assert found.detectable is None or found.detectable > found.tolerance


@settings(max_examples=300)
@given(
    st.lists(st.floats(0, 0.5), min_size=8, max_size=8), st.lists(st.floats(0, 0.1), min_size=8, max_size=8)
)
def test_of_four_blocks_a_red_has_each_beyond_the_tolerance(here, there):
    """The lowest of four lies at most 1.5 sd below their mean, and a red's limit 2.9 sd below it."""
    if judged(here, there).outcome is Outcome.REGRESSED:
        each = block_differences(measurements(np.exp(here)), measurements(np.exp(there)))
        assert min(each) > math.log1p(0.05)


def _at_a_limit(found):
    low, high = (math.log1p(bound) for bound in found.interval)
    limit = math.log1p(found.tolerance)
    return min(abs(abs(bound) - limit) for bound in (low, high)) < 1e-6


# Rates


def simulate(draw, *, instrument, slowdown=0.0, theta=None, blocks=4, trials=2000):
    """How often each outcome comes; ``draw(rng, shape)`` gives log medians of blocks x sides x processes."""
    rng = np.random.default_rng(20261123)
    logs = draw(rng, (trials, blocks, 2, 2))
    logs[:, :, 0] += math.log1p(slowdown)
    of = metric(instrument)
    found: Counter[Outcome] = Counter()
    for trial in np.exp(logs):
        here, there = trial[:, 0].ravel().tolist(), trial[:, 1].ravel().tolist()
        found[verdict(here, there, of=of, tolerance=theta).outcome] += 1
    return found


def normal(sd, between_blocks=0.0):
    def draw(rng, shape):
        pace = rng.normal(0, between_blocks, (*shape[:2], 1, 1))
        return pace + rng.normal(0, sd, shape)

    return draw


def bimodal(sd, share, jump):
    return lambda rng, shape: rng.normal(0, sd, shape) + math.log1p(jump) * (rng.random(shape) < share)


def at_most(count, trials, rate, miss=1e-4):
    """Whether a binomial of at most this rate gives so many with probability ``miss`` or more."""
    return count == 0 or 1 - bdtr(count - 1, trials, rate) >= miss


@pytest.mark.parametrize(
    ("instrument", "sd"), [("device_time", 0.0006), ("loadgen", 0.007), ("host_time", 0.02)]
)
def test_unchanged_code_is_equal(instrument, sd):
    found = simulate(normal(sd), instrument=instrument)
    assert found[Outcome.REGRESSED] == found[Outcome.IMPROVED] == 0
    if instrument == "device_time":
        assert found[Outcome.EQUAL] == 2000


@pytest.mark.parametrize("sd", [0.007, 0.05, 0.3])
def test_at_the_tolerance_itself_reds_stay_below_alpha_however_noisy_the_machine(sd):
    trials = 3000
    found = simulate(normal(sd), instrument="loadgen", slowdown=0.05, trials=trials)
    assert at_most(found[Outcome.REGRESSED], trials, 0.005)


def test_unchanged_code_on_a_noisy_shared_machine_is_not_red():
    """Ten processes a block's pace apart by a factor of two, each by 20 %: still nobody's regression."""
    trials = 3000
    found = simulate(normal(0.2, between_blocks=0.7), instrument="loadgen", trials=trials)
    assert at_most(found[Outcome.REGRESSED], trials, 0.003)


@pytest.mark.parametrize("share", [0.15, 0.5])
def test_two_modes_are_rarely_confirmed(share):
    trials = 3000
    found = simulate(bimodal(0.0006, share, 0.12), instrument="device_time", trials=trials)
    assert at_most(found[Outcome.REGRESSED], trials, 1 / 256)


@pytest.mark.parametrize(
    ("instrument", "sd", "slowdown"),
    [("device_time", 0.0006, 0.025), ("loadgen", 0.007, 0.10), ("host_time", 0.02, 0.20)],
)
def test_real_slowdowns_turn_red(instrument, sd, slowdown):
    found = simulate(normal(sd, between_blocks=0.1), instrument=instrument, slowdown=slowdown)
    assert at_most(found.total() - found[Outcome.REGRESSED], found.total(), 0.05)


def test_detectable_is_the_slowdown_that_turns_red_nineteen_times_in_twenty():
    sd = 0.05
    pattern = sd * np.array([-1, -1, -1, -1, 1, 1, 1, 1]) / math.sqrt(4 / 3)  # four blocks of just that sd
    size = verdict(np.exp(pattern), [1.0] * 8, of=metric("loadgen")).detectable
    found = simulate(normal(sd), instrument="loadgen", slowdown=size, trials=4000)
    assert 0.93 < found[Outcome.REGRESSED] / found.total() < 0.97


def test_more_blocks_see_more_on_a_noisy_machine():
    few = simulate(normal(0.05), instrument="loadgen", slowdown=0.15, blocks=4, trials=500)
    many = simulate(normal(0.05), instrument="loadgen", slowdown=0.15, blocks=12, trials=500)
    assert many[Outcome.REGRESSED] > 450 > few[Outcome.REGRESSED] * 2
