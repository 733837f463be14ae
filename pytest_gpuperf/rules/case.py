"""A test's case: everything its verdict rests on, and the evidence that a run fetched for it."""

from __future__ import annotations

import datetime
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from pytest_gpuperf.measurement import Baseline, Measurement, TestKey
from pytest_gpuperf.records import Record
from pytest_gpuperf.rules.waivers import Waiver


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One test and everything its verdict rests on, made once.

    ``unit`` is the UUID of the GPU. ``stored`` are the baselines by metric, with the runs that this session
    is held to; ``due`` are those that this run must measure. ``tolerances`` by metric are resolved: command
    line, else marker, else ini file, else the instrument's. ``against`` names the revision that the test is
    compared with instead of stored baselines, "" for none; ``accepted``: what that revision judges may go.
    ``acquits``: the baseline's own code is asked before a failure is spoken. ``refused`` says why the test
    fails whatever its figures are: its marker would waive it by itself. ``command`` measures the test, to
    judge it or to record it, and with ``judged_by`` it is judged as here. ``history`` is where earlier runs'
    figures are, "" if nowhere.
    """

    key: TestKey
    pool: str = ""
    unit: str | None = None
    stored: Mapping[str, Baseline] = field(default_factory=dict)
    due: Mapping[str, Baseline] = field(default_factory=dict)
    tolerances: Mapping[str, float] = field(default_factory=dict)
    waiver: Waiver | None = None
    today: datetime.date = datetime.date.min
    strict: bool = False
    acquits: bool = False
    against: str = ""
    accepted: bool = False
    refused: str = ""
    command: str = ""
    judged_by: str = ""
    history: str = ""

    @property
    def again(self) -> str:
        """Return the command that judges the test again."""
        return self.command + self.judged_by


@dataclass(frozen=True, slots=True)
class Replicas:
    """Records of fresh processes that measured a test again.

    ``trouble`` says how the first process failed that did not return a record, ``unfit`` why a replica could
    not be measured on this machine; both "" where all of them were.
    """

    records: Sequence[Record] = ()
    trouble: str = ""
    unfit: str = ""


BLOCKS = 6
"""Blocks of a comparison's last look, unless --gpuperf-blocks says otherwise."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Compared:
    """One metric of a test, measured by processes of this checkout and of ``revision`` in alternation.

    ``here`` and ``there`` are in the order of time: of a noisy metric those of complete blocks, of an exact
    one all. ``blocks`` is the last look. ``why_not`` says why the revision has no figure of the test.
    ``borrowed`` are files of this checkout that the revision's processes imported, ``unfit`` why the machine
    was not fit while one measured, ``kept_from`` why it kept one from measuring at all.
    """

    revision: str
    here: Sequence[Measurement] = ()
    there: Sequence[Measurement] = ()
    blocks: int = BLOCKS
    why_not: str = ""
    borrowed: Sequence[str] = ()
    unfit: str = ""
    kept_from: str = ""

    @property
    def no_answer(self) -> str:
        """Return why the two sides cannot be compared; "" if they can."""
        if self.why_not:
            return f"{self.revision} {self.why_not}"
        if self.borrowed:
            files = ", ".join(self.borrowed[:3])
            return (
                f"the processes of {self.revision} imported {files} from this checkout, "
                "so both sides ran the same code: put it on PYTHONPATH or the ini key pythonpath instead"
            )
        return "" if self.kept_from or (self.here and self.there) else f"{self.revision} does not measure it"


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """The evidence that a run fetched for one test.

    ``compared`` and ``lost``, under --gpuperf-against: the comparison of each metric, and what the revision
    measures and this checkout does not. ``old_code``: what the baseline's own code does here and now, by
    metric, or why that could not be found out. ``spent`` names the run's budget once its time is up;
    ``left_out``: it was up before the test had measured everything.
    """

    replicas: Replicas = Replicas()
    old_code: Mapping[str, Compared | str] = field(default_factory=dict)
    compared: Mapping[str, Compared] = field(default_factory=dict)
    lost: Sequence[Measurement] = ()
    spent: str = ""
    left_out: bool = False
