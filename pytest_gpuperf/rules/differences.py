"""Differences between contracts, places and environments, in words, and whether they can move a figure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from pytest_gpuperf.measurement import Baseline, Measurement, Metric, Run
from pytest_gpuperf.rules.tolerances import matches

# Software of every device's figures, as globs of the environment's keys. The packages are how baselines from
# before the key "compiler" name it.
_PACKAGES = ("cuda-toolkit", "nvidia-cuda-nvcc*", "nvidia-cuda-crt*", "nvidia-nvvm*")
_DEVICE_SOFTWARE = (
    *("binding", "driver", "cuda_driver", "cuda_pycuda", "cuda_bindings", "compiler"),
    *(f"versions.{name}" for name in _PACKAGES),
)
_OURS = "versions.pytest-gpuperf"
_NOT_SURROUNDINGS = frozenset({"commit", "dirty", "date", "sentinels"})


def differences(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    """List key, old and new value of what differs, in alphabetical order; an absent key is "not set"."""
    missing = object()
    return [
        (key, _shown(old.get(key)), _shown(new.get(key)))
        for key in sorted(old.keys() | new.keys())
        if old.get(key, missing) != new.get(key, missing)
    ]


def changes(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """List what differs, one string a key in alphabetical order, such as ``dtype float32 -> float16``."""
    return [f"{key} {before} -> {after}" for key, before, after in differences(old, new)]


def question_changes(
    old_metric: Metric, old: Mapping[str, Any], new_metric: Metric, new: Mapping[str, Any]
) -> list[str]:
    """List what differs between two measurements' contracts and metrics, as ``changes`` does."""
    if old_metric == new_metric and old == new:
        return []
    old, new = dict(old), dict(new)
    if old_metric.instrument == "record" and "version" not in old and new.get("version") in (0, ""):
        del new["version"]  # gpuperf.record did not store these two before
    return changes(
        {**old, **_flat(asdict(old_metric), "metric.")}, {**new, **_flat(asdict(new_metric), "metric.")}
    )


def another_question(baseline: Baseline, measured: Measurement) -> str:
    """Say in what a test measures something else than its baseline recorded, "" if in nothing."""
    found = question_changes(baseline.metric, baseline.contract, measured.metric, measured.contract)
    return f"the test no longer measures what the baseline recorded: {'; '.join(found)}" if found else ""


def environment_differences(old: Iterable[Mapping[str, Any]], new: Mapping[str, Any]) -> list[str]:
    """List what is set otherwise now than in every one of a baseline's runs.

    ``old`` are the environments of the runs, ``new`` is today's. Nested mappings are named with dots
    (``versions.cuda-toolkit 13.0.1 -> 13.0.2``). A key that no run has is unknown and not listed, nor are
    commit, dirty flag, date and the sentinels' times, which always differ.
    """
    now, found = _flat(new), []
    for key, values in _known(old).items():
        if key.split(".")[0] not in _NOT_SURROUNDINGS and now.get(key) not in values:
            found.append(f"{key} {' or '.join(map(_shown, values))} -> {_shown(now.get(key))}")
    return found


def surroundings_moved(old: Iterable[Mapping[str, Any]], new: Iterable[Mapping[str, Any]]) -> list[str]:
    """List what is set in some of the ``new`` environments and in none of the ``old`` ones.

    As ``environment_differences`` does; a key that one side does not have at all is unknown there.
    """
    before, found = _known(old), []
    for key, values in _known(new).items():
        others = before.get(key, values)
        if key.split(".")[0] not in _NOT_SURROUNDINGS and any(value not in others for value in values):
            found.append(f"{key} {' or '.join(map(_shown, others))} -> {' or '.join(map(_shown, values))}")
    return found


def other_software(measured: Measurement, runs: Iterable[Run], new: Mapping[str, Any]) -> bool:
    """Return whether software that this figure depends on is another than in all of ``runs``.

    That is the driver, CUDA, the compiler, and what the instrument runs on beside them: of a kernel's time
    (one with machine code) nothing. A key that today or all runs lack is unknown, not different.
    """
    instrument = measured.metric.constants
    kernel = instrument.where == "device" and measured.code is not None
    globs = (*_DEVICE_SOFTWARE, *(() if kernel else instrument.runs_on))
    moved = _moved([run.environment for run in runs], new)
    return any(key != _OURS and any(matches(glob, key) for glob in globs) for key in moved)


def other_unit(runs: Iterable[Run], unit: str | None) -> bool:
    """Return whether none of ``runs`` was measured on the GPU ``unit``."""
    return unit not in {run.environment.get("device_uuid") for run in runs}


def _moved(old: Sequence[Mapping[str, Any]], new: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    """Yield the dotted keys of ``new`` whose value none of ``old`` has, though one has the key.

    A mapping that is equal is not looked into: a calibration asks this hundreds of thousands of times.
    """
    for key, value in new.items():
        values = [there[key] for there in old if key in there]
        if not values or value in values or (key in _NOT_SURROUNDINGS and not prefix):
            continue
        if isinstance(value, Mapping):
            yield from _moved(
                [there for there in values if isinstance(there, Mapping)], value, f"{prefix}{key}."
            )
        else:
            yield f"{prefix}{key}"


def _known(environments: Iterable[Mapping[str, Any]]) -> dict[str, list[Any]]:
    """Collect the distinct values of each key, sorted by key, over the environments that have it."""
    found: dict[str, list[Any]] = {}
    for environment in environments:
        for key, value in _flat(environment).items():
            values = found.setdefault(key, [])
            if value not in values:
                values.append(value)
    return dict(sorted(found.items()))


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
