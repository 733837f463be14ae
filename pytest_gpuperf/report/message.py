"""Write what the author of a failing test reads: what moved, by how much, and how to see it again."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from pytest_gpuperf.backends import judges_times
from pytest_gpuperf.figures import percent, quantity, told_apart
from pytest_gpuperf.git import SHOWN_DIGITS
from pytest_gpuperf.measurement import Baseline, Outcome
from pytest_gpuperf.records import Record, Row
from pytest_gpuperf.rules.case import Case
from pytest_gpuperf.rules.decide import cause_of
from pytest_gpuperf.rules.differences import environment_differences
from pytest_gpuperf.text import counted, inert

_NEW = 3  # metrics without a baseline that a message names one by one
_MAY_BE_THE_MACHINE = (Outcome.REGRESSED, Outcome.ENVIRONMENT_MOVED)


def explain(
    rows: Sequence[Row],
    case: Case,
    record: Record,
    processes: int = 0,
    since: Callable[[str], str] = lambda commit: "",
) -> str:
    """Write the failure text of a test's metrics; ``processes`` of each side were compared, if any.

    ``since`` says how far back a commit is, "" if nobody knows. What several metrics share is told once.
    """
    return inert("\n".join(_Message(case, record, processes, since).lines(rows)))


def reason(rows: Sequence[Row]) -> str:
    """Return why a test failed, in one line for pytest's short summary: the largest change comes first."""
    worst = max(rows, key=lambda row: abs(row.verdict.change or 0.0))
    outcomes = list(dict.fromkeys(row.verdict.outcome.value for row in rows))
    verdict = worst.verdict
    change = "" if verdict.change is None else f" {percent(verdict.change, verdict.baseline)}"
    if len(rows) > 1:
        word = "have no baseline" if outcomes == [Outcome.NO_BASELINE.value] else " or ".join(outcomes)
        text = f"{len(rows)} metrics {word}{f', worst{change}' if change else ''}"
    else:
        text = f"{outcomes[0]}{change}"
    why = f" ({verdict.reason})" if verdict.reason and not change else ""
    return inert(f"{text}: {worst.metric.name}{why}")


def recording_flag(row: Row) -> str:
    """Return the flag by which the test records what the row lacks, "" if it lacks nothing of the kind.

    That a test records less, or something else, may be meant; that its replicas failed is not.
    """
    if row.verdict.outcome is Outcome.NO_BASELINE:
        return "--gpuperf-update=new"
    less = row.verdict.outcome is Outcome.UNMEASURED and row.verdict.now is None and not row.over_budget
    return "--gpuperf-update" if less or row.verdict.outcome is Outcome.CONTRACT_CHANGED else ""


def narrower(row: Row, against: bool) -> str:
    """Say what makes the interval of an inconclusive metric narrower; "" where nothing is known to."""
    if row.verdict.interval is None or not _noisy(row):
        return ""
    if against or row.verdict.old_code:
        return "a higher --gpuperf-blocks or an idle machine"
    return "more runs in the baseline (--gpuperf-update=append) or an idle machine"


def elide(text: str, width: int) -> str:
    """Shorten text to within ``width`` columns; the middle goes, since names differ at their ends."""
    if len(text) <= width:
        return text
    head = (width - 1) // 2
    return f"{text[:head]}…{text[len(text) - (width - 1 - head) :]}"


def from_to(row: Row) -> tuple[str, str]:
    """Return a row's baseline and what it is now, with digits enough to tell them apart."""
    then, now = row.verdict.baseline, row.verdict.now
    found = [value for value in (then, now) if value is not None]
    texts = dict(zip(found, told_apart(found, row.metric.unit), strict=True))
    return "-" if then is None else texts[then], "-" if now is None else texts[now]


@dataclass(frozen=True, slots=True)
class _Message:
    """What the failure texts of one test rest on."""

    case: Case
    record: Record
    processes: int
    since: Callable[[str], str]

    def lines(self, rows: Sequence[Row]) -> list[str]:
        lines: list[str] = []
        groups: dict[tuple[object, ...], list[Row]] = {}
        for row in rows:
            groups.setdefault(self._shared(row), []).append(row)
        for group in groups.values():
            lines += [*([""] if lines else []), *self._block(group)]
        lines.append(f"  device    {_device(self.record.device, self.record.environment)}")
        return [*lines, *self._differs(rows), *self._commands(rows)]

    def _shared(self, row: Row) -> tuple[object, ...]:
        """Return what rows must have in common to be told of together."""
        verdict, baseline = row.verdict, self.case.stored.get(row.metric.name)
        provenance = _provenance(baseline, "") if baseline else ""
        better = row.details.get("better", "")
        return verdict.outcome, verdict.reason, verdict.old_code, verdict.processes, provenance, better

    def _block(self, group: Sequence[Row]) -> list[str]:
        """Return the lines of metrics that failed alike; of one alone each figure has a line."""
        row, single, verdict = group[0], len(group) == 1, group[0].verdict
        lines = [_headline(each, with_values=not single) for each in group]
        if verdict.outcome is Outcome.NO_BASELINE and len(group) > _NEW:
            lines = [f"{lines[0]} and {len(group) - 1} more"]
        if verdict.reason:
            lines.append(f"  why       {verdict.reason}")
        lines += self._held_against(row, single)
        compared = (self.case.against or verdict.old_code) and _noisy(row)
        count = self.processes if self.case.against else verdict.processes
        alternating = f"{count} processes, alternating" if compared else ""
        if verdict.now is not None and (single or alternating):
            lines.append(f"  now       {_figure(from_to(row)[1] if single else '', alternating)}")
        if verdict.outcome is Outcome.REGRESSED:
            lines += self._since(row)
            lines.append(f"  machine   {self._not_the_machine(row)}")
        if verdict.outcome is Outcome.INCONCLUSIVE and (way := narrower(row, bool(self.case.against))):
            lines.append(f"  narrow    {way}")
        if "better" in row.details:
            lines.append(f"  better    {row.details['better']}")
        return lines

    def _held_against(self, row: Row, single: bool) -> list[str]:
        """Return the lines of what the row is held to; a ``single`` row's with the figure."""
        case, verdict, baseline = self.case, row.verdict, self.case.stored.get(row.metric.name)
        then = from_to(row)[0] if single else ""
        if case.against:
            alternating = f", {self.processes} processes" if _noisy(row) else ""
            told = _figure(then, f"{case.against}{alternating}")
            return [] if verdict.baseline is None else [f"  against   {told}"]
        if baseline is None:
            return []
        own = verdict.old_code or verdict.baseline is None
        stored = quantity(baseline.value, baseline.metric.unit) if own and single else then
        here = str(self.record.environment.get("device_name", ""))
        lines = [f"  baseline  {_figure(stored, _provenance(baseline, here))}"]
        if verdict.old_code:
            alternating = f", {verdict.processes} processes" if _noisy(row) else ""
            told = _figure(then, f"commit {verdict.old_code}, here and now{alternating}")
            lines.append(f"  old code  {told}")
        return lines

    def _since(self, row: Row) -> list[str]:
        """Say since when it is so: by the history of runs if there is one, or by the baseline's commit."""
        if self.case.history:
            from pytest_gpuperf.report.history import since

            if lines := since(self.case.history, self.case.pool, row):
                return lines
        baseline = self.case.stored.get(row.metric.name)
        newest = baseline.runs[-1].environment if baseline else {}
        commit = str(newest.get("commit") or "")
        back = "" if not commit or newest.get("dirty") or self.case.against else self.since(commit)
        return [f"  since     commit {commit[:SHOWN_DIGITS]}, {back}"] if back else []

    def _not_the_machine(self, row: Row) -> str:
        """Say what speaks against the machine as the cause of a regression."""
        if not _noisy(row):
            return "not the cause: this is counted, not timed"
        if self.case.against or row.verdict.old_code:
            whose = self.case.against or f"commit {row.verdict.old_code}"
            return f"not the cause: {whose}, measured alternately, was better"
        return "unlikely: it was fit, and every fresh process was worse than allowed"

    def _differs(self, rows: Sequence[Row]) -> list[str]:
        """Name what is not as it was when the baselines were recorded, where that may be why."""
        found = list(dict.fromkeys(self._differences(rows)))
        asked = any(
            row.metric.name in self.case.stored and row.verdict.outcome in _MAY_BE_THE_MACHINE for row in rows
        )
        shown = "; ".join(found) or ("nothing known but the code" if asked else "")
        return [f"  differs   {shown}"] if shown else []

    def _differences(self, rows: Sequence[Row]) -> Iterator[str]:
        for row in rows:
            baseline = self.case.stored.get(row.metric.name)
            if baseline and row.verdict.outcome in (*_MAY_BE_THE_MACHINE, Outcome.UNFIT):
                then = [run.environment for run in baseline.runs]
                yield from environment_differences(then, self.record.environment)

    def _commands(self, rows: Sequence[Row]) -> list[str]:
        """Return the lines of what to run: the test again, and what records what it lacks."""
        again = [row for row in rows if row.command and row.verdict.outcome is not Outcome.NO_BASELINE]
        lenient = replace(self.case, strict=False)
        strict = any(row.cause and cause_of(row, lenient) is None for row in again)
        lines = [f"  again     {self.case.again}{' --gpuperf-strict=on' if strict else ''}"] if again else []
        flags = {} if self.case.against else {recording_flag(row): row.command for row in rows}
        return lines + [f"  record    {command} {flag}" for flag, command in flags.items() if flag]


def _headline(row: Row, with_values: bool) -> str:
    verdict = row.verdict
    text = f"{verdict.outcome.value}: {row.metric.name}"
    if verdict.change is not None:
        text += f" {percent(verdict.change, verdict.baseline)}"
    if verdict.interval is not None and _noisy(row):
        low, high = verdict.interval
        text += f" ({percent(low)} to {percent(high)})"
    if verdict.change is not None and verdict.tolerance is not None:
        text += f", tolerance {100 * verdict.tolerance:g} %"
    if with_values and verdict.baseline is not None and verdict.now is not None:
        text += ", {} -> {}".format(*from_to(row))
    return text


def _figure(figure: str, told: str) -> str:
    """Return a figure with what is told of it in brackets, or the one of the two that there is."""
    return f"{figure}  ({told})" if figure and told else figure or told


def _noisy(row: Row) -> bool:
    return row.metric.kind == "noisy"


def _provenance(baseline: Baseline, here: str) -> str:
    """Return of how many runs, of when, of which code and, if it is not the one ``here``, which device."""
    newest = baseline.runs[-1].environment
    runs = counted(len(baseline.runs), "run")
    device, commit = str(newest.get("device_name", "")), str(newest.get("commit") or "")[:SHOWN_DIGITS]
    code = f"commit {commit}" if commit else "of no commit"
    if commit and newest.get("dirty"):
        code = f"not committed, after {commit}"
    parts = [runs, str(newest.get("date", "undated"))[:10], device if device != here else "", code]
    return ", ".join(part for part in parts if part)


def _device(device: Mapping[str, Any], environment: Mapping[str, Any]) -> str:
    name = environment.get("device_name") or device.get("gpu") or "no device"
    uuid = environment.get("device_uuid")
    shown = f" {uuid}" if uuid and judges_times(device) else ""
    through = f" ({environment['binding']})" if "binding" in environment else ""
    return f"{name}{shown}, backend {device.get('backend', 'none')}{through}"
