"""Revisions of the project, through git: what the flags name, checked out aside, their baselines read."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from pytest_gpuperf.errors import GpuperfError

_PREFIX = "gpuperf-revision-"
_HELD = "held.lock"
# Set where git itself started us, as in a pre-push hook; they would send every command to that repository.
_REPOSITORY = ("GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_COMMON_DIR", "GIT_PREFIX")
SHOWN_DIGITS = 10


class GitError(GpuperfError):
    """What git could not do, in its own words."""


@dataclass(frozen=True, slots=True)
class Revision:
    """A commit, and the name by which the person asked for it."""

    name: str
    commit: str

    def __str__(self) -> str:
        short = self.commit[:SHOWN_DIGITS]
        return short if self.commit.startswith(self.name) else f"{self.name} ({short})"


@dataclass(frozen=True, slots=True)
class RevisionOptions:
    """What the flags name, resolved: ``against`` to compare with, in ``blocks``; ``baselines_from`` to read
    the baselines at; ``acquit``: whether a red is checked against the code that its baseline is of."""

    against: Revision | None
    blocks: int
    baselines_from: Revision | None
    acquit: bool


def resolve(folder: Path, name: str) -> Revision:
    """The commit that ``name`` means in the repository of ``folder``; raises GitError."""
    top = toplevel(folder)
    try:
        commit = git(top, "rev-parse", "--verify", "--quiet", "--end-of-options", f"{name}^{{commit}}")
    except GitError:
        shallow = git(top, "rev-parse", "--is-shallow-repository").strip() == "true"
        remedy = "fetch it first: this clone is shallow" if shallow else "name a branch, a tag or a commit"
        raise GitError(f"{name!r} is no revision of {top}: {remedy}") from None
    return Revision(name, commit.strip())


def toplevel(folder: Path) -> Path:
    """The checkout that holds ``folder``; raises GitError where it lies in none."""
    return Path(git(folder, "rev-parse", "--show-toplevel").removesuffix("\n"))


def modified(top: Path) -> int:
    """How many tracked files differ from the commit that is checked out."""
    return len(git(top, "status", "--porcelain", "--untracked-files=no").splitlines())


def git(folder: Path, *arguments: str) -> str:
    return git_bytes(folder, *arguments).decode(errors="surrogateescape")


def git_bytes(folder: Path, *arguments: str) -> bytes:
    """What git prints; raises GitError with the last line of what it complained of."""
    # Looking must not write the index, and a checkout made aside is nothing for the user's hooks.
    command = ["git", "-C", str(folder), "--no-optional-locks", "-c", f"core.hooksPath={os.devnull}"]
    env = {name: value for name, value in os.environ.items() if name not in _REPOSITORY}
    try:
        done = subprocess.run([*command, *arguments], capture_output=True, env={**env, "LC_ALL": "C"})
    except OSError as error:
        raise GitError(f"git cannot be started ({error.strerror}): install it") from None
    if done.returncode:
        words = done.stderr.decode(errors="replace").strip().splitlines() or [f"exit code {done.returncode}"]
        raise GitError(f"git {arguments[0]} in {folder}: {words[-1]}")
    return done.stdout


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
