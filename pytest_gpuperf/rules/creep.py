"""Creep: many updates, each within the tolerance, that add up to a loss.

A baseline keeps its origin and its best value so far, and an update is held to the better of the two.
While it is not updated after an improvement, as much may be lost again.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable
from dataclasses import replace

from pytest_gpuperf.measurement import Baseline, Measurement, Metric, Milestone, Run, Verdict
from pytest_gpuperf.rules.differences import differences, other_software, question_changes
from pytest_gpuperf.rules.tolerances import limit_of
from pytest_gpuperf.rules.verdict import EXACT_SLACK


def begun(baseline: Baseline) -> Baseline:
    """Return a first recording with its own value as its origin and its best."""
    here = _milestone(baseline.value, baseline.runs[-1])
    return replace(baseline, origin=here, best=here)


def followed(old: Baseline, new: Baseline) -> Baseline:
    """Return ``new``, which takes the place of ``old``, with the origin and the best so far.

    A baseline from before origins were kept begins with its oldest run. Where only the software became
    another, origin and best move with the value: a newer driver is no creep. Another question or another
    kind of machine begins anew.
    """
    if new == old:
        return new
    if question_changes(old.metric, old.contract, new.metric, new.contract) or differences(
        old.place, new.place
    ):
        return begun(new)
    origin = old.origin or _milestone(old.runs[0].value, old.runs[0])
    best = _better(new.metric, old.best or origin, _milestone(old.value, old.runs[-1]))
    if _only_software(old, new) and old.value * new.value > 0:
        moved = new.value / old.value
        origin, best = (replace(mark, value=mark.value * moved) for mark in (origin, best))
    best = _better(new.metric, best, _milestone(new.value, new.runs[-1]))
    return replace(new, origin=origin, best=best)


def yardstick(baseline: Baseline, tolerance: float) -> Milestone | None:
    """Return the better of origin and best if the value is worse than it by more than twice the tolerance."""
    if baseline.origin is None or baseline.best is None:
        return None
    mark = _better(baseline.metric, baseline.origin, baseline.best)
    return mark if loss(baseline.metric, mark.value, baseline.value) > 2 * tolerance + EXACT_SLACK else None


def loss(metric: Metric, before: float, now: float) -> float:
    """Return how much worse ``now`` is than ``before``, a fraction like a tolerance; negative if better.

    Of a noisy metric it is a slowdown, of an exact one a share of ``before``; infinite from 0. Of one that
    only names what was found there is none.
    """
    if metric.constants.identity:
        return 0.0
    if metric.kind == "noisy":
        return math.expm1(metric.worse(before, now))
    worse = now - before if metric.better == "lower" else before - now
    return worse / abs(before) if before else math.copysign(math.inf, worse) if worse else 0.0


def unseen_loss(metric: Metric, verdict: Verdict) -> float | None:
    """Return how much of today's figure could be lost again unseen while the old baseline stands.

    A fraction of ``verdict.now`` on the worse side: with a baseline of 10 ms, 8 ms now and a
    tolerance of 2 %, a later loss of 27.5 % passes. None where it is not a fraction (now is 0) or
    there is nothing to compare.
    """
    if verdict.baseline is None or verdict.tolerance is None or not verdict.now:
        return None
    limit = limit_of(metric, verdict.baseline, verdict.tolerance)
    lost = limit - verdict.now if metric.better == "lower" else verdict.now - limit
    return max(0.0, lost / abs(verdict.now))


def _better(metric: Metric, one: Milestone, other: Milestone) -> Milestone:
    return other if loss(metric, one.value, other.value) < 0 else one


def _milestone(value: float, run: Run) -> Milestone:
    return Milestone(value, str(run.environment.get("date", "")), str(_commit(run) or ""))


def _only_software(old: Baseline, new: Baseline) -> bool:
    """Return whether ``new`` is the same code as ``old``, by its hash or its commit, on other software."""
    last, runs = new.runs[-1], (*old.runs, *new.runs)
    measured = Measurement(new.metric, new.contract, last.samples, last.code)
    same = _agree(runs, lambda run: run.code) or _agree(runs, _commit)
    return same and other_software(measured, old.runs, last.environment)


def _agree(runs: tuple[Run, ...], what: Callable[[Run], Hashable]) -> bool:
    found = {what(run) for run in runs}
    return len(found) == 1 and found != {None}


def _commit(run: Run) -> str | None:
    """Return the commit of a run, None if its files were not those of a commit."""
    return None if run.environment.get("dirty") else run.environment.get("commit")
