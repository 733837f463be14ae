"""Baselines as they are in a git revision: a change's edits to its own files do not count."""

from __future__ import annotations

import os
from pathlib import Path

from pytest_gpuperf.errors import BaselineError
from pytest_gpuperf.git import Revision, git, git_bytes, toplevel
from pytest_gpuperf.measurement import slug
from pytest_gpuperf.storage.baselines import Entries, Mode, Store


class RevisionStore(Store):
    """The baseline files under ``folder`` as ``revision`` has them; they are read and never written."""

    def __init__(self, folder: Path, revision: Revision) -> None:
        super().__init__(folder)
        self.revision = revision
        self._now = Store(folder)
        self._due: dict[tuple[str, str], Entries] = {}
        existing = next(parent for parent in (folder, *folder.parents) if parent.is_dir())
        self._top = toplevel(existing)
        self._prefix = Path(os.path.realpath(folder)).relative_to(os.path.realpath(self._top)).as_posix()
        self._files: list[str] | None = None

    def _list_pools(self) -> list[str]:
        named = {name.partition("/")[0] for name in self._names() if "/" in name}
        return sorted(named.union(self._now.pools()))

    def suites(self, pool: str) -> list[str]:
        names = [name.partition("/")[2] for name in self._names() if name.partition("/")[0] == slug(pool)]
        old = {name.removesuffix(".json") + ".py" for name in names}
        return sorted(old.union(self._now.suites(pool)))

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

    def read(self, path: Path) -> bytes | None:
        name = path.relative_to(self.folder).as_posix()
        if name not in self._names():
            return None
        return git_bytes(self._top, "show", f"{self.revision.commit}:{self._in_git(name)}")

    def save(
        self, pool: str, suite: str, updates: Entries, mode: Mode = "replace", keep: int | None = None
    ) -> Path | None:
        raise BaselineError(
            f"{self.path(pool, suite)}: baselines of revision {self.revision} are read only: leave out "
            "--gpuperf-baselines-from to record"
        )

    def _in_git(self, name: str) -> str:
        return name if self._prefix == "." else f"{self._prefix}/{name}"

    def _names(self) -> list[str]:
        """Return the JSON files that the revision has there, relative to the folder."""
        if self._files is None:
            command = ("ls-tree", "-r", "-z", "--name-only", "--full-tree", self.revision.commit)
            listed = git(self._top, *command, "--", f"{self._prefix}/").split("\0")
            start = 0 if self._prefix == "." else len(self._prefix) + 1
            self._files = [name[start:] for name in listed if name.endswith(".json")]
        return self._files
