"""Is a red this change's, or the machine's? The baseline's own code, run here and now, tells."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Literal

import pytest

from pytest_gpuperf.errors import GpuperfError
from pytest_gpuperf.git import SHOWN_DIGITS, Revision, resolve
from pytest_gpuperf.judging import paired, units, verdict
from pytest_gpuperf.judging.differences import environment_differences
from pytest_gpuperf.measurement import Baseline, Measurement, Metric, Outcome, Verdict
from pytest_gpuperf.options import test_options
from pytest_gpuperf.processes import against
from pytest_gpuperf.processes.comparison import Comparison, compare
from pytest_gpuperf.records import Record, Row
from pytest_gpuperf.report.format import quantity
from pytest_gpuperf.session import GpuperfSession

_COMPARISONS = pytest.StashKey[dict[str, list[tuple[frozenset[str], Comparison]]]]()
# What an installation changes and no commit does, and the unit: two of one model differ. The machine's other
# hardware is part of the place instead.
_SOFTWARE = ("versions.", "compiler ", "driver ", "cuda_driver ", "cuda_pycuda ", "python ", "platform ")
_UNIT = "device_uuid "
Suspect = Literal["software", "unit", "host"]
"""What may have moved a figure: other software, nothing but another GPU, or nothing but the host's drift."""


def review(
    session: GpuperfSession, item: pytest.Item, record: Record, rows: Sequence[Row]
) -> tuple[Row, ...]:
    """The rows, with `environment moved` for each red that the baseline's own code shows here and now.

    Where only the GPU is none of the baseline's, its figures say little of this one: a red of a noisy
    metric becomes what the comparison with the old code says. Where nothing is another, a host may still
    have drifted, which no sentinel watches: a red of its clock is `unfit` where the old code is beyond the
    tolerance too and the comparison finds no loss. Nothing runs where nothing is red, where the launch
    itself is the baseline's own to the bit, or for a device's time on the baseline's own software and unit.
    """
    if not session.options.revisions.acquit:
        return tuple(rows)
    stored = units.stored(session, item, record)
    return tuple(_reviewed(session, item, record, row, stored) for row in rows)


def _reviewed(
    session: GpuperfSession, item: pytest.Item, record: Record, row: Row, stored: Mapping[str, Baseline]
) -> Row:
    baseline = stored.get(row.metric.name)
    if row.verdict.outcome is not Outcome.REGRESSED or row.excuse or baseline is None:
        return row
    measured = record.measurement(row.metric.name)
    if measured and row.verdict.now is not None and measured.bounds.passed_by(row.verdict.now):
        return row  # its own bound holds on whatever software
    changed = environment_differences([run.environment for run in baseline.runs], record.environment)
    suspect = _suspect(baseline.metric, changed)
    if measured and baseline.metric.instrument == "device_time" and measured.same_code(baseline.runs):
        # no commit made it slower
        acquitted = _another_unit if suspect == "unit" else _environment
        return replace(row, verdict=acquitted(row.verdict))
    if suspect is None:
        return row
    try:
        revision = _recorded_from(session, baseline)
        comparison = _comparison(session, item, revision)
        decided = _decide(session, item, record, row.verdict, baseline, comparison, suspect)
    except GpuperfError as error:
        decided = row.verdict.because(f"not run again with the baseline's own code: {error}")
    return replace(row, verdict=decided)


def _suspect(metric: Metric, changed: Sequence[str]) -> Suspect | None:
    """What to ask the old code about; ``changed``: how the environment differs from the baseline's."""
    if any(text.startswith(_SOFTWARE) for text in changed):
        return "software"
    if any(text.startswith(_UNIT) for text in changed):
        # No unit may compute anything else: an exact metric fares there as on other software.
        return "unit" if metric.kind == "noisy" else "software"
    return "host" if metric.kind == "noisy" and metric.constants.where == "host" else None


def _environment(red: Verdict, reason: str = "") -> Verdict:
    return replace(red, outcome=Outcome.ENVIRONMENT_MOVED).because(reason)


def _another_unit(red: Verdict) -> Verdict:
    """The same code takes longer on a GPU that the baseline does not know: no loss, and no `equal` either."""
    reason = "this GPU is none of those that the baseline was recorded on"
    return replace(red, outcome=Outcome.INCONCLUSIVE, exceeds=False).because(reason)


def _recorded_from(session: GpuperfSession, baseline: Baseline) -> Revision:
    """The commit whose code the baseline's newest run measured; raises GpuperfError where none is known."""
    environment = baseline.runs[-1].environment
    commit = str(environment.get("commit") or "")
    if not commit:
        raise GpuperfError("its runs do not name a commit")
    if environment.get("dirty"):
        raise GpuperfError(f"it was recorded with changes to {commit[:SHOWN_DIGITS]} that were not committed")
    return resolve(session.config.rootpath, commit)


def _comparison(session: GpuperfSession, item: pytest.Item, revision: Revision) -> Comparison:
    """This test against the revision, by itself; once several had to be, all of the session's together.

    A roll-out of a driver turns every test red: each by itself would cost twenty processes a test.
    """
    known = session.config.stash.setdefault(_COMPARISONS, {}).setdefault(revision.commit, [])
    for names, comparison in known:
        if item.nodeid in names:
            return comparison
    items = [item]
    if len(known) >= session.options.rules.max_confirm:
        done = frozenset().union(*(names for names, _ in known))
        items = [i for i in item.session.items if against.measures(i) and i.nodeid not in done]
    session.free_memory()
    found = compare(session, items, revision, session.options.revisions.blocks)
    known.append((frozenset(i.nodeid for i in items), found))
    return found


def _decide(
    session: GpuperfSession,
    item: pytest.Item,
    record: Record,
    red: Verdict,
    baseline: Baseline,
    comparison: Comparison,
    suspect: Suspect,
) -> Verdict:
    """Acquitted where the old code is worse than its baseline today, and this checkout no worse than it."""
    metric, short = baseline.metric, str(comparison.revision)
    if why := comparison.own(item.nodeid).failed(item.nodeid):
        raise GpuperfError(f"this checkout {why}")
    rules, marker = session.options.rules, test_options(item).tolerance
    tolerance = rules.tolerance(marker, metric, session.pool(record))
    found = against.judge_metric(comparison, item.nodeid, metric, tolerance)
    if found.baseline is None or found.outcome is Outcome.UNMEASURED:
        raise GpuperfError(found.reason or f"{short} was not measured")
    noisy = metric.kind == "noisy"
    _, there = (comparison.series if noisy else comparison.every)(item.nodeid, metric.name)
    old = verdict.judge(
        baseline,
        there[0],
        there if noisy else (),
        tolerance=tolerance,
        place=record.place(metric),
        device_uuid=record.environment.get("device_uuid"),
    )
    took = f"{quantity(found.baseline, metric.unit)} here and now ({_processes(there)})"
    reason = f"the baseline's own code, commit {short}, is worse too: {took}"
    if suspect == "host" and old.exceeds and found.outcome is not Outcome.REGRESSED:
        # A host that drifts is noisy: that the old code is slower, or this one is not, is rarely confirmed.
        return replace(red, outcome=Outcome.UNFIT).because(reason)
    if old.outcome is Outcome.REGRESSED and found.outcome in (Outcome.EQUAL, Outcome.IMPROVED):
        return found.because(reason) if suspect == "unit" else _environment(red, reason)
    return red.because(f"not the machine's: the baseline's own code, commit {short}, has {took}")


def _processes(there: Sequence[Measurement]) -> str:
    if len(there) < paired.PER_BLOCK * paired.MIN_BLOCKS:
        return f"{len(there)} process(es)"
    return f"{len(there)} processes, alternating with as many of this checkout"
