"""The rule's error rates, by simulation through the rule itself: a change of rule or constant shows here.

Each trial draws a baseline of five processes, a screen and four replicas. Rates are held to the
bounds that a binomial with the stated rate leaves with probability 1e-4 (fixed seeds, so a rule
that keeps its rates never fails by chance).
"""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from scipy.special import bdtr

from pytest_gpuperf.measurement import INSTRUMENTS, Baseline, Measurement, Metric, Outcome, Run, TestKey
from pytest_gpuperf.modes.case import held_to
from pytest_gpuperf.records import Record
from pytest_gpuperf.rules import verdict
from pytest_gpuperf.rules.case import Case, Evidence, Replicas
from pytest_gpuperf.rules.decide import decide, screen

R, K = 5, 4
PASSED = "passed the screen"


def judge(baseline, first, again, theta, unit=None):
    """What a run calls a metric that it measured as ``first`` and, if it asked for that, as ``again``."""
    name, surrounds = first.metric.name, {"device_uuid": unit} if unit else {}
    case = Case(
        key=TestKey("s.py", "t"), unit=unit, stored=held_to({name: baseline}, unit), tolerances={name: theta}
    )
    record, *replicas = [Record((m,), environment=surrounds) for m in (first, *again)]
    asked = bool(screen(case, record).tripped)
    (row,) = decide(case, record, Evidence(replicas=Replicas(replicas if asked else ())))
    return asked, row.verdict.outcome


def simulate(draw, *, instrument, theta, slowdown=0.0, trials=2000, prior_sd=None):
    """How often each outcome comes, over ``trials``; ``draw(rng, shape)`` gives processes' log medians."""
    rng = np.random.default_rng(20260801)
    metric = Metric("time", "s", "lower", "noisy", instrument)
    sd = INSTRUMENTS[instrument].prior_sd if prior_sd is None else prior_sd
    values = np.exp(draw(rng, (trials, R + 1 + K)))
    values[:, R:] *= 1 + slowdown
    found: Counter[str] = Counter()
    for row in values.tolist():
        baseline = Baseline(metric, {}, {}, sd, tuple(Run((value,), {}) for value in row[:R]))
        first, *again = [Measurement(metric, {}, (value,)) for value in row[R:]]
        asked, outcome = judge(baseline, first, again, theta)
        found[outcome if asked else PASSED] += 1
    return found


def normal(sd):
    return lambda rng, shape: rng.normal(0, sd, shape)


def bimodal(sd, share, jump):
    """Processes of which a share runs slower: an allocation that falls out one way or the other."""
    return lambda rng, shape: rng.normal(0, sd, shape) + np.log1p(jump) * (rng.random(shape) < share)


def plausible(count, trials, rate, miss=1e-4):
    """Whether a binomial with this rate gives a count this far out with probability of ``miss`` or more."""
    at_most = bdtr(count, trials, rate)
    at_least = 1 - bdtr(count - 1, trials, rate) if count else 1.0
    return min(at_most, at_least) >= miss


# Device metrics: 0.06 % between processes


@pytest.mark.parametrize("theta", [0.01, 0.02])
def test_unchanged_device_code_is_never_red(theta):
    found = simulate(normal(0.0006), instrument="device_time", theta=theta)
    assert found == {PASSED: 2000}


@pytest.mark.parametrize(("theta", "slowdown"), [(0.01, 0.02), (0.02, 0.025)])
def test_device_metrics_catch_a_slowdown_just_beyond_the_tolerance(theta, slowdown):
    found = simulate(normal(0.0006), instrument="device_time", theta=theta, slowdown=slowdown)
    assert found == {Outcome.REGRESSED: 2000}


def test_a_spread_borrowed_from_noisier_instruments_would_blind_device_metrics():
    # Why the constant is the instrument's own and not a mean over the suite's instruments, about 1 %:
    # the same runs and the same slowdown, and no red at all.
    found = simulate(
        normal(0.0006), instrument="device_time", theta=0.01, slowdown=0.02, prior_sd=0.01, trials=500
    )
    assert found[Outcome.REGRESSED] == 0


# LoadGen on a GPU: 0.7 %


def test_a_slowdown_of_exactly_the_tolerance_is_rarely_red():
    # The worst true value that is no regression; alpha alone would allow 0.5 %.
    trials = 12_000
    found = simulate(normal(0.007), instrument="loadgen", theta=0.05, slowdown=0.05, trials=trials)
    assert plausible(found[Outcome.REGRESSED], trials, 0.002)


def test_a_spread_far_below_the_truth_would_make_loadgen_cry():
    # Why the constant is not a suite's median: device metrics dominate it.
    trials = 4000
    found = simulate(
        normal(0.007), instrument="loadgen", theta=0.05, slowdown=0.05, prior_sd=0.0006, trials=trials
    )
    assert not plausible(found[Outcome.REGRESSED], trials, 0.002)


def test_unchanged_loadgen_code_is_never_red():
    found = simulate(normal(0.007), instrument="loadgen", theta=0.05)
    assert found[PASSED] >= 1998
    assert found[Outcome.REGRESSED] == 0


def test_loadgen_catches_eight_percent_and_needs_its_replicas_for_it():
    found = simulate(normal(0.007), instrument="loadgen", theta=0.05, slowdown=0.08)
    assert plausible(found[Outcome.REGRESSED], 2000, 0.99)
    assert found[Outcome.REGRESSED] >= 0.97 * 2000


def test_the_detectable_slowdown_is_caught_nineteen_times_in_twenty():
    metric = Metric("time", "s", "lower", "noisy", "loadgen")
    typical = np.exp(0.007 * np.array([-1.2, -0.5, 0.0, 0.5, 1.2])).tolist()
    baseline = Baseline(metric, {}, {}, 0.007, tuple(Run((value,), {}) for value in typical))
    said = verdict.judge(baseline, Measurement(metric, {}, (1.0,)), tolerance=0.05, place={}).detectable
    found = simulate(normal(0.007), instrument="loadgen", theta=0.05, slowdown=said, trials=4000)
    assert 0.92 <= found[Outcome.REGRESSED] / 4000 <= 0.98


# Benchmarks and machines that are not normal


def test_a_benchmark_with_two_modes_is_almost_never_confirmed():
    # 15 % of processes run 12 % slower. Without the rule that every replica lies beyond the
    # tolerance, three slow replicas of four are often enough.
    found = simulate(bimodal(0.0006, 0.15, 0.12), instrument="device_time", theta=0.02, trials=12_000)
    assert found[Outcome.REGRESSED] <= 5
    assert 0.10 <= 1 - found[PASSED] / 12_000 <= 0.20


def test_an_offset_between_units_is_no_red_at_the_default_tolerance():
    # The baseline's unit and this session's differ by 0.5 %, the most that was seen between H100s.
    found = simulate(normal(0.0006), instrument="device_time", theta=0.02, slowdown=0.005)
    assert found == {PASSED: 2000}


@pytest.mark.parametrize("offset", [-0.022, 0.022], ids=["others slower here", "others faster here"])
def test_a_gpu_of_a_fleet_is_judged_as_if_it_were_alone(offset):
    # As far apart as units of three H200s were: with everybody's runs a loss of 2.5 % is hidden or confirmed
    # by the offset, with the GPU's own it is as visible as ever, and unchanged code stays green.
    metric = Metric("time", "s", "lower", "noisy", "device_time")
    rng = np.random.default_rng(11)
    found = {0.0: Counter(), 0.025: Counter()}
    for row in np.exp(rng.normal(0, 0.0015, (500, 2 * R + 1 + K))).tolist():
        own = [Run((value,), {"device_uuid": "GPU-1"}) for value in row[:R]]
        others = [Run((value * (1 - offset),), {"device_uuid": "GPU-2"}) for value in row[R : 2 * R]]
        baseline = Baseline(metric, {}, {}, 0.0006, (*others, *own))
        for slowdown, outcomes in found.items():
            now = [Measurement(metric, {}, (value * (1 + slowdown),)) for value in row[2 * R :]]
            outcomes[judge(baseline, now[0], now[1:], 0.02, "GPU-1")[1]] += 1
    assert found[0.0][Outcome.REGRESSED] == 0
    assert found[0.025][Outcome.REGRESSED] >= 475


def test_below_one_percent_an_offset_between_units_would_be_red_and_so_is_not_judged():
    metric = Metric("time", "s", "lower", "noisy", "device_time")
    rng = np.random.default_rng(7)
    outcomes: dict[str, Counter[str]] = {"GPU-1": Counter(), "GPU-2": Counter()}
    for row in np.exp(rng.normal(0, 0.0006, (300, R + 1 + K))).tolist():
        runs = tuple(Run((value,), {"device_uuid": "GPU-1"}) for value in row[:R])
        now = [Measurement(metric, {}, (value * 1.006,)) for value in row[R:]]
        for uuid, found in outcomes.items():
            baseline = Baseline(metric, {}, {}, 0.0006, runs)
            found[judge(baseline, now[0], now[1:], 0.003, uuid)[1]] += 1
    assert outcomes["GPU-1"][Outcome.REGRESSED] >= 290
    assert outcomes["GPU-2"] == {Outcome.INCONCLUSIVE: 300}
