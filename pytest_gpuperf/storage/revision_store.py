"""Baselines as they are in a git revision: what a change does to its own files counts for nothing."""

from __future__ import annotations

import os
from pathlib import Path

from pytest_gpuperf.errors import BaselineError
from pytest_gpuperf.git import Revision, git, git_bytes, toplevel
from pytest_gpuperf.measurement import Baseline
from pytest_gpuperf.storage.baselines import Entries, Mode, Store, slug


class RevisionStore(Store):
    """The baseline files under ``folder`` as ``revision`` has them; they are read and never written."""

    def __init__(self, folder: Path, revision: Revision) -> None:
        super().__init__(folder)
        self.revision = revision
        self._now = Store(folder)
        existing = next(parent for parent in (folder, *folder.parents) if parent.is_dir())
        self._top = toplevel(existing)
        self._prefix = Path(os.path.realpath(folder)).relative_to(os.path.realpath(self._top)).as_posix()
        self._files: list[str] | None = None

    def pools(self) -> list[str]:
        named = {name.partition("/")[0] for name in self._names() if "/" in name}
        return sorted(named.union(self._now.pools()))

    def suites(self, pool: str) -> list[str]:
        names = [name.partition("/")[2] for name in self._names() if name.partition("/")[0] == slug(pool)]
        old = {name.removesuffix(".json") + ".py" for name in names}
        return sorted(old.union(self._now.suites(pool)))

    def load(self, pool: str, suite: str) -> dict[str, dict[str, Baseline]]:
        """The revision's baselines, and this checkout's of what the revision has none of: new tests."""
        found = {test: dict(metrics) for test, metrics in self._now.load(pool, suite).items()}
        for test, metrics in super().load(pool, suite).items():
            found.setdefault(test, {}).update(metrics)
        return found

    def due(self, pool: str, suite: str) -> dict[str, dict[str, Baseline]]:
        """Without what the checkout's own file holds no more: a change may remove a test, and it shows."""
        now, found = self._now.load(pool, suite), self.load(pool, suite)
        return {test: {name: found[test][name] for name in metrics} for test, metrics in now.items()}

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
        """The JSON files that the revision has there, from the folder."""
        if self._files is None:
            command = ("ls-tree", "-r", "-z", "--name-only", "--full-tree", self.revision.commit)
            listed = git(self._top, *command, "--", f"{self._prefix}/").split("\0")
            start = 0 if self._prefix == "." else len(self._prefix) + 1
            self._files = [name[start:] for name in listed if name.endswith(".json")]
        return self._files
