"""Metrics that one side lacks, or that may not be compared although both sides have them."""

from __future__ import annotations

from dataclasses import replace

import pytest

from pytest_gpuperf.errors import BaselineError
from pytest_gpuperf.measurement import Baseline, Bounds, Measurement, Metric, Outcome, Run, TestKey
from pytest_gpuperf.records import Record, Row
from pytest_gpuperf.rules.case import Case, Compared, Evidence
from pytest_gpuperf.rules.decide import decide
from pytest_gpuperf.rules.lacking import NEW_IN_PLUGIN
from pytest_gpuperf.storage.baselines import Store

HERE = {"compiler": "g++ 12.2", "device_name": "emulated (g++ 12.2, x86_64)"}
THERE = {"compiler": "g++ 13.1", "device_name": "emulated (g++ 13.1, x86_64)"}
OLD = {"k global_load.sectors_per_request": 4.0, "k global_store.sectors_per_request": 4.0}
GLOBAL = OLD | {"k global_load.requests": 32.0, "k global_load.sectors": 128.0}
SHARED = {"k shared_load.bank_conflicts_per_request": 31.0, "k shared_load.requests": 8.0}


def exact(name: str, instrument: str = "counters") -> Metric:
    return Metric(name, "1", "lower", "exact", instrument)


def stored(figures: dict[str, float], environment=HERE, contract=()) -> dict[str, Baseline]:
    return {
        name: Baseline(exact(name), dict(contract), {}, 0.0, (Run((value,), environment),))
        for name, value in figures.items()
    }


def record(figures: dict[str, float], environment=HERE, contract=()) -> Record:
    measured = (Measurement(exact(name), dict(contract), (value,)) for name, value in figures.items())
    return Record(tuple(measured), environment=environment)


def judged(baselines: dict[str, Baseline], now: Record) -> dict[str, Row]:
    case = Case(key=TestKey("s.py", "t"), stored=baselines, due=baselines, strict=True)
    return {row.metric.name: row for row in decide(case, now)}


def outcomes(rows: dict[str, Row]) -> set[Outcome]:
    return {row.verdict.outcome for row in rows.values()}


def test_the_answers_of_a_model_are_new_beside_its_count():
    count = Metric("correct", "1", "higher", "exact", "accuracy")
    before = {"correct": Baseline(count, {}, {}, 0.0, (Run((2.0,), {}),))}
    now = (Measurement(count, {}, (2.0,)), Measurement(exact("answers", "answers"), {}, (7.0,)))
    rows = judged(before, Record(now))
    assert rows["correct"].verdict.outcome is Outcome.EQUAL
    assert (rows["answers"].verdict.outcome, rows["answers"].verdict.reason) == (Outcome.SHOWN, NEW_IN_PLUGIN)


# --------------------------------------------------------------------------- totals


def test_twice_the_traffic_fails_though_no_request_is_worse():
    rows = judged(
        stored(GLOBAL), record({**GLOBAL, "k global_load.requests": 64, "k global_load.sectors": 256})
    )
    red = {name for name, row in rows.items() if row.cause == "wrong"}
    assert red == {"k global_load.requests", "k global_load.sectors"}


@pytest.mark.parametrize("then", [THERE, {}, {**HERE, "device_name": "emulated (g++ 12.2, aarch64)"}])
def test_totals_of_another_compiler_are_told_and_not_compared(then):
    rows = judged(stored(GLOBAL, then), record({**GLOBAL, "k global_load.requests": 99.0}))
    row = rows["k global_load.requests"]
    assert (row.verdict.outcome, row.cause) == (Outcome.SHOWN, None)
    assert f"{then.get('compiler', 'an unknown one')} in the baseline and g++ 12.2 here" in row.verdict.reason
    assert rows["k global_load.sectors_per_request"].verdict.outcome is Outcome.EQUAL
    worse = judged(stored(GLOBAL, then), record({**GLOBAL, "k global_load.sectors_per_request": 8.0}))
    assert worse["k global_load.sectors_per_request"].cause == "wrong"


def test_totals_of_an_unknown_compiler_are_not_compared():
    rows = judged(stored(GLOBAL), record({**GLOBAL, "k global_load.requests": 99.0}, {}))
    assert rows["k global_load.requests"].verdict.outcome is Outcome.SHOWN


def test_a_baseline_may_hold_the_totals_of_several_compilers(tmp_path):
    store, name = Store(tmp_path), "k global_load.requests"
    store.save("emulated", "test_k.py", {"t": stored({name: 32.0}, THERE)})
    store.save("emulated", "test_k.py", {"t": stored({name: 40.0})}, mode="append")
    with pytest.raises(BaselineError, match="41 cannot be appended to 40"):
        store.save("emulated", "test_k.py", {"t": stored({name: 41.0})}, mode="append")
    both = store.load("emulated", "test_k.py")["t"]
    for environment, value in ((THERE, 32.0), (HERE, 40.0)):
        assert outcomes(judged(both, record({name: value}, environment))) == {Outcome.EQUAL}
        assert outcomes(judged(both, record({name: 41.0}, environment))) == {Outcome.REGRESSED}


def test_totals_not_yet_recorded_are_told_and_fail_nothing():
    rows = judged(stored(OLD, {}), record(GLOBAL))
    new = {name: row for name, row in rows.items() if name not in OLD}
    assert {(row.verdict.outcome, row.verdict.reason, row.cause) for row in new.values()} == {
        (Outcome.SHOWN, NEW_IN_PLUGIN, None)
    }
    assert {rows[name].verdict.outcome for name in OLD} == {Outcome.EQUAL}


@pytest.mark.parametrize("name", ["mine", "other global_load.requests"])
def test_a_metric_that_the_test_adds_still_needs_a_baseline(name):
    row = judged(stored(OLD), record({**OLD, name: 1.0}))[name]
    assert (row.verdict.outcome, row.cause) == (Outcome.NO_BASELINE, "setup")


# --------------------------------------------------------------------------- accesses that go and come


def test_a_counter_of_accesses_no_longer_made_has_improved():
    rows = judged(stored({**GLOBAL, **SHARED}), record(GLOBAL))
    for name in SHARED:
        assert (rows[name].verdict.outcome, rows[name].verdict.now, rows[name].cause) == (
            Outcome.IMPROVED,
            0.0,
            None,
        )
        assert rows[name].verdict.reason == "the kernel makes no loads from shared memory any more"


@pytest.mark.parametrize(
    "now",
    [
        record({"other global_load.requests": 32.0}),
        record(GLOBAL, contract={"arguments": "float32[9]"}),
        record({**GLOBAL, "k shared_load.wavefronts_per_request": 1.0}),
    ],
    ids=["another kernel", "another question", "still made"],
)
def test_what_is_not_known_to_be_gone_is_unmeasured(now: Record):
    row = judged(stored({**GLOBAL, **SHARED}), now)["k shared_load.bank_conflicts_per_request"]
    assert (row.verdict.outcome, row.cause) == (Outcome.UNMEASURED, "wrong")


def test_new_accesses_are_told_with_their_bank_conflicts():
    rows = judged(stored(GLOBAL), record({**GLOBAL, **SHARED}))
    reasons = [rows[name].verdict.reason for name in SHARED]
    which = "loads from shared memory, of which the baseline's kernel made none"
    assert reasons == [f"new: 31 bank conflicts a request in {which}", f"new: {which}"]
    assert {rows[name].cause for name in SHARED} == {"setup"}


# --------------------------------------------------------------------------- only shown


RECORDED = Metric("tokens", "1/s", "higher", "noisy", "record")


def shown(**changes) -> Record:
    measured = Measurement(replace(RECORDED, kind="shown"), {}, (5.0,))
    return Record((replace(measured, **changes),), {"backend": "cpu"}, {"cpu": "A"})


def only(now: Record, cpu: str = "A") -> Row:
    runs = (Run((10.0,), {}),) * 5
    baseline = Baseline(RECORDED, {}, {"backend": "cpu", "cpu": cpu}, 0.02, runs)
    return judged({"tokens": baseline}, now)["tokens"]


def test_a_metric_that_is_only_shown_now_has_another_contract():
    row = only(shown(details={"kind": "shown by the test"}))
    assert (row.verdict.outcome, row.cause) == (Outcome.CONTRACT_CHANGED, "wrong")
    assert "metric.kind noisy -> shown" in row.verdict.reason


def test_a_host_that_judges_less_than_its_baseline_says_so():
    row = only(shown())
    assert (row.verdict.outcome, row.cause) == (Outcome.SHOWN, None)
    assert "gpuperf_judge_host_times" in row.verdict.reason
    assert only(shown(), cpu="B").verdict.reason == ""  # another machine's baseline says nothing here


def test_what_is_only_shown_may_not_ask_another_question_either():
    row = only(shown(metric=replace(RECORDED, kind="shown", unit="B/s")))
    assert (row.verdict.outcome, row.cause) == (Outcome.CONTRACT_CHANGED, "wrong")


def test_a_tail_with_too_few_queries_is_unmeasured():
    warned = shown(details={"warning": "58 queries; this percentile needs 662"})
    assert only(warned).verdict.outcome is Outcome.SHOWN
    beside = Measurement(Metric("qps", "1/s", "higher", "noisy", "loadgen"), {}, (1.0,))
    row = only(replace(warned, measurements=(*warned.measurements, beside)))
    assert (row.verdict.outcome, row.cause) == (Outcome.UNMEASURED, "wrong")
    assert row.verdict.reason == "58 queries; this percentile needs 662"


@pytest.mark.parametrize(
    ("limits", "words"),
    [
        ({"max": 9.0}, "bound not judged here"),
        ({"min": 9.0}, "bound not judged here (now below min=9)"),
        ({}, ""),
    ],
)
def test_a_bound_that_is_not_judged_is_told(limits, words):
    (row,) = judged({}, shown(bounds=Bounds(**limits))).values()
    assert (row.verdict.outcome, row.verdict.reason) == (Outcome.SHOWN, words)


# --------------------------------------------------------------------------- against a revision


def compared(here: Metric, there: Metric | None, contract=(), accepted=False) -> Row:
    now, then = (Measurement(m, {}, (4.0,)) for m in (here, there or here))
    found = Compared(
        revision="REV", here=[now], there=[replace(then, contract=dict(contract))] if there else []
    )
    case = Case(key=TestKey("s.py", "t"), against="REV", strict=True, accepted=accepted)
    (row,) = decide(case, Record((now,)), Evidence(compared={"x": found}))
    return row


X = exact("x", "record")


def test_a_judged_metric_that_loses_its_comparison_fails_strict():
    for row in (compared(X, X, {"version": 2}), compared(replace(X, kind="shown"), X)):
        assert (row.verdict.outcome, row.cause) == (Outcome.CONTRACT_CHANGED, "wrong")
        assert "--gpuperf-accept" in row.verdict.reason


def test_an_accepted_change_may_lose_a_comparison():
    row = compared(X, X, {"version": 2}, accepted=True)
    assert (row.verdict.outcome, row.cause) == (Outcome.CONTRACT_CHANGED, None)


def test_what_the_revision_does_not_judge_is_nobodys_fault():
    for there in (None, replace(X, kind="shown")):
        row = compared(X, there)
        assert (row.verdict.outcome, row.cause) == (Outcome.NO_BASELINE, None)


def test_a_lost_metric_fails_strict_and_lost_accesses_do_not():
    lost = [Measurement(m, {}, (31.0,)) for m in (X, *(exact(name) for name in SHARED))]
    case = Case(key=TestKey("s.py", "t"), against="REV", strict=True)
    now = record(GLOBAL)
    same = {m.metric.name: Compared(revision="REV", here=[m], there=[m]) for m in now.measurements}
    rows = {row.metric.name: row for row in decide(case, now, Evidence(compared=same, lost=lost))}
    assert (rows["x"].verdict.outcome, rows["x"].cause) == (Outcome.MISSING, "wrong")
    assert {rows[name].verdict.outcome for name in SHARED} == {Outcome.IMPROVED}
