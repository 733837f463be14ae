"""A user's project under git, for the tests of what compares revisions."""

from __future__ import annotations

import os
import subprocess
import textwrap
from collections.abc import Mapping
from pathlib import Path

import pytest
from once import run_once

# The same files make the same commit in each test.
DATES = dict.fromkeys(("GIT_AUTHOR_DATE", "GIT_COMMITTER_DATE"), "2026-01-01T00:00:00Z")


class Repository:
    """A git repository in pytester's folder, with a commit of ``files`` if there are any."""

    def __init__(self, pytester: pytest.Pytester, files: Mapping[str, str] | None = None) -> None:
        self.pytester, self.path = pytester, pytester.path
        self.git("init", "-q", "-b", "main")
        for name, text in (files or {}).items():
            self.write(name, text)
        if files:
            self.commit()

    def git(self, *arguments: str) -> str:
        command = ["git", "-c", "user.name=A", "-c", "user.email=a@b.c", *arguments]
        done = subprocess.run(
            command, cwd=self.path, env=os.environ | DATES, check=True, capture_output=True, text=True
        )
        return done.stdout

    def write(self, name: str, text: str) -> Path:
        path = self.path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(textwrap.dedent(text))
        return path

    def commit(self) -> str:
        self.git("add", "-A")
        self.git("commit", "-q", "-m", "a change", "--allow-empty")
        return self.git("rev-parse", "HEAD").strip()

    def run(self, *flags: str) -> pytest.RunResult:
        return self.pytester.runpytest_subprocess("--gpuperf", *flags)

    def record(self) -> None:
        """Record baselines, or copy those that were once recorded of the same commit and files."""
        result = run_once(self.pytester, "--gpuperf", "--gpuperf-update")
        assert result.ret == 0, result.stdout.str()

    @property
    def worktrees(self) -> int:
        return self.git("worktree", "list", "--porcelain").count("worktree ")
