"""Baselines: what is stored comes back, where the files lie, and how their text looks."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from statistics import median

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from storedbaselines import CONFLICTS, ENVIRONMENT, EXACT, POOL, SUITE, TIME, baseline, empty_store, two_tests  # noqa: F401  (fixtures)

import pytest_gpuperf
from pytest_gpuperf.errors import BaselineError
from pytest_gpuperf.figures import slug
from pytest_gpuperf.measurement import Milestone, Run
from pytest_gpuperf.storage import entries, format
from pytest_gpuperf.storage.baselines import Store

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
