"""Calibration: how often the verdict errs on runs of identical code, counted, stored, told and drawn."""

from __future__ import annotations

import sys
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from scipy.special import bdtr

from pytest_gpuperf.errors import BaselineError
from pytest_gpuperf.measurement import Bounds, Measurement, Metric, Outcome
from pytest_gpuperf.records import Record
from pytest_gpuperf.report.calibration import expectation, report, write_plot
from pytest_gpuperf.rules import calibration
from pytest_gpuperf.rules.calibration import SHIFTS, Calibration, Rate, calibrate, runs_needed
from pytest_gpuperf.rules.trial import RecordedTest, every_series, outcome
from pytest_gpuperf.storage.baselines import Store
from pytest_gpuperf.storage.calibrations import append_run, read_result, read_runs, results, save_result

TIME = Metric("time", "s", "lower", "noisy", "device_time")
RATE = Metric("rate", "1/s", "higher", "noisy", "device_time")
SECTORS = Metric("sectors", "1", "lower", "exact", "counters")
KEY = "suites/test_it.py::test_it"
R = 5


def recorded(value, metric=TIME, *, pool="h100", unfit="", contract=None, tolerances=None):
    """One test in one run, of the given median."""
    measured = Measurement(metric, contract or {}, (float(value),))
    environment = {"date": "2026-11-23T10:00:00+00:00", "device_uuid": "GPU-1"}
    return RecordedTest(pool, tolerances or {}, Record((measured,), {}, {}, environment, unfit))


def runs_of(values, metric=TIME, **details):
    return [{KEY: recorded(value, metric, **details)} for value in values]


def steady(count=20, spread=0.0006, seed=1):
    return np.exp(np.random.default_rng(seed).normal(0, spread, count)).tolist()


def only(runs) -> Calibration:
    (found,) = calibrate(runs, R)
    return found


# Bounds


@pytest.mark.parametrize(("reds", "trials"), [(0, 20), (3, 20), (1, 60), (19, 20)])
def test_the_bounds_are_clopper_and_pearsons(reds, trials):
    rate = Rate(reds, trials)
    assert bdtr(reds, trials, rate.at_most) == pytest.approx(0.05)
    if reds:
        assert 1 - bdtr(reds - 1, trials, rate.at_least) == pytest.approx(0.05)
    else:
        assert rate.at_least == 0


def test_all_red_is_bounded_below_only():
    assert Rate(20, 20).at_most == 1
    assert Rate(20, 20).at_least == pytest.approx(0.05 ** (1 / 20))


def test_59_clean_runs_claim_5_percent_and_58_do_not():
    assert Rate(0, 59).at_most < 0.05 < Rate(0, 58).at_most


# The procedure, once


def is_red(series, screen, *more):
    return outcome(series, range(R), screen, range(screen + 1, screen + 5), *more) is Outcome.REGRESSED


def red(values, *, slowdown=0.0, metric=TIME, unfit=(), tolerances=None, **roles):
    runs = [
        {KEY: recorded(value, metric, unfit="hot" if i in unfit else "", tolerances=tolerances)}
        for i, value in enumerate(values)
    ]
    (series,) = every_series(runs)
    return is_red(series, R, slowdown)


def test_a_slower_screen_and_slower_replicas_are_red():
    assert red([1.0] * 5 + [1.1] * 5)


def test_a_screen_within_tolerance_asks_for_no_replica():
    assert not red([1.0] * 5 + [1.0] + [1.1] * 4)


def test_one_replica_within_tolerance_clears():
    assert not red([1.0] * 5 + [1.1] * 4 + [1.0])


def test_an_unfit_replica_makes_it_no_red():
    values = [1.0] * 5 + [1.1] * 5
    assert not red(values, unfit={9})
    assert red(values, unfit={5})  # the screen's own fitness is not asked where replicas are


def with_sentinels(run, seconds):
    test = run[KEY]
    environment = {
        **test.record.environment,
        "sentinels": {"bandwidth_s": seconds, "compute_s": 1e-4, "code": "c0de"},
    }
    return {KEY: replace(test, record=replace(test.record, environment=environment))}


@pytest.mark.parametrize(("seconds", "expected"), [(1e-4, True), (1.1e-4, False)])
def test_a_machine_that_moved_is_no_red(seconds, expected):
    slow = [with_sentinels(run, seconds) for run in runs_of([1.1] * 5)]
    runs = [with_sentinels(run, 1e-4) for run in runs_of([1.0] * 5)] + slow
    (series,) = every_series(runs)
    assert is_red(series, R) == expected


def test_the_tests_own_bound_is_part_of_the_procedure():
    runs = runs_of([1.0] * 10)
    for run in runs:
        (measured,) = run[KEY].record.measurements
        bounded = replace(measured, bounds=Bounds(max=0.9))
        run[KEY] = replace(run[KEY], record=replace(run[KEY].record, measurements=(bounded,)))
    (series,) = every_series(runs)
    assert is_red(series, R)


def test_a_planted_slowdown_makes_times_longer_and_rates_lower():
    assert red([1.0] * 10, slowdown=0.05)
    assert red([1.0] * 10, slowdown=0.05, metric=RATE)
    assert not red([1.0] * 10, slowdown=-0.05)
    assert not red([1.0] * 10, slowdown=-0.05, metric=RATE)


def test_the_stated_tolerance_counts():
    assert not red([1.0] * 10, slowdown=0.05, tolerances={"time": 0.2})


def test_an_exact_metric_needs_no_replica():
    assert red([4.0] * 5 + [5.0] + [4.0] * 4, metric=SECTORS)
    assert not red([4.0] * 10, metric=SECTORS)


# All draws


def test_steady_runs_have_no_false_failure_and_full_power():
    found = only(runs_of(steady()))
    assert found.reds.runs == Rate(0, 20)
    assert found.reds.draws == Rate(0, 500)
    assert found.expected_reds == 0
    metric = found.tests[KEY].metrics["time"]
    assert metric.spread == pytest.approx(np.std(np.log(steady()), ddof=1))
    assert metric.tolerance == 0.02
    power = {shift: figure.draws.share for shift, figure in metric.power.items()}
    assert list(power) == ["1", "2", "3", "5", "10"]
    assert power["1"] == 0
    assert power["2"] < 0.05
    assert power["3"] == power["5"] == power["10"] == 1


def test_a_lucky_screen_of_one_run_is_cleared_by_its_replicas():
    found = only(runs_of([*steady(19), 1.1]))
    assert found.reds.draws.reds == 0


def test_reds_are_counted_by_run_by_test_and_by_draw():
    counts = runs_of([4.0] * 19 + [5.0], SECTORS)
    more = [{**run, "suites/test_it.py::test_time": recorded(1.0)} for run in counts]
    found = only(more)
    assert found.reds.runs == Rate(1, 20)  # the odd run, as the screen
    assert found.reds.draws == Rate(25, 500)
    assert found.tests[KEY].reds.runs == Rate(1, 20)
    assert found.tests["suites/test_it.py::test_time"].reds.runs == Rate(0, 20)
    assert found.expected_reds == 25 / 500
    assert found.tests[KEY].metrics == {}


def test_a_trial_uses_each_run_once_and_records_no_unfit_one(monkeypatch):
    trials = []

    def spy(series, baseline, screen, replicas, slowdown=0.0, old_code=None):
        if old_code is None:
            trials.append((slowdown, tuple(baseline), screen, tuple(replicas)))
        else:
            assert not {*baseline, screen} & {*replicas, *old_code[1]}
            assert not {*replicas} & {*old_code[1]}
        return Outcome.EQUAL

    monkeypatch.setattr(calibration, "outcome", spy)
    values = steady(14)
    calibrate([{KEY: recorded(v, unfit="hot" if i == 3 else "")} for i, v in enumerate(values)], R)
    for _, baseline, screen, replicas in trials:
        assert len({*baseline, screen, *replicas}) == R + 1 + 4
        assert 3 not in baseline
    assert any(3 in replicas for *_, replicas in trials)
    plain = [screen for slowdown, _, screen, _ in trials if not slowdown]
    assert {plain.count(number) for number in range(14)} == {36}
    assert len({trial[1:] for trial in trials}) == 14 * 36
    assert {slowdown for slowdown, *_ in trials} == {0.0, *SHIFTS}


def test_the_same_runs_give_the_same_figures():
    runs = runs_of(steady(spread=0.02))
    assert calibrate(runs, R) == calibrate(runs, R)
    assert calibrate(runs, R) != calibrate(runs, R, seed=2)


def test_all_tests_of_a_draw_share_its_runs():
    other = "suites/test_it.py::test_other"
    odd = [{KEY: recorded(v, SECTORS), other: recorded(v, SECTORS)} for v in [4.0] * 19 + [5.0]]
    found = only(odd)
    assert found.reds.runs == Rate(1, 20)  # one bad run is one red run, with two red tests in it
    assert found.expected_reds == 2 * 25 / 500


def test_a_test_counts_with_the_runs_that_measured_it():
    runs = runs_of(steady(20))
    for run in runs[:10]:
        run["suites/test_it.py::test_rare"] = recorded(1.0)
    for run in runs[:9]:
        run["suites/test_it.py::test_too_rare"] = recorded(1.0)
    found = only(runs)
    assert found.tests["suites/test_it.py::test_rare"].reds.runs.trials == 10
    assert "suites/test_it.py::test_too_rare" not in found.tests


def test_another_question_is_left_out():
    runs = [*runs_of(steady(12)), *runs_of([9.0], contract={"version": 2})]
    assert only(runs).tests[KEY].reds.runs.trials == 12


def test_pools_are_calibrated_apart_and_small_ones_not_at_all():
    runs = [*runs_of(steady(12)), *runs_of(steady(11), pool="a100"), *runs_of(steady(9), pool="t4")]
    found = calibrate(runs, R)
    assert [(c.pool, c.runs) for c in found] == [("a100", 11), ("h100", 12)]
    assert calibrate([], R) == []


def test_too_few_fit_runs_give_no_figure():
    assert calibrate(runs_of(steady(12), unfit="hot"), R) == []


def test_a_baseline_of_other_size_needs_other_many_runs():
    assert runs_needed(5) == 10
    assert calibrate(runs_of(steady(9)), 5) == []
    assert calibrate(runs_of(steady(9)), 4)[0].baseline_runs == 4


# Files


def test_runs_come_back_as_they_were(tmp_path: Path):
    path = tmp_path / "new" / "runs.jsonl"
    samples = tuple(np.random.default_rng(1).normal(1e-4, 1e-6, 300).tolist())
    measured = Measurement(TIME, {"batch": 4, "dtype": "float32"}, samples, "c0de", {"gbs": 1.0})
    test = recorded(1.0, tolerances={"time": 0.03})
    test = replace(test, record=replace(test.record, measurements=(measured,)))
    append_run(path, {KEY: test})
    append_run(path, {KEY: recorded(2.0)})
    first, second = read_runs(path)
    (back,) = first[KEY].record.measurements
    assert back.samples == pytest.approx(samples, rel=1e-5)
    assert (back.contract, back.code, first[KEY].tolerances) == (measured.contract, "c0de", {"time": 0.03})
    assert first[KEY].record.environment == test.record.environment
    assert second[KEY].record.measurements[0].value == 2.0


def damaged(path: Path, change) -> str:
    append_run(path, {KEY: recorded(1.0)})
    append_run(path, {KEY: recorded(1.0)})
    good, bad = path.read_text().splitlines()
    path.write_text(f"{good}\n{change(bad)}\n")
    before = path.read_bytes()
    with pytest.raises(BaselineError) as caught:
        read_runs(path)
    assert path.read_bytes() == before
    return str(caught.value)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda line: line[:-20], "not JSON"),
        (lambda line: line.replace('"schema": 1', '"schema": 2'), "upgrade pytest-gpuperf"),
        (lambda line: line.replace("1.0]", "NaN]"), "not a number"),
        (lambda line: line.replace("1.0]", "-1.0]"), "not above zero"),
        (lambda line: line.replace("[1.0]", "[]"), "no samples"),
        (lambda line: line.replace("device_time", "stopwatch"), "'stopwatch' is unknown"),
        (lambda line: line.replace('"pool": "h100"', '"pool": 7'), "Expected `str`, got `int`"),
        (lambda line: line.replace('"pool": "h100"', '"pool": "h", "pool": "i"'), "'pool' twice"),
        (lambda line: "[]", "a run is a JSON object"),
        (lambda line: "<<<<<<< HEAD", "merge conflict"),
    ],
)
def test_a_damaged_run_is_one_sentence_with_its_line(tmp_path: Path, change, words):
    text = damaged(tmp_path / "runs.jsonl", change)
    assert "runs.jsonl: run on line 2: " in text
    assert words in text
    assert "\n" not in text


def test_a_result_comes_back_and_is_no_suites_baseline(tmp_path: Path):
    found = only(runs_of(steady()))
    path = save_result(tmp_path / "baselines", found)
    assert path.name == "h100.calibration.json"
    assert read_result(path) == found
    assert results(path.parent, "h100") == results(path.parent, None) == [path]
    assert results(path.parent, "a100") == results(tmp_path / "nowhere", None) == []
    store = Store(path.parent)
    assert store.pools() == []
    assert store.suites("h100") == []


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda text: text[:-30], "not JSON"),
        (lambda text: text.replace('"schema": 1', '"schema": 99'), "upgrade pytest-gpuperf"),
        (lambda text: text.replace('"expected_reds": 0.0', '"expected_reds": -1.0'), "$.expected_reds"),
        (lambda text: text.replace('"reds": 0', '"reds": 9999', 1), "more failures than trials"),
        (lambda text: text.replace('"pool": "h100",', ""), "missing required field `pool`"),
    ],
)
def test_a_damaged_result_is_one_sentence(tmp_path: Path, change, words):
    path = save_result(tmp_path, only(runs_of(steady())))
    path.write_text(change(path.read_text()))
    with pytest.raises(BaselineError) as caught:
        read_result(path)
    assert words in str(caught.value)
    assert str(caught.value).startswith(f"{path}: ")
    assert "\n" not in str(caught.value)


# Words and picture


def wide(count=20):
    names = [f"suites/test_transpose.py::test_latency[transpose_tile{i}_unpadded]" for i in range(3)]
    return [
        {name: recorded(v * 1e-4) for name in names} | {KEY: recorded(4.0, SECTORS)} for v in steady(count)
    ]


def test_the_report_says_the_figures_within_eighty_columns():
    text = report(only(wide()))
    assert max(len(line) for line in text.splitlines()) <= 80
    assert "red runs   0 of 20, at most 13.9 % (95% confidence)" in text
    assert "red tests  0 of 80; 0 expected a run" in text
    lines = text.splitlines()  # a long name is whole, with its figures below
    line = next(f"name {below}" for line, below in pairwise(lines) if "le1_unpadded" in line)
    spread = f"{100 * np.std(np.log(steady()), ddof=1):.2f}%"
    assert line.split()[1:5] == ["2%", spread, "0/20", "0"]
    assert line.split()[6:] == ["100", "100", "100"]
    assert next(line for line in text.splitlines() if line.startswith("test_it")).split()[1] == "exact"


def test_the_expectation_fits_a_header():
    found = replace(only(wide()), pool="NVIDIA H100 80GB HBM3 with a rather long name of its own")
    assert all(len(line) <= 80 for line in f"gpuperf: {expectation(found)}".splitlines())
    assert "0 of 20 runs red, at most 13.9 %; 4 tests, 2026-11-23" in expectation(found)


def test_the_plot_is_a_png(tmp_path: Path):
    pytest.importorskip("matplotlib")
    path = tmp_path / "power.png"
    assert write_plot(only(wide()), path) == ""
    assert path.read_bytes().startswith(b"\x89PNG")


def test_without_matplotlib_the_plot_says_what_to_install(tmp_path: Path, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    assert "pip install 'pytest-gpuperf[report]'" in write_plot(only(wide()), tmp_path / "power.png")
    assert not (tmp_path / "power.png").exists()
