"""The two sides of a comparison: this checkout and a revision's, both run under this very plugin."""

from __future__ import annotations

import os
import shutil
import signal
import sys
import tempfile
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from pytest_gpuperf.errors import GpuperfError
from pytest_gpuperf.files import is_installed
from pytest_gpuperf.git import GitError, git, toplevel

_PACKAGE = Path(__file__).parent.parent
_PREFIX = "gpuperf-revision-"
_HELD = "held.lock"
_ASIDE = "plugin.aside"


@dataclass(frozen=True, slots=True)
class Checkout:
    """The project at ``root``, where this session has it at ``top``; the two are equal for the session's own.

    ``aside`` is a temporary folder with this package, for processes that must not import another one.
    """

    top: Path
    root: Path
    aside: Path

    def path(self, path: Path) -> Path:
        """Return where this side has what the session has at ``path``, itself if it is not the project's."""
        within = _within(path, self.top)
        return path if within is None or is_installed(path) else self.root / within

    def folder(self, path: Path) -> Path:
        """Return what ``path`` does, or the nearest folder above it that this side has."""
        found = self.path(path)
        return next(parent for parent in (found, *found.parents) if parent.is_dir())

    def environment(self) -> dict[str, str]:
        """Return variables by which processes import the project's code from this side."""
        given = os.environ.get("PYTHONPATH", "").split(os.pathsep)
        entries = [str(self.aside)]
        for entry in [*sys.path, *_editable()]:
            path = Path(entry or os.getcwd())
            ours = _within(path, self.top) is not None and not is_installed(path)
            if ours or entry in given:
                entries.append(str(self.path(path)))
        return {"PYTHONPATH": os.pathsep.join(dict.fromkeys(entries))}

    def files(self, items: Sequence[pytest.Item]) -> list[str]:
        """Return this side's files of ``items``, as far as it has them."""
        paths = dict.fromkeys(item.path for item in items)
        return [str(path) for path in map(self.path, paths) if path.exists()]

    def has(self, item: pytest.Item) -> bool:
        return self.path(item.path).exists()


@contextmanager
def checkouts(config: pytest.Config, commit: str) -> Iterator[tuple[Checkout, Checkout]]:
    """Yield this checkout and one of ``commit``, removed when the block ends; raises GpuperfError."""
    top = toplevel(config.rootpath)
    with worktree(top, commit) as tree:
        aside = tree.parent / _ASIDE  # removed with it, also by the process after one that was killed
        aside.mkdir()
        (aside / _PACKAGE.name).symlink_to(_PACKAGE, target_is_directory=True)
        yield Checkout(top, top, aside), Checkout(top, tree, aside)


def check_inside(config: pytest.Config, item: pytest.Item) -> None:
    """Raise GpuperfError for a test outside the repository, which has no other revision."""
    top = toplevel(config.rootpath)
    if _within(item.path, top) is None:
        raise GpuperfError(f"{item.path} lies outside {top}, so that no revision of it is there to compare")


def _within(path: Path, top: Path) -> Path | None:
    """Return ``path`` relative to ``top``, or None if it is outside. Git resolves symlinks."""
    inside = (each for each in (path, Path(os.path.realpath(path))) if each.is_relative_to(top))
    return next((each.relative_to(top) for each in inside), None)


def _editable() -> list[str]:
    """Return folders of packages that setuptools installed editable through a finder instead of a path."""
    found = []
    for finder in sys.meta_path:
        module = sys.modules.get(getattr(finder, "__module__", ""))
        if module is not None and module.__name__.startswith("__editable__"):
            found += [str(Path(path).parent) for path in getattr(module, "MAPPING", {}).values()]
    return found


# --------------------------------------------------------------------------- a revision in a temporary folder


@contextmanager
def worktree(top: Path, commit: str) -> Iterator[Path]:
    """Check ``commit`` out in a temporary folder, removed however the block ends, SIGTERM included.

    The next process removes what a killed one could not. Submodules are not checked out.
    """
    from filelock import FileLock

    _sweep(top)
    folder = Path(tempfile.mkdtemp(prefix=_PREFIX))
    tree = folder / top.name
    with _interruptible(), FileLock(folder / _HELD):
        try:
            git(top, "worktree", "add", "--detach", "--quiet", str(tree), commit)
            yield tree
        finally:
            _remove(top, tree)


def _remove(top: Path, tree: Path) -> None:
    with suppress(GitError):
        git(top, "worktree", "remove", "--force", str(tree))
    shutil.rmtree(tree.parent, ignore_errors=True)
    if str(tree) in git(top, "worktree", "list", "--porcelain"):
        git(top, "worktree", "prune")


def _sweep(top: Path) -> None:
    """Remove the worktrees whose processes were killed: nobody holds their lock any more."""
    from filelock import FileLock, Timeout

    for line in git(top, "worktree", "list", "--porcelain").splitlines():
        tree = Path(line.removeprefix("worktree "))
        held = tree.parent / _HELD
        if not line.startswith("worktree ") or not tree.parent.name.startswith(_PREFIX):
            continue
        if not tree.parent.exists():  # the temporary folder was emptied
            _remove(top, tree)
        elif held.exists():
            with suppress(Timeout), FileLock(held, timeout=0):
                _remove(top, tree)


@contextmanager
def _interruptible() -> Iterator[None]:
    """Make SIGTERM, by which a CI cancels a job, unwind as Ctrl-C does, so that nothing is left behind."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def interrupt(*_: Any) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
