"""Revisions of the project, through git: what the flags name, checked out aside, their baselines read."""

from __future__ import annotations

import shutil
import signal
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from pytest_gpuperf.git import GitError, Revision, git, resolve

_PREFIX = "gpuperf-revision-"
_HELD = "held.lock"


@dataclass(frozen=True, slots=True)
class RevisionOptions:
    """What the flags name, resolved: ``against`` to compare with, in ``blocks``; ``baselines_from`` to read
    the baselines at; ``acquit``: whether a red is checked against the code that its baseline is of."""

    against: Revision | None
    blocks: int
    baselines_from: Revision | None
    acquit: bool


@contextmanager
def worktree(top: Path, commit: str) -> Iterator[Path]:
    """A checkout of ``commit`` in a temporary folder, removed however the block ends, SIGTERM included.

    What a killed process could not remove, the next one does. Submodules are not checked out.
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
    """Removes the worktrees whose processes were killed: nobody holds their lock any more."""
    from filelock import FileLock, Timeout

    for line in git(top, "worktree", "list", "--porcelain").splitlines():
        tree = Path(line.removeprefix("worktree "))
        held = tree.parent / _HELD
        if line.startswith("worktree ") and tree.parent.name.startswith(_PREFIX) and held.exists():
            with suppress(Timeout), FileLock(held, timeout=0):
                _remove(top, tree)


@contextmanager
def _interruptible() -> Iterator[None]:
    """SIGTERM, by which a CI cancels a job, unwinds as Ctrl-C does instead of leaving everything behind."""
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


def add_revision_options(parser: pytest.Parser) -> None:
    from pytest_gpuperf.judging.rules import whole

    add = parser.getgroup("gpuperf").addoption
    add(
        "--gpuperf-against",
        metavar="REV",
        help="Judge without stored baselines: processes of this checkout and of a git revision alternate.",
    )
    add(
        "--gpuperf-blocks",
        metavar="N",
        type=whole(4, 100),
        default=4,
        help="Blocks of two processes of each side that a comparison with a revision takes (default: 4).",
    )
    add(
        "--gpuperf-baselines-from",
        metavar="REV",
        help="Read the baselines as they are in a git revision, so that a change cannot rewrite its own.",
    )
    add(
        "--gpuperf-acquit",
        metavar="auto|off",
        choices=("auto", "off"),
        help="Before a test is called regressed on another GPU or software than its baseline's, or by the "
        "host's clock: run the baseline's own code here and now (auto), or not (off).",
    )
    parser.addini("gpuperf_acquit", "Default of --gpuperf-acquit.", default="auto")


def read_revisions(config: pytest.Config) -> RevisionOptions:
    """The revisions that the flags name, resolved; raises pytest.UsageError with one sentence."""
    option = config.option
    against, baselines_from = option.gpuperf_against, option.gpuperf_baselines_from
    for flag, value in (("--gpuperf-against", against), ("--gpuperf-baselines-from", baselines_from)):
        if value is not None and not option.gpuperf:
            raise pytest.UsageError(f"{flag} is about what is measured, so it needs --gpuperf beside it")
        recording = "--gpuperf-update" if option.gpuperf_update else "--gpuperf-calibrate"
        if value is not None and (option.gpuperf_update or option.gpuperf_calibrate is not None):
            raise pytest.UsageError(f"{flag} judges and {recording} records: leave one of them out")
    if against is not None and baselines_from is not None:
        raise pytest.UsageError(
            "--gpuperf-against needs no stored baselines: leave out --gpuperf-baselines-from"
        )
    if against is not None and getattr(option, "tx", None):
        raise pytest.UsageError("--gpuperf-against measures in one process after the other; leave out -n")
    acquit = option.gpuperf_acquit or config.getini("gpuperf_acquit")
    if acquit not in ("auto", "off"):
        raise pytest.UsageError(f"{config.inipath}: gpuperf_acquit: {acquit!r} is neither auto nor off")
    try:
        return RevisionOptions(
            against=None if against is None else resolve(config.rootpath, against),
            blocks=option.gpuperf_blocks,
            baselines_from=None if baselines_from is None else resolve(config.rootpath, baselines_from),
            acquit=acquit == "auto",
        )
    except GitError as error:
        raise pytest.UsageError(str(error)) from None
