"""Make the case of a test: everything its verdict rests on, read once."""

from __future__ import annotations

import datetime
from collections.abc import Mapping, Sequence
from dataclasses import replace

import pytest

from pytest_gpuperf.marker import TestOptions, test_options
from pytest_gpuperf.measurement import Baseline, Metric
from pytest_gpuperf.options import Options
from pytest_gpuperf.records import Record
from pytest_gpuperf.report.command import judging, location, measuring
from pytest_gpuperf.rules.case import Case
from pytest_gpuperf.rules.estimate import judged_runs
from pytest_gpuperf.rules.stated import Stated
from pytest_gpuperf.rules.tolerances import Tolerances
from pytest_gpuperf.rules.waivers import Expectation
from pytest_gpuperf.storage.project import Project


def case_of(item: pytest.Item, record: Record, project: Project, options: Options) -> Case:
    """Return the case of a test that measured ``record``; raises GpuperfError for unreadable files."""
    marker, pool = test_options(item), project.pool(record.device)
    unit, today = record.environment.get("device_uuid"), datetime.date.today()
    if options.against:
        key = project.name(item.nodeid)  # nothing is stored: a suite needs no folder of baselines above it
        stored: Mapping[str, Baseline] = {}
        due: Mapping[str, Baseline] = {}
    else:
        key = project.key(item.nodeid)
        stored = held_to(project.stored(item.nodeid, record.device), record)
        due = project.due(item.nodeid, record.device)
    before = project.stated(item, marker)
    now, then = (
        Tolerances(options.tolerance, stating.tolerance, options.tolerances) for stating in (marker, before)
    )
    judged = [m.metric for m in record.measurements if m.metric.kind != "shown"]
    waived = marker.until if not item.config.getoption("runxfail", False) else None
    quarantine = project.quarantine(item.path, key, pool, [str(unit)], today)
    return Case(
        key=key,
        pool=pool,
        unit=unit,
        stored=stored,
        due=due,
        tolerances={
            m.metric.name: min(now.of(m.metric, pool), then.of(m.metric, pool)) for m in record.measurements
        },
        waiver=quarantine or _expectation(marker, min(waived, before.until or "") if waived else ""),
        today=today,
        strict=options.strict,
        acquits=options.acquit and not options.against,
        against=str(options.against or ""),
        accepted=options.accept,
        refused=_refused(options, before, waived, [(m, now.of(m, pool), then.of(m, pool)) for m in judged]),
        command=measuring(item.config, location(item)),
        judged_by=judging(item.config),
        history=options.history or "",
    )


def _refused(
    options: Options, before: Stated, waived: str | None, tolerances: Sequence[tuple[Metric, float, float]]
) -> str:
    """Say by what a test's marker would judge it less strictly than in the revision that judges."""
    looser = next((f for f in tolerances if f[1] > f[2]), None)
    if not tolerances or options.terms is None:
        return ""
    if before.unknown:
        why = f"what the marker stated at {options.terms} cannot be read without running it: {before.unknown}"
    elif waived and waived > (before.until or ""):
        then = f"until {before.until}" if before.until else "none"
        why = f"the marker expects a regression until {waived}, and at {options.terms} it expects {then}"
    elif looser:
        metric, now, then_ = looser
        why = (
            f"the tolerance of {metric.name} is {100 * now:.4g} % by the marker, and {100 * then_:.4g} % at "
            f"{options.terms}"
        )
    else:
        return ""
    return f"{why};\n  a change does not waive itself: undo that, or have a maintainer give --gpuperf-accept"


def held_to(stored: Mapping[str, Baseline], record: Record) -> dict[str, Baseline]:
    """Return baselines with the runs that what ``record`` measured is held to."""
    found = dict(stored)
    for measured in record.measurements:
        name = measured.metric.name
        if measured.metric.kind == "noisy" and name in found:
            runs = judged_runs(measured, found[name].runs, record.environment)
            found[name] = replace(found[name], runs=runs)
    return found


def _expectation(marker: TestOptions, until: str) -> Expectation | None:
    """Return what a test's marker expects; None for no day ``until``."""
    if not marker.expected or not until:
        return None
    return Expectation(marker.expected, datetime.date.fromisoformat(until))
