"""The quarantine file: tests that are measured and shown, and not red before a date.

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
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from pytest_gpuperf.errors import GpuperfError
from pytest_gpuperf.judging.patterns import matches
from pytest_gpuperf.measurement import TestKey
from pytest_gpuperf.session import GpuperfSession

QUARANTINED = "quarantined"
NAME = "quarantine.toml"
_NEEDED = ("test", "reason", "owner", "expires")
_WHERE = ("pool", "uuid")
_FILES = pytest.StashKey[dict[Path, "tuple[Entry, ...]"]]()


@dataclass(frozen=True, slots=True)
class Entry:
    """One quarantine: globs of the test's key and of its pool (or one unit's UUID), until a day, included."""

    test: str
    pool: str
    uuid: str
    reason: str
    owner: str
    expires: datetime.date

    def expired(self, today: datetime.date) -> bool:
        return today > self.expires

    def holds(self, key: TestKey, pool: str, uuids: Iterable[str], today: datetime.date) -> bool:
        """Whether it covers a test on this machine today; ``pool`` as ``Store`` and people name it."""
        from pytest_gpuperf.storage.baselines import slug

        here = matches(self.pool, pool) or matches(self.pool, slug(pool)) if self.pool else self.uuid in uuids
        return here and matches(self.test, str(key)) and not self.expired(today)


def read(path: Path) -> tuple[Entry, ...]:
    """The entries of a file; raises GpuperfError with one sentence for what is not right in it."""
    try:
        data = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise GpuperfError(f"{path}: cannot be read as a quarantine file: {error}") from None
    entries = data.pop("quarantine", [])
    if data or not isinstance(entries, list):
        found = next(iter(data), "quarantine")
        raise GpuperfError(f"{path}: {found!r} is not known here; write each entry under [[quarantine]]")
    return tuple(_entry(f"{path}: entry {number}", each) for number, each in enumerate(entries, 1))


def _entry(where: str, entry: Any) -> Entry:
    given = entry if isinstance(entry, Mapping) else {}
    if unknown := [key for key in given if key not in (*_NEEDED, *_WHERE)]:
        raise GpuperfError(f"{where} has {unknown[0]!r}; it takes {', '.join((*_NEEDED, *_WHERE))}")
    if missing := [key for key in _NEEDED if not given.get(key)]:
        raise GpuperfError(f"{where} has no {missing[0]}; it needs {', '.join(_NEEDED)}, and pool or uuid")
    if sum(key in given for key in _WHERE) != 1:
        raise GpuperfError(f'{where} needs either pool or uuid; pool = "*" is every machine')
    for key, value in given.items():
        if key != "expires" and not (isinstance(value, str) and value.strip()):
            raise GpuperfError(f"{where}: {key} = {value!r}; give it as text in quotes")
    expires = given["expires"]
    if not isinstance(expires, datetime.date) or isinstance(expires, datetime.datetime):
        raise GpuperfError(f"{where}: expires = {expires!r}; give a day without quotes, such as 2026-12-31")
    return Entry(**{"pool": "", "uuid": "", **given})


def excuse(
    session: GpuperfSession, path: Path, key: TestKey, pool: str, uuids: Iterable[str]
) -> Entry | None:
    """The entry that keeps a test of the suite file ``path`` from being red on this machine."""
    today = datetime.date.today()
    entries = _entries(session, _file(session, path))
    return next((entry for entry in entries if entry.holds(key, pool, uuids, today)), None)


def check(session: GpuperfSession, items: Iterable[pytest.Item]) -> None:
    """Reads every file that this run's tests come under; raises GpuperfError before anything is measured."""
    for path in {item.path for item in items}:
        _entries(session, _file(session, path))


def told(session: GpuperfSession, full: bool) -> list[str]:
    """What people should know of the files: what held, what expired, and what a full run did not have."""
    today = datetime.date.today()
    keys: dict[Path, list[str]] = {}
    roots: dict[Path, Path] = {}
    for nodeid in session.outcomes:
        path = session.path(nodeid)
        file = _file(session, path)
        keys.setdefault(file, []).append(str(session.key(nodeid)))
        roots[file] = session.owner(path, session.options.baselines)
    held = {str(row.test) for row in session.rows if row.excuse == QUARANTINED}
    lines = []
    for file, names in keys.items():
        for number, entry in enumerate(_entries(session, file), 1):
            where = f"{file.name}: entry {number}, {entry.test} ({entry.owner}: {entry.reason}),"
            if entry.expired(today):
                lines.append(f"{where} expired on {entry.expires} and holds no longer")
            elif any(matches(entry.test, name) for name in held):
                lines.append(f"{where} holds until {entry.expires}")
            elif full and _in_scope(session, roots[file], entry) and not _any(entry, names):
                lines.append(f"{where} matches no test of this run: take it out")
    return lines


def _any(entry: Entry, names: Iterable[str]) -> bool:
    return any(matches(entry.test, name) for name in names)


def _in_scope(session: GpuperfSession, root: Path, entry: Entry) -> bool:
    """Whether a test that the entry could mean was to be in this run, as far as its first wildcard tells."""
    certain = entry.test.partition("*")[0].partition("?")[0]
    whole = certain.rpartition("::")[0] or certain.rpartition("/")[0]
    selected = [session.config.invocation_params.dir / argument for argument in session.config.args]
    return any((root / whole).is_relative_to(argument) for argument in selected)


def _file(session: GpuperfSession, path: Path) -> Path:
    """The file that counts for a suite, whether it is there or not."""
    named = session.options.rules.quarantine
    if named:
        inipath = session.config.inipath
        return (inipath.parent if inipath else session.config.rootpath) / named
    return session.owner(path, session.options.baselines) / session.options.baselines / NAME


def _entries(session: GpuperfSession, file: Path) -> tuple[Entry, ...]:
    known = session.config.stash.setdefault(_FILES, {})
    if file not in known:
        # The file of the baselines' folder is for those who need one; one that was named must be there.
        absent = not session.options.rules.quarantine and not file.exists()
        known[file] = () if absent else read(file)
    return known[file]
