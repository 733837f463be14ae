"""Baseline files are read once a process, however many tests they hold."""

from __future__ import annotations

import pytest
from gitproject import Repository

SUITE = """
    import pytest

    @pytest.mark.parametrize("n", range(40))
    def test_size(gpuperf, n): gpuperf.record("size", n + {more}, kind="exact")
"""
# Counts what each process parses, and what it has git show.
CONFTEST = """
    from pytest_gpuperf.storage import format, revisions

    counts = {"parsed": 0, "shown": 0}
    parse, content = format.parse, revisions.content

    def counted_parse(*arguments):
        counts["parsed"] += 1
        return parse(*arguments)

    def counted_content(*arguments):
        counts["shown"] += 1
        return content(*arguments)

    format.parse, revisions.content = counted_parse, counted_content

    def pytest_terminal_summary(terminalreporter):
        terminalreporter.write_line("parsed {parsed}, shown {shown}".format(**counts))
"""


@pytest.fixture
def repository(pytester: pytest.Pytester) -> Repository:
    made = Repository(pytester)
    pytester.makeconftest(CONFTEST)
    made.write("test_suite.py", SUITE.format(more=1))
    (made.path / "baselines").mkdir()
    assert made.run("--gpuperf-update").ret == 0
    made.commit()
    return made


@pytest.mark.parametrize(("more", "status"), [(1, 0), (2, 1)], ids=["equal", "regressed"])
def test_a_file_is_parsed_once_and_git_shows_it_once(repository: Repository, more: int, status: int):
    repository.write("test_suite.py", SUITE.format(more=more))
    flags = ["--gpuperf-strict=on", "--gpuperf-acquit=off"]
    result = repository.run(*flags)
    assert result.ret == status
    result.stdout.fnmatch_lines(["parsed 1, shown 0"])
    result = repository.run(*flags, "--gpuperf-baselines-from=HEAD")
    assert result.ret == status
    result.stdout.fnmatch_lines(["parsed 2, shown 1"])  # this checkout's and the revision's


def test_a_damaged_file_is_parsed_once_too(repository: Repository):
    (file,) = (repository.path / "baselines").rglob("*.json")
    file.write_text("{")
    result = repository.run()
    assert result.ret == 1
    result.stdout.fnmatch_lines(["parsed 1, shown 0"])
