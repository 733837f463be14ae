"""Fresh processes that measure a tripped test again: one set a test, or one set for all that are left."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import pytest

from pytest_gpuperf.judging.circumstances import run_fit
from pytest_gpuperf.judging.estimate import REPLICAS
from pytest_gpuperf.processes.replicas import ChildResult, crash_line
from pytest_gpuperf.records import Record, payload_of
from pytest_gpuperf.session import GpuperfSession, isolates


@dataclass(frozen=True, slots=True)
class Replicas:
    """What a set of replicas brought back.

    ``trouble`` is the words of the first that did not manage, ``unfit`` why the machine let one not measure.
    """

    records: Sequence[Record] = ()
    trouble: str = ""
    unfit: str = ""


class Confirmer:
    """What a session has had confirmed.

    Past ``max_confirm`` tests that tripped, more are likely to: a new driver slows them all. Then one
    set of replicas measures every test that may still trip, and later trips are judged from it.
    """

    def __init__(self, session: GpuperfSession) -> None:
        self._session = session
        self._confirmed = 0
        self._shared: dict[str, list[Record]] | None = None

    def confirm(self, item: pytest.Item, record: Record, left: Sequence[pytest.Item]) -> Replicas:
        """Measures ``item`` again; ``left`` are the tests, this one among them, that may still trip.

        The caller has given the device lock back.
        """
        self._session.free_memory()
        self._confirmed += 1
        if self._shared is None and self._shares(item):
            self._shared = self._measure_all(item, record, left)
        shared = (self._shared or {}).get(item.nodeid, [])
        if len(shared) == REPLICAS and all(_same_questions(record, replica) for replica in shared):
            return Replicas(tuple(shared))
        return self._alone(item, record)

    def _shares(self, item: pytest.Item) -> bool:
        # An xdist worker does not know which tests it will be given.
        in_worker = hasattr(self._session.config, "workerinput")
        return self._confirmed > self._session.options.rules.max_confirm and not (isolates(item) or in_worker)

    def _measure_all(
        self, item: pytest.Item, record: Record, left: Sequence[pytest.Item]
    ) -> dict[str, list[Record]]:
        stored = {other.nodeid: self._stored_batches(other, record) for other in left}
        batches = {nodeid: known for nodeid, known in stored.items() if known is not None}
        batches[item.nodeid] = record.batches
        together = [other for other in left if other.nodeid in batches and not isolates(other)]
        self._session.progress(
            f"gpuperf: more than {self._session.options.rules.max_confirm} tests measured worse "
            f"(--gpuperf-max-confirm), so {REPLICAS} processes measure all {len(together)} that are left"
        )
        found: dict[str, list[Record]] = {}
        for _ in range(REPLICAS):
            result = run_fit(self._session, together, batches)
            for other in together:
                replica, _ = _record_of(result, other)
                if replica:
                    found.setdefault(other.nodeid, []).append(replica)
        return found

    def _stored_batches(self, item: pytest.Item, record: Record) -> dict[str, int] | None:
        """Launches a sample by metric, as its baseline has it; None where nothing stored can trip."""
        session = self._session
        pools = {session.pool(record)}
        pools |= {session.pool_of(session.opened.device.place())} if session.opened else set()
        key, found = session.key(item.nodeid), None
        for pool in pools:
            metrics = session.store(item.path).load(pool, key.suite).get(key.name, {})
            for name, baseline in metrics.items():
                if baseline.metric.kind == "noisy":
                    found = found or {}
                    if (batch := baseline.contract.get("batch")) is not None:
                        found[name] = batch
        return found

    def _alone(self, item: pytest.Item, record: Record) -> Replicas:
        records: list[Record] = []
        for _ in range(REPLICAS):
            result = run_fit(self._session, [item], {item.nodeid: record.batches})
            replica, trouble = _record_of(result, item)
            if replica is None:
                unfit = _not_fit(result, item)
                return Replicas(records, "" if unfit else trouble, unfit)
            records.append(replica)
            if replica.unfit:  # still, after every repetition: more replicas would only wait the longer
                return Replicas(records, unfit=f"the machine was not fit to measure: {replica.unfit}")
        return Replicas(records)


def _record_of(result: ChildResult, item: pytest.Item) -> tuple[Record | None, str]:
    """What a child measured of a test that passed there, else why not."""
    reports = result.of(item.nodeid)
    found = next((p.record for r in reports if (p := payload_of(r)).record), None)
    if found is not None and not any(report.failed for report in reports):
        return found, ""
    failed = next((crash_line(report) for report in reports if report.failed), result.output[-400:])
    return None, result.trouble or f"failed: {failed}"


def _not_fit(result: ChildResult, item: pytest.Item) -> str:
    """Why the machine let a child not measure (lock not got, device lost); "" where that was not it."""
    failed = [report for report in result.of(item.nodeid) if report.failed]
    if result.trouble or not failed or any(payload_of(r).cause != "infrastructure" for r in failed):
        return ""
    return crash_line(failed[0])


def _same_questions(record: Record, replica: Record) -> bool:
    """Whether every metric is there and answers the same question, such as with as many launches a sample."""
    return all(
        (other := replica.measurement(measurement.metric.name)) is not None
        and dict(other.contract) == dict(measurement.contract)
        for measurement in record.measurements
    )
