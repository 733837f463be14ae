"""Nothing vanishes: `missing` is asked where a test is gone, and an update drops nothing that is not."""

from __future__ import annotations

import json
import re

import pytest

TEST = "def test_{}(gpuperf{}): gpuperf.record('x', {}, kind='exact')\n"
PARAMETERS = "import pytest\n@pytest.mark.parametrize('n', [{}])\n"
FILE_A = TEST.format("one", "", 1) + PARAMETERS.format("1, 2") + TEST.format("two", ", n", 1)
FILE_B = TEST.format("three", "", 1)
ALL = {"test_one", "test_two[1]", "test_two[2]", "test_three"}
WITHOUT_HOOK = """
def pytest_collection_modifyitems(items):
    items[:] = [item for item in items if "{}" not in item.name]
"""
WITH_HOOK = """
def pytest_collection_modifyitems(config, items):
    config.hook.pytest_deselected(items=[item for item in items if "three" in item.name])
    items[:] = [item for item in items if "three" not in item.name]
"""


class Project:
    """Two suite files whose four tests have baselines."""

    def __init__(self, pytester: pytest.Pytester) -> None:
        self.path, self._pytester = pytester.path, pytester
        pytester.makeini("[pytest]\n")
        (pytester.path / "baselines").mkdir()
        self.write(test_a=FILE_A, test_b=FILE_B)
        assert self.run("--gpuperf-update").ret == 0
        assert self.stored == ALL

    def write(self, **files: str | None) -> None:
        for name, text in files.items():
            path = self.path / f"{name}.py"
            path.unlink() if text is None else path.write_text(text)

    def run(self, *flags: str) -> pytest.RunResult:
        return self._pytester.runpytest_inprocess("--gpuperf", *flags)

    def judge(self, *flags: str) -> tuple[int, set[str]]:
        """The exit code under strict, and the tests that are missing or unmeasured."""
        result = self.run("--gpuperf-strict=on", *flags)
        found = re.findall(r"^(?:missing|unmeasured) +(test_\S+)", result.stdout.str(), re.MULTILINE)
        return result.ret, set(found)

    @property
    def stored(self) -> set[str]:
        files = (self.path / "baselines").rglob("*.json")
        return {name for file in files for name in json.loads(file.read_text())["entries"]}


def smaller(name, files, *flags):
    return pytest.param(files, flags, id=name)


@pytest.mark.parametrize(
    ("files", "flags"),
    [
        smaller("ignore", {}, "--ignore=test_b.py"),
        smaller("ignore-glob", {}, "--ignore-glob=*_b.py"),
        smaller("deselect", {}, "--deselect=test_b.py::test_three"),
        smaller("keyword", {}, "-k", "one"),
        smaller("a path", {}, "test_a.py"),
        smaller("a test", {}, "test_a.py::test_one"),
        smaller("a filter without the hook", {"conftest": WITHOUT_HOOK.format("three")}),
        smaller("a filter of parameters", {"conftest": WITHOUT_HOOK.format("[2]")}),
        smaller("a filter with the hook", {"conftest": WITH_HOOK}),
        smaller("collect_ignore", {"conftest": "collect_ignore = ['test_b.py']\n"}),
    ],
)
def test_a_run_made_smaller_misses_nothing_and_drops_nothing(project: Project, files, flags):
    project.write(**files)
    assert project.judge(*flags) == (0, set())
    assert project.judge(*flags, "-p", "xdist", "-n1") == (0, set())
    for update in ("--gpuperf-update", "--gpuperf-update=prune"):
        assert project.run(*flags, update).ret == 0
        assert project.stored == ALL


def test_what_a_smaller_run_left_out_is_named(project: Project):
    result = project.run("--ignore=test_b.py")
    result.stdout.fnmatch_lines(["Not asked for test_b.py::test_three:", "*left tests with baselines out*"])
    assert "Not asked for" not in project.run().stdout.str()


def test_what_failed_last_is_not_the_whole(project: Project):
    project.write(test_a=FILE_A.replace("1", "22", 1))
    assert project.judge()[0] == 1
    project.write(test_a=FILE_A)
    assert project.judge("--lf") == (0, set())
    project.write(test_a=FILE_A.replace("1", "22", 1))
    assert project.judge()[0] == 1
    for update in ("--gpuperf-update", "--gpuperf-update=prune"):
        result = project.run("--lf", update)
        assert result.ret == 0
        assert project.stored == ALL
    result.stdout.fnmatch_lines(["Nothing was dropped: this was a run of a part of the tests"])


@pytest.mark.parametrize("flag", ["-x", "--maxfail=1"])
def test_a_run_that_was_cut_off_prunes_nothing(project: Project, flag: str):
    project.write(test_a="def test_zero(): assert False\n" + TEST.format("new", "", 1), test_b=None)
    assert project.run(flag, "--gpuperf-update=prune").ret == 1
    assert project.stored == ALL


@pytest.mark.parametrize("prefix", ["import no_such_module\n", "def (:\n"])
def test_a_file_that_cannot_be_collected_fails_by_itself(project: Project, prefix: str):
    project.write(test_b=prefix + FILE_B)
    assert project.judge("--continue-on-collection-errors") == (1, set())
    for update in ("--gpuperf-update", "--gpuperf-update=prune"):
        assert project.run("--continue-on-collection-errors", update).ret == 1
        assert project.stored == ALL


@pytest.mark.parametrize("distributed", [(), ("-p", "xdist", "-n2")], ids=["", "xdist"])
def test_a_file_that_skips_itself_is_missing_and_stays(project: Project, distributed):
    project.write(test_b="import pytest\npytest.importorskip('no_such_module')\n" + FILE_B)
    assert project.judge(*distributed) == (1, {"test_three"})
    project.run("--gpuperf-strict=on").stdout.fnmatch_lines(
        ["test_b.py::test_three: x missing: skipped: could not import 'no_such_module'*"]
    )
    assert project.run("--gpuperf-update=prune").ret == 0
    assert project.stored == ALL


@pytest.mark.parametrize(
    ("files", "gone"),
    [
        ({"test_b": None}, {"test_three"}),
        ({"test_b": "def test_other(): pass\n"}, {"test_three"}),
        ({"test_b": ""}, {"test_three"}),
        ({"test_a": FILE_A.replace("1, 2", "1")}, {"test_two[2]"}),
        ({"test_a": FILE_A.replace("1, 2", "")}, {"test_two[1]", "test_two[2]"}),
        ({"test_b": "def test_three(): pass\n"}, {"test_three"}),
    ],
    ids=["file", "renamed", "emptied file", "parameter", "all parameters", "records nothing"],
)
@pytest.mark.parametrize("distributed", [(), ("-p", "xdist", "-n2")], ids=["", "xdist"])
def test_what_is_gone_is_missing_and_only_pruning_drops_it(project: Project, files, gone, distributed):
    project.write(**files)
    assert project.judge(*distributed) == (1, gone)
    if not distributed:
        project.run().stdout.fnmatch_lines(["*a full run drops what is gone:", "*--gpuperf-update=prune"])
        project.run("--gpuperf-update")
        assert project.stored == ALL
        project.run("--gpuperf-update=prune")
        assert project.stored == ALL - gone


def test_a_function_not_collected_is_missing_and_kept(project: Project):
    """As one behind a condition that no longer holds."""
    project.write(test_b="if False:\n    " + FILE_B + "def test_other(): pass\n")
    assert project.judge() == (1, {"test_three"})
    project.run("--gpuperf-update=prune")
    assert project.stored == ALL


def test_a_deleted_test_is_missing_beside_an_ignored_file(project: Project):
    project.write(test_a=FILE_A.replace("test_one", "test_renamed"))
    assert project.judge("--ignore=test_b.py")[1] == {"test_one"}


@pytest.mark.parametrize(
    ("suite", "words"),
    [
        ("import pytest\n@pytest.mark.gpuperf(version=2)\n" + FILE_B, "*version not set -> 2"),
        (FILE_B.replace("kind", "unit='MB', kind"), "*metric.unit 1 -> MB"),
        (FILE_B.replace("'x'", "'y'"), "*this run of the test did not record it"),
    ],
    ids=["contract changed", "another unit", "unmeasured"],
)
def test_what_lost_its_verdict_says_why_and_how_to_record_it(project: Project, suite: str, words: str):
    project.write(test_b=suite)
    command = "pytest test_b.py::test_three --gpuperf --gpuperf-update"
    lenient = project.run("--gpuperf-strict=off")
    assert lenient.ret == 0
    lenient.stdout.fnmatch_lines([words, "If that is meant, record it as it is now:", f"  {command}"])
    strict = project.run("--gpuperf-strict=on", "test_b.py")
    strict.stdout.fnmatch_lines([words, "  baseline  1  *", f"  record    {command}"])
    project.run("test_b.py", "--gpuperf-update")
    assert project.judge() == (0, set())


NEW_NAME = "If that is a new name, let the baselines follow:"


def test_a_renamed_file_is_told_how_its_baselines_follow(project: Project, monkeypatch):
    project.write(test_b=FILE_B + TEST.format("four", "", 1))
    project.run("--gpuperf-update")
    (project.path / "sub").mkdir()
    (project.path / "test_b.py").rename(project.path / "sub" / "test_c.py")
    project.run().stdout.fnmatch_lines([NEW_NAME, "  gpuperf rename test_b.py sub/test_c.py"])
    monkeypatch.chdir(project.path / "sub")
    result = project.run("..", "--gpuperf-strict=on")
    result.stdout.fnmatch_lines([NEW_NAME, "  gpuperf rename ../test_b.py test_c.py"])


def test_a_renamed_test_is_told_how_its_baselines_follow(project: Project):
    project.write(test_a=FILE_A.replace("test_two", "test_too"))
    renamed = "  gpuperf rename test_a.py::test_two test_a.py::test_too"
    project.run().stdout.fnmatch_lines([NEW_NAME, renamed])
    project.write(test_a=FILE_A.replace("test_two", "test_too").replace("1, 2", "1, 3"))
    project.run().stdout.no_fnmatch_line(NEW_NAME)  # it asks something else


def test_an_xfail_amid_the_test_says_so_where_it_is_missing(project: Project):
    body = FILE_B.replace(": ", ":\n    ", 1) + "    pytest.xfail('a bug')\n"
    project.write(test_b="import pytest\n" + body)
    result = project.run("--gpuperf-strict=on")
    assert result.ret == 1
    result.stdout.fnmatch_lines(["test_b.py::test_three: x missing: failed as expected"])


def test_several_metrics_of_a_missing_test_are_one_line(project: Project):
    two = "def test_three(gpuperf):\n" + "".join(
        f"    gpuperf.record({name!r}, 1, kind='exact')\n" for name in "vwxyz"
    )
    project.write(test_b=two)
    project.run("--gpuperf-update")
    project.write(test_b=None)
    lines = project.run("--gpuperf-strict=on").outlines
    assert [line for line in lines if line.startswith("test_b.py::test_three:")] == [
        "test_b.py::test_three: v, w, x and 2 more missing: in the baseline, but no such test was in this run"
    ]
