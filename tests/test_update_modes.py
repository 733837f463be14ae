"""What each mode of --gpuperf-update records, and which of the stored figures it keeps."""

from __future__ import annotations

import json

import pytest
from gateproject import Project


def test_update_records_five_runs_and_not_the_first_process(project: Project):
    project.record("9.0 1.000 1.000 1.002 0.999 1.001")
    (metrics,) = project.stored["entries"].values()
    samples = [run["samples"] for run in metrics["latency"]["runs"]]
    assert samples == [[1.0], [1.0], [1.002], [0.999], [1.001]]


@pytest.fixture
def renamed(project: Project) -> Project:
    """A project whose one test has baselines, and is now gone for another."""
    project.record()
    (project.path / "test_suite.py").write_text("def test_other(gpuperf): gpuperf.record('x', 1.0, 's')")
    return project


def test_an_update_keeps_what_it_did_not_see(renamed: Project):
    result = renamed.run("--gpuperf-update")
    assert result.ret == 0
    assert list(renamed.stored["entries"]) == ["test_latency", "test_other"]
    result.stdout.fnmatch_lines(
        ["Kept the baselines of test_suite.py::test_latency: not in this run.", "*--gpuperf-update=prune"]
    )


@pytest.mark.parametrize(
    ("write", "flags"),
    [
        ("", ["--ignore=test_suite.py"]),
        ("import pytest\npytest.importorskip('no_such_module')\n", []),
        ("import no_such_module\n", ["--continue-on-collection-errors"]),
    ],
    ids=["ignored", "skipped module", "collection error"],
)
def test_a_file_that_was_not_collected_loses_nothing(project: Project, write: str, flags: list[str]):
    project.record()
    suite = project.path / "test_suite.py"
    suite.write_text(write + suite.read_text())
    (project.path / "test_other.py").write_text(
        "def test_other(gpuperf): gpuperf.record('x', 1.0, kind='exact')"
    )
    project.run("--gpuperf-update", *flags)
    files = (project.path / "baselines").rglob("*.json")
    assert {name for file in files for name in json.loads(file.read_text())["entries"]} == {
        "test_latency",
        "test_other",
    }


def test_a_full_update_that_prunes_drops_what_is_gone(renamed: Project):
    result = renamed.run("--gpuperf-update=prune")
    assert result.ret == 0
    assert list(renamed.stored["entries"]) == ["test_other"]
    result.stdout.fnmatch_lines(["Dropped the baseline of test_suite.py::test_latency*"])


def test_an_update_of_a_part_leaves_the_rest(project: Project):
    project.record()
    with (project.path / "test_suite.py").open("a") as file:
        file.write("\ndef test_more(gpuperf): gpuperf.record('y', 1.0, kind='exact')\n")
    assert project.run("--gpuperf-update", "-k", "more").ret == 0
    assert list(project.stored["entries"]) == ["test_latency", "test_more"]


def test_update_new_leaves_what_is_there(project: Project):
    project.record()
    before = project.stored
    assert project.run("--gpuperf-update=new", latencies="5.0").ret == 0
    assert project.stored == before


def test_update_append_adds_runs(project: Project):
    project.record()
    assert project.run("--gpuperf-update=append", "--gpuperf-runs=2", latencies="1.0").ret == 0
    (metrics,) = project.stored["entries"].values()
    assert len(metrics["latency"]["runs"]) == 7


def test_a_failed_test_is_not_recorded(project: Project):
    project.tell("1.0")
    with (project.path / "test_suite.py").open("a") as file:
        file.write(
            "\ndef test_wrong(gpuperf):\n    gpuperf.record('z', 1.0, kind='exact')\n    assert False\n"
        )
    assert project.run("--gpuperf-update").ret == 1
    assert "test_wrong" not in project.stored["entries"]
