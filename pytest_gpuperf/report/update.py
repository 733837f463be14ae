"""Say how an update moves a baseline: from what to what, which way is worse, and how far from its origin."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import median

from pytest_gpuperf.git import SHOWN_DIGITS
from pytest_gpuperf.measurement import Baseline, Milestone, TestKey, quantity
from pytest_gpuperf.report.message import percent
from pytest_gpuperf.rules.creep import loss, yardstick

WARNING = "WARNING: "


def moved(key: TestKey, before: Mapping[str, Baseline], after: Mapping[str, Baseline]) -> str:
    """Return a test's name and a line for each metric whose baseline moved; "" if none did."""
    lines = [
        f"  {name} {_step(old, new)}"
        for name, new in after.items()
        if (old := before.get(name)) and old.value != new.value
    ]
    return "\n".join([str(key), *lines]) if lines else ""


def _step(old: Baseline, new: Baseline) -> str:
    unit, origin = new.metric.unit, new.origin
    text = f"{quantity(old.value, unit)} -> {quantity(new.value, unit)}, {_change(new, old.value)}"
    if origin and origin.value not in (old.value, new.value):
        text += f"; since {_day(origin)} {_change(new, origin.value)}"
    return text


def _change(new: Baseline, before: float) -> str:
    """Return the signed change with its direction: ``+2.80 % (worse)``."""
    direction = "worse" if loss(new.metric, before, new.value) > 0 else "better"
    return f"{percent(new.value / before - 1)} ({direction})" if before > 0 else direction


def crept(key: TestKey, baseline: Baseline, tolerance: float) -> str:
    """Return the warning that a baseline lost more than twice its tolerance since its origin or best."""
    mark = yardstick(baseline, tolerance)
    if mark is None:
        return ""
    unit, then = baseline.metric.unit, "its origin" if mark == baseline.origin else "its best"
    commit = f" ({mark.commit[:SHOWN_DIGITS]})" if mark.commit else ""
    when = f" on {_day(mark)}{commit}" if mark.date else commit
    return (
        f"{WARNING}{key}: {baseline.metric.name} has crept\n"
        f"  {quantity(baseline.value, unit)}, {_change(baseline, mark.value)} since {then}, "
        f"{quantity(mark.value, unit)}{when}:\n"
        f"  past twice the tolerance of {100 * tolerance:g} %, whatever each update was by itself"
    )


def _day(mark: Milestone) -> str:
    return mark.date[:10] or "its origin"


def left_out(key: TestKey, baseline: Baseline, far: int) -> str:
    """Say that a run of a recording was far from the others and was measured again."""
    unit, values = baseline.metric.unit, [run.value for run in baseline.runs]
    value, others = quantity(values[far], unit), quantity(median(values), unit)
    return (
        f"{key}: {baseline.metric.name}\n  run {far + 1} of {len(values)} gave {value}, far from the others' "
        f"{others}:\n  measured again once, and left out"
    )


def two_modes(key: TestKey, baseline: Baseline) -> str:
    """Say that a metric runs in two modes: more than one run is far from the others."""
    unit = baseline.metric.unit
    values = sorted(run.value for run in baseline.runs)
    low, high = quantity(values[0], unit), quantity(values[-1], unit)
    return f"{key}: {baseline.metric.name}\n  runs in two modes, {low} to {high}: all runs are kept"


def listed(names: Sequence[str]) -> str:
    """Return the first three names, and how many more there are."""
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return f"{', '.join(names[:3])}{more}"
