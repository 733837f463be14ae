"""A short soak: what a session holds does not grow with its tests and child processes."""

from __future__ import annotations

from statistics import mean

from recordedruns import load

soak = load("soak.py")


def test_a_session_holds_no_more_after_many_tests_and_children(backend, tmp_path):
    kept = soak.soak(tmp_path, tests=200, children=10)
    here = [row for row in kept if row.test == "test_here"]
    in_children = [row for row in kept if row.test == "test_in_a_child"]
    assert (len(here), len(in_children)) == (200, 10)
    for name in ("descriptors", "threads"):
        held = {getattr(row, name) for row in kept[20:]}
        assert len(held) == 1, f"{name}: {sorted(held)}"
    assert {row.children for row in kept} == {0}
    # What a verdict is made of stays for the summary: a few kilobytes a test, its samples and arrays not.
    grown = mean(row.memory for row in here[-10:]) - mean(row.memory for row in here[90:100])
    assert grown / 100 < 24_000
