"""Measure again a test that looks worse: in replicas of its own, or in one set for all that are left."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest

from pytest_gpuperf.marker import isolates
from pytest_gpuperf.processes.result import ChildResult, crash_line, not_fit
from pytest_gpuperf.records import Record, payload_of
from pytest_gpuperf.rules.case import Replicas
from pytest_gpuperf.rules.estimate import REPLICAS
from pytest_gpuperf.session import GpuperfSession
from pytest_gpuperf.text import counted


class Confirmer:
    """The replicas of one session.

    Once ``max_confirm`` tests have looked worse, more are likely to: a new driver slows them all. Then one
    set of replicas measures every test that still may, and later ones are judged from it.
    """

    def __init__(self, session: GpuperfSession) -> None:
        self._children, self._project = session.children, session.project
        self._free_memory, self._progress = session.free_memory, session.progress
        self._place = lambda: session.opened.device.place() if session.opened else None
        self._most = session.options.max_confirm
        # An xdist worker does not know which tests it will be given.
        self._may_share = not session.in_worker
        self._confirmed = 0
        self._shared: dict[str, list[Record]] | None = None

    def confirm(
        self, item: pytest.Item, record: Record, left: Callable[[], Sequence[pytest.Item]]
    ) -> Replicas:
        """Measure ``item`` again; ``left`` returns the tests, this one among them, that may still look worse.

        The caller has given the device lock back.
        """
        self._free_memory()
        self._confirmed += 1
        shares = self._may_share and self._confirmed > self._most and not isolates(item)
        with self._children.live:
            return self._confirm(item, record, left, shares)

    def _confirm(
        self, item: pytest.Item, record: Record, left: Callable[[], Sequence[pytest.Item]], shares: bool
    ) -> Replicas:
        if self._shared is None and shares:
            self._shared = self._measure_all(item, record, left())
        shared = (self._shared or {}).get(item.nodeid, [])
        if len(shared) == REPLICAS and all(_same_questions(record, replica) for replica in shared):
            return Replicas(tuple(shared))
        return self._alone(item, record)

    def _measure_all(
        self, item: pytest.Item, record: Record, left: Sequence[pytest.Item]
    ) -> dict[str, list[Record]]:
        stored = {other.nodeid: self._stored_batches(other, record) for other in left}
        batches = {nodeid: known for nodeid, known in stored.items() if known is not None}
        batches[item.nodeid] = record.batches
        together = [other for other in left if other.nodeid in batches and not isolates(other)]
        self._progress(
            f"gpuperf: more than {counted(self._most, 'test')} measured worse "
            f"(--gpuperf-max-confirm), so {REPLICAS} processes measure all {len(together)} that are left"
        )
        found: dict[str, list[Record]] = {}
        for number in range(REPLICAS):
            self._children.live.stage(f"process {number + 1} of {REPLICAS}", number, REPLICAS)
            result = self._children.run_fit(together, batches)
            for other in together:
                replica, _ = _record_of(result, other)
                if replica:
                    found.setdefault(other.nodeid, []).append(replica)
        return found

    def _stored_batches(self, item: pytest.Item, record: Record) -> dict[str, int] | None:
        """Return launches a sample by metric, from the baseline; None if nothing stored could look worse."""
        found = None
        for place in (record.device, self._place()):
            stored = self._project.stored(item.nodeid, place) if place else {}
            for name, baseline in stored.items():
                if baseline.metric.kind == "noisy":
                    found = found or {}
                    if (batch := baseline.contract.get("batch")) is not None:
                        found[name] = batch
        return found

    def _alone(self, item: pytest.Item, record: Record) -> Replicas:
        records: list[Record] = []
        for number in range(REPLICAS):
            self._children.live.stage(f"confirming, process {number + 1} of {REPLICAS}", number, REPLICAS)
            result = self._children.run_fit([item], {item.nodeid: record.batches})
            replica, trouble = _record_of(result, item)
            if replica is None:
                unfit = "" if result.trouble else not_fit(result.of(item.nodeid))
                return Replicas(records, "" if unfit else trouble, unfit)
            records.append(replica)
            if replica.unfit:  # still, after every repetition: more replicas would only wait the longer
                return Replicas(records, unfit=f"the machine was not fit to measure: {replica.unfit}")
        return Replicas(records)


def _record_of(result: ChildResult, item: pytest.Item) -> tuple[Record | None, str]:
    """Return what a child measured of a test that passed there, else why it did not."""
    reports = result.of(item.nodeid)
    if why := result.crashed(item.nodeid):
        return None, f"{why}; {result.last_words}"
    found = next((p.record for r in reports if (p := payload_of(r)).record), None)
    failed = next((crash_line(report) for report in reports if report.failed), "")
    if found is not None and not failed:
        return found, ""
    return None, f"failed: {failed}" if failed else "passed it without measuring anything"


def _same_questions(record: Record, replica: Record) -> bool:
    """Return whether the replica has every metric with the same contract, such as the launches a sample."""
    return all(
        (other := replica.measurement(measurement.metric.name)) is not None
        and dict(other.contract) == dict(measurement.contract)
        for measurement in record.measurements
    )
