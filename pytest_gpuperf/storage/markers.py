"""What the markers of tests stated in a git revision, as far as its source tells."""

from __future__ import annotations

from dataclasses import replace
from functools import cached_property
from pathlib import Path, PurePosixPath

import pytest

from pytest_gpuperf.errors import GpuperfError
from pytest_gpuperf.git import GitError, Revision, changed_since, files_at, git, inside, toplevel
from pytest_gpuperf.marker import TestOptions
from pytest_gpuperf.rules.stated import Stated, computed, stated

_PYTHON = "*.py"
_GIVE = ("add_marker", "applymarker", "own_markers", "marks=")
"""What code says that gives a test its markers while pytest runs."""


class Markers:
    """The markers of a project's tests in a git revision.

    Nothing of the revision runs: its processes would need what git does not have, such as compiled
    extensions. A marker that only running it would tell is as it was while nothing that it is made of
    has changed, and unknown from then on.
    """

    def __init__(self, root: Path, revision: Revision) -> None:
        self._root, self._revision = root, revision
        self._sources: dict[Path, tuple[str, str | None]] = {}

    def of(self, item: pytest.Item, now: TestOptions) -> Stated:
        """Return what a test's markers stated in the revision, of a new test what they state ``now``."""
        same = Stated(now.tolerance, now.until)
        if not self._changed:
            return same
        if self._making:
            return replace(same, unknown=f"{self._making} makes markers, and has changed")
        try:
            name, source = self._source(item.path)
        except GitError as error:
            return replace(same, unknown=str(error))
        if source is None:
            return same
        names = [node.name for node in item.listchain() if isinstance(node, pytest.Class)]
        names.append(getattr(item, "originalname", None) or item.name)
        try:
            before = stated(source, names, self._is_ours)
            text = item.path.read_text(encoding="utf-8")
            after = stated(text, names, self._is_ours)
            known = after is not None and not after.unknown and (after.tolerance, after.until)
            told = known == (now.tolerance, now.until)
            given = not told and name in self._changed and computed(source) != computed(text)
        except (OSError, ValueError, SyntaxError, RecursionError):
            return replace(same, unknown=f"{name} cannot be read" if name in self._changed else "")
        if before is None:
            # a new one, or one that code makes
            states = now.tolerance is not None or now.until is not None or "mark.gpuperf" in source
            made = after is None and states and name in self._changed
            return replace(same, unknown=f"{name} does not write out {names[-1]}") if made else same
        if after is not None and self._is_same(before, after, name):
            if given and known:
                return replace(before, unknown=f"{name} gives it while it runs, and has changed")
            return same
        if before.unknown:
            return before
        if not told:
            return replace(before, unknown=(after and after.unknown) or f"{name} does not tell all of it")
        return before

    def _is_same(self, before: Stated, after: Stated, name: str) -> bool:
        """Return whether a test of the file ``name`` has the markers that it had, whoever makes them."""
        if before.unknown or after.unknown:
            return before.text == after.text and not any(self._moved(m, name) for m in before.modules)
        return (before.tolerance, before.until) == (after.tolerance, after.until)

    # --------------------------------------------------------------------------- the two sides' files

    @cached_property
    def _top(self) -> Path:
        return toplevel(self._root)

    @cached_property
    def _changed(self) -> frozenset[str]:
        return frozenset(changed_since(self._top, self._revision, _PYTHON))

    @cached_property
    def _making(self) -> str:
        """Return a changed file whose code gives tests markers, as a conftest may, "" if there is none."""
        before = dict(files_at(self._top, self._revision, sorted(self._changed), links=True))
        for name in sorted(self._changed):
            if PurePosixPath(name).match("test_*.py"):
                continue  # pytest asks no test file for hooks
            path = self._top / name
            now = path.read_text(encoding="utf-8", errors="replace") if path.is_file() else ""
            texts = {before.get(name, ""), now}
            if len(texts) > 1 and any(_gives(t) for t in texts):
                return name
        return ""

    @cached_property
    def _ours(self) -> frozenset[str]:
        """Return the names of the project's folders with Python in them, and of its modules."""
        listed = git(self._top, "ls-tree", "-r", "-z", "--name-only", "--full-tree", self._revision.commit)
        names = [name for name in listed.split("\0") if name.endswith(".py")]
        return frozenset(part for name in (*names, *self._changed) for part in _parts(name))

    def _is_ours(self, module: str) -> bool:
        return module.startswith(".") or module.partition(".")[0] in self._ours

    def _moved(self, module: str, file: str) -> bool:
        """Return whether a module that ``file`` imports may have changed."""
        first = module.strip(".").partition(".")[0]
        return any(not first or first in _parts(name) for name in self._changed - {file})

    def _source(self, path: Path) -> tuple[str, str | None]:
        """Return a file's name in the repository, and its text in the revision if it has it."""
        if path not in self._sources:
            try:
                _, name = inside(path, self._root, self._revision)
            except GpuperfError:
                self._sources[path] = str(path), None  # another repository's file is not this change's
            else:
                text = dict(files_at(self._top, self._revision, [name])).get(name)
                self._sources[path] = name, text
        return self._sources[path]


def _gives(text: str) -> bool:
    return "mark.gpuperf" in text and any(word in text for word in _GIVE)


def _parts(name: str) -> tuple[str, ...]:
    return PurePosixPath(name).with_suffix("").parts
