"""Baseline files as a git revision has them."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from pytest_gpuperf.errors import BaselineError
from pytest_gpuperf.figures import slug
from pytest_gpuperf.git import Entry, Revision, check_regular, content, entries_at, within
from pytest_gpuperf.storage.baselines import Entries, Mode, Store

if TYPE_CHECKING:
    from pytest_gpuperf.storage.format import BaselineFile


class StoreAt(Store):
    """Baseline files as a git revision has them, read only."""

    def __init__(self, folder: Path, revision: Revision) -> None:
        super().__init__(folder)
        self.revision = revision
        self._top, inside = within(folder)
        self._prefix = "" if inside == "." else f"{inside}/"

    def _list_pools(self) -> list[str]:
        return sorted({name.partition("/")[0] for name in self._names() if "/" in name})

    def suites(self, pool: str) -> list[str]:
        names = [name.partition("/")[2] for name in self._names() if name.partition("/")[0] == slug(pool)]
        return sorted(name.removesuffix(".json") + ".py" for name in names)

    def read(self, path: Path) -> bytes | None:
        name = path.relative_to(self.folder).as_posix()
        for at in reversed(PurePosixPath(name).parents):
            # what a link leads to would count as not there, and this checkout's own instead
            if entry := self._entries.get(str(at)):
                check_regular(self.revision, entry)
        entry = self._entries.get(name)
        return content(self._top, self.revision, entry) if entry else None

    def _parsed(self, data: bytes, path: Path) -> BaselineFile:
        from pytest_gpuperf.storage import format

        remedy = "mend it there; a change that does needs --gpuperf-accept"
        return format.parse(data, f"{path} at {self.revision}", remedy)

    def save(
        self, pool: str, suite: str, updates: Entries, mode: Mode = "replace", keep: int | None = None
    ) -> Path | None:
        raise BaselineError(
            f"{self.path(pool, suite)}: baselines of revision {self.revision} are read only: leave out "
            "--gpuperf-baselines-from to record"
        )

    @cached_property
    def _entries(self) -> Mapping[str, Entry]:
        """Return what the revision has there, by the names relative to the folder; raises GitError."""
        folder = PurePosixPath(self._prefix or ".")
        if above := [str(path) for path in (folder, *folder.parents) if path.name]:
            for entry in entries_at(self._top, self.revision, *above):
                check_regular(self.revision, entry)
        found = entries_at(self._top, self.revision, self._prefix or "./", below=True)
        return {entry.name.removeprefix(self._prefix): entry for entry in found}

    def _names(self) -> list[str]:
        """Return the JSON files that the revision has there, relative to the folder."""
        return [name for name in self._entries if name.endswith(".json")]


class RevisionStore(StoreAt):
    """What judges under --gpuperf-baselines-from: a change's edits to its own baselines do not count."""

    def __init__(self, folder: Path, revision: Revision) -> None:
        super().__init__(folder, revision)
        self._now = Store(folder)
        self._due: dict[tuple[str, str], Entries] = {}

    def _list_pools(self) -> list[str]:
        return sorted({*super()._list_pools(), *self._now.pools()})

    def suites(self, pool: str) -> list[str]:
        return sorted({*super().suites(pool), *self._now.suites(pool)})

    def _load(self, pool: str, suite: str) -> Entries:
        """Return the revision's baselines, and this checkout's for what it has none of: new tests."""
        found = {test: dict(metrics) for test, metrics in self._now.load(pool, suite).items()}
        for test, metrics in super()._load(pool, suite).items():
            found.setdefault(test, {}).update(metrics)
        return found

    def due(self, pool: str, suite: str) -> Entries:
        """Leave out what the checkout's own file no longer has: a change may remove a test visibly."""
        key = slug(pool), suite
        if key not in self._due:
            now, found = self._now.load(pool, suite), self.load(pool, suite)
            self._due[key] = {
                test: {name: found[test][name] for name in metrics} for test, metrics in now.items()
            }
        return self._due[key]
