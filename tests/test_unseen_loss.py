"""How large a loss after an improvement would pass unseen."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from hypothesis import assume, given
from verdictcases import (
    ACCURACY,
    CONFLICTS,
    LATENCY,
    QPS,
    TIME,
    decide,
    measured,
    passes,
    quick,
    recorded,
    values,
)

from pytest_gpuperf.measurement import Outcome
from pytest_gpuperf.report.summary import improvements
from pytest_gpuperf.rules.creep import unseen_loss


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
