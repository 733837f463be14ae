"""Make the case of a test: everything its verdict rests on, read once."""

from __future__ import annotations

import datetime
import shlex
from collections.abc import Mapping
from dataclasses import replace

import pytest

from pytest_gpuperf.marker import TestOptions, test_options
from pytest_gpuperf.measurement import Baseline
from pytest_gpuperf.options import Options
from pytest_gpuperf.records import Record
from pytest_gpuperf.rules.case import Case
from pytest_gpuperf.rules.estimate import judged_runs
from pytest_gpuperf.rules.tolerances import Tolerances
from pytest_gpuperf.rules.waivers import Expectation
from pytest_gpuperf.storage.project import Project


def case_of(item: pytest.Item, record: Record, project: Project, options: Options) -> Case:
    """Return the case of a test that measured ``record``; raises GpuperfError for unreadable files."""
    marker, pool = test_options(item), project.pool(record.device)
    unit, today = record.environment.get("device_uuid"), datetime.date.today()
    stated = Tolerances(options.tolerance, marker.tolerance, options.tolerances)
    command = f"pytest {shlex.quote(item.nodeid)} --gpuperf"
    if options.against:
        key = project.name(item.nodeid)  # nothing is stored: a suite needs no folder of baselines above it
        stored: Mapping[str, Baseline] = {}
        due: Mapping[str, Baseline] = {}
        command += f" --gpuperf-against={shlex.quote(options.against.name)}"
    else:
        key = project.key(item.nodeid)
        stored = held_to(project.stored(item.nodeid, record.device), record)
        due = project.due(item.nodeid, record.device)
    quarantine = project.quarantine(item.path, key, pool, [str(unit)], today)
    return Case(
        key=key,
        pool=pool,
        unit=unit,
        stored=stored,
        due=due,
        tolerances={m.metric.name: stated.of(m.metric, pool) for m in record.measurements},
        waiver=quarantine or _expectation(item, marker),
        today=today,
        strict=options.strict,
        acquits=options.acquit and not options.against,
        against=str(options.against or ""),
        command=command,
    )


def held_to(stored: Mapping[str, Baseline], record: Record) -> dict[str, Baseline]:
    """Return baselines with the runs that what ``record`` measured is held to."""
    found = dict(stored)
    for measured in record.measurements:
        name = measured.metric.name
        if measured.metric.kind == "noisy" and name in found:
            runs = judged_runs(measured, found[name].runs, record.environment)
            found[name] = replace(found[name], runs=runs)
    return found


def _expectation(item: pytest.Item, marker: TestOptions) -> Expectation | None:
    """Return what a test's marker expects; None with ``--runxfail``: judge everything as it is."""
    if marker.expected is None or marker.until is None or item.config.getoption("runxfail", False):
        return None
    return Expectation(marker.expected, datetime.date.fromisoformat(marker.until))
