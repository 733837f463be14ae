"""How two measurements' contracts, places and environments differ, in words for the person who sees red."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict
from typing import Any

from pytest_gpuperf.measurement import Metric

_NOT_SURROUNDINGS = frozenset({"commit", "dirty", "date", "sentinels"})


def differences(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    """Key, old and new value of what differs, in alphabetical order; a key that is absent is "not set"."""
    missing = object()
    return [
        (
            key,
            _shown(old[key]) if key in old else "not set",
            _shown(new[key]) if key in new else "not set",
        )
        for key in sorted(old.keys() | new.keys())
        if old.get(key, missing) != new.get(key, missing)
    ]


def compare_contracts(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """What differs, a short string a key in alphabetical order, such as ``dtype float32 -> float16``."""
    return [f"{key} {before} -> {after}" for key, before, after in differences(old, new)]


def question_changes(
    old_metric: Metric, old: Mapping[str, Any], new_metric: Metric, new: Mapping[str, Any]
) -> list[str]:
    """What differs between two measurements' contracts and metrics, as ``compare_contracts`` says it."""
    return compare_contracts(
        {**old, **_flat(asdict(old_metric), "metric.")}, {**new, **_flat(asdict(new_metric), "metric.")}
    )


def environment_differences(old: Iterable[Mapping[str, Any]], new: Mapping[str, Any]) -> list[str]:
    """What surrounded none of the baseline's runs but surrounds this one, for the message of a red.

    ``old`` holds the environments of the baseline's runs (``run.environment for run in
    baseline.runs``), ``new`` the one now. Nested mappings are named with dots
    (``versions.cuda-toolkit 13.0.1 -> 13.0.2``). Commit, dirty flag, date and the
    sentinels' times always differ and are not listed.
    """
    before = [_flat(environment) for environment in old]
    if not before:
        return []
    now = _flat(new)
    found = []
    for key in sorted(now.keys() | {key for environment in before for key in environment}):
        values = [environment.get(key) for environment in before]
        if key.split(".")[0] not in _NOT_SURROUNDINGS and now.get(key) not in values:
            known = " or ".join(dict.fromkeys(_shown(value) for value in values))
            found.append(f"{key} {known} -> {_shown(now.get(key))}")
    return found


def _flat(environment: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in environment.items():
        if isinstance(value, Mapping):
            flat |= _flat(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value
    return flat


def _shown(value: Any) -> str:
    return "not set" if value is None else str(value)
