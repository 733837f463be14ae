"""A change does not waive itself: what judges comes from the revision, unless a maintainer accepts it."""

from __future__ import annotations

import datetime
import subprocess
from pathlib import Path

import pytest
from gitproject import Repository

FROM = "--gpuperf-baselines-from=main"
ACCEPT = "--gpuperf-accept"
SOON = datetime.date.today() + datetime.timedelta(days=30)
LATER = SOON + datetime.timedelta(days=1)
SUITE = """\
import pytest
{head}
{marker}
def test_size(gpuperf): gpuperf.record("size", {value}, kind="exact")
"""
ENTRY = f"""\
[[quarantine]]
test = "*"
pool = "*"
reason = "driver 580"
owner = "me"
expires = {SOON}
"""


class Project(Repository):
    """An exact figure of 1 in the revision ``main``, and 1.1 in the change that is checked out."""

    def suite(self, value: float = 1.1, marker: str = "", head: str = "") -> None:
        text = SUITE.format(
            value=value, marker=f"@pytest.mark.gpuperf({marker})" if marker else "", head=head
        )
        self.write("test_suite.py", text)

    def base(self, **suite: str) -> None:
        """Commit the revision, with the markers and the files there are, and begin the change."""
        (self.path / "baselines").mkdir(exist_ok=True)
        self.suite(1.0, **suite)
        self.record()
        self.commit()
        self.git("checkout", "-q", "-b", "change")
        self.suite(**suite)

    def judge(self, *flags: str) -> pytest.RunResult:
        return self.run(FROM, "--gpuperf-strict=on", *flags)


# ------------------------------------------------------------------------------ the ini file

INI_FILES = {
    "pytest.ini": "[pytest]\n{key} = {value}\n",
    "tox.ini": "[tox]\n[pytest]\n{key} = {value}\n",
    "setup.cfg": "[tool:pytest]\n{key} = {value}\n",
    "pyproject.toml": '[tool.pytest.ini_options]\n{key} = "{value}"\n',
}


def set_tolerance(project: Project, name: str, percent: int) -> None:
    project.write(name, INI_FILES[name].format(key="gpuperf_tolerances", value=f"size = {percent} %"))


@pytest.mark.parametrize("name", INI_FILES)
def test_tolerances_are_the_revisions(project: Project, name: str):
    set_tolerance(project, name, 5)
    project.base()
    set_tolerance(project, name, 50)
    result = project.judge()
    assert result.ret == 1
    result.stdout.fnmatch_lines(
        [
            "regressed: size +10.00 %, tolerance 5 %",
            "gpuperf_tolerances of this change's ini file does not count: that of main (*) does",
            "If that is meant, record it as it is now:",
            "  pytest test_suite.py::test_size --gpuperf --gpuperf-update",
            "The baselines of main (*) count until a maintainer gives --gpuperf-accept.",
        ]
    )


def test_flags_win_and_an_accepted_change_has_its_own(project: Project):
    set_tolerance(project, "pytest.ini", 5)
    project.base()
    set_tolerance(project, "pytest.ini", 50)
    assert project.judge("--gpuperf-tolerance=size = 20 %").ret == 0
    assert project.judge("-o", "gpuperf_tolerances=size = 20 %").ret == 0
    result = project.judge(ACCEPT)
    assert result.ret == 0
    result.stdout.fnmatch_lines(
        [
            "accepted: test_suite.py::test_size: its own tolerance of size (5 % -> 50 %)",
            "accepted: this change's own ini key gpuperf_tolerances",
        ]
    )


@pytest.mark.parametrize("new", ["pytest.ini", "sub/pytest.ini"])
def test_another_ini_file_does_not_replace_the_revisions(project: Project, new: str):
    project.write("pyproject.toml", INI_FILES["pyproject.toml"].format(key="gpuperf_strict", value="on"))
    project.base()
    project.suite(1.0)
    project.write("test_new.py", "def test_new(gpuperf): gpuperf.record('x', 1.0, kind='exact')")
    assert project.run(FROM).ret == 22
    project.write(new, "[pytest]\ngpuperf_strict = off\n")
    assert project.run(FROM).ret == 22
    (project.path / "pyproject.toml").unlink()
    assert project.run(FROM).ret == 22
    assert project.run(FROM, "--gpuperf-strict=off").ret == 0


@pytest.mark.parametrize(
    ("key", "value"),
    [("pool", "elsewhere"), ("baselines", "none"), ("strict", "off"), ("judge_host_times", "0")],
)
def test_whatever_else_judges_is_the_revisions(project: Project, key: str, value: str):
    project.write("pytest.ini", "[pytest]\ngpuperf_strict = on\ngpuperf_judge_host_times = 1\n")
    project.base()
    project.suite(1.0)
    text = "[pytest]\ngpuperf_strict = on\ngpuperf_judge_host_times = 1\n"
    project.write("pytest.ini", text.replace(f"gpuperf_{key}", f"; {key}") + f"gpuperf_{key} = {value}\n")
    result = project.run(FROM)
    assert result.ret == 0
    result.stdout.fnmatch_lines(
        [
            "gpuperf: *strict on, baselines in baselines at main (*)",
            "equal *",
            f"gpuperf_{key} of this change's ini file does not count: that of main (*) does",
        ]
    )


def test_a_quarantine_file_the_change_chose_does_not_count(project: Project):
    project.base()
    project.write("mine.toml", ENTRY)
    project.write("pytest.ini", "[pytest]\ngpuperf_quarantine = mine.toml\n")
    assert project.run().ret == 0
    assert project.judge().ret == 1
    assert project.judge(ACCEPT).ret == 0


def test_a_changes_own_broken_quarantine_file_fails_the_run(project: Project):
    project.base()
    project.suite(1.0)
    project.write("baselines/quarantine.toml", ENTRY.replace(str(SOON), "9999-12-31"))
    result = project.judge()
    assert result.ret == 1
    result.stdout.fnmatch_lines(
        ["*quarantine.toml: entry 1: expires = 9999-12-31 is more than 90 days away*"]
    )


def test_an_accepted_change_mends_a_broken_quarantine_file(project: Project):
    (project.path / "baselines").mkdir()
    project.write("baselines/quarantine.toml", "owner = 1\n")
    project.suite(1.0)
    project.commit()
    project.write("baselines/quarantine.toml", "")
    result = project.judge()
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["*quarantine.toml at main (*): 'owner' is not*needs --gpuperf-accept"])
    assert project.judge(ACCEPT, "--gpuperf-strict=off").ret == 0


def test_an_unreadable_file_of_the_revision_may_be_mended(project: Project):
    project.base()
    project.write("pytest.ini", "[pytest]\ngpuperf_tolerances = size\n")
    project.commit()
    project.git("branch", "-f", "main")
    project.suite(1.0)
    project.write("pytest.ini", "[pytest]\ngpuperf_tolerances = size = 5 %\n")
    result = project.judge()
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["*pytest.ini at main (*): gpuperf_tolerances: 'size' is not a valid*"])
    result = project.judge(ACCEPT)
    assert result.ret == 0
    result.stdout.fnmatch_lines(["accepted, and what was needed is not known: pytest.ini at main*"])


def test_an_ini_file_outside_the_repository_is_not_the_changes(project: Project, tmp_path: Path):
    project.base()
    ini = tmp_path / "ci.ini"
    ini.write_text("[pytest]\ngpuperf_tolerances = size = 20 %\n")
    assert project.judge("-c", str(ini), f"--rootdir={project.path}").ret == 0


LOOSER = ["--gpuperf-tolerance=*=90%", "--gpuperf-tolerance *=90%", "-o gpuperf_tolerances=*=90%", ACCEPT]
FEWER = ["-k 'not size'", "-knosize", "-m slow", "--deselect=test_suite.py", "--ignore test_suite.py", "--lf"]
FEWER += ["--last-failed", "-xknosize", "more", "-o testpaths=more"]
INSTEAD = ["--gpuperf-trace"]


@pytest.mark.parametrize("flag", [*LOOSER, *FEWER, *INSTEAD])
def test_addopts_of_the_change_do_not_judge_it(project: Project, flag: str):
    project.write("pytest.ini", "[pytest]\naddopts = -ra\n")
    project.write("more/test_more.py", "def test_more(): pass\n")
    project.base()
    project.write("pytest.ini", f"[pytest]\naddopts = -rA {flag}\n")
    result = project.judge()
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["*pytest.ini: addopts has *-*, *"])
    if flag in LOOSER:
        assert project.judge(ACCEPT).ret == (pytest.ExitCode.USAGE_ERROR if flag == ACCEPT else 0)
    project.write("pytest.ini", "[pytest]\naddopts = -rA\n")
    assert project.judge().ret == 1


@pytest.mark.parametrize("before", ["", "testpaths = . more\n"])
def test_testpaths_of_the_change_leave_no_test_out(project: Project, before: str):
    project.write("pytest.ini", f"[pytest]\n{before}")
    project.write("more/test_more.py", "def test_more(): pass\n")
    project.base()
    project.write("pytest.ini", "[pytest]\ntestpaths = more\n")
    result = project.judge()
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["*pytest.ini: testpaths leaves out ., which *pytest.ini at main (*) has: *"])
    assert project.judge(ACCEPT).ret == 22  # nothing in that folder is measured
    assert project.judge("-o", "testpaths=more").ret == 22
    assert project.judge(".").ret == 1  # paths of the command line are those of whoever started it
    project.write("pytest.ini", "[pytest]\ntestpaths = . more\n")
    assert project.judge().ret == 1


# ------------------------------------------------------------------------------ markers

TOLERANCE = "the tolerance of size is * % by the marker, and * % at main (*)"
UNTIL = "the marker expects a regression until *, and at main (*) it expects *"
COMPUTED = "what the marker stated at main (*) cannot be read without running it: *"


@pytest.mark.parametrize(
    ("before", "now", "why"),
    [
        ("", "tolerance=0.2", TOLERANCE),
        ("tolerance=0.2", "tolerance=0.3", TOLERANCE),
        ("tolerance=0.2", "tolerance=0.2", ""),
        ("tolerance=0.3", "tolerance=0.2", ""),
        ("tolerance=0.2", "tolerance=0.2, seconds=1", ""),
        ("", f"expected='why', until='{SOON}'", UNTIL),
        (f"expected='why', until='{SOON}'", f"expected='why', until='{LATER}'", UNTIL),
        (f"expected='why', until='{LATER}'", f"expected='as ever', until='{SOON}'", ""),
        ("tolerance=sum([0.2])", "tolerance=sum([0.2])", ""),
        ("tolerance=sum([0.2])", "tolerance=0.2", COMPUTED),
    ],
)
def test_a_marker_that_is_looser_than_the_revisions_fails(project: Project, before: str, now: str, why: str):
    project.base(marker=before)
    project.suite(marker=now)
    assert project.run().ret == 0
    result = project.judge()
    assert result.ret == (1 if why else 0), result.stdout.str()
    if why:
        result.stdout.fnmatch_lines(
            [f"not accepted: {why};", "  a change does not waive itself*--gpuperf-accept"], consecutive=True
        )
        result.stdout.fnmatch_lines([f"*again *--gpuperf {FROM}"])
    result = project.judge(ACCEPT)
    assert result.ret == 0
    result.stdout.fnmatch_lines(
        [f"accepted: test_suite.py::test_size: its marker: {why}"] if why else ["1 *"]
    )


def test_it_fails_without_a_regression_if_judged(project: Project):
    project.base()
    project.suite(1.0, marker="tolerance=0.2")
    assert project.judge().ret == 1
    text = (project.path / "test_suite.py").read_text()
    project.write("test_suite.py", text.replace('kind="exact"', 'unit="s"'))
    assert project.run(FROM).ret == 0


def test_a_marker_that_is_gone_may_have_been_the_stricter_one(project: Project):
    project.write("pytest.ini", "[pytest]\ngpuperf_tolerances = size = 50 %\n")
    project.base(marker="tolerance=0.2")
    project.suite()
    result = project.judge()
    assert result.ret == 1
    result.stdout.fnmatch_lines([f"not accepted: {TOLERANCE}*"])


def test_a_new_test_states_what_it_likes(project: Project):
    project.base()
    project.suite(1.0)
    new = SUITE.replace("test_size", "test_new").format(
        value=1.0, marker="@pytest.mark.gpuperf(tolerance=0.2)", head=""
    )
    text = (project.path / "test_suite.py").read_text()
    project.write("test_suite.py", text + new)
    project.write("test_new.py", new)
    assert project.run("--gpuperf-update=new").ret == 0
    assert project.judge().ret == 0


def test_what_a_marker_is_made_of_may_lie_in_another_file(project: Project):
    project.write("common.py", "LOOSE = 0.2\n")
    project.base(head="from common import LOOSE", marker="tolerance=LOOSE")
    project.write("other.py", "OTHER = 1\n")
    assert project.judge().ret == 0
    project.write("common.py", "LOOSE = 0.3\n")
    result = project.judge()
    assert result.ret == 1
    result.stdout.fnmatch_lines([f"not accepted: {COMPUTED}*"])


def test_a_conftest_that_gives_markers_may_not_change_unseen(project: Project):
    give = (
        "import pytest\n"
        "def pytest_collection_modifyitems(items):\n"
        "    for item in items: item.add_marker(pytest.mark.gpuperf(tolerance={}))\n"
    )
    project.write("conftest.py", give.format(0.2))
    project.base()
    project.suite(1.05)  # a change elsewhere in the file
    assert project.judge().ret == 0
    project.write("conftest.py", give.format(0.3))
    result = project.judge()
    assert result.ret == 1
    result.stdout.fnmatch_lines(["not accepted: *conftest.py makes markers, and has changed*"])


# ------------------------------------------------------------------------------ what was needed


GIVES = """\
import pytest
{head}
{fixture}
def test_size(request, gpuperf):
    {body}
    gpuperf.record("size", {value}, kind="exact")
"""
IN_A_FIXTURE = "@pytest.fixture(autouse=True)\ndef give(request): request.applymarker({mark})"


@pytest.mark.parametrize("where", ["fixture", "body"])
def test_a_marker_given_at_run_time_may_not_change_unseen(project: Project, where: str):
    def gives(value: float, loose: float, mark: str = "pytest.mark.gpuperf(tolerance=LOOSE)") -> None:
        parts = {"fixture": IN_A_FIXTURE.format(mark=mark), "body": ""}
        if where == "body":
            parts = {"fixture": "", "body": f"request.node.add_marker({mark})"}
        project.write("test_suite.py", GIVES.format(head=f"LOOSE = {loose}", value=value, **parts))

    def refused() -> bool:
        result = project.judge()
        if result.ret:
            result.stdout.fnmatch_lines([f"not accepted: {COMPUTED}"])
        return bool(result.ret)

    project.base()
    gives(1.1, 0.2)
    assert refused()
    gives(1.1, 0.2, f"pytest.mark.gpuperf(expected='why', until='{SOON}')")
    assert refused()
    gives(1.0, 0.2)
    project.record()
    project.commit()
    project.git("branch", "-f", "main")
    text = (project.path / "test_suite.py").read_text()
    project.write("test_suite.py", text + "\ndef test_other(): pass\n")
    assert not refused()
    gives(1.0, 0.3)
    assert refused()


def test_an_intended_slowdown_is_merged_with_its_new_baseline(project: Project):
    project.base()
    assert project.run("--gpuperf-update").ret == 0
    assert project.judge().ret == 1
    result = project.judge(ACCEPT)
    assert result.ret == 0
    result.stdout.fnmatch_lines(
        [
            "gpuperf: *baselines in baselines, accepted whatever main (*) has",
            "accepted: test_suite.py::test_size: its own baseline of size (1 -> 1.100)",
        ]
    )


def test_only_what_was_needed_is_listed(project: Project):
    project.base()
    project.suite(1.0)
    project.write("baselines/quarantine.toml", ENTRY)
    result = project.judge(ACCEPT)
    assert result.ret == 0
    result.stdout.no_fnmatch_line("accepted: *")
    project.suite(1.1)
    result = project.judge(ACCEPT)
    assert result.ret == 0
    result.stdout.fnmatch_lines([f"accepted: *test_size: its own quarantine until {SOON} (me: driver 580)"])
    assert project.run("--gpuperf-update").ret == 0
    result = project.judge(ACCEPT)
    result.stdout.fnmatch_lines(["accepted: *: its own baseline*", "accepted: *: its own quarantine*"])


def test_workers_tell_it_too(project: Project):
    project.base()
    project.suite(marker="tolerance=0.2")
    assert project.judge("-p", "xdist", "-n1").ret == 1
    result = project.judge("-p", "xdist", "-n1", ACCEPT)
    assert result.ret == 0
    result.stdout.fnmatch_lines([f"accepted: *: its marker: {TOLERANCE}"])


def test_a_quarantined_test_that_is_gone_is_listed(project: Project):
    project.base()
    other = "def test_other(gpuperf): gpuperf.record('y', 1.0, kind='exact')"
    project.write("test_suite.py", other)
    assert project.run("--gpuperf-update=new").ret == 0
    project.write("baselines/quarantine.toml", ENTRY.replace('"*"', '"test_suite.py::test_size"', 1))
    assert project.judge().ret == 1
    result = project.judge(ACCEPT)
    assert result.ret == 0
    result.stdout.fnmatch_lines(["accepted: *::test_size: size may be missing by its own quarantine"])


def test_a_regression_not_the_changes_to_accept_still_fails(project: Project):
    project.base()
    assert project.judge(ACCEPT).ret == 1


def test_the_flag_needs_a_revision(project: Project):
    result = project.run(ACCEPT)
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["*--gpuperf-accept*-from=REV or --gpuperf-against=REV beside it"])


# ------------------------------------------------------------------------------ what no revision has


@pytest.mark.parametrize("repository", [False, True])
@pytest.mark.parametrize("key", ["quarantine", "baselines"])
def test_a_file_outside_the_repository_is_refused_in_a_sentence(
    project: Project, tmp_path: Path, repository: bool, key: str
):
    outside = tmp_path / "outside"
    outside.mkdir()
    if repository:
        subprocess.run(["git", "init", "-q", str(outside)], check=True)
    (outside / "q.toml").write_text(ENTRY)
    path = outside / "q.toml" if key == "quarantine" else outside
    project.write("pytest.ini", f"[pytest]\ngpuperf_{key} = {path}\n")
    project.suite(1.0)
    project.commit()
    result = project.judge()
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    told = f"ERROR: {path} lies outside the repository {project.path}, so that revision main (*) cannot"
    result.stderr.fnmatch_lines([f"{told} have it: move it into the repository, or leave out *"])
