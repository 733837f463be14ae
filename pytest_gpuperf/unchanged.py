"""Leave out what need not be measured again, and note what a plan comes to."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import pytest

from pytest_gpuperf.backends.planned import NeedsResult
from pytest_gpuperf.marker import test_options
from pytest_gpuperf.measurement import Baseline, Measurement, Metric, Outcome
from pytest_gpuperf.records import Row
from pytest_gpuperf.rules.identical import as_stored, compare, compare_here
from pytest_gpuperf.rules.lacking import launch_of
from pytest_gpuperf.session import GpuperfSession, recorder_of
from pytest_gpuperf.text import counted

WHY = "measured since"
"""The detail of a measurement that says why it could not be left out."""


def look(
    session: GpuperfSession, item: pytest.Item, reached: Measurement
) -> tuple[Baseline | None, Mapping[str, str]]:
    """Return the baseline whose own work a launch is, which is noted then, or None and why it is measured.

    A plan notes whatever it comes to. Nothing is left out of a process that measures again, of what is
    expected to regress, or on a device whose times are not judged. Raises GpuperfError for unreadable
    baselines.
    """
    device, planned = session.gpu().device, session.options.plan is not None
    asked = session.options.skip_unchanged and session.options.child is None and device.judges_times
    if not planned and (not asked or test_options(item).expected):
        return None, {}
    place = device.place()
    stored = session.project.stored(item.nodeid, place).get(reached.metric.name)
    reached = as_stored(reached, stored)
    if planned:
        recorder_of(item).add(reached, unchanged=True)
        return stored if compare(stored, reached).word == "identical" else None, {}
    from pytest_gpuperf.machine.environment import describe

    found = compare_here(
        stored, reached, place, describe(device, item.path.parent, session.options.baselines)
    )
    if found.word != "identical":
        return None, {WHY: found.reason}
    recorder_of(item).add(reached, unchanged=True)
    return stored, {}


class _NotCounted:
    """The counters of a launch that a plan does not run."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):  # what pytest and copy ask for
            raise AttributeError(name)
        raise NeedsResult(f"{name} of counters(...)")


def reach_counters(
    session: GpuperfSession, item: pytest.Item, label: str, contract: Mapping[str, Any], code: str | None
) -> Any:
    """Note that a plan has come to the counters of a launch: whatever the baseline has of them."""
    stored = session.project.stored(item.nodeid, session.gpu().device.place())
    metrics = [old.metric for name, old in stored.items() if launch_of(old.metric) == label]
    for metric in metrics or [Metric(f"{label} counters", "1", "lower", "exact", "counters")]:
        recorder_of(item).add(Measurement(metric, contract, (), code), unchanged=True)
    return _NotCounted()


def told(rows: Iterable[Row]) -> Iterator[str]:
    """Yield lines for the summary: how many launches were left out, and why the others were not."""
    rows = tuple(rows)
    if left_out := [row for row in rows if row.verdict.outcome is Outcome.UNCHANGED]:
        tests = counted(len({row.test for row in left_out}), "test")
        yield (
            f"unchanged: {counted(len(left_out), 'launch')} of {tests} ran once, not measured:\n"
            "  work and software are their baselines' own (--gpuperf-skip-unchanged)"
        )
    whys = Counter(str(row.details[WHY]) for row in rows if WHY in row.details)
    for why, count in whys.items():
        yield f"measured: {counted(count, 'launch')}: {why}"
