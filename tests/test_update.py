"""What --gpuperf-update says of what it writes, and what it measures again before it does."""

from __future__ import annotations

import re

import pytest
from gitproject import Repository
from latencies import LATENCY, SUITE, HostProject

EXACT = "def test_count(gpuperf): gpuperf.record('sectors', {}, kind='exact')\n"


class Project(HostProject):
    def write(self, suite: str) -> None:
        (self.path / "test_suite.py").write_text(suite)

    def update(self, *flags: str, mode: str = "") -> pytest.RunResult:
        update = "--gpuperf-update" + (f"={mode}" if mode else "")
        return self.judge(update, *flags)

    def record(self, latencies: str, mode: str = "") -> pytest.RunResult:
        self.tell(latencies)
        return self.update(mode=mode)

    @property
    def entry(self) -> dict:
        ((metric,),) = [test.values() for test in self.stored["entries"].values()]
        return metric

    @property
    def samples(self) -> list[float]:
        return [run["samples"][0] for run in self.entry["runs"]]


def test_an_update_says_what_moved_and_which_way_is_worse(project: Project):
    project.write(EXACT.format("4.0"))
    assert "->" not in project.update().stdout.str()
    project.write(EXACT.format("5.0"))
    result = project.update("--gpuperf-tolerance=sectors = 20 %")
    assert result.ret == 0
    result.stdout.fnmatch_lines(["test_suite.py::test_count", "  sectors 4 -> 5, +25.00 % (worse)"])
    result.stdout.no_fnmatch_line("WARNING:*")
    project.write(EXACT.format("6.0"))
    result = project.update("--gpuperf-tolerance=sectors = 20 %")
    result.stdout.fnmatch_lines(
        [
            "  sectors 5 -> 6, +20.00 % (worse); since 20??-??-?? +50.00 % (worse)",
            "WARNING: test_suite.py::test_count: sectors is worse than it was",
            "  6, +50.00 % (worse) since its origin, 4 on 20??-??-??*:",
        ]
    )
    assert project.entry["origin"]["value"] == 4
    assert project.entry["best"]["value"] == 4
    again = project.update("--gpuperf-tolerance=sectors = 20 %")
    again.stdout.no_fnmatch_line("WARNING:*")


def test_creep_is_told_at_an_append_too(project: Project):
    project.write(SUITE)
    assert project.record("1.0").ret == 0
    result = project.record("1.5", mode="append")
    assert result.ret == 0
    result.stdout.fnmatch_lines(["WARNING: *latency is worse than it was"])
    assert project.entry["origin"]["value"] == 1


def test_one_far_run_is_measured_again_and_left_out(project: Project):
    project.write(SUITE)
    result = project.record("1.0 1.0 1.001 1.3 0.999 1.0 1.002")
    assert result.ret == 0
    assert project.processes == 7
    result.stdout.fnmatch_lines(
        [
            "test_suite.py::test_latency: latency",
            "  run 3 of 5 gave 1.300 s, far from the others' 1 s:",
            "  measured again once, and left out",
        ]
    )
    assert project.samples == [1.0, 1.001, 0.999, 1.0, 1.002, 1.3]
    assert [run.get("left_out", False) for run in project.entry["runs"]] == [False] * 5 + [True]
    project.tell("1.3 1.3 1.3 1.3 1.3")
    judged = project.judge("--gpuperf-acquit=off")
    judged.stdout.fnmatch_lines(["regressed: latency*"])


def test_an_append_measures_a_far_run_again_too(project: Project):
    project.write(SUITE)
    project.record("1.0")
    assert project.record("1.0 1.0 1.0 1.0 1.4 1.0 1.001", mode="append").ret == 0
    assert project.samples == [1.0] * 9 + [1.001, 1.4]


def test_on_a_machine_known_to_be_noisy_such_a_run_is_not_far(project: Project):
    project.write(SUITE)
    project.record("1.0 0.9 1.1 0.95 1.05 1.0")
    project.record("1.0 1.0 1.001 1.3 0.999 1.0")
    assert project.processes == 6
    assert project.samples == [1.0, 1.001, 1.3, 0.999, 1.0]


@pytest.mark.parametrize(
    ("latencies", "count"),
    [("1.0 1.0 1.3 1.0 1.3 1.0", 5), ("1.0 1.0 1.3 1.0 1.0 1.0 1.31", 6)],
    ids=["in the recording", "when measured again"],
)
def test_two_far_runs_are_two_modes_and_stay(project: Project, latencies: str, count: int):
    project.write(SUITE)
    result = project.record(latencies)
    assert result.ret == 0
    result.stdout.fnmatch_lines(
        ["test_suite.py::test_latency: latency", "  runs in two modes, 1 s to 1.3?? s: all runs are kept"]
    )
    assert len(project.samples) == count
    assert not any(run.get("left_out") for run in project.entry["runs"])


def test_a_far_run_that_cannot_be_repeated_is_not_recorded(project: Project):
    project.write(SUITE)
    result = project.record("1.0 1.0 1.0 1.3 1.0 1.0 nonsense")
    assert result.ret == 1
    result.stdout.fnmatch_lines(
        ["not recorded: test_suite.py::test_latency: latency was measured in 0 of 1*"]
    )
    assert not list((project.path / "baselines").rglob("*.json"))


def test_an_exact_figure_that_processes_differ_in_is_refused(project: Project):
    """A noisy one beside it is why there are several."""
    body = "    gpuperf.record('t', 1.0, 's')\n    gpuperf.record('draws', latency(), '1', kind='exact')\n"
    project.write(f"{LATENCY}def test_draws(gpuperf):\n{body}")
    result = project.record("1.0 1.0 2.0 1.0")
    assert result.ret == 1
    result.stdout.fnmatch_lines(["not recorded: *draws is exact, and processes differ: [[]1.0, 2.0[]]"])
    assert not list((project.path / "baselines").rglob("*.json"))


def test_new_says_that_it_wrote_nothing(project: Project):
    project.write(EXACT.format("4.0"))
    project.update()
    result = project.update(mode="new")
    result.stdout.no_fnmatch_line("Recorded *")
    result.stdout.fnmatch_lines(["Nothing new to record in *test_suite.json: 1 metric; =new adds only *"])


def test_new_counts_what_it_wrote_and_what_it_left(project: Project):
    project.write(EXACT.format("4.0"))
    project.update()
    other = "def test_other(gpuperf): gpuperf.record('sectors', 3.0, kind='exact')\n"
    project.write(EXACT.format("5.0") + other)
    result = project.update(mode="new")
    file = "baselines/cpu/test_suite.json"
    result.stdout.fnmatch_lines(
        [
            f"Recorded 1 metric of 1 test in {file}",
            f"Left as it was in {file}: 1 metric; =new adds *",
        ]
    )


def test_a_metric_no_longer_recorded_is_dropped_and_named(project: Project):
    two = EXACT.format("4.0") + "    gpuperf.record('lines', 1, kind='exact')\n"
    project.write(two.replace("): gpuperf", "):\n    gpuperf"))
    project.update()
    project.write(EXACT.format("4.0"))
    result = project.update()
    result.stdout.fnmatch_lines(["Dropped test_count lines from baselines/cpu/test_suite.json: *no longer"])


def test_what_was_not_recorded_is_named_with_its_reason(project: Project):
    project.write(
        EXACT.format("4.0") + "import pytest\n"
        "def test_red(gpuperf): assert gpuperf is None\n"
        "@pytest.mark.skip(reason='no disk')\n"
        "def test_skipped(gpuperf): pass\n"
        "@pytest.mark.xfail\n"
        "def test_known(gpuperf): assert gpuperf is None\n"
        "def test_silent(gpuperf): pass\n"
        "def test_plain(): pass\n"
    )
    result = project.update()
    result.stdout.fnmatch_lines_random(
        [
            "Not recorded: test_suite.py::test_red: failed",
            "Not recorded: test_suite.py::test_skipped: skipped (no disk)",
            "Not recorded: test_suite.py::test_known: failed as expected",
            "Not recorded: test_suite.py::test_silent: measured nothing",
            "Recorded 1 metric of 1 test in *",
        ]
    )
    result.stdout.no_fnmatch_line("*test_plain*")
    result = project.update("--exitfirst")
    result.stdout.fnmatch_lines(["Nothing was recorded: the run was broken off"])


def test_what_is_only_shown_is_named(project: Project):
    project.write(EXACT.format("4.0") + "def test_t(gpuperf): gpuperf.record('t', 1.0, 's')\n")
    result = project.update("-o", "gpuperf_judge_host_times=false")
    result.stdout.fnmatch_lines(["Only shown here, so nothing to record: test_suite.py::test_t"])


def test_uncommitted_changes_are_said_at_update_and_failure(project: Project):
    repository = Repository(project.pytester)
    project.write(EXACT.format("4.0"))
    repository.commit()
    result = project.update()
    assert "not committed" not in result.stdout.str()
    project.write(EXACT.format("5.0"))
    result = project.update()
    words = "ecord* with changes that are not committed: the commit that a baseline names lacks them."
    result.stdout.fnmatch_lines([f"gpuperf: r{words.replace('*', 'ing')}", f"R{words.replace('*', 'ed')}"])
    project.write(EXACT.format("6.0"))
    red = project.judge()
    assert re.search(r"not committed, after [0-9a-f]{10}\)", red.stdout.str())


@pytest.mark.parametrize("mode", ["", "prune"])
def test_one_unreadable_file_leaves_the_others_recorded(project: Project, mode: str):
    """All that a full run had measured was thrown away."""
    repository = Repository(project.pytester)
    project.write(EXACT.format("4.0"))
    (project.path / "test_other.py").write_text(EXACT.format("4.0"))
    repository.commit()
    project.update()
    project.write(EXACT.format("5.0"))
    (project.path / "test_other.py").write_text(EXACT.format("5.0"))
    path = project.path / "baselines" / "cpu" / "test_other.json"
    path.write_text(path.read_text()[:99])
    result = project.update(mode=mode)
    assert result.ret == 1
    result.stdout.fnmatch_lines(
        ["Recorded 1 metric of 1 test in *", "not recorded: *test_other.json: line *"]
    )
    assert result.stdout.str().count("test_other.json") == 1
    assert '"samples": [5.0]' in path.with_name("test_suite.json").read_text()
    result = project.update("test_other.py", mode=mode)
    assert "Recorded" not in result.stdout.str()


def test_code_that_git_does_not_know_is_not_the_commits_either(project: Project):
    repository = Repository(project.pytester)
    (project.path / "test_suite.py").unlink()
    (project.path / "notes.txt").write_text("no code")
    repository.commit()
    project.write(EXACT.format("4.0"))
    result = project.update()
    result.stdout.fnmatch_lines(["gpuperf: recording with changes that are not committed: *"])
    assert "commit" not in project.entry["origin"]
    project.write(EXACT.format("6.0"))
    red = project.judge()
    assert re.search(r"not committed, after [0-9a-f]{10}\)", red.stdout.str())
    repository.write(".gitignore", "test_*.py")  # ignored on purpose, such as generated code
    result = project.update()
    assert "not committed" not in result.stdout.str()
