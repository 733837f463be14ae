"""The rule's properties; its error rates are in test_verdict_simulation.py."""

from __future__ import annotations

import math

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from verdictcases import LATENCY, QPS, decide, quick, recorded, values

from pytest_gpuperf.measurement import Outcome, Verdict

some_runs = st.lists(st.floats(0.9, 1.1), min_size=3, max_size=7)
thetas = st.sampled_from([0.01, 0.02, 0.05, 0.1])


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
