"""The one way to call git, and the revisions of a project."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from pytest_gpuperf.errors import GpuperfError
from pytest_gpuperf.files import LARGEST

# Set where git itself started us, as in a pre-push hook; they would send every command to that repository.
_REPOSITORY = ("GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_COMMON_DIR", "GIT_PREFIX")
SHOWN_DIGITS = 10
_CODE = ("*.py", "*.cu", "*.cuh", "*.h", "*.hpp", "*.c", "*.cc", "*.cpp")
_SECONDS = 5.0
_KINDS = {"120000": "a symbolic link", "160000": "a submodule"}
_MENDING = "the change that mends it there needs --gpuperf-accept"


class GitError(GpuperfError):
    """A git command that failed, in git's own words."""


@dataclass(frozen=True, slots=True)
class Revision:
    """A commit, and the name by which the person asked for it."""

    name: str
    commit: str

    def __str__(self) -> str:
        short = self.commit[:SHOWN_DIGITS]
        return short if self.commit.startswith(self.name) else f"{self.name} ({short})"


def of_commit(commit: str, dirty: bool) -> str:
    """Return the end of a sentence about code: its commit, "" for none."""
    return f", commit {commit[:SHOWN_DIGITS]}{' with changes' if dirty else ''}" if commit else ""


def git(folder: Path, *arguments: str, timeout: float | None = None) -> str:
    """Return what ``git -C folder ARGUMENTS`` prints; raises GitError."""
    return git_bytes(folder, *arguments, timeout=timeout).decode(errors="surrogateescape")


def git_bytes(folder: Path, *arguments: str, timeout: float | None = None) -> bytes:
    """Return what git prints, in ``timeout`` seconds if given; raises GitError, its complaint's last line."""
    # Looking must not write the index, and a checkout made aside is nothing for the user's hooks.
    command = ["git", "-C", str(folder), "--no-optional-locks", "-c", f"core.hooksPath={os.devnull}"]
    env = {name: value for name, value in os.environ.items() if name not in _REPOSITORY}
    try:
        done = subprocess.run(
            [*command, *arguments], capture_output=True, env={**env, "LC_ALL": "C"}, timeout=timeout
        )
    except OSError as error:
        raise GitError(f"git cannot be started ({error.strerror}): install it") from None
    except subprocess.TimeoutExpired:
        raise GitError(f"git {arguments[0]} in {folder} took longer than {timeout:g} s") from None
    if done.returncode:
        words = done.stderr.decode(errors="replace").strip().splitlines() or [f"exit code {done.returncode}"]
        raise GitError(f"git {arguments[0]} in {folder}: {words[-1]}")
    return done.stdout


def resolve(folder: Path, name: str) -> Revision:
    """Return the commit that ``name`` means in the repository of ``folder``; raises GitError."""
    try:
        top = toplevel(folder)
    except GitError as error:
        if "not a git repository" not in str(error):
            raise
        what = f"{folder} is not a git repository, so it has no revision {name!r}"
        raise GitError(f"{what}: git init, and commit") from None
    try:
        commit = git(top, "rev-parse", "--verify", "--quiet", "--end-of-options", f"{name}^{{commit}}")
    except GitError:
        shallow = git(top, "rev-parse", "--is-shallow-repository").strip() == "true"
        remedy = "fetch it first: this clone is shallow" if shallow else "name a branch, a tag or a commit"
        raise GitError(f"{name!r} is not a valid revision of {top}: {remedy}") from None
    return Revision(name, commit.strip())


def toplevel(folder: Path) -> Path:
    """Return the checkout that holds ``folder``, links followed; raises GitError where it lies in none."""
    return Path(os.path.realpath(git(folder, "rev-parse", "--show-toplevel").removesuffix("\n")))


def within(path: Path) -> tuple[Path, str]:
    """Return the checkout that holds ``path``, which need not exist, and its name there ("." for the top).

    Links are followed. Raises GitError where it lies in no checkout.
    """
    top = toplevel(next(p for p in (path, *path.parents) if p.is_dir()))
    return top, Path(os.path.relpath(os.path.realpath(path), top)).as_posix()


def inside(path: Path, root: Path, revision: Revision) -> tuple[Path, str]:
    """Return the checkout that holds ``root``, and the name there of ``path``, which need not exist.

    Raises GitError where ``path`` lies in no checkout or in another one: ``revision`` cannot have it.
    """
    top = toplevel(root)
    with suppress(GitError):
        found, name = within(path)
        if found == top:
            return top, name
    raise GitError(
        f"{path} lies outside the repository {top}, so that revision {revision} cannot have it: "
        "move it into the repository, or leave out --gpuperf-baselines-from"
    )


@dataclass(frozen=True, slots=True)
class Entry:
    """A file of a revision: its name from the top, ``mode`` as git writes it, ``blob`` and size in bytes."""

    name: str
    mode: str
    blob: str
    size: int

    @property
    def regular(self) -> bool:
        return self.mode.startswith("100")


def entries_at(top: Path, revision: Revision, *paths: str, below: bool = False) -> list[Entry]:
    """Return what a revision has at ``paths``, from ``top``, or in and ``below`` them, without folders."""
    flags = ("-r",) if below else ()
    listed = git(top, "ls-tree", "-z", "--long", "--full-tree", *flags, revision.commit, "--", *paths)
    found = []
    for line in listed.split("\0")[:-1]:
        about, _, name = line.partition("\t")
        mode, kind, blob, size = about.split()
        if kind != "tree":
            found.append(Entry(name, mode, blob, 0 if size == "-" else int(size)))
    return found


def content(top: Path, revision: Revision, entry: Entry, limit: int = LARGEST) -> bytes:
    """Return what a regular file of a revision holds; raises GitError for another, or a larger one."""
    check_regular(revision, entry)
    if entry.size > limit:
        raise GitError(f"{entry.name} at {revision}: larger than {limit >> 10} KiB, and not read; {_MENDING}")
    return git_bytes(top, "cat-file", "blob", entry.blob)


def check_regular(revision: Revision, entry: Entry) -> None:
    """Raise GitError for a link or a submodule: a revision's own files alone count."""
    if not entry.regular:
        kind = _KINDS.get(entry.mode, f"an entry of mode {entry.mode}")
        raise GitError(f"{entry.name} at {revision}: {kind}, and not a regular file; {_MENDING}")


def files_at(
    top: Path, revision: Revision, names: Sequence[str], limit: int = LARGEST, links: bool = False
) -> Iterator[tuple[str, str]]:
    """Yield the names and texts of those of the files ``names``, from ``top``, that a revision has.

    Each is read as its turn comes. Raises GitError for what is no regular file or larger than ``limit``;
    ``links``: those are left out.
    """
    there = {entry.name: entry for entry in entries_at(top, revision, *names)} if names else {}
    for entry in (there[name] for name in names if name in there):
        if entry.regular or not links:
            yield entry.name, content(top, revision, entry, limit).decode(errors="surrogateescape")


def changed_since(top: Path, revision: Revision, pattern: str) -> list[str]:
    """Return the files like ``pattern``, from ``top``, that are not as a revision has them."""
    changed = git(top, "diff", "--name-only", "--no-renames", "-z", revision.commit, "--", pattern)
    new = git(top, "ls-files", "--others", "--exclude-standard", "-z", "--", pattern)
    return [name for name in (changed + new).split("\0") if name]


def new_code(folder: Path) -> list[str]:
    """Return the source files in a folder and below that git does not know and does not ignore."""
    listed = git(folder, "ls-files", "--others", "--exclude-standard", "-z", "--", *_CODE, timeout=_SECONDS)
    return [name for name in listed.split("\0") if name]


def commits_since(folder: Path, commit: str) -> int:
    """Count the commits that the checkout of ``folder`` has and ``commit`` does not; raises GitError."""
    return int(git(folder, "rev-list", "--count", f"{commit}..HEAD", "--", timeout=_SECONDS))


def modified(top: Path) -> int:
    """Count the tracked files that differ from the commit that is checked out."""
    return len(git(top, "status", "--porcelain", "--untracked-files=no").splitlines())
