"""Baseline files: what is stored comes back, a bad file is one sentence, and nothing stored is lost."""

from __future__ import annotations

import json
import math
import os
import re
import stat
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from statistics import median

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

import pytest_gpuperf
from pytest_gpuperf.errors import BaselineError
from pytest_gpuperf.figures import slug
from pytest_gpuperf.measurement import Baseline, Metric, Milestone, Run
from pytest_gpuperf.storage import baselines, entries, format
from pytest_gpuperf.storage.baselines import Store

POOL = "NVIDIA H100 80GB HBM3"
SUITE = "suites/test_transpose.py"
TIME = Metric("time", "s", "lower", "noisy", "device_time")
CONFLICTS = Metric("bank_conflicts", "1", "lower", "exact", "counters")
ENVIRONMENT = {
    "commit": "0a1b2c",
    "dirty": False,
    "date": "2026-08-01T12:00:00+00:00",
    "device_uuid": "GPU-1",
    "versions": {"numpy": "2.4", "onnxruntime-gpu": "1.31"},
}


def baseline(*samples, metric=TIME, environment=ENVIRONMENT, code=None, **changes):
    run = Run(samples or (1.8145e-4, 1.8146e-4, 1.8147e-4), environment, code)
    made = Baseline(metric, {"dtype": "float32", "n": 8192}, {"backend": "cuda"}, 6e-4, (run,))
    return replace(made, **changes)


EXACT = baseline(2048.0, metric=CONFLICTS, prior_sd=0.0)


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path / "baselines")


@pytest.fixture
def path(store):
    """A file with two tests in it."""
    return store.save(POOL, SUITE, {"test_a": {"time": baseline()}, "test_b[8-x.y]": {"conflicts": EXACT}})


# What is stored comes back


def test_everything_comes_back(store):
    other = {**ENVIRONMENT, "date": "2026-08-02T12:00:00+00:00", "device_uuid": "GPU-2"}
    runs = (Run((1.5e-4, 2.5e-4), ENVIRONMENT, "c0de"), Run((1.25e-4,), other), Run((1.75e-4,), ENVIRONMENT))
    contract = {"l2": "hot", "n": 8192, "alpha": 0.1, "tiled": True, "seed": None}
    saved = baseline(runs=runs, contract=contract)
    exact = baseline(0.1 + 0.2, metric=CONFLICTS, prior_sd=0.0)
    store.save(POOL, SUITE, {"test_a[größe-1]": {"time": saved, "bank_conflicts": exact}})
    assert store.load(POOL, SUITE) == {"test_a[größe-1]": {"time": saved, "bank_conflicts": exact}}


def test_where_files_lie_and_what_is_there(store):
    assert (store.pools(), store.suites(POOL), store.load(POOL, SUITE)) == ([], [], {})
    for pool in (POOL, "emulated"):
        for suite in (SUITE, "test_transpose.py", "suites/test_transpose.v2.py"):
            store.save(pool, suite, {"test_a": {"time": baseline()}})
    assert (store.folder / "nvidia-h100-80gb-hbm3/suites/test_transpose.json").is_file()
    assert store.pools() == ["emulated", "nvidia-h100-80gb-hbm3"]
    assert store.suites(POOL) == [
        "suites/test_transpose.py",
        "suites/test_transpose.v2.py",
        "test_transpose.py",
    ]
    assert store.load("nvidia-h100-80gb-hbm3", SUITE) == store.load(POOL, SUITE)


@pytest.mark.parametrize(
    ("pool", "folder"),
    [
        (POOL, "nvidia-h100-80gb-hbm3"),
        ("NVIDIA A100-SXM4-40GB MIG 1g.5gb", "nvidia-a100-sxm4-40gb-mig-1g.5gb"),
        ("GPU (500 W)", "gpu-500-w"),
        ("..hidden", "hidden"),
    ],
)
def test_slug(pool, folder):
    assert slug(pool) == folder


@pytest.mark.parametrize("pool", ["..", ".", "", "/", "../other", "a/b", "a\\b", "图形"])
def test_a_pool_that_names_no_folder_is_refused(store, pool):
    with pytest.raises(BaselineError, match="--gpuperf-pool"):
        store.save(pool, SUITE, {"test_a": {"time": baseline()}})
    assert not store.folder.exists()


@pytest.mark.parametrize(
    "suite", ["/etc/test_x.py", "../test_x.py", "a/../../test_x.py", "test_x.txt", ".py", ""]
)
def test_a_suite_outside_the_folder_is_refused(store, suite):
    with pytest.raises(BaselineError, match=re.escape(repr(suite))):
        store.load(POOL, suite)


# How the text looks


def test_the_file_reads_well_in_a_review(store):
    run = Run((1.8145678e-4, 1.8146e-4), ENVIRONMENT, "c0de")
    path = store.save(POOL, SUITE, {"test_b": {"c": EXACT}, "test_a": {"time": baseline(runs=(run, run))}})
    text = path.read_text()
    lines = [line for line in text.splitlines() if "samples" in line]
    key = next(iter(json.loads(text)["runs"]))
    line = f'{{"run": "{key}", "code": "c0de", "samples": [0.000181457, 0.00018146]}}'
    assert [part.strip().rstrip(",") for part in lines] == [
        line,
        line,
        f'{{"run": "{key}", "samples": [2048.0]}}',
    ]
    assert list(json.loads(text)) == ["schema", "pool", "suite", "runs", "tests", "entries"]
    assert list(json.loads(text)["entries"]) == ["test_a", "test_b"]
    assert '"metric": {"unit": "s", "better": "lower", "kind": "noisy", "instrument": "device_time"}' in text
    assert len(json.loads(text)["runs"]) == 1
    assert text.endswith("}\n")


def test_what_all_runs_have_alike_is_stored_once(store):
    environments = [
        {"date": "2026-08-01", "device_uuid": "GPU-1", "versions": {"numpy": "2"}},
        {"date": "2026-08-02", "device_uuid": "GPU-1", "versions": {"numpy": "2"}},
    ]
    runs = tuple(Run((1.0,), environment) for environment in environments)
    text = store.save(POOL, SUITE, {"test_a": {"time": baseline(runs=runs)}}).read_text()
    content = json.loads(text)
    assert list(content) == ["schema", "pool", "suite", "common", "runs", "tests", "entries"]
    assert content["common"] == {"device_uuid": "GPU-1", "versions": {"numpy": "2"}}
    assert [*content["runs"].values()] == [{"date": "2026-08-01"}, {"date": "2026-08-02"}]
    assert [run.environment for run in store.load(POOL, SUITE)["test_a"]["time"].runs] == environments

    other = {"date": "2026-08-03", "device_uuid": "GPU-2", "versions": {"numpy": "2"}}
    more = {"test_a": {"time": baseline(runs=(Run((1.0,), other),))}}
    content = json.loads(store.save(POOL, SUITE, more, mode="append").read_text())
    assert content["common"] == {"versions": {"numpy": "2"}}
    found = [run.environment for run in store.load(POOL, SUITE)["test_a"]["time"].runs]
    assert found == [*environments, other]


def test_runs_of_one_process_share_what_it_was(store):
    store.save(POOL, SUITE, {"test_a": {"time": baseline()}, "test_b": {"time": baseline()}})
    first, second = (metrics["time"].runs[0] for metrics in store.load(POOL, SUITE).values())
    assert first.environment is second.environment


def test_a_rewrite_changes_nothing_in_any_order_of_recording(store):
    both = {"test_b": {"time": baseline()}, "test_a": {"z": EXACT, "a": baseline()}}
    first = store.save(POOL, SUITE, both).read_bytes()
    store.save(POOL, SUITE, store.load(POOL, SUITE))
    assert store.path(POOL, SUITE).read_bytes() == first
    store.path(POOL, SUITE).unlink()
    shuffled = replace(baseline(), contract={"n": 8192, "dtype": "float32"})
    store.save(POOL, SUITE, {"test_a": {"a": shuffled, "z": EXACT}})
    store.save(POOL, SUITE, {"test_b": {"time": baseline()}})
    assert store.path(POOL, SUITE).read_bytes() == first


@settings(max_examples=100, deadline=None, database=None)
@example([float(n) for n in range(26, 0, -1)])
@example([float(n) for n in range(101, 0, -1)])
@given(samples=st.lists(st.floats(1e-9, 1e9), min_size=1, max_size=120))
def test_thinning_and_rounding_keep_the_median_and_the_range(samples):
    kept = entries._kept(TIME, tuple(samples))
    assert len(kept) == min(len(samples), entries.KEPT_SAMPLES)
    assert kept == sorted(kept)
    assert median(kept) == pytest.approx(median(samples), rel=1e-5)
    assert (kept[0], kept[-1]) == pytest.approx((min(samples), max(samples)), rel=1e-5)
    assert entries._kept(TIME, tuple(kept)) == kept


def test_exact_values_keep_every_digit(store):
    value = 38_228 / 50_000 + 1e-16
    store.save(POOL, SUITE, {"test_a": {"accuracy": baseline(value, metric=CONFLICTS, prior_sd=0.0)}})
    assert store.load(POOL, SUITE)["test_a"]["accuracy"].value == value


# Updating


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


# The origin, the best so far, and runs that were left out


def test_origin_best_and_runs_that_are_left_out_come_back(store):
    marks = {"origin": Milestone(2e-4, "2026-07-01", "c0de"), "best": Milestone(1.5e-4)}
    saved = baseline(**marks, left_out=(Run((9e-4,), {**ENVIRONMENT, "date": "2026-08-03"}),))
    path = store.save(POOL, SUITE, {"test_a": {"time": saved}})
    assert store.load(POOL, SUITE)["test_a"]["time"] == saved
    document = json.loads(path.read_text())
    assert document["schema"] == 2
    entry = document["entries"]["test_a"]["time"]
    assert entry["origin"] == {"value": 2e-4, "date": "2026-07-01", "commit": "c0de"}
    assert [run.get("left_out", False) for run in entry["runs"]] == [False, True]
    assert '"origin": {"value": 0.0002, "date": "2026-07-01", "commit": "c0de"}' in path.read_text()


def test_contract_and_place_stand_once_a_test(store):
    other = {"dtype": "float32", "n": 4096, "l2": True}
    place = {"backend": "cuda", "cpu": "EPYC"}
    host = baseline(contract=other, place=place, metric=replace(TIME, name="host"))
    metrics = {"time": baseline(), CONFLICTS.name: EXACT, "host": host}
    path = store.save(POOL, SUITE, {"test_a": metrics, "test_b": {"time": baseline(contract={"l2": 1})}})
    document = json.loads(path.read_text())
    assert document["tests"]["test_a"] == {"contract": {"dtype": "float32"}, "place": {"backend": "cuda"}}
    assert document["entries"]["test_a"]["time"]["contract"] == {"n": 8192}
    assert "place" not in document["entries"]["test_a"]["time"]
    assert document["entries"]["test_a"]["host"]["place"] == {"cpu": "EPYC"}
    assert "contract" not in document["entries"]["test_b"]["time"]
    assert store.load(POOL, SUITE)["test_a"] == metrics
    one, true = baseline(contract={"l2": 1}), baseline(contract={"l2": True})
    store.save(POOL, SUITE, {"test_a": {"one": one, "true": true}})
    found = store.load(POOL, SUITE)["test_a"]
    assert [type(found[name].contract["l2"]) for name in ("one", "true")] == [int, bool]


@pytest.mark.parametrize(
    "code", ["c0de", "c0de?", {"copy": "c0de", "add": "f00d"}, {"a": "c0de?", "b": "f00d"}]
)
def test_the_works_hash_has_room_for_each_kernel(store, path, code):
    document = json.loads(path.read_text())
    (run,) = document["entries"]["test_a"]["time"]["runs"]
    run["code"] = code
    path.write_text(json.dumps(document))
    (found,) = Store(store.folder).load(POOL, SUITE)["test_a"]["time"].runs
    assert found.code.endswith("?") is ("?" in str(code))
    store.save(POOL, SUITE, {"test_c": {"time": baseline()}})
    (run,) = json.loads(path.read_text())["entries"]["test_a"]["time"]["runs"]
    assert run["code"] == code


def old_schema(path):
    """Write a file as schema 1 had it: every entry with all of its contract and place."""
    document = json.loads(path.read_text())
    shared = document.pop("tests")
    for test, metrics in document["entries"].items():
        for entry in metrics.values():
            for key in ("contract", "place"):
                entry[key] = shared[test][key] | entry.get(key, {})
    path.write_text(json.dumps({**document, "schema": 1}, indent=1))
    return document


def test_the_old_schema_is_read_and_upgraded_at_the_next_write(store, path):
    new, entries = path.read_text(), store.load(POOL, SUITE)
    old_schema(path)
    old = path.read_text()
    again = Store(store.folder)
    assert again.load(POOL, SUITE) == entries
    again.save(POOL, SUITE, {"test_a": {"time": baseline(9e-4)}}, mode="new")
    assert path.read_text() == old  # there is nothing new
    again.save(POOL, SUITE, entries)
    assert path.read_text() == new
    document = old_schema(path)
    del document["entries"]["test_a"]["time"]["place"]
    path.write_text(json.dumps(document))
    check_refused(store, path, f"{WHERE}: Object missing required field `place`")


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


# Bad files: one sentence with the file, the place and the remedy


def set_in(document, keys, value):
    for key in keys[:-1]:
        document = document[key]
    document[keys[-1]] = value


ENTRY = ("entries", "test_a", "time")
WHERE = "$.entries.test_a.time"


@pytest.mark.parametrize(
    ("keys", "value", "words"),
    [
        ((*ENTRY, "runs", 0, "samples"), [], f"{WHERE}.runs[0].samples: Expected `array` of length >= 1"),
        ((*ENTRY, "runs", 0, "samples", 1), -1.0, f"{WHERE}.runs[0].samples[1] is -1"),
        ((*ENTRY, "runs", 0, "samples", 1), 0, f"{WHERE}.runs[0].samples[1] is 0"),
        (
            (*ENTRY, "runs", 0, "samples", 1),
            None,
            f"{WHERE}.runs[0].samples[1]: Expected `float`, got `null`",
        ),
        ((*ENTRY, "runs", 0, "samples", 1), "1", f"{WHERE}.runs[0].samples[1]: Expected `float`, got `str`"),
        (
            (*ENTRY, "runs", 0, "samples", 1),
            True,
            f"{WHERE}.runs[0].samples[1]: Expected `float`, got `bool`",
        ),
        ((*ENTRY, "runs", 0, "samples", 1), math.nan, f"{WHERE}.runs[0].samples[1] is nan"),
        ((*ENTRY, "runs", 0, "samples", 1), math.inf, f"{WHERE}.runs[0].samples[1] is inf"),
        ((*ENTRY, "runs", 0, "samples", 1), 10**400, f"{WHERE}.runs[0].samples[1]"),
        ((*ENTRY, "runs", 0, "run"), "beef", f"{WHERE}.runs[0].run is 'beef', which $.runs does not have"),
        ((*ENTRY, "runs"), [], f"{WHERE}.runs: Expected `array` of length >= 1"),
        ((*ENTRY, "prior_sd"), 0, f"{WHERE}.prior_sd is 0"),
        ((*ENTRY, "prior_sd"), -1, f"{WHERE}.prior_sd"),
        (("tests", "test_a", "contract", "n"), [1], "$.tests.test_a.contract[...]: Expected"),
        (("tests", "test_a", "place"), 1, "$.tests.test_a.place: Expected `object`, got `int`"),
        (("tests",), {}, f"{WHERE}: Object missing required field `contract`"),
        ((*ENTRY, "runs", 0, "code"), "{}", f"{WHERE}.runs[0].code is '{{}}', not a hash"),
        ((*ENTRY, "runs", 0, "code"), [], f"{WHERE}.runs[0].code: Expected"),
        ((*ENTRY, "metric", "kind"), "shown", f"{WHERE}.metric.kind: Invalid enum value 'shown'"),
        ((*ENTRY, "metric", "better"), "bigger", f"{WHERE}.metric.better: Invalid enum value 'bigger'"),
        ((*ENTRY, "metric", "instrument"), "sundial", f"{WHERE}.metric.instrument is 'sundial'"),
        ((*ENTRY, "runs", 0, "left_out"), True, f"{WHERE}.runs are all left out"),
        ((*ENTRY, "origin"), {"value": 0}, f"{WHERE}.origin.value is 0"),
        ((*ENTRY, "best"), {"date": "2026"}, f"{WHERE}.best: Object missing required field `value`"),
        ((*ENTRY, "note"), "x", f"{WHERE}: Object contains unknown field `note`"),
        ((*ENTRY,), {}, f"{WHERE}: Object missing required field `metric`"),
        (
            ("entries", "test_b[8-x.y]", "conflicts"),
            3,
            '$.entries["test_b[8-x.y]"].conflicts: Expected `object`',
        ),
        (("entries",), [], "$.entries: Expected `object`, got `array`"),
        (("runs",), None, "$.runs: Expected `object`, got `null`"),
        (("extra",), 1, "$: Object contains unknown field `extra`"),
        (("schema",), 3, "written by a newer pytest-gpuperf (schema 3, and this one reads 2)"),
        (("schema",), 0, "$.schema is 0"),
        (("schema",), True, "$.schema is True"),
        (("schema",), "1", "$.schema is '1'"),
        (("pool",), "Tesla T4", "holds the baselines of suites/test_transpose.py in pool 'Tesla T4'"),
        (("suite",), "suites/other.py", "holds the baselines of suites/other.py in pool"),
    ],
)
def test_an_edited_file(store, path, keys, value, words):
    document = json.loads(path.read_bytes())
    set_in(document, keys, value)
    path.write_text(json.dumps(document))
    check_refused(store, path, words)


@pytest.mark.parametrize(
    ("edit", "words"),
    [
        (lambda text: "", "line 1 column 1 is not JSON"),
        (lambda text: text[: text.index(', "samples"')], "(cut short?)"),
        (lambda text: text[:-3], "(cut short?)"),
        (lambda text: text.replace('"schema": 2,', '"schema": 2'), "line 3 column 3 is not JSON"),
        (lambda text: "[]", "holds a JSON object"),
        (lambda text: "[" * 100_000, "not JSON that can be read"),
        (lambda text: text.replace('"n": 8192', '"n": ' + "9" * 5000), "not JSON that can be read"),
        (lambda text: text.replace("0.00018146", "1e999"), "$.entries.test_a.time.runs[0].samples[1] is inf"),
        (lambda text: text.replace('  "schema": 2,\n', ""), "$.schema is None"),
        (
            lambda text: text.replace('"n": 8192', '"n": 8192, "n": 1'),
            "$.tests.test_a.contract has the key 'n' twice",
        ),
        (lambda text: text.replace('"test_b[8-x.y]"', '"test_a"'), "$.tests has the key 'test_a' twice"),
        (
            lambda text: text.replace("{\n", "{\n<<<<<<< HEAD\n", 1),
            "line 2 is a merge conflict marker (<<<<<<<)",
        ),
        (lambda text: text.replace("{\n", "{\n=======\n", 1), "line 2 is a merge conflict marker (=======)"),
        (
            lambda text: "version https://git-lfs.invalid/v1\nsize 9\n",
            "a pointer of Git LFS; git lfs pull, or",
        ),
    ],
    ids=lambda value: None if callable(value) else value,
)
def test_a_damaged_file(store, path, edit, words):
    edited = edit(path.read_text())
    assert edited != path.read_text()
    path.write_text(edited)
    check_refused(store, path, words)


def test_a_file_that_is_not_text(store, path):
    path.write_bytes(b'{"schema": 1, "pool": "\xff"}')
    check_refused(store, path, "byte 23 is not UTF-8")


def test_an_editor_of_windows_changes_nothing(store, path):
    before = store.load(POOL, SUITE)
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes().replace(b"\n", b"\r\n"))
    assert baselines.Store(store.folder).load(POOL, SUITE) == before


def check_refused(store, path, words):
    """Reading and updating both say what is wrong in one line, and the file stays as it was."""
    before = path.read_bytes()
    later = baselines.Store(store.folder)  # a file is read once a process
    for attempt in (
        lambda: later.load(POOL, SUITE),
        lambda: later.load(POOL, SUITE),
        lambda: store.save(POOL, SUITE, {"test_c": {"time": baseline()}}),
    ):
        with pytest.raises(BaselineError) as caught:
            attempt()
        message = str(caught.value)
        assert message.startswith(f"{path}: ")
        assert words in message
        assert "\n" not in message
        assert re.search(
            r"restore the file|take one side|pip install|move it where it belongs|git lfs pull", message
        )
    assert path.read_bytes() == before


# Folders and permissions


def test_a_file_where_a_folder_should_be(store):
    store.folder.write_text("not a folder")
    with pytest.raises(BaselineError, match="cannot be read"):
        store.load(POOL, SUITE)
    with pytest.raises(BaselineError, match="cannot be written"):
        store.save(POOL, SUITE, {"test_a": {"time": baseline()}})
    assert store.folder.read_text() == "not a folder"


def test_a_folder_where_a_file_should_be(store):
    store.path(POOL, SUITE).mkdir(parents=True)
    with pytest.raises(BaselineError, match="cannot be read"):
        store.load(POOL, SUITE)


def test_a_folder_that_cannot_be_made():
    # Not even root can make a folder in /proc.
    with pytest.raises(BaselineError, match=r"^/proc/gpuperf/.*test_transpose.json: cannot be written"):
        Store(Path("/proc/gpuperf")).save(POOL, SUITE, {"test_a": {"time": baseline()}})


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_read_only_folder(store, path):
    before = path.read_bytes()
    path.parent.chmod(0o555)
    try:
        with pytest.raises(BaselineError, match="Permission denied"):
            store.save(POOL, SUITE, {"test_a": {"time": baseline(9e-4)}})
    finally:
        path.parent.chmod(0o755)
    assert path.read_bytes() == before


@pytest.mark.parametrize("step", ["fsync", "replace"])
def test_a_failed_write_leaves_the_old_file_alone(store, path, monkeypatch, step):
    def full(*_):
        raise OSError(28, "No space left on device")

    before = path.read_bytes()
    monkeypatch.setattr(*((os, "fsync") if step == "fsync" else (Path, "replace")), full)
    with pytest.raises(BaselineError, match=r"test_transpose.json: cannot be written \(No space left"):
        store.save(POOL, SUITE, {"test_a": {"time": baseline(9e-4)}})
    assert path.read_bytes() == before
    assert list(path.parent.iterdir()) == [path]


def test_permissions_stay_and_new_files_have_the_usual_ones(store, path):
    plain = path.parent / "plain"
    plain.touch()
    assert path.stat().st_mode == plain.stat().st_mode
    path.chmod(0o640)
    store.save(POOL, SUITE, {"test_a": {"time": baseline(9e-4)}})
    assert stat.S_IMODE(path.stat().st_mode) == 0o640


def test_a_linked_file_stays_a_link(store, path):
    elsewhere = store.folder / "elsewhere"
    path.rename(elsewhere)
    path.symlink_to(elsewhere)
    store.save(POOL, SUITE, {"test_a": {"time": baseline(9e-4)}})
    assert path.is_symlink()
    assert "0.0009" in elsewhere.read_text()


# What ships


def test_the_json_schema_that_ships_is_current():
    shipped = (Path(pytest_gpuperf.__file__).parent / "storage" / "baseline.schema.json").read_text()
    assert shipped == format.json_schema(), (
        "run python -m pytest_gpuperf.storage.format > pytest_gpuperf/storage/baseline.schema.json"
    )


def test_importing_the_rooms_imports_nothing_heavy():
    code = (
        "import sys, pytest_gpuperf.storage.baselines, pytest_gpuperf.rules.verdict; "
        "print(sorted({'msgspec', 'scipy', 'numpy', 'hypothesis'} & sys.modules.keys()))"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"
