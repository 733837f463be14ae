"""Tell which terms of judging counted: a change's own, those that it needed, and those that match nothing."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace

import pytest

from pytest_gpuperf.errors import GpuperfError
from pytest_gpuperf.figures import quantity
from pytest_gpuperf.flags import HOST_TIMES, JUDGING
from pytest_gpuperf.measurement import Baseline, Metric
from pytest_gpuperf.modes.case import case_of
from pytest_gpuperf.modes.missing import Scope, missing_rows, whole
from pytest_gpuperf.options import read_options
from pytest_gpuperf.records import Record, Row
from pytest_gpuperf.rules.case import Case
from pytest_gpuperf.rules.tolerances import Tolerance
from pytest_gpuperf.rules.waivers import Quarantine
from pytest_gpuperf.session import GpuperfSession
from pytest_gpuperf.storage.project import Project

Decided = Callable[[Case], Sequence[Row]]


class Accepted:
    """What the tests of a run with --gpuperf-accept need of this checkout's own terms.

    A test that passes is judged once more as it would be without the flag, from the same figures. Raises
    pytest.UsageError where the revision's ini file cannot be read.
    """

    def __init__(self, session: GpuperfSession) -> None:
        self._session, project = session, session.project
        self._options = read_options(session.config, accept=False)
        self._project = Project(project.root, project.ini, self._options)

    def needed(self, item: pytest.Item, record: Record, case: Case, decided: Decided) -> tuple[str, ...]:
        """Return a line for each of its own terms without which a test that passes would fail."""

        def fails(other: Case) -> bool:
            return bool(other.refused) or any(row.cause for row in decided(other))

        try:
            plain = case_of(item, record, self._project, self._options)
        except GpuperfError as error:
            return (f"accepted: {case.key}: without --gpuperf-accept it could not be judged: {error}",)
        without = _without(case, plain, record)
        if not without or not fails(plain):
            return ()
        # where either of two would do, neither is needed alone: the reader sees both
        each = [text for text, other in without.items() if fails(other)] or list(without)
        return tuple(f"accepted: {case.key}: {text}" for text in each)

    def needed_absent(self, missing: Sequence[Row], scope: Scope) -> list[str]:
        """Return a line for each metric that may be missing by this checkout's terms alone."""
        session, strict = self._session, self._options.strict
        passing = {(row.test, row.metric.name) for row in missing if not row.cause}
        try:
            plain = missing_rows(self._project, session.results, scope, strict, session.budget)
        except GpuperfError as error:  # of a file that this change may mend
            return [f"accepted: without --gpuperf-accept it is not known what is missing: {error}"]
        return [
            f"accepted: {row.test}: {row.metric.name} may be {row.verdict.outcome} by its own quarantine"
            for row in plain
            if row.cause and (row.test, row.metric.name) in passing
        ]


def _without(case: Case, plain: Case, record: Record) -> dict[str, Case]:
    """Return the case without each of its terms that ``plain`` does not have, by what a person reads."""
    found: dict[str, Case] = {}
    names = [m.metric.name for m in record.measurements]
    if moved := [name for name in names if case.stored.get(name) != plain.stored.get(name)]:
        texts = [_moved(name, plain.stored.get(name), case.stored.get(name)) for name in moved]
        found[f"its own baseline of {', '.join(texts)}"] = replace(
            case, key=plain.key, pool=plain.pool, stored=plain.stored, due=plain.due
        )
    if plain.refused:
        found[f"its marker: {plain.refused.partition(';')[0]}"] = replace(case, refused=plain.refused)
    if case.tolerances != plain.tolerances and not plain.refused:
        changed = [name for name in names if case.tolerances[name] != plain.tolerances[name]]
        texts = [f"{n} ({_percent(plain, n)} -> {_percent(case, n)})" for n in changed]
        found[f"its own tolerance of {', '.join(texts)}"] = replace(case, tolerances=plain.tolerances)
    if isinstance(case.waiver, Quarantine) and case.waiver != plain.waiver:
        text = f"its own quarantine until {case.waiver.expires} ({case.waiver.owner}: {case.waiver.reason})"
        found[text] = replace(case, waiver=plain.waiver)
    if case.strict != plain.strict:
        found["its own gpuperf_strict"] = replace(case, strict=plain.strict)
    return found


def _moved(name: str, before: Baseline | None, now: Baseline | None) -> str:
    texts = [quantity(each.value, each.metric.unit) if each else "none" for each in (before, now)]
    return f"{name} ({' -> '.join(texts)})"


def _percent(case: Case, name: str) -> str:
    return f"{100 * case.tolerances[name]:.4g} %"


# --------------------------------------------------------------------------- the ini file's keys


def own_keys(session: GpuperfSession) -> list[str]:
    """Name the ini keys that judge and that are not as in the revision, and say whether they count."""
    options = session.options
    if options.baselines_from is None:
        return []
    try:
        other = read_options(session.config, accept=not options.accept)
    except pytest.UsageError as error:  # of the revision's ini file, which an accepted change may mend
        return [f"accepted, and what was needed is not known: {error}"]
    keys = (*JUDGING, HOST_TIMES.removeprefix("gpuperf_"))
    names = [name for name in keys if getattr(options, name) != getattr(other, name)]
    if options.accept:
        return [f"accepted: this change's own ini key gpuperf_{name}" for name in names]
    told = f"of this change's ini file does not count: that of {options.terms} does"
    return [f"gpuperf_{name} {told}" for name in names]


# --------------------------------------------------------------------------- lines that match nothing


def unmatched(session: GpuperfSession, scope: Scope) -> list[str]:
    """Name the tolerances that cover no metric; those of the ini file only after a run of everything."""
    options, project, results = session.options, session.project, session.results
    measured = [
        (m.metric, project.pool(record.device))
        for record in results.records.values()
        for m in record.measurements
    ]
    found = [
        f'--gpuperf-tolerance="{line}" covers no metric of this run'
        for line in (options.tolerance if measured else ())
        if not _covers(line, measured)
    ]
    stored: Sequence[tuple[Metric, str]] = ()
    with suppress(GpuperfError):  # of a file that this run may have had no use for
        stored = whole(project, results, scope) if options.tolerances else ()
    return found + [
        f"gpuperf_tolerances: {line} covers no metric, neither of this run nor stored: take it out"
        for line in (options.tolerances if stored else ())
        if not _covers(line, [*measured, *stored])
    ]


def _covers(line: Tolerance, metrics: Sequence[tuple[Metric, str]]) -> bool:
    # of another machine's pool only the folder's name is known here
    folder = replace(line, pool=line.pool.lower().replace(" ", "-"))
    return any(line.covers(*each) or folder.covers(*each) for each in metrics)
