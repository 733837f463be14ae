"""Write what the author of a failing test reads: what moved, by how much, and how to see it again."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from pytest_gpuperf.backends import judges_times
from pytest_gpuperf.figures import quantity
from pytest_gpuperf.git import SHOWN_DIGITS
from pytest_gpuperf.measurement import Baseline, Outcome
from pytest_gpuperf.records import Record, Row
from pytest_gpuperf.rules.case import Case
from pytest_gpuperf.rules.decide import cause_of
from pytest_gpuperf.rules.differences import environment_differences
from pytest_gpuperf.text import inert


def explain(row: Row, case: Case, record: Record, processes: int = 0) -> str:
    """Write the failure text of one metric; ``processes`` of each side were compared, if any."""
    verdict, unit = row.verdict, row.metric.unit
    lines, baseline = [_headline(row)], case.stored.get(row.metric.name)
    if verdict.reason:
        lines.append(f"  why       {verdict.reason}")
    lines += _held_against(row, case, baseline, processes)
    if verdict.now is not None:
        compared = case.against or verdict.old_code
        count = processes if case.against else verdict.processes
        alternating = f"  ({count} processes, alternating)" if compared and _noisy(row) else ""
        lines.append(f"  now       {quantity(verdict.now, unit)}{alternating}")
    if "better" in row.details:
        lines.append(f"  better    {row.details['better']}")
    lines.append(f"  device    {_device(record.device, record.environment)}")
    lines += _differs(row, baseline, record)
    lines += _since(row, case)
    if row.command and verdict.outcome is not Outcome.NO_BASELINE:
        lenient = replace(case, strict=False)
        strict = " --gpuperf-strict=on" if row.cause and cause_of(row, lenient) is None else ""
        lines.append(f"  again     {case.again}{strict}")
    if flag := "" if case.against else recording_flag(row):
        lines.append(f"  record    {row.command} {flag}")
    return inert("\n".join(lines))


def recording_flag(row: Row) -> str:
    """Return the flag by which the test records what the row lacks, "" if it lacks nothing of the kind.

    That a test records less, or something else, may be meant; that its replicas failed is not.
    """
    if row.verdict.outcome is Outcome.NO_BASELINE:
        return "--gpuperf-update=new"
    less = row.verdict.outcome is Outcome.UNMEASURED and row.verdict.now is None and not row.over_budget
    return "--gpuperf-update" if less or row.verdict.outcome is Outcome.CONTRACT_CHANGED else ""


def properties(rows: Sequence[Row]) -> list[tuple[str, object]]:
    """Return the verdicts as properties of the test, which JUnit files carry."""
    found: list[tuple[str, object]] = []
    for row in rows:
        text = f"{row.label} {quantity(row.verdict.now, row.metric.unit)} {percent(row.verdict.change)}"
        if row.verdict.interval:
            text += f" [{percent(row.verdict.interval[0])}, {percent(row.verdict.interval[1])}]"
        found.append((sys.intern(f"gpuperf.{row.metric.name}"), text))
    return found


def _headline(row: Row) -> str:
    verdict = row.verdict
    text = f"{verdict.outcome.value}: {row.metric.name}"
    if verdict.change is not None:
        text += f" {percent(verdict.change)}"
    if verdict.interval is not None and _noisy(row):
        low, high = verdict.interval
        text += f" ({percent(low)} to {percent(high)})"
    if verdict.change is not None and verdict.tolerance is not None:
        text += f", tolerance {100 * verdict.tolerance:g} %"
    return text


def _held_against(row: Row, case: Case, baseline: Baseline | None, processes: int) -> list[str]:
    verdict, unit = row.verdict, row.metric.unit
    then = quantity(verdict.baseline, unit)
    if case.against:
        alternating = f", {processes} processes" if _noisy(row) else ""
        return [] if verdict.baseline is None else [f"  against   {then}  ({case.against}{alternating})"]
    if baseline is None:
        return []
    own = verdict.old_code or verdict.baseline is None
    stored = quantity(baseline.value, unit) if own else then
    lines = [f"  baseline  {stored}  ({_provenance(baseline)})"]
    if verdict.old_code:
        alternating = f", {verdict.processes} processes" if _noisy(row) else ""
        lines.append(f"  old code  {then}  (commit {verdict.old_code}, here and now{alternating})")
    return lines


def _differs(row: Row, baseline: Baseline | None, record: Record) -> list[str]:
    """Name what is not as it was when the baseline was recorded, where that may be why."""
    if baseline is None:
        return []
    found = environment_differences([run.environment for run in baseline.runs], record.environment)
    if row.verdict.outcome in (Outcome.REGRESSED, Outcome.ENVIRONMENT_MOVED):
        return [f"  differs   {'; '.join(found) or 'nothing known but the code'}"]
    return [f"  differs   {'; '.join(found)}"] if found and row.verdict.outcome is Outcome.UNFIT else []


def _since(row: Row, case: Case) -> list[str]:
    if not case.history:
        return []
    from pytest_gpuperf.report.history import since

    return since(case.history, case.pool, row)


def _noisy(row: Row) -> bool:
    return row.metric.kind == "noisy"


def _provenance(baseline: Baseline) -> str:
    newest = baseline.runs[-1].environment
    runs = f"{len(baseline.runs)} run{'s' if len(baseline.runs) > 1 else ''}"
    parts = [runs, str(newest.get("date", "undated"))[:10], str(newest.get("device_name", ""))]
    if newest.get("commit"):
        changed = " with changes" if newest.get("dirty") else ""
        parts.append(f"commit {str(newest['commit'])[:SHOWN_DIGITS]}{changed}")
    return ", ".join(part for part in parts if part)


def _device(device: Mapping[str, Any], environment: Mapping[str, Any]) -> str:
    name = environment.get("device_name") or device.get("gpu") or "no device"
    uuid = environment.get("device_uuid")
    shown = f" {uuid}" if uuid and judges_times(device) else ""
    return f"{name}{shown}, backend {device.get('backend', 'none')}"


def percent(fraction: float | None, digits: int = 2) -> str:
    """Format a signed change: +8.31 %."""
    return "-" if fraction is None else f"{100 * fraction:+.{digits}f} %"


def elide(text: str, width: int) -> str:
    """Shorten text to within ``width`` columns; the middle goes, since names differ at their ends."""
    if len(text) <= width:
        return text
    head = (width - 1) // 2
    return f"{text[:head]}…{text[len(text) - (width - 1 - head) :]}"
