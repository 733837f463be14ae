"""A session that many tests start from: the first one runs it, and the others get the files that it left."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

_left: dict[object, tuple[pytest.RunResult, dict[str, bytes]]] = {}
_EACH_TESTS_OWN = {"PYTEST_CURRENT_TEST", "HOME", "USERPROFILE", "PYTEST_DEBUG_TEMPROOT"}
_PYTESTERS_OWN = ("runpytest-", "stdout", "stderr", "__pycache__", ".pytest_cache")


def run_once(pytester: pytest.Pytester, *arguments: str) -> pytest.RunResult:
    """Run pytest in a process, or do as one did that had the same files, arguments and variables."""
    before = _files(pytester.path)
    variables = {name: value for name, value in os.environ.items() if name not in _EACH_TESTS_OWN}
    question = arguments, tuple(before.items()), tuple(sorted(variables.items()))
    if question not in _left:
        _left[question] = pytester.runpytest_subprocess(*arguments), _files(pytester.path)
    result, after = _left[question]
    for name in before.keys() - after.keys():
        (pytester.path / name).unlink(missing_ok=True)
    for name, content in after.items():
        file = pytester.path / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content)
    return result


def _files(folder: Path) -> dict[str, bytes]:
    """Return what is in each file; of a repository its branches, and so its commits, and not its index."""
    found = (path.relative_to(folder) for path in sorted(folder.rglob("*")) if path.is_file())
    return {
        str(path): (folder / path).read_bytes()
        for path in found
        if not any(part.startswith(_PYTESTERS_OWN) for part in path.parts)
        and (path.parts[0] != ".git" or path.parts[1] in ("HEAD", "refs"))
    }
