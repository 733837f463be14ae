"""Regressions that fail no test until a day: the marker's ``expected=``, and the quarantine file.

[[quarantine]]
test = "suites/test_transpose.py::test_naive*"
pool = "nvidia-h100-80gb-hbm3"        # or uuid = "GPU-...", one unit
reason = "driver 580 slows strided stores"
owner = "kernels@example.org"
expires = 2026-12-31
"""

from __future__ import annotations

import datetime
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from pytest_gpuperf.errors import GpuperfError
from pytest_gpuperf.figures import short, slug
from pytest_gpuperf.measurement import Outcome, TestKey, Verdict
from pytest_gpuperf.records import Row
from pytest_gpuperf.rules.tolerances import matches
from pytest_gpuperf.text import printable

LONGEST = datetime.timedelta(days=90)
"""How far ahead a waiver may end: what lasts longer is to be renewed, or the baseline to be recorded anew."""
LONGEST_LINE = 2000
"""Characters of a line of a quarantine file."""
EXPECTED = "expected"
QUARANTINED = "quarantined"
_NEEDED = ("test", "reason", "owner", "expires")
_WHERE = ("pool", "uuid")
_WITHIN = (Outcome.EQUAL, Outcome.IMPROVED, Outcome.INCONCLUSIVE)
_UNCLEAR = {Outcome.UNFIT, Outcome.UNMEASURED, Outcome.CONTRACT_CHANGED}


@dataclass(frozen=True, slots=True)
class Expectation:
    """``@pytest.mark.gpuperf(expected=..., until=...)``: why a test may regress, and the last day it may."""

    reason: str
    until: datetime.date

    def __str__(self) -> str:
        return f"expected until {self.until}: {self.reason}"

    def excuse(self, rows: Sequence[Row], today: datetime.date) -> tuple[Row, ...]:
        """Mark regressed rows as expected; after the deadline, say so in the reason instead."""
        return tuple(self._excused(row, today) if _regressed(row.verdict) else row for row in rows)

    def _excused(self, row: Row, today: datetime.date) -> Row:
        if today <= self.until:
            return replace(row, excuse=EXPECTED)
        return replace(row, verdict=row.verdict.because(f"{self}, and that day has passed"))

    def broken(self, rows: Sequence[Row], today: datetime.date) -> str:
        """Say why the test fails because nothing in it regressed; "" if something did, or it is unclear.

        Every judged metric was judged in replicas, so one lucky run breaks nothing.
        """
        outcomes = {row.verdict.outcome for row in rows}
        if outcomes & _UNCLEAR or any(_regressed(row.verdict) for row in rows) or not outcomes & set(_WITHIN):
            return ""
        passed = ", and that day has passed" if today > self.until else ""
        return f"did not regress ({self}{passed}): take expected= and until= out of the test's marker"


def fail_first(rows: Sequence[Row], why: str) -> tuple[Row, ...]:
    """Give the first row that did not regress the cause "wrong", for an expectation that is broken."""
    found = list(rows)
    first = next(i for i, row in enumerate(rows) if row.verdict.outcome in _WITHIN)
    found[first] = replace(rows[first], verdict=rows[first].verdict.because(why), cause="wrong")
    return tuple(found)


def _regressed(verdict: Verdict) -> bool:
    beyond = verdict.outcome is Outcome.INCONCLUSIVE and verdict.exceeds
    return verdict.outcome is Outcome.REGRESSED or beyond


@dataclass(frozen=True, slots=True)
class Quarantine:
    """One entry of a quarantine file: globs of a test's key and pool (or a unit's UUID), and the last day."""

    test: str
    pool: str
    uuid: str
    reason: str
    owner: str
    expires: datetime.date

    def expired(self, today: datetime.date) -> bool:
        return today > self.expires

    def covers(self, key: TestKey, pool: str, uuids: Iterable[str], today: datetime.date) -> bool:
        """Return whether it excuses a test on this machine today; ``pool`` is the name, not the folder."""
        here = matches(self.pool, pool) or matches(self.pool, slug(pool)) if self.pool else self.uuid in uuids
        return here and matches(self.test, str(key)) and not self.expired(today)

    @property
    def beginning(self) -> str:
        """Return the file or folder that the entry certainly means, "" if a wildcard comes before any."""
        certain = self.test.partition("*")[0].partition("?")[0]
        return certain.rpartition("::")[0] or certain.rpartition("/")[0]


Waiver = Expectation | Quarantine


def too_far(day: datetime.date, today: datetime.date) -> str:
    """Say why a waiver may not last until ``day``, "" if it may."""
    last = today + LONGEST
    if day <= last:
        return ""
    return f"is more than {LONGEST.days} days away: the last day that may stand here today is {last}"


def parse_quarantine(text: str, name: str, today: datetime.date) -> tuple[Quarantine, ...]:
    """Read a quarantine file's text; raises GpuperfError, one sentence with the file's ``name``."""
    try:
        return _entries(text, name, today)
    except GpuperfError as error:
        raise GpuperfError(printable(str(error))) from None


def _entries(text: str, name: str, today: datetime.date) -> tuple[Quarantine, ...]:
    lines = enumerate(text.splitlines(), 1)
    if long := next((number for number, line in lines if len(line) > LONGEST_LINE), None):
        # tomllib takes minutes for a key of many thousand parts
        raise GpuperfError(f"{name}: line {long} has more than {LONGEST_LINE} characters: make it shorter")
    try:
        data = tomllib.loads(text.removeprefix("\ufeff"))  # editors of Windows begin a file with it
    except RecursionError:
        raise GpuperfError(f"{name}: cannot be read as a quarantine file: nested too deeply") from None
    except ValueError as error:
        raise GpuperfError(f"{name}: cannot be read as a quarantine file: {error}") from None
    entries = data.pop("quarantine", [])
    if data or not isinstance(entries, list):
        found = next(iter(data), "quarantine")
        raise GpuperfError(f"{name}: {found!r} is not known here; write each entry under [[quarantine]]")
    return tuple(_entry(f"{name}: entry {number}", each, today) for number, each in enumerate(entries, 1))


def _entry(where: str, entry: Any, today: datetime.date) -> Quarantine:
    given = entry if isinstance(entry, Mapping) else {}
    if unknown := [key for key in given if key not in (*_NEEDED, *_WHERE)]:
        raise GpuperfError(f"{where} has {unknown[0]!r}; it takes {', '.join((*_NEEDED, *_WHERE))}")
    if missing := [key for key in _NEEDED if not given.get(key)]:
        raise GpuperfError(f"{where} has no {missing[0]}; it needs {', '.join(_NEEDED)}, and pool or uuid")
    if sum(key in given for key in _WHERE) != 1:
        raise GpuperfError(f'{where} needs either pool or uuid; pool = "*" is every machine')
    for key, value in given.items():
        if key != "expires" and not (isinstance(value, str) and value.strip()):
            raise GpuperfError(f"{where}: {key} = {short(value)}; give it as text in quotes")
    expires = given["expires"]
    if not isinstance(expires, datetime.date) or isinstance(expires, datetime.datetime):
        raise GpuperfError(
            f"{where}: expires = {short(expires)}; give a day without quotes, such as 2026-12-31"
        )
    if why := too_far(expires, today):
        raise GpuperfError(f"{where}: expires = {expires} {why}")
    texts = {key: printable(given.get(key, "")) for key in ("test", *_WHERE, "reason", "owner")}
    return Quarantine(**texts, expires=expires)
