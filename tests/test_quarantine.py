"""The quarantine file: measured and shown, not red before its day, and said when it is of no use."""

from __future__ import annotations

import datetime
import re
import subprocess
from pathlib import Path

import pytest
from once import run_once

from pytest_gpuperf.errors import GpuperfError
from pytest_gpuperf.measurement import TestKey
from pytest_gpuperf.rules.waivers import Quarantine
from pytest_gpuperf.storage.project import read_quarantine

KEY = TestKey("suites/test_a.py", "test_b[8-x]")
TODAY = datetime.date(2026, 6, 1)
SOON = datetime.date.today() + datetime.timedelta(days=30)
ENTRY = """
[[quarantine]]
test = "{test}"
{where}
reason = "driver 580"
owner = "me"
expires = {expires}
"""


def entry(test: str = "*", pool: str = "*", uuid: str = "", expires: str = "2026-06-01") -> Quarantine:
    return Quarantine(test, "" if uuid else pool, uuid, "why", "who", datetime.date.fromisoformat(expires))


@pytest.mark.parametrize(
    ("held", "by"),
    [
        (True, entry()),
        (True, entry(test="suites/test_a.py::test_b[8-x]")),
        (True, entry(test="suites/*::test_b*")),
        (False, entry(test="suites/test_a.py::test_c*")),
        (True, entry(pool="nvidia-h100-80gb-hbm3")),
        (True, entry(pool="NVIDIA H100*")),
        (False, entry(pool="nvidia-a100*")),
        (True, entry(uuid="GPU-1")),
        (False, entry(uuid="GPU-2")),
        (False, entry(expires="2026-05-31")),
    ],
)
def test_an_entry_holds_for_its_test_and_machine_until_its_day(held: bool, by: Quarantine):
    assert by.covers(KEY, "NVIDIA H100 80GB HBM3", ["GPU-1"], TODAY) is held


GOOD = ENTRY.format(test="*", where='pool = "*"', expires="2026-06-01")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[[quarantine]\n", "cannot be read"),
        ("[[quarantined]]\ntest = 'x'\n", "'quarantined' is not known here"),
        ("quarantine = 3\n", "write each entry under"),
        (GOOD.replace("owner", "contact"), "entry 1 has 'contact'"),
        (GOOD.replace('owner = "me"', ""), "entry 1 has no owner"),
        (GOOD.replace('"driver 580"', '""'), "entry 1 has no reason"),
        (GOOD.replace('"driver 580"', "580"), "reason = 580; give it as text"),
        (GOOD.replace('pool = "*"', ""), "either pool or uuid"),
        (GOOD.replace('pool = "*"', 'pool = "*"\nuuid = "GPU-1"'), "either pool or uuid"),
        (GOOD.replace("2026-06-01", '"2026-06-01"'), "give a day without quotes"),
        (GOOD.replace("2026-06-01", "2026-06-01T10:00:00"), "give a day without quotes"),
        (GOOD + GOOD.replace("owner", "contact"), "entry 2 has 'contact'"),
    ],
)
def test_a_bad_file_is_one_sentence_that_names_it(tmp_path: Path, text: str, words: str):
    path = tmp_path / "quarantine.toml"
    path.write_text(text)
    with pytest.raises(GpuperfError, match=r"quarantine\.toml") as error:
        read_quarantine(path)
    assert words in str(error.value)
    assert "\n" not in str(error.value)


class Project:
    """An exact metric whose baseline is 1 and which is now 2: red, were it not for the file."""

    def __init__(self, pytester: pytest.Pytester) -> None:
        self.pytester = pytester
        (pytester.path / "baselines").mkdir()
        self.measure(1.0)
        assert run_once(pytester, "--gpuperf", "--gpuperf-update").ret == 0
        self.measure(2.0)

    def measure(self, value: float) -> None:
        self.pytester.makepyfile(
            test_suite=f"def test_it(gpuperf): gpuperf.record('x', {value}, kind='exact')\n"
            "def test_other(gpuperf): gpuperf.record('y', 1.0, kind='exact')"
        )

    def quarantine(self, test: str, where: str = 'pool = "cpu"', expires: object = SOON) -> None:
        text = ENTRY.format(test=test, where=where, expires=expires)
        (self.pytester.path / "baselines" / "quarantine.toml").write_text(text)

    def run(self, *flags: str) -> pytest.RunResult:
        return self.pytester.runpytest_subprocess("--gpuperf", "--gpuperf-strict=on", *flags)


@pytest.mark.parametrize(("days", "allowed"), [(90, True), (91, False), (365_000, False)])
def test_an_entry_ends_within_90_days(tmp_path: Path, days: int, allowed: bool):
    path, today = tmp_path / "quarantine.toml", datetime.date.today()
    expires, last = (today + datetime.timedelta(days) for days in (days, 90))
    path.write_text(ENTRY.format(test="*", where='pool = "*"', expires=expires))
    if allowed:
        assert read_quarantine(path)[0].expires == expires
        return
    with pytest.raises(GpuperfError, match="more than 90 days") as error:
        read_quarantine(path)
    assert f"quarantine.toml: entry 1: expires = {expires} is " in str(error.value)
    assert str(error.value).endswith(f"the last day that may stand here today is {last}")


def test_a_quarantined_test_is_shown_and_not_red(project: Project):
    assert project.run().ret == 1
    project.quarantine("test_suite.py::test_it")
    result = project.run("--junitxml=out.xml")
    assert result.ret == 0
    result.stdout.fnmatch_lines(
        [
            "quarantined *test_it *2 *x2",
            "1 quarantined, 1 equal",
            f"quarantine.toml: entry 1, test_suite.py::test_it (me: driver 580), holds until {SOON}",
        ]
    )
    assert "quarantined" in (project.pytester.path / "out.xml").read_text()


def test_another_pool_or_unit_is_as_red_as_ever(project: Project):
    project.quarantine("*", 'pool = "nvidia-*"')
    assert project.run().ret == 1
    project.quarantine("*", 'uuid = "GPU-1"')
    assert project.run().ret == 1


def test_an_expired_entry_is_red_again_and_said(project: Project):
    project.quarantine("*", expires="2020-01-01")
    result = project.run()
    assert result.ret == 1
    result.stdout.fnmatch_lines(["quarantine.toml: entry 1, * (me: driver 580), expired on 2020-01-01*"])


def test_a_quarantine_does_not_hide_a_wrong_result(project: Project):
    project.quarantine("*")
    project.pytester.makepyfile(test_suite="def test_it(gpuperf): assert False")
    assert project.run().ret == 1


def test_a_quarantined_test_may_go_missing_or_record_nothing(project: Project):
    project.quarantine("test_suite.py::test_it")
    other = "def test_other(gpuperf): gpuperf.record('y', 1.0, kind='exact')\n"
    for suite in ("", "def test_it(): pass", "def test_it(gpuperf): gpuperf.record('z', 1.0, kind='exact')"):
        project.pytester.makepyfile(test_suite=other + suite)
        result = project.run()
        assert result.ret == 0, result.stdout.str()


def test_an_unmatched_entry_is_said_after_a_full_run_only(project: Project):
    project.quarantine("test_suite.py::test_gone")
    said = [
        "quarantine.toml: entry 1, test_suite.py::test_gone (me: driver 580), matches no test*take it out"
    ]
    project.run().stdout.fnmatch_lines(said)
    project.run("-k", "test_it").stdout.no_fnmatch_line("*matches no test*")
    project.quarantine("elsewhere/test_b.py::*")
    project.run("test_suite.py").stdout.fnmatch_lines(["*elsewhere/test_b.py*matches no test*"])
    (project.pytester.path / "elsewhere").mkdir()
    (project.pytester.path / "elsewhere" / "test_b.py").touch()
    project.run("test_suite.py").stdout.no_fnmatch_line("*matches no test*")


def test_the_ini_key_names_another_file_which_must_be_there(project: Project):
    project.quarantine("*")
    project.pytester.makeini("[pytest]\ngpuperf_quarantine = known.toml\n")
    result = project.run()
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["*known.toml: cannot be read*"])
    (project.pytester.path / "baselines" / "quarantine.toml").rename(project.pytester.path / "known.toml")
    assert project.run().ret == 0


@pytest.mark.parametrize("flags", [[], ["-p", "xdist", "-n2"], ["--collect-only"]])
def test_a_bad_file_stops_the_run_before_anything_is_measured(project: Project, flags: list[str]):
    (project.pytester.path / "baselines" / "quarantine.toml").write_text("[[quarantine]\n")
    result = project.run(*flags)
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["*quarantine.toml: cannot be read*"])
    assert not re.search("Traceback|INTERNALERROR", result.stdout.str() + result.stderr.str())


def test_a_change_cannot_quarantine_itself(project: Project):
    git = ("git", "-c", "user.name=a", "-c", "user.email=a@b.c")
    for command in (["init", "-q", "-b", "main"], ["add", "-A"], ["commit", "-q", "-m", "x"]):
        subprocess.run([*git, *command], cwd=project.pytester.path, check=True)
    project.quarantine("*", 'pool = "*"')
    assert project.run().ret == 0
    result = project.run("--gpuperf-baselines-from=main")
    assert result.ret == 1
    result.stdout.fnmatch_lines(
        ["quarantine.toml: [*] (me: driver 580) is this change's own and does not count"]
    )
    for command in (["add", "-A"], ["commit", "-q", "-m", "x"]):
        subprocess.run([*git, *command], cwd=project.pytester.path, check=True)
    (project.pytester.path / "baselines" / "quarantine.toml").unlink()
    result = project.run("--gpuperf-baselines-from=main")
    assert result.ret == 0
    result.stdout.fnmatch_lines(["quarantined *test_it*"])


def test_no_replica_is_spent_on_what_cannot_be_red(project: Project):
    project.pytester.makeini("[pytest]\ngpuperf_judge_host_times = true\n")
    suite = (
        "import pathlib\n"
        "def test_it(gpuperf):\n"
        "    with pathlib.Path('processes').open('a') as file: file.write('x')\n"
        "    gpuperf.record('x', {}, 's')\n"
    )
    project.pytester.makepyfile(test_suite=suite.format(1.0))
    assert project.pytester.runpytest_subprocess("--gpuperf", "--gpuperf-update").ret == 0
    project.pytester.makepyfile(test_suite=suite.format(2.0))
    project.quarantine("*")
    (project.pytester.path / "processes").unlink()
    assert project.run().ret == 0
    assert (project.pytester.path / "processes").read_text() == "x"


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda path: path.mkdir(), "(Is a directory): put a readable TOML file there"),
        (
            lambda path: path.write_bytes(b"# a\n# \xe9\n"),
            "line 2 is not UTF-8 text: save the quarantine file",
        ),
    ],
)
def test_a_file_that_cannot_be_read_is_one_plain_sentence(tmp_path: Path, make, words: str):
    make(tmp_path / "quarantine.toml")
    with pytest.raises(GpuperfError) as refused:
        read_quarantine(tmp_path / "quarantine.toml")
    assert words in str(refused.value)
    assert not any(word in str(refused.value) for word in ("Errno", "codec", "0xe9"))


def test_an_editor_of_windows_changes_nothing(tmp_path: Path):
    days = datetime.date.today() + datetime.timedelta(days=1)
    text = f"[[quarantine]]\ntest = '*'\npool = '*'\nreason = 'r'\nowner = 'o'\nexpires = {days}\n"
    path = tmp_path / "quarantine.toml"
    path.write_bytes(b"\xef\xbb\xbf" + text.replace("\n", "\r\n").encode())
    (entry,) = read_quarantine(path)
    assert (entry.reason, entry.owner) == ("r", "o")
