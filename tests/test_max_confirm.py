"""Past a number of tests that tripped, one set of replicas measures all that are left."""

from __future__ import annotations

import shutil
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

# Each process appends its number to a file per test; the first is the session's own.
SUITE = """
    import os, pathlib
    import pytest

    HERE = pathlib.Path(__file__).parent
    SLOW = (HERE / "slow.txt").read_text().split()

    def measure(gpuperf, name):
        with (HERE / f"{name}.pids").open("a") as file:
            file.write(f"{os.getpid()}\\n")
        gpuperf.record(name, 1.3 if name in SLOW else 1.0, "s")

    def test_a(gpuperf): measure(gpuperf, "a")
    def test_b(gpuperf): measure(gpuperf, "b")
    def test_c(gpuperf): measure(gpuperf, "c")
    def test_d(gpuperf): measure(gpuperf, "d")

    @pytest.mark.gpuperf(isolated=True)
    def test_e(gpuperf): measure(gpuperf, "e")

    def test_unmeasured(): (HERE / "unmeasured").open("a").write("x")
"""


@pytest.fixture(scope="session")
def recorded(tmp_path_factory: pytest.TempPathFactory, bare_environment: dict[str, str]) -> Path:
    """The project with its baselines, recorded once for all tests here."""
    folder = tmp_path_factory.mktemp("recorded")
    (folder / "tox.ini").write_text("[pytest]\ngpuperf_judge_host_times = true\n")
    (folder / "test_suite.py").write_text(textwrap.dedent(SUITE))
    (folder / "slow.txt").write_text("")
    (folder / "baselines").mkdir()
    command = [sys.executable, "-m", "pytest", "--gpuperf", "-p", "no:cacheprovider"]
    subprocess.run(
        [*command, "--gpuperf-update", "--gpuperf-runs=3"], cwd=folder, env=bare_environment, check=True
    )
    return folder


class Project:
    def __init__(self, pytester: pytest.Pytester) -> None:
        self.pytester = pytester

    def run(self, slow: str, *flags: str) -> pytest.RunResult:
        for file in (*self.pytester.path.glob("*.pids"), self.pytester.path / "unmeasured"):
            file.unlink(missing_ok=True)
        (self.pytester.path / "slow.txt").write_text(slow)
        return self.pytester.runpytest_subprocess("--gpuperf", *flags)

    def replicas(self, name: str) -> list[str]:
        """The processes that measured a test after its first one."""
        return (self.pytester.path / f"{name}.pids").read_text().split()[1:]


@pytest.fixture
def project(pytester: pytest.Pytester, recorded: Path) -> Project:
    shutil.copytree(recorded, pytester.path, dirs_exist_ok=True)
    return Project(pytester)


def test_later_trips_share_one_set_and_fail_as_themselves(project: Project):
    result = project.run("a b d e", "--gpuperf-max-confirm=1")
    result.assert_outcomes(failed=4, passed=2)
    result.stdout.fnmatch_lines(["*more than 1 test measured worse*4 processes measure all 3 that are left"])
    alone, shared = project.replicas("a"), project.replicas("b")
    assert len(set(alone)) == len(set(shared)) == 4
    assert not set(alone) & set(shared)
    # c was measured by them too, before its own turn, and d's trip was judged from them
    assert (project.pytester.path / "c.pids").read_text().split()[:4] == shared
    assert (project.pytester.path / "d.pids").read_text().split()[:4] == shared
    assert len((project.pytester.path / "d.pids").read_text().split()) == 5
    # a test in a process of its own would gain nothing, and one that measures nothing is left out
    assert len((project.pytester.path / "e.pids").read_text().split()) == 5
    assert (project.pytester.path / "unmeasured").read_text() == "x"


def test_up_to_the_number_each_test_has_a_set_of_its_own(project: Project):
    result = project.run("a b")
    result.assert_outcomes(failed=2, passed=4)
    assert not set(project.replicas("a")) & set(project.replicas("b"))
    assert len((project.pytester.path / "c.pids").read_text().split()) == 1


def test_a_test_that_the_shared_set_did_not_measure_has_its_own(project: Project):
    with (project.pytester.path / "test_suite.py").open("a") as file:
        file.write("\ndef test_new(gpuperf): measure(gpuperf, 'new')\n")
    suite = project.pytester.path / "test_suite.py"
    suite.write_text(suite.read_text().replace('"s")', '"s", max=1.2)'))
    result = project.run("a b new", "--gpuperf-max-confirm=1")
    result.assert_outcomes(failed=3, passed=4)
    assert not set(project.replicas("new")) & set(project.replicas("b"))


def test_the_ini_key_is_the_default(project: Project):
    project.pytester.makeini("[pytest]\ngpuperf_judge_host_times = true\ngpuperf_max_confirm = 1\n")
    result = project.run("a b")
    result.stdout.fnmatch_lines(["*more than 1 test measured worse*"])


@pytest.mark.parametrize("flag", ["--gpuperf-max-confirm=0", "--gpuperf-max-confirm=few"])
def test_a_wrong_number_is_a_usage_error(pytester: pytest.Pytester, flag: str):
    result = pytester.runpytest_subprocess("--gpuperf", flag)
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["*is not a whole number from 1*"])
