"""What the baselines hold and a full run did not measure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from pytest_gpuperf.judging import quarantine
from pytest_gpuperf.measurement import Baseline, Outcome, TestKey, Verdict
from pytest_gpuperf.records import Row
from pytest_gpuperf.session import GpuperfSession


@dataclass(frozen=True, slots=True)
class Entry:
    """One test in a baseline file; ``path`` is its suite, whether that still exists or not."""

    path: Path
    pool: str
    key: TestKey
    metrics: Mapping[str, Baseline]


def rows(session: GpuperfSession) -> list[Row]:
    """`missing`: the test was deleted, renamed or skipped; `unmeasured`: it passed and recorded nothing."""
    return [row for entry in _not_measured(session) for row in _rows(session, entry)]


def vanished(session: GpuperfSession) -> list[Entry]:
    """Tests in the baselines that a full run did not find: deleted or renamed."""
    return [entry for entry in _not_measured(session) if not _nodeid(session, entry)]


def whole(session: GpuperfSession) -> bool:
    """Whether the paths that were given were run in full: no test was picked out of them."""
    option = session.config.option
    # a controller of xdist workers is not told what they deselect
    picked = session.deselected or option.keyword or option.markexpr or option.deselect
    return not picked and not any("::" in argument for argument in session.config.args)


def _not_measured(session: GpuperfSession) -> list[Entry]:
    """The entries of the suites that were run in full, but for the tests that measured.

    Pools are those of this run's own figures: another pool's entries are another machine's to measure.
    """
    if not whole(session):
        return []
    selected = [session.config.invocation_params.dir / argument for argument in session.config.args]
    pools = sorted({session.pool(record) for record in session.records.values()})
    found = []
    for store in {session.store(session.path(nodeid)).folder: nodeid for nodeid in session.outcomes}.values():
        found += _entries(session, session.path(store), pools, selected)
    measured = {(session.path(nodeid), nodeid.partition("::")[2]) for nodeid in session.records}
    return [entry for entry in found if (entry.path, entry.key.name) not in measured]


def _entries(session: GpuperfSession, beside: Path, pools: list[str], selected: list[Path]) -> list[Entry]:
    store, owner = session.store(beside), session.owner(beside, session.options.baselines)
    return [
        Entry(owner / suite, pool, TestKey(suite, name), metrics)
        for pool in pools
        for suite in store.suites(pool)
        if any((owner / suite).is_relative_to(argument) for argument in selected)
        for name, metrics in store.due(pool, suite).items()
    ]


def _nodeid(session: GpuperfSession, entry: Entry) -> str:
    """The entry's test in this run, "" where there is none."""
    wanted = (entry.path, entry.key.name)
    return next(
        (
            nodeid
            for nodeid in session.outcomes
            if (session.path(nodeid), nodeid.partition("::")[2]) == wanted
        ),
        "",
    )


def _rows(session: GpuperfSession, entry: Entry) -> list[Row]:
    nodeid = _nodeid(session, entry)
    outcome = session.outcomes.get(nodeid)
    if outcome == "failed":
        return []  # it is red already
    over = nodeid in session.left_out
    if over:
        kind, why = Outcome.UNMEASURED, f"not measured: {session.budget}"
    elif outcome == "passed":
        kind, why = Outcome.UNMEASURED, "in the baseline, but the test passed without recording it"
    else:
        kind = Outcome.MISSING
        why = session.skipped.get(nodeid) or (
            "in the baseline, but no such test was in this run; where that is meant, "
            "a full run with --gpuperf-update drops it"
        )
    uuids = {str(record.environment.get("device_uuid")) for record in session.records.values()}
    held = quarantine.excuse(session, entry.path, entry.key, entry.pool, uuids)
    excuse = quarantine.QUARANTINED if held else ""
    return [
        Row(
            entry.key,
            baseline.metric,
            Verdict(kind, baseline=baseline.value, reason=why),
            excuse=excuse,
            over_budget=over,
        )
        for baseline in entry.metrics.values()
    ]
