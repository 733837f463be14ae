"""A project's baselines, and the names of its tests in them."""

from __future__ import annotations

import datetime
import os
import sys
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from pytest_gpuperf.backends import DEVICELESS, is_modelled, pool_name
from pytest_gpuperf.errors import GpuperfError
from pytest_gpuperf.files import read_file
from pytest_gpuperf.git import SHOWN_DIGITS, Revision, commits_since, files_at, inside
from pytest_gpuperf.marker import TestOptions
from pytest_gpuperf.measurement import Baseline, TestKey
from pytest_gpuperf.options import Options, owner_of
from pytest_gpuperf.rules.stated import Stated
from pytest_gpuperf.rules.waivers import Quarantine, parse_quarantine
from pytest_gpuperf.storage.baselines import Store
from pytest_gpuperf.storage.markers import Markers
from pytest_gpuperf.text import counted

QUARANTINE = "quarantine.toml"
LONGEST = 256 << 10
"""Bytes of a quarantine file: more than a thousand entries."""


class Project:
    """The suites under pytest's root folder ``root``; ``ini`` is the ini file's folder, if there is one."""

    def __init__(self, root: Path, ini: Path | None, options: Options) -> None:
        self.root = root
        self.ini = ini or root
        self._options = options
        self._markers = Markers(root, options.terms) if options.terms else None
        self._paths: dict[str, Path] = {}
        self._owners: dict[tuple[Path, str], Path] = {}
        self._stores: dict[Path, Store] = {}
        self._quarantines: dict[Path, tuple[Quarantine, ...]] = {}
        self._since: dict[str, str] = {}

    def owner(self, path: Path, folder: str) -> Path:
        """Return the nearest folder above the file ``path`` that holds ``folder``, else the ini file's."""
        key = path.parent, folder
        if key not in self._owners:
            self._owners[key] = owner_of(path.parent, folder, self.ini, self.root)
        return self._owners[key]

    def learn(self, items: Iterable[pytest.Item]) -> None:
        """Remember the files of tests whose node ids do not lead there: outside pytest's root folder."""
        self._paths |= {item.nodeid: item.path for item in items if self.path(item.nodeid) != item.path}

    def since(self, commit: str) -> str:
        """Return how many commits ago a commit was, and what shows them; "" if this clone cannot tell."""
        if commit not in self._since:
            self._since[commit] = ""
            with suppress(GpuperfError):
                count = commits_since(self.root, commit)
                ago = f"{counted(count, 'commit')} ago: git log {commit[:SHOWN_DIGITS]}.."
                self._since[commit] = ago if count else "the one checked out: git diff"
        return self._since[commit]

    def path(self, nodeid: str) -> Path:
        """Return the suite file of a test."""
        known = self._paths.get(nodeid)
        return known or Path(os.path.normpath(self.root / nodeid.partition("::")[0]))

    def key(self, nodeid: str) -> TestKey:
        """Return a test's lasting name, from the folder that owns its baselines; raises GpuperfError."""
        path = self.path(nodeid)
        owner = self.baselines_root(path)
        if not path.is_relative_to(owner):
            raise GpuperfError(
                f"{path} lies outside {owner}, the folder that holds the baselines; "
                "keep suites and baselines under one folder"
            )
        return TestKey(sys.intern(path.relative_to(owner).as_posix()), nodeid.partition("::")[2])

    def name(self, nodeid: str) -> TestKey:
        """Return what ``key`` does, for a test outside the folder of the baselines its node id."""
        try:
            return self.key(nodeid)
        except GpuperfError:
            suite, _, name = nodeid.partition("::")
            return TestKey(suite, name)

    def baselines_root(self, path: Path) -> Path:
        """Return the folder that holds the baselines of the suite file ``path``."""
        return self.owner(path, self._options.baselines)

    def pool(self, place: Mapping[str, Any]) -> str:
        """Return the pool of a device: the user's name for it, else the device's own.

        Figures of an emulated device never join a pool of the user's.
        """
        chosen = "" if is_modelled(place) else self._options.pool
        return chosen or pool_name(place)

    def deviceless_pools(self) -> frozenset[str]:
        """Return the pools of a machine without a GPU: the emulator's and the host's."""
        return frozenset(self.pool({"backend": name}) for name in DEVICELESS)

    # --------------------------------------------------------------------------- baselines

    def store(self, path: Path) -> Store:
        """Return the baselines that belong to the suite file ``path``."""
        folder = self.baselines_root(path) / self._options.baselines
        if folder not in self._stores:
            if revision := self._options.terms:
                inside(folder, self.root, revision)
                from pytest_gpuperf.storage.revisions import RevisionStore

                self._stores[folder] = RevisionStore(folder, revision)
            else:
                self._stores[folder] = Store(folder)
        return self._stores[folder]

    def stored(self, nodeid: str, place: Mapping[str, Any]) -> Mapping[str, Baseline]:
        """Return a test's baselines on a device, by metric."""
        key, store = self.key(nodeid), self.store(self.path(nodeid))
        found = store.load(self.pool(place), key.suite).get(key.name, {})
        emulated, without = ({"backend": name} for name in DEVICELESS)
        if found or place != without:
            return found
        # Once a host's figures were stored among the emulator's if another test had started that.
        earlier = store.load(self.pool(emulated), key.suite).get(key.name, {})
        return {
            name: replace(baseline, place={**without, **_host_part(baseline.place)})
            for name, baseline in earlier.items()
            if baseline.metric.constants.where == "host"
        }

    def due(self, nodeid: str, place: Mapping[str, Any]) -> Mapping[str, Baseline]:
        """Return those of a test's baselines that a full run must measure, by metric."""
        key = self.key(nodeid)
        return self.store(self.path(nodeid)).due(self.pool(place), key.suite).get(key.name, {})

    def other_pools(self, nodeid: str, pool: str) -> list[str]:
        """Return the pools beside ``pool`` that have baselines of a test."""
        key, store = self.key(nodeid), self.store(self.path(nodeid))
        return [name for name in store.pools() if name != pool and key.name in store.load(name, key.suite)]

    # --------------------------------------------------------------------------- markers and quarantine

    def stated(self, item: pytest.Item, now: TestOptions) -> Stated:
        """Return what a test's markers stated in the revision that judges, else what they state now."""
        return self._markers.of(item, now) if self._markers else Stated(now.tolerance, now.until)

    def quarantine_file(self, path: Path) -> Path:
        """Return the quarantine file that counts for a suite file, whether it is there or not."""
        if self._options.quarantine:
            return self.ini / self._options.quarantine
        return self.baselines_root(path) / self._options.baselines / QUARANTINE

    def quarantines(self, file: Path) -> tuple[Quarantine, ...]:
        """Return the entries of a quarantine file that count; raises GpuperfError, one sentence.

        Under --gpuperf-baselines-from those of the revision: a change does not quarantine itself.
        """
        if file not in self._quarantines:
            revision = self._options.terms
            self._quarantines[file] = (
                self.own_quarantines(file) if revision is None else self._quarantines_at(file, revision)
            )
        return self._quarantines[file]

    def _quarantines_at(self, file: Path, revision: Revision) -> tuple[Quarantine, ...]:
        """Return the entries of a quarantine file in a revision, none if it does not have the file."""
        if not self._options.quarantine:
            inside(file.parent, self.root, revision)  # the folder is what a person has named
        top, name = inside(file, self.root, revision)
        text = dict(files_at(top, revision, [name], LONGEST)).get(name, "")
        try:
            return parse_quarantine(text, f"{file} at {revision}", datetime.date.today())
        except GpuperfError as error:
            raise GpuperfError(f"{error}; the change that mends it there needs --gpuperf-accept") from None

    def own_quarantines(self, file: Path) -> tuple[Quarantine, ...]:
        """Return the entries of a quarantine file as this checkout has it; raises GpuperfError."""
        # The file of the baselines' folder is optional; one that was named must be there, or in the revision.
        optional = not self._options.quarantine or self._options.terms
        return read_quarantine(file, None if self._options.quarantine else file.parent, bool(optional))

    def quarantine(
        self, path: Path, key: TestKey, pool: str, units: Iterable[str], today: datetime.date
    ) -> Quarantine | None:
        """Return the entry that excuses a test of the suite file ``path`` on this machine today."""
        entries = self.quarantines(self.quarantine_file(path))
        return next((entry for entry in entries if entry.covers(key, pool, units, today)), None)


def _host_part(place: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in place.items() if key in ("cpu", "cores")}


def read_quarantine(path: Path, folder: Path | None = None, optional: bool = False) -> tuple[Quarantine, ...]:
    """Read a quarantine file, which must lie in ``folder`` if one is given; raises GpuperfError.

    An ``optional`` one has no entries if it is not there.
    """
    try:
        text = read_file(path, folder, LONGEST).decode()
    except UnicodeDecodeError as error:
        line = error.object.count(b"\n", 0, error.start) + 1
        raise GpuperfError(
            f"{path}: line {line} is not UTF-8 text: save the quarantine file in that encoding"
        ) from None
    except OSError as error:
        if optional and isinstance(error, FileNotFoundError):
            return ()
        raise GpuperfError(
            f"{path}: cannot be read as a quarantine file ({error.strerror}): put a readable TOML file there"
        ) from None
    return parse_quarantine(text, str(path), datetime.date.today())
