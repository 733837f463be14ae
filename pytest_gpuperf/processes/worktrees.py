"""Check a git revision out in a temporary folder."""

from __future__ import annotations

import shutil
import signal
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from pytest_gpuperf.git import GitError, git

_PREFIX = "gpuperf-revision-"
_HELD = "held.lock"


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
        if line.startswith("worktree ") and tree.parent.name.startswith(_PREFIX) and held.exists():
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
