"""Which of a baseline's runs a GPU is held to: units of one model are not the same machine."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from pytest_gpuperf.judging.estimate import MIN_RUNS
from pytest_gpuperf.measurement import Baseline, Run

if TYPE_CHECKING:
    import pytest

    from pytest_gpuperf.records import Record
    from pytest_gpuperf.session import GpuperfSession

OWN_UNIT_BELOW = 0.01
"""Tolerances below this are judged on the same GPU only: of three H200s two agreed within 0.2 % on 13
kernels, and the third was 2.2 % faster on one and 1.6 % slower on another."""


def judged_runs(runs: Sequence[Run], device_uuid: str | None, tolerance: float) -> tuple[Run, ...]:
    """The runs of that GPU alone where there are MIN_RUNS of them, else all.

    For a tolerance below OWN_UNIT_BELOW never others'. Its own runs say most: another unit's offset
    would hide a loss or look like one.
    """
    own = tuple(run for run in runs if device_uuid and run.environment.get("device_uuid") == device_uuid)
    return own if len(own) >= MIN_RUNS or tolerance < OWN_UNIT_BELOW else tuple(runs)


def stored(session: GpuperfSession, item: pytest.Item, record: Record) -> dict[str, Baseline]:
    """A test's baselines by metric; of a noisy one, the runs that ``record``'s GPU is held to."""
    key = session.key(item.nodeid)
    every = session.store(item.path).load(session.pool(record), key.suite).get(key.name, {})
    uuid = record.environment.get("device_uuid")
    return {
        name: replace(baseline, runs=judged_runs(baseline.runs, uuid, OWN_UNIT_BELOW))
        if baseline.metric.kind == "noisy"
        else baseline
        for name, baseline in every.items()
    }


def strange(baselines: Mapping[str, Baseline], device_uuid: str | None) -> bool:
    """Whether baselines name the GPUs that they were recorded on, and this is none of them."""
    noisy = [baseline for baseline in baselines.values() if baseline.metric.kind == "noisy"]
    known = {str(run.environment.get("device_uuid") or "") for each in noisy for run in each.runs} - {""}
    return bool(known) and device_uuid is not None and device_uuid not in known
