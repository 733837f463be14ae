"""Say whether a launch is its baseline's own to the bit, so that it need not be measured again."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Literal, NamedTuple

from pytest_gpuperf.measurement import Baseline, Measurement
from pytest_gpuperf.rules.differences import (
    another_question,
    changes,
    environment_differences,
    other_software,
)

Word = Literal["identical", "changed", "cannot say", "new", "nothing"]
OLDER_KIND = "its baseline has a hash of an older kind: record again"
NO_HASH = "its baseline has no hash of the work: record again"


class Found(NamedTuple):
    """What a launch is beside its baseline: the same work, other work, not to be told, new, or nothing."""

    word: Word
    reason: str = ""


def compare(baseline: Baseline | None, reached: Measurement) -> Found:
    """Compare the work that is ``reached``, of which there are no samples, with what the stored runs did.

    Work is machine code, grid, block, shared memory, scalars and the inputs' contents. A figure that is not
    taken anew must lie within the bounds that the test states now.
    """
    if baseline is None or not baseline.runs:
        return Found("new", "it has no baseline")
    if reason := another_question(baseline, reached):
        return Found("changed", reason)
    if reached.code is None:
        return Found("cannot say", "what it launches has no machine code that can be had")
    if reached.code.endswith("?"):
        return Found(
            "cannot say", "what is in one of its arrays is not known: something may have written to it"
        )
    codes = {run.code for run in baseline.runs}
    if None in codes:
        return Found("cannot say", NO_HASH)
    if codes != {reached.code}:
        return _other(codes, reached.code)
    if beyond := reached.bounds.passed_by(baseline.value):
        return Found("changed", f"its baseline's own figure is {beyond}, the test's bound")
    return Found("identical")


def _other(codes: set[str | None], code: str) -> Found:
    known = [each for each in codes if each is not None]
    if any(each.endswith("?") for each in known):
        return Found(
            "cannot say", "what was in one of its arrays when the baseline was recorded is not known"
        )
    kind = code.partition("-")[0] + "-"  # as backends name the way in which they made it
    if any(not each.startswith(kind) for each in known):
        return Found("cannot say", OLDER_KIND)
    if code in known:
        return Found("cannot say", "runs of its baseline did different work: record again")
    return Found("changed", "other machine code, geometry, scalars or inputs than the baseline's")


def compare_here(
    baseline: Baseline | None, reached: Measurement, place: Mapping[str, Any], environment: Mapping[str, Any]
) -> Found:
    """Compare what is reached on the GPU itself: its place and software must be the baseline's, too."""
    found = compare(baseline, reached)
    if found.word != "identical" or baseline is None:
        return found
    if moved := changes(baseline.place, place):
        return Found("changed", f"another place than the baseline's: {'; '.join(moved)}")
    if other_software(reached, baseline.runs, environment):
        moved = environment_differences((run.environment for run in baseline.runs), environment)
        return Found("changed", f"other software than the baseline's: {'; '.join(moved)}")
    return found


def as_stored(reached: Measurement, baseline: Baseline | None) -> Measurement:
    """Return what is reached with the launches a sample that its baseline has: measuring settles those."""
    batch = baseline.contract.get("batch") if baseline else None
    return reached if batch is None else replace(reached, contract={**reached.contract, "batch": batch})
