"""What travels between processes: one test's measurements, and the rows of the summary.

Both ride on pytest's own test reports (``report.gpuperf``), so that a child process, an xdist worker
and the session itself hand them on in the same way.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import pytest

from pytest_gpuperf.errors import GpuperfError
from pytest_gpuperf.measurement import Measurement, Metric, TestKey, Verdict

# Why a test failed, for the exit code: a fault of the change, of the machine, of the set-up, or of the
# software that the machine has by now.
Cause = Literal["wrong", "infrastructure", "setup", "environment"]


@dataclass(frozen=True, slots=True)
class Record:
    """One test in one process: its measurements, and the machine they were taken on.

    ``device`` is the device's part of the place, ``host`` the CPU's, ``environment`` what else is
    stored beside a run; ``unfit`` says why the machine was not fit to measure, empty where it was.
    """

    measurements: tuple[Measurement, ...]
    device: Mapping[str, Any] = field(default_factory=dict)
    host: Mapping[str, Any] = field(default_factory=dict)
    environment: Mapping[str, Any] = field(default_factory=dict)
    unfit: str = ""

    def place(self, metric: Metric) -> dict[str, Any]:
        """The place that counts for a metric: the CPU is part of it where the host's clock or work is."""
        return {**self.device, **self.host} if metric.constants.where == "host" else dict(self.device)

    @property
    def batches(self) -> dict[str, int]:
        """Launches a sample of each timed metric, for the processes that measure it again."""
        found = {m.metric.name: m.contract.get("batch") for m in self.measurements}
        return {name: batch for name, batch in found.items() if batch is not None}

    def measurement(self, name: str) -> Measurement | None:
        return next((m for m in self.measurements if m.metric.name == name), None)


@dataclass(frozen=True, slots=True)
class Row:
    """A line of the summary: one metric of one test and what was decided of it.

    ``excuse`` is why it fails nothing though its outcome would: "quarantined" or "expected".
    ``over_budget``: unmeasured only because the run's time was up, so that strict alone decides.
    """

    test: TestKey
    metric: Metric
    verdict: Verdict
    details: Mapping[str, Any] = field(default_factory=dict)
    command: str = ""
    excuse: str = ""
    over_budget: bool = False

    @property
    def word(self) -> str:
        """What the summary calls it."""
        return self.excuse or self.verdict.outcome.value


@dataclass(frozen=True, slots=True)
class Payload:
    """What hangs on a test report; ``left_out``: not everything was measured, since the time was up."""

    record: Record | None = None
    rows: tuple[Row, ...] = ()
    cause: Cause | None = None
    left_out: bool = False


def attach(report: pytest.TestReport, payload: Payload) -> None:
    import msgspec

    vars(report)["gpuperf"] = msgspec.to_builtins(payload)


def payload_of(report: pytest.TestReport) -> Payload:
    data = vars(report).get("gpuperf")
    if data is None:
        return Payload()
    import msgspec

    return msgspec.convert(data, Payload, strict=False)


class Recorder:
    """Collects what one test measures in this process."""

    def __init__(self) -> None:
        self.measurements: dict[str, Measurement] = {}

    def add(self, measurement: Measurement) -> None:
        """Keeps a measurement; a second one of the same name could not be told from the first."""
        name = measurement.metric.name
        if name in self.measurements:
            raise GpuperfError(f'this test measured "{name}" twice; give each its own name=')
        self.measurements[name] = measurement
