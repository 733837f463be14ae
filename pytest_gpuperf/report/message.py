"""What the author of a red test reads: what moved, by how much, and how to see it again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pytest_gpuperf.backends import is_modelled
from pytest_gpuperf.measurement import Baseline, Outcome
from pytest_gpuperf.records import Record, Row
from pytest_gpuperf.report.format import percent, quantity


def explain(row: Row, baseline: Baseline | None, record: Record | None, differences: Sequence[str]) -> str:
    """The failure text of one metric; ``differences``: what changed in the environment since the baseline."""
    verdict, metric = row.verdict, row.metric
    lines = [_headline(row)]
    if verdict.reason:
        lines.append(f"  why       {verdict.reason}")
    if baseline is not None:
        lines.append(f"  baseline  {quantity(verdict.baseline, metric.unit)}  ({_provenance(baseline)})")
    if verdict.now is not None:
        lines.append(f"  now       {quantity(verdict.now, metric.unit)}")
    if record is not None:
        lines.append(f"  device    {_device(record.device, record.environment)}")
    if verdict.outcome in (Outcome.REGRESSED, Outcome.ENVIRONMENT_MOVED) and baseline is not None:
        lines.append(f"  differs   {'; '.join(differences) or 'nothing known but the code'}")
    elif verdict.outcome is Outcome.UNFIT and differences:
        lines.append(f"  differs   {'; '.join(differences)}")
    if verdict.outcome is Outcome.NO_BASELINE:
        lines.append(f"  record    {row.command} --gpuperf-update=new")
    elif row.command:
        lines.append(f"  again     {row.command}")
    return "\n".join(lines)


def explain_compared(row: Row, record: Record, revision: str, processes: int) -> str:
    """The failure text of one metric that was measured against ``revision`` in ``processes`` of each side."""
    verdict, unit = row.verdict, row.metric.unit
    lines = [_headline(row)]
    if verdict.reason:
        lines.append(f"  why       {verdict.reason}")
    if verdict.baseline is not None:
        alternating = f", {processes} processes" if row.metric.kind == "noisy" else ""
        lines.append(f"  against   {quantity(verdict.baseline, unit)}  ({revision}{alternating})")
    if verdict.now is not None:
        alternating = f"  ({processes} processes, alternating)" if row.metric.kind == "noisy" else ""
        lines.append(f"  now       {quantity(verdict.now, unit)}{alternating}")
    lines.append(f"  device    {_device(record.device, record.environment)}")
    return "\n".join([*lines, f"  again     {row.command}"])


def _headline(row: Row) -> str:
    verdict = row.verdict
    text = f"{verdict.outcome.value}: {row.metric.name}"
    if verdict.change is not None:
        text += f" {percent(verdict.change)}"
    if verdict.interval is not None and row.metric.kind == "noisy":
        low, high = verdict.interval
        text += f" ({percent(low)} to {percent(high)})"
    if verdict.change is not None and verdict.tolerance is not None:
        text += f", tolerance {100 * verdict.tolerance:g} %"
    return text


def _provenance(baseline: Baseline) -> str:
    newest = baseline.runs[-1].environment
    runs = f"{len(baseline.runs)} run{'s' if len(baseline.runs) > 1 else ''}"
    parts = [runs, str(newest.get("date", "undated"))[:10], str(newest.get("device_name", ""))]
    if newest.get("commit"):
        parts.append(f"commit {str(newest['commit'])[:10]}")
    return ", ".join(part for part in parts if part)


def _device(device: Mapping[str, Any], environment: Mapping[str, Any]) -> str:
    name = environment.get("device_name") or device.get("gpu") or "no device"
    uuid = environment.get("device_uuid")
    shown = f" {uuid}" if uuid and not is_modelled(device) else ""
    return f"{name}{shown}, backend {device.get('backend', 'none')}"
