"""The printed command judges a test as it was judged, and the one that records it does record it."""

from __future__ import annotations

import os
import shlex
from pathlib import Path

import pytest
from gitproject import Repository

SUITE = """\
import pytest
@pytest.mark.parametrize("text", ["a b"])
def test_size(gpuperf, text): gpuperf.record("size", {}, kind="exact")
"""


class Project(Repository):
    """An exact figure of 1 in the revision ``HEAD``, and 2 in the checkout, with a baseline of its own."""

    def __init__(self, pytester: pytest.Pytester) -> None:
        super().__init__(pytester)
        (self.path / "baselines").mkdir()
        self.measure("suites/test_size.py", 1.0)
        self.commit()
        self.measure("suites/test_size.py", 2.0)

    def measure(self, name: str, value: float) -> None:
        self.write(name, SUITE.format(value))
        self.record()

    def printed(self, result: pytest.RunResult, word: str = "again") -> str:
        (line,) = {line for line in result.outlines if line.startswith(f"  {word} ")}
        return line.removeprefix(f"  {word} ").strip()

    def paste(self, command: str) -> pytest.RunResult:
        program, *arguments = shlex.split(command)
        assert program == "pytest"
        return self.pytester.runpytest_subprocess(*arguments)


TEST = "pytest 'suites/test_size.py::test_size[a b]' --gpuperf"


@pytest.mark.parametrize(
    "flags",
    [
        ["--gpuperf-baselines-from=HEAD"],
        ["--gpuperf-baselines-from=HEAD", "--gpuperf-tolerance=size = 20 %"],
        ["--gpuperf-against=HEAD", "--gpuperf-blocks=5"],
        ["--gpuperf-backend=emulated", "--gpuperf-baselines-from=HEAD"],
        ["-c", "other.ini", "--rootdir=.", "--gpuperf-baselines-from=HEAD"],
        ["-o", "gpuperf_acquit=off", "--gpuperf-baselines-from=HEAD"],
    ],
)
def test_a_failure_is_seen_again_by_the_printed_command(project: Project, flags: list[str]):
    project.write("other.ini", "[pytest]\n")
    result = project.run("suites", *flags)
    assert result.ret == 1
    command = project.printed(result)
    assert command.startswith(TEST)
    assert set(shlex.split(command)[3:]) == set(flags)
    result = project.paste(command)
    assert result.ret == 1
    assert project.printed(result) == command


CONFTEST = """
import pytest
def pytest_addoption(parser):
    parser.addoption("--size", type=float, default=1)
    parser.addoption("--label")
    parser.addoption("--lists", nargs="*", default=[])
    parser.addoption("--fast", action="store_true")
@pytest.fixture(autouse=True)
def given(request):
    option = request.config.option
    assert (option.size, option.label, option.lists, option.fast) == (4, "a b", ["c d", "e"], True)
"""


def test_the_projects_own_options_are_in_it(project: Project, monkeypatch):
    """As its children get them, but for the words that are only about this terminal."""
    project.write("conftest.py", CONFTEST)
    project.write("more.py", "")
    project.write("suites/test_size.py", SUITE.format("3.0"))
    monkeypatch.setenv("PYTEST_ADDOPTS", "--fast")
    monkeypatch.setenv("PYTHONPATH", str(project.path), prepend=os.pathsep)
    flags = ("--size", "4", "--label=a b", "--lists", "c d", "e", "-p", "more", "--import-mode=importlib")
    behind = ("-vv", "-x", "-rA", "--tb=short", "-k", "size", "--durations=3", "-p", "no:doctest")
    result = project.run(*flags, *behind)
    assert result.ret == 1
    command = project.printed(result)
    words = shlex.split(command)[3:]
    assert words == ["--fast", "--size=4", "--label=a b", *flags[3:]]
    monkeypatch.delenv("PYTEST_ADDOPTS")
    result = project.paste(command)
    assert result.ret == 1
    assert project.printed(result) == command
    assert project.paste(f"{command} --gpuperf-update").ret == 0
    assert project.paste(command).ret == 0


def test_what_an_accepted_change_fails_by_is_seen_again(project: Project):
    project.write("suites/test_size.py", SUITE.format("3.0"))
    result = project.run("--gpuperf-baselines-from=HEAD", "--gpuperf-accept")
    command = project.printed(result)
    assert command == f"{TEST} --gpuperf-baselines-from=HEAD --gpuperf-accept"
    result = project.paste(command)
    assert result.ret == 1
    result.stdout.fnmatch_lines(["regressed: size +50.00 %*"])


@pytest.mark.parametrize("flag", ["--gpuperf-strict=on", "CI"])
def test_strict_is_in_it_where_strict_is_what_failed(project: Project, monkeypatch, flag: str):
    project.write("suites/test_size.py", SUITE.format("1.0") + SUITE.format("2.0, unit='B'"))
    if flag == "CI":
        monkeypatch.setenv("CI", "1")
    result = project.run(*([] if flag == "CI" else [flag]))
    monkeypatch.delenv("CI", raising=False)
    result.stdout.fnmatch_lines(["contract changed: size*"])
    command = project.printed(result)
    assert command == f"{TEST} --gpuperf-strict=on"
    assert project.paste(command).ret == 1
    project.write("suites/test_size.py", SUITE.format("3.0"))
    assert project.printed(project.run("--gpuperf-strict=on")) == TEST


def test_it_is_right_in_the_folder_where_pytest_was_started(project: Project, monkeypatch):
    project.write("suites/test_size.py", SUITE.format("3.0"))
    project.write("pytest.ini", "[pytest]\n")
    monkeypatch.chdir(project.path / "suites")
    result = project.run()
    command = project.printed(result)
    assert command == "pytest 'test_size.py::test_size[a b]' --gpuperf"
    assert project.paste(command).ret == 1


def test_the_recording_command_has_no_flag_that_judges(project: Project):
    (project.path / "figures").mkdir()
    flags = ("--gpuperf-baselines=figures", "--gpuperf-pool=mine", "--gpuperf-baselines-from=HEAD")
    result = project.run("--gpuperf-strict=on", "--gpuperf-tolerance=size = 5 %", *flags)
    assert result.ret == 22
    command = project.printed(result, "record")
    assert command == f"{TEST} --gpuperf-pool=mine --gpuperf-baselines=figures --gpuperf-update=new"
    assert project.paste(command).ret == 0
    assert list((Path(project.path) / "figures").rglob("*.json"))


def test_a_run_of_everything_prints_a_command_without_paths(pytester: pytest.Pytester):
    pytester.makepyfile('def test_it(gpuperf): gpuperf.record("size", 1, "B", kind="exact")')
    result = pytester.runpytest_subprocess("--gpuperf")
    result.stdout.fnmatch_lines(["  pytest --gpuperf --gpuperf-update"])
