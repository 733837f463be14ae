"""Past a number of tests that tripped, one set of replicas measures all that are left."""

from __future__ import annotations

import pytest
from latencies import INI, HostProject
from once import run_once

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


class Project(HostProject):
    def __init__(self, pytester: pytest.Pytester) -> None:
        super().__init__(pytester, SUITE)
        (self.path / "slow.txt").write_text("")
        assert run_once(pytester, "--gpuperf", "--gpuperf-update", "--gpuperf-runs=3").ret == 0

    def run(self, slow: str, *flags: str) -> pytest.RunResult:
        for file in (*self.path.glob("*.pids"), self.path / "unmeasured"):
            file.unlink(missing_ok=True)
        (self.path / "slow.txt").write_text(slow)
        return self.judge(*flags)

    def replicas(self, name: str) -> list[str]:
        """The processes that measured a test after its first one."""
        return (self.path / f"{name}.pids").read_text().split()[1:]


def test_later_trips_share_one_set_and_fail_as_themselves(project: Project):
    result = project.run("a b d e", "--gpuperf-max-confirm=1")
    result.assert_outcomes(failed=4, passed=2)
    result.stdout.fnmatch_lines(["*more than 1 test measured worse*4 processes measure all 3 that are left"])
    alone, shared = project.replicas("a"), project.replicas("b")
    assert len(set(alone)) == len(set(shared)) == 4
    assert not set(alone) & set(shared)
    # c was measured by them too, before its own turn, and d's trip was judged from them
    assert (project.path / "c.pids").read_text().split()[:4] == shared
    assert (project.path / "d.pids").read_text().split()[:4] == shared
    assert len((project.path / "d.pids").read_text().split()) == 5
    # a test in a process of its own would gain nothing, and one that measures nothing is left out
    assert len((project.path / "e.pids").read_text().split()) == 5
    assert (project.path / "unmeasured").read_text() == "x"


def test_up_to_the_number_each_test_has_a_set_of_its_own(project: Project):
    result = project.run("a b")
    result.assert_outcomes(failed=2, passed=4)
    assert not set(project.replicas("a")) & set(project.replicas("b"))
    assert len((project.path / "c.pids").read_text().split()) == 1


def test_a_test_that_the_shared_set_did_not_measure_has_its_own(project: Project):
    with (project.path / "test_suite.py").open("a") as file:
        file.write("\ndef test_new(gpuperf): measure(gpuperf, 'new')\n")
    suite = project.path / "test_suite.py"
    suite.write_text(suite.read_text().replace('"s")', '"s", max=1.2)'))
    result = project.run("a b new", "--gpuperf-max-confirm=1")
    result.assert_outcomes(failed=3, passed=4)
    assert not set(project.replicas("new")) & set(project.replicas("b"))


def test_the_ini_key_is_the_default(project: Project):
    project.pytester.makeini(f"{INI}gpuperf_max_confirm = 1\n")
    result = project.run("a b")
    result.stdout.fnmatch_lines(["*more than 1 test measured worse*"])
