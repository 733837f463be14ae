"""Decide what a plan says of a test: whether it does its baseline's own work, or has to be measured."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from pytest_gpuperf.measurement import Baseline, Measurement
from pytest_gpuperf.rules.identical import Found, compare

_OWN_NUMBER = Found("cannot say", "a number that the test takes itself")


def plan(
    stored: Mapping[str, Baseline], reached: Sequence[Measurement], compiler: str, stopped: str, broke: bool
) -> Found:
    """Return what is to be said of a test that came to ``reached``; ``compiler`` is this machine's.

    ``stopped`` says why it went no further, "" if it came to its end; it ``broke`` if that was something else
    than a result that it needs.
    """
    found = [_compare(stored.get(each.metric.name), each, compiler) for each in reached]
    for word in ("changed", "new", "cannot say"):
        if reasons := [each.reason for each in found if each.word == word]:
            return Found(word, reasons[0])
    if broke:
        return Found("cannot say", stopped)
    if not (stored or reached or stopped):
        return Found("nothing")
    names = {each.metric.name for each in reached}
    missed = [name for name in stored if name not in names]
    if missed or not reached:
        what = f"it measures {missed[0]}" if missed else "it measures anything"
        return Found("cannot say", f"{stopped} before {what}" if stopped else f"it ends before {what}")
    return Found("identical")


def _compare(baseline: Baseline | None, reached: Measurement, compiler: str) -> Found:
    if reached.metric.instrument not in ("device_time", "counters", "energy"):
        return _OWN_NUMBER
    found = compare(baseline, reached)
    known = {str(c) for run in baseline.runs if (c := run.environment.get("compiler"))} if baseline else set()
    if found.word in ("identical", "changed") and known and compiler not in known:
        here = compiler or "no compiler that says its version"
        return Found(
            "cannot say", f"compiled by {here} here, and by {' or '.join(sorted(known))} for its baseline"
        )
    return found
