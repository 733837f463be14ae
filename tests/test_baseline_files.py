"""Baseline files as they may be found: of the old schema, edited, damaged, or not to be written."""

from __future__ import annotations

import json
import math
import os
import re
import stat
from pathlib import Path

import pytest
from storedbaselines import POOL, SUITE, baseline, empty_store, two_tests  # noqa: F401  (fixtures)

from pytest_gpuperf.errors import BaselineError
from pytest_gpuperf.storage import baselines
from pytest_gpuperf.storage.baselines import Store


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
            r"restore the file|take one side|upgrade|move it where it belongs|git lfs pull", message
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
