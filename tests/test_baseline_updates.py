"""Updates of a baseline file: nothing stored is lost, and nothing written that could not be read."""

from __future__ import annotations

import json
import math
import re
from dataclasses import replace
from pathlib import Path

import pytest
from storedbaselines import CONFLICTS, ENVIRONMENT, EXACT, POOL, SUITE, TIME, baseline, empty_store, two_tests  # noqa: F401  (fixtures)

from pytest_gpuperf.errors import BaselineError
from pytest_gpuperf.measurement import Milestone, Run


def test_an_update_leaves_other_tests_alone(store, path):
    before = store.load(POOL, SUITE)
    new = baseline(9e-4, environment={**ENVIRONMENT, "commit": "ffff"})
    store.save(POOL, SUITE, {"test_a": {"time": new}})
    after = store.load(POOL, SUITE)
    assert after["test_b[8-x.y]"] == before["test_b[8-x.y]"]
    assert after["test_a"]["time"].runs == new.runs


def test_replacing_drops_metrics_and_environments_nobody_uses(store):
    old = baseline(environment={**ENVIRONMENT, "commit": "old"})
    store.save(POOL, SUITE, {"test_a": {"time": old, "gone": EXACT}})
    store.save(POOL, SUITE, {"test_a": {"time": baseline()}})
    ((metrics,),) = (store.load(POOL, SUITE).values(),)
    assert {name: found.runs for name, found in metrics.items()} == {"time": baseline().runs}
    document = json.loads(store.path(POOL, SUITE).read_text())
    assert [run["commit"] for run in document["runs"].values()] == [ENVIRONMENT["commit"]]


def test_an_exact_figure_that_is_what_it_was_moves_no_line(store):
    path = store.save(POOL, SUITE, {"test_a": {"time": baseline()}, "test_b": {CONFLICTS.name: EXACT}})
    before = path.read_text()
    later = {**ENVIRONMENT, "commit": "ffff", "date": "2026-09-01"}
    same = replace(EXACT, runs=(Run((2048.0,), later),))
    written = path.stat().st_mtime_ns
    store.save(POOL, SUITE, {"test_b": {CONFLICTS.name: same}})
    assert (path.read_text(), path.stat().st_mtime_ns) == (before, written)
    for change in (
        {"runs": (Run((2049.0,), later),)},
        {"runs": (Run((2048.0,), later, "c0de"),)},
        {"contract": {"dtype": "float16"}},
        {"place": {"backend": "emulated"}},
    ):
        store.save(POOL, SUITE, {"test_b": {CONFLICTS.name: EXACT}})
        store.save(POOL, SUITE, {"test_b": {CONFLICTS.name: replace(same, **change)}})
        assert "ffff" in path.read_text()
        path.write_text(before)


def test_an_equal_total_of_another_compiler_is_recorded(store):
    metric = replace(CONFLICTS, name="k global_load.sectors")
    for compiler in ("g++ 12", "g++ 13"):
        environment = {**ENVIRONMENT, "compiler": compiler}
        total = baseline(4.0, metric=metric, environment=environment, prior_sd=0.0)
        path = store.save(POOL, SUITE, {"test_a": {metric.name: total}})
        assert compiler in path.read_text()


@pytest.mark.parametrize("mode", ["replace", "append"])
def test_an_update_keeps_the_origin_and_the_best(store, mode):
    """Of a file from before origins: its oldest run."""
    first = Run((1e-4,), {"date": "2026-07-01", "commit": "c0de"})
    path = store.save(POOL, SUITE, {"test_a": {"time": baseline(runs=(first, Run((3e-4,), ENVIRONMENT)))}})
    assert "origin" not in path.read_text()
    for value in (2e-4, 1.9e-4):
        new = baseline(value, environment={**ENVIRONMENT, "commit": str(value)})
        store.save(POOL, SUITE, {"test_a": {"time": new}}, mode=mode, keep=3)
        found = store.load(POOL, SUITE)["test_a"]["time"]
        assert found.origin == found.best == Milestone(1e-4, "2026-07-01", "c0de")


def test_a_test_without_metrics_goes_and_at_last_the_file(store, path):
    assert store.save(POOL, SUITE, {"test_a": {}}) == path
    assert store.load(POOL, SUITE).keys() == {"test_b[8-x.y]"}
    assert store.save(POOL, SUITE, {"test_b[8-x.y]": {}}) is None
    assert not path.exists()


def test_new_writes_only_what_is_missing(store, path):
    before = store.load(POOL, SUITE)
    slower = baseline(9e-4)
    store.save(
        POOL, SUITE, {"test_a": {"time": slower, "more": slower}, "test_c": {"time": slower}}, mode="new"
    )
    after = store.load(POOL, SUITE)
    assert after["test_a"]["time"] == before["test_a"]["time"]
    assert after["test_a"]["more"].runs == after["test_c"]["time"].runs == slower.runs


def test_append_adds_runs(store, path):
    other = baseline(2e-4, environment={**ENVIRONMENT, "device_uuid": "GPU-2"})
    store.save(POOL, SUITE, {"test_a": {"time": other}, "test_c": {"time": other}}, mode="append")
    after = store.load(POOL, SUITE)
    assert after["test_a"]["time"].runs == baseline().runs + other.runs
    assert after["test_c"]["time"].runs == other.runs


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"contract": {"dtype": "float16", "n": 8192}}, "dtype float32 -> float16"),
        ({"place": {"backend": "cuda", "power_limit_w": 500}}, "power_limit_w not set -> 500"),
        ({"metric": replace(TIME, unit="ms")}, "metric.unit s -> ms"),
    ],
)
def test_runs_of_another_measurement_are_not_appended(store, path, change, words):
    before = path.read_bytes()
    updates = {"test_a": {"time": baseline(**change)}, "test_c": {"time": baseline()}}
    with pytest.raises(BaselineError, match=re.escape(words)) as caught:
        store.save(POOL, SUITE, updates, mode="append")
    assert str(path) in str(caught.value)
    assert "test_a, time" in str(caught.value)
    assert "plain --gpuperf-update" in str(caught.value)
    assert path.read_bytes() == before


@pytest.mark.parametrize(
    ("bad", "words"),
    [
        (baseline(math.nan), "test_n, time: nan"),
        (baseline(1.0, math.inf), "test_n, time: inf"),
        (baseline(0.0), "above zero"),
        (baseline(runs=()), "length >= 1"),
        (baseline(runs=(Run((), {}),)), "length >= 1"),
        (baseline(contract={"shape": (1, 2)}), "shape is (1, 2)"),
        (baseline(contract={"shape": "1\n2"}), "shape is '1\\n2', which cannot be printed in a line"),
        (baseline(contract={"alpha": math.nan}), "nan is not a number"),
        (baseline(place={"folder": Path("x")}), "folder is PosixPath"),
        (baseline(environment={"clock": math.nan}), "not JSON compliant"),
        (baseline(environment={"folder": Path("x")}), "not JSON serializable"),
        (baseline(metric=replace(TIME, kind="shown")), "only shown"),
        (baseline(metric=replace(TIME, instrument="sundial")), "sundial"),
        (baseline(1.0, 2.0, metric=CONFLICTS), "an exact metric has one"),
    ],
)
def test_what_could_not_be_read_back_is_never_written(store, path, bad, words):
    before = path.read_bytes()
    with pytest.raises(BaselineError, match="nothing was written") as caught:
        store.save(POOL, SUITE, {"test_n": {"time": bad}})
    assert words in str(caught.value)
    assert path.read_bytes() == before
    assert list(path.parent.iterdir()) == [path]
