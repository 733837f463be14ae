"""Judge a test's metrics against the runs that are stored for it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

from pytest_gpuperf.measurement import Baseline, Measurement, Outcome, Verdict
from pytest_gpuperf.records import Record
from pytest_gpuperf.rules import lacking, verdict
from pytest_gpuperf.rules.case import Case
from pytest_gpuperf.rules.estimate import MIN_RUNS


def against_stored(
    case: Case, record: Record, measured: Measurement, replicas: Sequence[Measurement] = ()
) -> Verdict:
    """Judge one metric of a test by its stored runs alone, without its own bounds."""
    name, exact = measured.metric.name, measured.metric.kind == "exact"
    baseline = lacking.held_to_compiler(case.stored.get(name), record.environment)
    found = lacking.incomparable(case.stored, baseline, measured, record) or verdict.judge(
        baseline,
        measured,
        () if exact else replicas,
        tolerance=case.tolerances.get(name),
        place=record.place(measured.metric),
        environment=record.environment,
    )
    if found.outcome is Outcome.NO_BASELINE and not found.reason:
        return replace(found, reason=lacking.appeared(measured, case.stored))
    if exact and (differ := lacking.disagreement(measured, replicas)):
        worse = found.outcome is Outcome.REGRESSED
        return replace(found, outcome=Outcome.UNMEASURED, exceeds=worse, reason=differ)
    if baseline and (reason := _explained_by_unit(found, baseline, measured, case.unit)):
        return replace(found, outcome=Outcome.INCONCLUSIVE, exceeds=False, reason=reason)
    return found


def excess(measured: Measurement, found: Verdict) -> float:
    """Return how far a metric is beyond its bounds or its tolerance, whichever is more, in logs."""
    beyond = [measured.bounds.excess(measured.value)]
    if found.baseline and found.now and found.change is not None and found.tolerance is not None:
        change = measured.metric.worse(found.baseline, found.now)
        beyond.append(change - math.log1p(found.tolerance))
    return max(beyond)


def _explained_by_unit(found: Verdict, baseline: Baseline, measured: Measurement, unit: str | None) -> str:
    """Say why a loss is none: the baseline's own work to the bit, on a GPU it hardly knows; "" if it may be.

    Work is machine code, grid, block, shared memory, scalars and the inputs' contents. It explains no more
    than units differ by: the interval must reach back to the tolerance.
    """
    if not found.exceeds or found.interval is None or baseline.metric.instrument != "device_time":
        return ""
    own = sum(run.environment.get("device_uuid") == unit for run in baseline.runs)
    if unit is None or own >= MIN_RUNS or not measured.same_code(baseline.runs):
        return ""
    if baseline.metric.least_loss(found.interval) > (found.tolerance or 0.0):
        return ""
    return (
        "the launch is the baseline's own to the bit, inputs included, and units of one model differ by as "
        f"much: the baseline has {own} runs of this GPU"
    )
