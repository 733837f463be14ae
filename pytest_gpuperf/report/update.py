"""Say how an update moves a baseline: from what to what, which way is worse, and how far from its origin."""

from __future__ import annotations

import os
import shlex
from collections.abc import Mapping, Sequence
from math import isclose
from statistics import median

from pytest_gpuperf.figures import percent, quantity, told_apart
from pytest_gpuperf.git import SHOWN_DIGITS
from pytest_gpuperf.measurement import Baseline, Milestone, Outcome, TestKey
from pytest_gpuperf.records import Row
from pytest_gpuperf.report.message import recording_flag
from pytest_gpuperf.rules.creep import loss, yardstick
from pytest_gpuperf.rules.decide import OWN_BOUND

WARNING = "WARNING: "
_MOST = 10  # tests that a command names one by one


def moved(key: TestKey, before: Mapping[str, Baseline], after: Mapping[str, Baseline]) -> str:
    """Return a test's name and a line for each metric whose baseline moved; "" if none did."""
    lines = [
        f"  {name} {_step(old, new)}"
        for name, new in after.items()
        if (old := before.get(name)) and not _same(old, new)
    ]
    return "\n".join([str(key), *lines]) if lines else ""


def _same(old: Baseline, new: Baseline) -> bool:
    """Return whether a baseline did not move; a mean of the same runs may differ in its last digit."""
    return isclose(old.value, new.value, rel_tol=0.0 if new.metric.kind == "exact" else 1e-12)


def _step(old: Baseline, new: Baseline) -> str:
    unit, origin = new.metric.unit, new.origin
    before, after = told_apart((old.value, new.value), unit)
    text = f"{before} -> {after}, {_change(new, old.value)}"
    if origin and origin.value not in (old.value, new.value):
        text += f"; since {_day(origin)} {_change(new, origin.value)}"
    return text


def _change(new: Baseline, before: float) -> str:
    """Return the signed change with its direction: ``+2.80 % (worse)``."""
    if new.metric.constants.identity:
        return "others"
    direction = "worse" if loss(new.metric, before, new.value) > 0 else "better"
    return f"{percent(new.value / before - 1)} ({direction})" if before > 0 else direction


def crept(key: TestKey, baseline: Baseline, tolerance: float, before: float | None = None) -> str:
    """Return the warning that a baseline lost more than twice its tolerance since its origin or best.

    "" if ``before``, the value until now, was that of an exact metric: ``moved`` has just said so.
    """
    mark = yardstick(baseline, tolerance)
    if mark is None or (not tolerance and before == mark.value):
        return ""
    unit, then = baseline.metric.unit, "its origin" if mark == baseline.origin else "its best"
    commit = f" ({mark.commit[:SHOWN_DIGITS]})" if mark.commit else ""
    when = f" on {_day(mark)}{commit}" if mark.date else commit
    return (
        f"{WARNING}{key}: {baseline.metric.name} is worse than it was\n"
        f"  {quantity(baseline.value, unit)}, {_change(baseline, mark.value)} since {then}, "
        f"{quantity(mark.value, unit)}{when}:\n"
        f"  past twice the tolerance of {100 * tolerance:g} %, whatever each update was by itself"
    )


def _day(mark: Milestone) -> str:
    return mark.date[:10] or "its origin"


def left_out(key: TestKey, baseline: Baseline, far: int) -> str:
    """Say that a run of a recording was far from the others and was measured again."""
    unit, values = baseline.metric.unit, [run.value for run in baseline.runs]
    value, others = quantity(values[far], unit), quantity(median(values), unit)
    return (
        f"{key}: {baseline.metric.name}\n  run {far + 1} of {len(values)} gave {value}, far from the others' "
        f"{others}:\n  measured again once, and left out"
    )


def two_modes(key: TestKey, baseline: Baseline) -> str:
    """Say that a metric runs in two modes: more than one run is far from the others."""
    unit = baseline.metric.unit
    values = sorted(run.value for run in baseline.runs)
    low, high = quantity(values[0], unit), quantity(values[-1], unit)
    return f"{key}: {baseline.metric.name}\n  runs in two modes, {low} to {high}: all runs are kept"


def to_record(rows: Sequence[Row], update: str, judged_by: str = "") -> list[str]:
    """Say why tests have baselines and no verdict, and how to record them, or a slowdown, if that is meant.

    ``update`` is the command that records what this run measured; ``judged_by`` the revision whose baselines
    count until a maintainer accepts this checkout's.
    """
    changed = [row for row in rows if row.command and not row.excuse and _may_be_meant(row)]
    gone = [
        row
        for row in rows
        if row.verdict.outcome in (Outcome.MISSING, Outcome.UNMEASURED)
        if not (row.command or row.excuse or row.over_budget)
    ]
    lines = _reasons(changed)
    if changed:
        measuring = shlex.split(changed[0].command)
        tests = dict.fromkeys(shlex.split(row.command)[1] for row in changed)
        one_by_one = f"{shlex.join([measuring[0], *tests, *measuring[2:]])} --gpuperf-update"
        lines.append(
            f"If that is meant, record it as it is now:\n  {one_by_one if len(tests) <= _MOST else update}"
        )
        if judged_by:
            lines.append(f"The baselines of {judged_by} count until a maintainer gives --gpuperf-accept.")
    lines += _reasons([row for row in rows if row.command and _is_not_judged(row)])
    lines += _reasons(gone)
    if gone and (commands := _renames(rows, [row for row in gone if row.verdict.outcome is Outcome.MISSING])):
        lines.append("\n  ".join(["If that is a new name, let the baselines follow:", *commands]))
    if gone:
        lines.append(f"If that is meant, a full run drops what is gone:\n  {update}=prune")
    return lines


def _renames(rows: Sequence[Row], gone: Sequence[Row]) -> list[str]:
    """Return the commands, three at most, for what is ``gone`` and has one new test that records the same.

    Of a file of which nothing is left, the whole file's.
    """
    old = _recorded(gone)
    fresh = [row for row in rows if row.verdict.outcome is Outcome.NO_BASELINE and row.command]
    new = _recorded(fresh)
    left = {row.test.suite for row in rows} - {row.test.suite for row in gone}
    places = {row.test.suite: shlex.split(row.command)[1].partition("::")[0] for row in fresh}
    found: dict[str, None] = {}
    for before, what in old.items():
        after = _alike(before, what, new)
        if len(after) == 1 and _alike(after[0], what, old) == [before]:
            names = ["::".join(before), "::".join(after[0])]
            suite, other = before[0], after[0][0]
            if other != suite and suite not in left:
                names = [suite, other]
            found[shlex.join(["gpuperf", "rename", *(_seen(n, other, places[other]) for n in names)])] = None
    return list(found)[:3]


def _alike(
    test: tuple[str, str],
    what: set[tuple[str, str]],
    among: Mapping[tuple[str, str], set[tuple[str, str]]],
) -> list[tuple[str, str]]:
    """Return the tests that record the same, in the same file or by the same name."""
    suite, name = test
    return [key for key, each in among.items() if each == what and (key[0] == suite or key[1] == name)]


def _seen(name: str, known: str, place: str) -> str:
    """Return a name below the tests' root as it is called from here, where ``known`` is ``place``."""
    above, here = known.split("/"), place.split("/")
    while above and here and above[-1] == here[-1]:
        above.pop(), here.pop()
    return os.path.normpath(os.path.join(*here, os.path.relpath(name, "/".join(above) or ".")))


def _recorded(rows: Sequence[Row]) -> dict[tuple[str, str], set[tuple[str, str]]]:
    """Return what each test function records, by its file and name: its parameters and metrics."""
    found: dict[tuple[str, str], set[tuple[str, str]]] = {}
    for row in rows:
        name, _, parameter = row.test.name.partition("[")
        found.setdefault((row.test.suite, name), set()).add((parameter, row.metric.name))
    return found


def _is_not_judged(row: Row) -> bool:
    """Return whether a test's figure is missing, or cannot be judged though the test took it."""
    unjudged = row.verdict.outcome is Outcome.UNMEASURED and row.verdict.now is not None
    return row.verdict.outcome is Outcome.MISSING or (unjudged and not (row.excuse or row.over_budget))


def _may_be_meant(row: Row) -> bool:
    """Return whether an update of the row's test would settle it; the test's own bounds stay."""
    slower = row.verdict.outcome is Outcome.REGRESSED and OWN_BOUND not in row.verdict.reason
    return slower or recording_flag(row) == "--gpuperf-update"


def _reasons(rows: Sequence[Row]) -> list[str]:
    """Return a line for each test and reason that no failure has told, three at most."""
    quiet = [row for row in rows if row.cause is None]
    found = dict.fromkeys(f"{row.test} {row.verdict.outcome}:\n  {row.verdict.reason}" for row in quiet)
    more = [f"and {len(found) - 3} more"] if len(found) > 3 else []
    return [*list(found)[:3], *more]


def listed(names: Sequence[str]) -> str:
    """Return the first three names, and how many more there are."""
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return f"{', '.join(names[:3])}{more}"
