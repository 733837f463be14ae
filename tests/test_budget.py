"""A run under a budget: what comes first, what is left out, and who fails for it."""

from __future__ import annotations

import os
import time

import pytest
from latencies import INI, HostProject
from once import run_once

# Each measurement is logged with its process; the files beside the suite say how slow a test is now,
# which one naps until the budget is over, and in which one somebody presses Ctrl-C.
SUITE = """
import os, pathlib, time
import pytest

HERE = pathlib.Path(__file__).parent
SET = dict(line.split() for line in (HERE / "set.txt").read_text().splitlines())

def log(name):
    with (HERE / "log.txt").open("a") as file:
        file.write(f"{name} {os.getpid()}\\n")

def measure(gpuperf, name):
    first = not (HERE / "log.txt").exists() or f"{name} " not in (HERE / "log.txt").read_text()
    log(name)
    gpuperf.record(name, float(SET.get(name, 1.0)), "s")
    if "nap" in SET and (SET["nap"] == name) is first:
        time.sleep(float(SET["seconds"]))

def test_a(gpuperf): measure(gpuperf, "a")
def test_b(gpuperf): measure(gpuperf, "b")
def test_c(gpuperf): measure(gpuperf, "c")

def test_d(benchmark):
    assert benchmark(lambda: log("d") or 4) == int(SET.get("d", 4))

@pytest.mark.gpuperf(isolated=True)
def test_e(gpuperf): measure(gpuperf, "e")

def test_z():
    if "interrupt" in SET:
        raise KeyboardInterrupt
"""
PLUGINS = "pytest_gpuperf.plugin,pytest_benchmark.plugin,xdist.plugin"


class Project(HostProject):
    def __init__(self, pytester: pytest.Pytester) -> None:
        super().__init__(pytester, SUITE, f"{INI}addopts = --benchmark-min-rounds=1 --benchmark-max-time=0\n")
        (self.path / "set.txt").write_text("")
        assert run_once(pytester, "--gpuperf", "--gpuperf-update", "--gpuperf-runs=3").ret == 0

    def run(self, budget: float, *flags: str, **settings: object) -> pytest.RunResult:
        (self.path / "log.txt").unlink(missing_ok=True)
        (self.path / "set.txt").write_text("".join(f"{k} {v}\n" for k, v in settings.items()))
        return self.judge(f"--gpuperf-budget={budget}", *flags)

    @property
    def log(self) -> str:
        """The names in the order in which they were measured."""
        return "".join(line.split()[0] for line in (self.path / "log.txt").read_text().splitlines())


@pytest.fixture
def project(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> Project:
    """With the plugins that are used here and no other, which would take longer to start than all of these.

    Without xdist's variables, by which pytest-benchmark would take any process for a worker.
    """
    for name in list(os.environ):
        if name.startswith("PYTEST_XDIST"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")
    monkeypatch.setenv("PYTEST_PLUGINS", PLUGINS)
    return Project(pytester)


def test_screens_come_first_then_the_largest_excess(project: Project):
    result = project.run(10, "--gpuperf-strict=on", "-k", "not test_d", a=1.5, c=2.0)
    assert project.log == "abce" + "cccc" + "aaaa"
    result.assert_outcomes(passed=3, failed=2, deselected=1)
    assert result.ret == 1
    result.stdout.fnmatch_lines(["regressed: c x2*", "regressed: a +50.00 %*", "2 regressed*"])


def test_tests_with_a_baseline_come_first(project: Project):
    suite = project.path / "test_suite.py"
    suite.write_text(
        suite.read_text().replace("def test_a(", "def test_n(gpuperf): measure(gpuperf, 'n')\ndef test_a(")
    )
    project.run(10, "-k", "test_n or test_a or test_b")
    assert project.log == "abn"


def test_what_comes_too_late_is_unmeasured_and_strict_decides(project: Project):
    late = {"nap": "a", "seconds": 4, "k": 1}
    result = project.run(0.06, "--gpuperf-strict=off", **late)
    assert result.ret == 0
    result.assert_outcomes(passed=6)
    assert project.log.count("d") == 1, "a benchmark beyond the budget runs for its result, once"
    result.stdout.fnmatch_lines_random(
        [
            "unmeasured *test_d*",
            "unmeasured *test_e*",
            "2 tests could not be measured and judged: the budget of 0.06 minutes*was spent",
        ]
    )
    result = project.run(0.06, "--gpuperf-strict=on", **late)
    assert result.ret == 22
    result.stdout.fnmatch_lines(["*test_d: benchmark unmeasured: not measured: the budget*"])


def test_correctness_does_not_depend_on_the_budget(project: Project):
    result = project.run(0.0001, "--gpuperf-strict=off", d=5)
    assert result.ret == 1
    result.assert_outcomes(passed=5, failed=1)


def test_an_unconfirmed_trip_is_unmeasured_and_strict_decides(project: Project):
    late = {"a": 1.5, "nap": "a", "seconds": 4}
    only = ("-k", "test_a or test_b")
    result = project.run(0.06, "--gpuperf-strict=off", *only, **late)
    assert result.ret == 0
    assert project.log == "ab"
    result.stdout.fnmatch_lines(["unmeasured *test_a*+50.00 %*"])
    result = project.run(0.06, "--gpuperf-strict=on", *only, **late)
    assert result.ret == 22
    result.assert_outcomes(passed=1, failed=1, deselected=4)
    result.stdout.fnmatch_lines(
        ["*measured worse once, and the budget*was spent before it was measured again"]
    )


def test_a_replica_is_ended_with_the_budget(project: Project):
    start = time.monotonic()
    suite = project.path / "test_suite.py"
    text = suite.read_text().replace("    log(name)\n", "    log(name)\n    if not first: time.sleep(90)\n")
    suite.write_text(text)
    result = project.run(0.1, "--gpuperf-strict=off", "-k", "test_a", a=1.5)
    assert result.ret == 0
    result.stdout.fnmatch_lines(["unmeasured *test_a*"])
    assert time.monotonic() - start < 80


@pytest.mark.parametrize("how", ["interrupt", "stop"])
def test_what_was_held_back_is_reported_when_the_run_ends_early(project: Project, how: str):
    settings = {"interrupt": 1} if how == "interrupt" else {"d": 5}
    result = project.run(10, "--gpuperf-strict=off", "-x", a=1.5, **settings)
    assert result.ret == (2 if how == "interrupt" else 1)
    result.stdout.fnmatch_lines(["unmeasured *test_a*"])
    assert project.log.count("a") == 1


def test_in_a_worker_too(project: Project):
    result = project.run(10, "-n1", "-k", "test_a or test_b", a=1.5)
    result.assert_outcomes(passed=1, failed=1)
    result = project.run(0.0001, "-n1", "--gpuperf-strict=on")
    assert result.ret == 22
    result.stdout.fnmatch_lines_random(
        ["unmeasured *test_d*", "unmeasured *test_e*", "*test_e: e unmeasured*"]
    )
    result = project.run(0.0001, "-n1", "--gpuperf-strict=on", "-k", "test_b or test_e")
    assert result.ret == 22
    result.stdout.fnmatch_lines(["*test_e: not measured: the budget*"])
    result.stdout.no_fnmatch_line("missing*")


def test_one_set_of_replicas_serves_what_is_held_back(project: Project):
    result = project.run(
        10, "--gpuperf-max-confirm=1", "-k", "test_a or test_b or test_c", a=2.0, b=1.5, c=1.6
    )
    assert project.log == "abc" + "aaaa" + "cb" * 4
    result.assert_outcomes(failed=3, deselected=3)
