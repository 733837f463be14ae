"""Creep: updates that each pass and add up to a loss are told, and what is no creep is not."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from pytest_gpuperf.constants import INSTRUMENTS
from pytest_gpuperf.measurement import Baseline, Metric, Milestone, Run, TestKey
from pytest_gpuperf.report.update import WARNING, crept, moved
from pytest_gpuperf.rules.creep import begun, followed, loss, yardstick

TIME = Metric("time", "s", "lower", "noisy", "device_time")
RATE = Metric("rate", "1/s", "higher", "noisy", "loadgen")
COUNT = Metric("sectors", "1", "lower", "exact", "counters")
KEY = TestKey("suites/test_a.py", "test_x")
DRIVER = {"driver": "570.1"}


def baseline(*values, metric=TIME, commit="c0de", code=None, date="2026-08-01", contract=None, **environment):
    surrounds = {"commit": commit, "date": date, **environment}
    runs = tuple(Run((value,), surrounds, code) for value in values)
    return Baseline(metric, contract or {}, {}, metric.constants.prior_sd, runs)


def updates(*made):
    """The baseline that a chain of updates leaves."""
    found = begun(made[0])
    for each in made[1:]:
        found = followed(found, begun(each))
    return found


def test_the_first_value_and_the_best_one_stay():
    found = updates(
        baseline(1.0, commit="a"), baseline(0.5, commit="b", date="2026-08-02"), baseline(1.01, commit="c")
    )
    assert found.origin == Milestone(1.0, "2026-08-01", "a")
    assert found.best == Milestone(0.5, "2026-08-02", "b")
    assert found.value == pytest.approx(1.01)


def test_an_entry_without_an_origin_begins_with_its_oldest_run():
    old = baseline(1.0, 1.2, 1.2)
    assert (old.origin, old.best) == (None, None)
    found = followed(old, begun(baseline(1.3, commit="new")))
    assert found.origin == found.best == Milestone(1.0, "2026-08-01", "c0de")
    assert yardstick(old, 0.02) is None


@pytest.mark.parametrize(
    ("metric", "fast", "edge"),
    [(TIME, 1.0, 1.04), (RATE, 1.04, 1.0)],
    ids=["a time", "a rate"],
)
def test_twice_the_tolerance_is_the_limit(metric, fast, edge):
    less = edge * (0.9999 if metric is TIME else 1.0001)
    more = edge * (1.0001 if metric is TIME else 0.9999)
    assert yardstick(updates(baseline(fast, metric=metric), baseline(less, metric=metric)), 0.02) is None
    found = yardstick(updates(baseline(fast, metric=metric), baseline(more, metric=metric)), 0.02)
    assert found is not None
    assert found.value == fast


def test_a_gain_lost_again_is_told_whatever_the_origin_was():
    chain = [baseline(value, commit=str(value)) for value in (10.0, 5.0, 10.1)]
    assert yardstick(updates(*chain), 0.02) == Milestone(pytest.approx(5.0), "2026-08-01", "5.0")


def test_an_exact_value_that_got_worse_is_told_also_from_zero():
    for values in ((1.0, 2.0), (0.0, 1.0)):
        assert yardstick(updates(*(baseline(v, metric=COUNT, commit=str(v)) for v in values)), 0.0)
    assert yardstick(updates(baseline(2.0, metric=COUNT), baseline(1.0, metric=COUNT)), 0.0) is None
    assert loss(COUNT, 0.0, 0.0) == 0


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ({"code": "aa", "commit": "1"}, {"code": "aa", "commit": "2", "driver": "580.2"}, False),
        ({"commit": "1"}, {"commit": "1", "driver": "580.2"}, False),
        ({"commit": "1"}, {"commit": "1", "driver": "580.2", "dirty": True}, True),
        ({"commit": "1"}, {"commit": "2", "driver": "580.2"}, True),
        ({"code": "aa", "commit": "1"}, {"code": "bb", "commit": "2", "driver": "580.2"}, True),
        ({"code": "aa", "commit": "1"}, {"code": "aa", "commit": "2"}, True),
    ],
    ids=[
        "the same machine code on another driver",
        "the same commit on another driver",
        "with changes to it",
        "another commit",
        "other machine code",
        "the same driver",
    ],
)
def test_newer_software_is_no_creep(old, new, told):
    found = updates(baseline(1.0, **{**DRIVER, **old}), baseline(1.1, **{**DRIVER, **new}))
    assert bool(yardstick(found, 0.02)) is told
    if not told:
        assert found.origin.value == found.best.value == pytest.approx(1.1)
        later = followed(found, begun(baseline(1.1 * 1.05, commit="3", **{**DRIVER, "driver": "580.2"})))
        assert yardstick(later, 0.02)


def test_another_question_begins_anew():
    found = updates(baseline(1.0), baseline(9.0, contract={"n": 2}))
    assert found.origin.value == pytest.approx(9.0)
    elsewhere = followed(updates(baseline(1.0)), replace(baseline(9.0), place={"power_limit_w": 300}))
    assert elsewhere.origin.value == pytest.approx(9.0)


# --------------------------------------------------------------------------- by simulation


def told_at(rng, instrument, step, sd, count=40):
    """The number of the update that is told of, None of ``count``."""
    metric = replace(TIME, instrument=instrument)
    theta = INSTRUMENTS[instrument].tolerance
    found = None
    for number in range(count + 1):
        values = np.exp(number * np.log1p(step) + rng.normal(0, sd, 5)).tolist()
        new = begun(baseline(*values, metric=metric, commit=str(number)))
        found = followed(found, new) if found else new
        if yardstick(found, theta):
            return number
    return None


@pytest.mark.parametrize(
    ("instrument", "sd", "step", "update"),
    [
        ("device_time", 0.001, 0.019, 3),
        ("device_time", 0.001, 0.010, 4),
        ("device_time", 0.001, 0.005, 8),
        ("loadgen", 0.02, 0.005, 18),
    ],
)
def test_creep_is_told_at_the_stated_update(instrument, sd, step, update):
    """As docs/verdicts.md has it."""
    rng = np.random.default_rng(20261126)
    found = [told_at(rng, instrument, step, sd) for _ in range(200)]
    assert None not in found
    assert np.median(found) == update


@pytest.mark.parametrize(("instrument", "sd"), [("device_time", 0.001), ("loadgen", 0.02)])
def test_noise_alone_is_never_told(instrument, sd):
    rng = np.random.default_rng(20261126)
    assert [told_at(rng, instrument, 0.0, sd, count=20) for _ in range(300)] == [None] * 300


# --------------------------------------------------------------------------- in words


def test_what_moved_has_a_direction_and_the_change_since_origin():
    first, second = begun(baseline(1.0)), baseline(1.02, commit="d")
    second = followed(first, second)
    third = followed(second, baseline(1.01, commit="e"))
    assert moved(KEY, {}, {"time": first}) == ""
    assert moved(KEY, {"time": first}, {"time": first}) == ""
    same = replace(first, runs=tuple(replace(run, samples=(run.value * (1 + 4e-16),)) for run in first.runs))
    assert same.value != first.value
    assert moved(KEY, {"time": first}, {"time": same}) == "", "a mean's last digit"
    assert moved(KEY, {"time": first}, {"time": second}).splitlines() == [
        "suites/test_a.py::test_x",
        "  time 1 s -> 1.020 s, +2.00 % (worse)",
    ]
    (_, line) = moved(KEY, {"time": second}, {"time": third}).splitlines()
    assert line == "  time 1.020 s -> 1.010 s, -0.98 % (better); since 2026-08-01 +1.00 % (worse)"
    faster = followed(begun(baseline(1.0, metric=RATE)), baseline(1.5, metric=RATE))
    assert "+50.00 % (better)" in moved(KEY, {"rate": begun(baseline(1.0, metric=RATE))}, {"rate": faster})
    counted = followed(begun(baseline(0.0, metric=COUNT)), baseline(31.0, metric=COUNT))
    assert "sectors 0 -> 31, worse" in moved(
        KEY, {"sectors": begun(baseline(0.0, metric=COUNT))}, {"sectors": counted}
    )


def test_the_warning_names_what_was_better_once():
    chain = [baseline(value, commit=str(value)) for value in (1.0, 0.5, 1.01)]
    text = crept(KEY, updates(*chain), 0.02)
    assert text.startswith(WARNING)
    assert "suites/test_a.py::test_x: time is worse than it was" in text
    assert "1.010 s, x2.02 (worse) since its best, 500 ms on 2026-08-01 (0.5):" in text
    assert "twice the tolerance of 2 %" in text
    assert crept(KEY, updates(*chain[:2]), 0.02) == ""
    counted = updates(*(baseline(value, metric=COUNT) for value in (4.0, 8.0)))
    assert "sectors is worse" in crept(KEY, counted, 0.0, 5.0)
    assert crept(KEY, counted, 0.0, 4.0) == ""  # the line of the update itself has said it
    assert all(len(line) <= 80 for line in text.splitlines())
