"""Differences of contracts and environments."""

from __future__ import annotations

from verdictcases import CONTRACT

from pytest_gpuperf.rules.differences import changes, environment_differences


def test_compared_contracts_list_differences_sorted():
    assert changes(CONTRACT, dict(reversed(CONTRACT.items()))) == []
    assert changes({"b": 1, "a": None}, {"b": 2}) == ["a not set -> not set", "b 1 -> 2"]


def test_environment_differences_name_what_no_run_had():
    """What no run names, such as the version of cupy, is not known to differ."""
    old = [
        {"commit": "a", "date": "1", "driver": "570", "device_uuid": "GPU-1", "versions": {"numpy": "1"}},
        {"commit": "b", "date": "2", "driver": "575", "device_uuid": "GPU-2", "versions": {"numpy": "1"}},
    ]
    new = {
        "commit": "c",
        "dirty": True,
        "date": "3",
        "driver": "580",
        "device_uuid": "GPU-2",
        "versions": {"numpy": "2", "cupy": "14"},
    }
    assert environment_differences(old, new) == [
        "driver 570 or 575 -> 580",
        "versions.numpy 1 -> 2",
    ]
    assert environment_differences(old, old[0]) == []
    assert environment_differences([], new) == []
