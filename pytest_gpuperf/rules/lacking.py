"""Decide metrics that only one side has, or that may not be compared although both have them."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

from pytest_gpuperf.measurement import Baseline, Measurement, Metric, Outcome, Verdict
from pytest_gpuperf.records import Record
from pytest_gpuperf.rules.differences import another_question
from pytest_gpuperf.rules.verdict import EXACT_SLACK

# What counters name: the kinds of access in words, and the figures that the compiler's code decides.
_ACCESSES: Mapping[str, str] = {
    "global_load": "loads from global memory",
    "global_store": "stores to global memory",
    "shared_load": "loads from shared memory",
    "shared_store": "stores to shared memory",
}
_RATIOS = ("sectors_per_request", "wavefronts_per_request")
_TOTALS = ("requests", "sectors", "wavefronts")
NEW_IN_PLUGIN = "new in this version of pytest-gpuperf: not judged before it is recorded"
_NOT_DEDICATED = (
    "the baseline judges it, and this machine does not: times of a host without a GPU need the ini key "
    "gpuperf_judge_host_times"
)


class _Counter(NamedTuple):
    """One figure of a launch's counters: ``transpose global_load.sectors`` in parts."""

    launch: str
    access: str
    figure: str

    @classmethod
    def of(cls, name: str) -> _Counter | None:
        launch, _, rest = name.rpartition(" ")
        access, _, figure = rest.partition(".")
        return cls(launch, access, figure) if launch and access in _ACCESSES else None


def _counter(metric: Metric) -> _Counter | None:
    return _Counter.of(metric.name) if metric.instrument == "counters" else None


def launch_of(metric: Metric) -> str | None:
    """Return the name of the launch whose counters a metric is one of, None if it is none."""
    counter = _counter(metric)
    return counter.launch if counter else None


# --------------------------------------------------------------------------- against stored runs


def held_to_compiler(baseline: Baseline | None, environment: Mapping[str, Any]) -> Baseline | None:
    """Return a baseline of a counters' total with the runs of this compiler alone, any other as it is.

    How many requests a loop makes is the compiler's choice, and it is known only where a run names it.
    """
    counter = _counter(baseline.metric) if baseline else None
    if baseline is None or counter is None or counter.figure not in _TOTALS:
        return baseline
    here = _compiler(environment)
    return replace(
        baseline, runs=tuple(run for run in baseline.runs if here and _compiler(run.environment) == here)
    )


def _compiler(environment: Mapping[str, Any]) -> tuple[str, str] | None:
    """Name the compiler and what it compiles for, None where it is not known."""
    compiler = environment.get("compiler")
    return (str(compiler), str(environment.get("device_name", ""))) if compiler else None


def incomparable(
    stored: Mapping[str, Baseline], held: Baseline | None, measured: Measurement, record: Record
) -> Verdict | None:
    """Return the verdict on a metric that is not to be compared with its baseline; None if it is.

    ``stored`` are the test's baselines, ``held`` the metric's own with the runs that it may be compared with.
    """
    metric, counter = measured.metric, _counter(measured.metric)
    if metric.kind == "shown":
        return _turned_shown(stored.get(metric.name), measured, record)
    if metric.constants.identity and metric.name not in stored and stored:
        return Verdict(Outcome.SHOWN, now=measured.value, reason=NEW_IN_PLUGIN)
    if counter and counter.figure in _TOTALS:
        if metric.name not in stored and any(_sibling(counter, name) for name in stored):
            return Verdict(Outcome.SHOWN, now=measured.value, reason=NEW_IN_PLUGIN)
        if held and not held.runs:
            return Verdict(Outcome.SHOWN, now=measured.value, reason=_other_compiler(stored, metric, record))
    if metric.kind == "exact" and held and (values := _distinct(run.value for run in held.runs)):
        reason = (
            f"it is exact, and the baseline's runs disagree ({values}): record it anew with --gpuperf-update"
        )
        return Verdict(Outcome.UNMEASURED, now=measured.value, reason=reason)
    return None


def _turned_shown(baseline: Baseline | None, measured: Measurement, record: Record) -> Verdict:
    """Judge a metric that is only shown: the baseline may have judged it."""
    shown = Verdict(Outcome.SHOWN, now=measured.value if measured.samples else None)
    if baseline is None or dict(baseline.place) != record.place(measured.metric):
        return shown
    asked = "kind" in measured.details  # by the test itself, which says kind="shown"
    metric = measured.metric if asked else replace(measured.metric, kind=baseline.metric.kind)
    if reason := another_question(baseline, replace(measured, metric=metric)):
        return replace(shown, outcome=Outcome.CONTRACT_CHANGED, reason=reason)
    others = (m for m in record.measurements if m.metric.constants.where == measured.metric.constants.where)
    if "warning" in measured.details and any(other.metric.kind == "noisy" for other in others):
        return replace(shown, outcome=Outcome.UNMEASURED, reason=str(measured.details["warning"]))
    return shown.because(_NOT_DEDICATED)


def _sibling(counter: _Counter, name: str) -> bool:
    """Return whether ``name`` is a ratio of the same accesses: older versions stored no totals beside it."""
    other = _Counter.of(name)
    return other is not None and other[:2] == counter[:2] and other.figure in _RATIOS


def _other_compiler(stored: Mapping[str, Baseline], metric: Metric, record: Record) -> str:
    then = sorted({str(r.environment.get("compiler", "an unknown one")) for r in stored[metric.name].runs})
    here = record.environment.get("compiler", "unknown")
    return (
        f"a total depends on the compiler, {' or '.join(then)} in the baseline and {here} here: "
        "--gpuperf-update=append adds this one's"
    )


def disagreement(measured: Measurement, again: Sequence[Measurement]) -> str:
    """Say how processes of this checkout differ in an exact metric, "" if they agree."""
    values = _distinct(m.value for m in (measured, *again))
    return f"it is exact, and processes of this checkout differ ({values})" if values else ""


def _distinct(values: Iterable[float]) -> str:
    """List values that are not all the same, "" where they are."""
    found = sorted(values)
    if not found or math.isclose(found[0], found[-1], rel_tol=EXACT_SLACK, abs_tol=0.0):
        return ""
    return ", ".join(f"{value:.9g}" for value in dict.fromkeys(found))


# --------------------------------------------------------------------------- accesses that go and come


def gone(metric: Metric, contract: Mapping[str, Any], value: float, record: Record) -> Verdict | None:
    """Return `improved` for a counter of accesses that the kernel makes no longer; None for any other.

    ``value`` is what it was. The launch has been counted, with the same question, or it is unmeasured.
    """
    counter = _counter(metric)
    if counter is None or metric.better != "lower":
        return None
    counted = [
        (c, m) for m in record.measurements if (c := _counter(m.metric)) and c.launch == counter.launch
    ]
    same = any(dict(m.contract) == dict(contract) for _, m in counted)
    if not same or any(c.access == counter.access for c, _ in counted):
        return None
    reason = f"the kernel makes no {_ACCESSES[counter.access]} any more"
    change = -1.0 if value else 0.0
    return Verdict(Outcome.IMPROVED, now=0.0, baseline=value, change=change, reason=reason)


def appeared(measured: Measurement, names: Collection[str]) -> str:
    """Say that the launch makes accesses that the other side, whose metrics are ``names``, did not; or ""."""
    counter = _counter(measured.metric)
    others = [c for name in names if (c := _Counter.of(name)) and counter and c.launch == counter.launch]
    if counter is None or not others or any(c.access == counter.access for c in others):
        return ""
    what = _ACCESSES[counter.access]
    if counter.figure == "bank_conflicts_per_request" and measured.value:
        what = f"{measured.value:.4g} bank conflicts a request in {what}"
    return f"new: {what}, of which the baseline's kernel made none"
