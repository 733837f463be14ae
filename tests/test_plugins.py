"""Other plugins and pytest's own selection beside --gpuperf, each in a session of its own.

A plugin that is not installed skips its tests, by name. What is judged is exact where that will do: a noisy
figure takes replicas.
"""

from __future__ import annotations

import importlib.util
import json
import re
import time

import pytest
from gitproject import Repository
from once import run_once

INI = "[pytest]\ngpuperf_judge_host_times = true\ngpuperf_acquit = off\n"
VALUE = """
    import os, time, pytest
    VALUE = float(os.environ.get("VALUE", 1))
"""


class Project:
    """A user's project, whose sessions load this plugin and those that are named, and no other."""

    def __init__(self, pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> None:
        self.pytester, self.path, self._monkeypatch = pytester, pytester.path, monkeypatch
        pytester.makeini(INI)
        pytester.mkdir("baselines")

    def write(self, text: str, name: str = "test_s") -> None:
        self.pytester.makepyfile(**{name: VALUE + text})

    def run(self, plugins: str, *flags: str, **variables: object) -> pytest.RunResult:
        """Run the tests with ``plugins``, such as "xdist.plugin"; skips where one is not installed."""
        for plugin in plugins.split():
            if importlib.util.find_spec(plugin.partition(".")[0]) is None:
                pytest.skip(f"{plugin.partition('.')[0]} is not installed")
        with self._monkeypatch.context() as patch:
            for name in ("PYTEST_XDIST_WORKER", "PYTEST_XDIST_WORKER_COUNT"):
                patch.delenv(name, raising=False)  # in a worker pytest-benchmark measures nothing
            for name, value in variables.items():
                patch.setenv(name, str(value))
            loading = (word for plugin in plugins.split() for word in ("-p", plugin))
            start = run_once if "--gpuperf-update" in flags else type(self.pytester).runpytest_subprocess
            return start(self.pytester, *loading, "--gpuperf", *flags)

    def record(self, plugins: str = "", *flags: str) -> None:
        assert self.run(plugins, "--gpuperf-update", "--gpuperf-runs=3", *flags).ret == 0


@pytest.fixture
def project(pytester: pytest.Pytester, monkeypatch) -> Project:
    return Project(pytester, monkeypatch)


# --------------------------------------------------------------------------- pytest-xdist

XDIST = "xdist.plugin"


@pytest.mark.parametrize("dist", ["load", "loadfile", "worksteal"])
def test_xdist_judges_each_test_in_its_worker(project: Project, dist: str):
    project.pytester.makeconftest("def pytest_addoption(parser): parser.addoption('--size')")
    for name in ("test_a", "test_b"):
        project.write(
            """
    def test_s(gpuperf): gpuperf.record("n", VALUE, kind="exact")

    @pytest.mark.gpuperf(isolated=True)
    def test_own(gpuperf, request):
        gpuperf.record("n", float(request.config.option.size), kind="exact")
    """,
            name,
        )
    project.record("", "--size=2")
    flags = ("-n2", f"--dist={dist}", "--size=2")
    assert project.run(XDIST, *flags).ret == 0
    result = project.run(XDIST, *flags, VALUE=3)
    assert result.ret == 1
    result.assert_outcomes(passed=2, failed=2)
    result.stdout.fnmatch_lines(["regressed: n x3*"])


# --------------------------------------------------------------------------- pytest-timeout's session


@pytest.mark.parametrize("limit", ["", "session_timeout = 500\n"], ids=["no limit", "a limit"])
def test_a_process_of_several_tests_has_no_limit_of_a_session(project: Project, limit: str):
    project.pytester.makeini(INI + limit)
    project.write(
        """
    def test_a(gpuperf): gpuperf.record("t", VALUE, "s")
    def test_b(gpuperf): gpuperf.record("t", VALUE, "s")
    """
    )
    project.record("pytest_timeout")
    assert project.run("pytest_timeout").ret == 0


# --------------------------------------------------------------------------- pytest-rerunfailures

RERUNS = "pytest_rerunfailures"
FLAKY = """
    %s
    def test_s(gpuperf):
        gpuperf.record("n", VALUE, kind="exact")
        if "FLAKY" in os.environ and not os.path.exists("failed"):
            open("failed", "w").close()
            pytest.fail("its own message")
"""


@pytest.mark.parametrize("mark", ["", "@pytest.mark.gpuperf(isolated=True)"])
def test_a_rerun_measures_afresh(project: Project, mark: str):
    project.write(FLAKY % mark)
    project.record()
    result = project.run(RERUNS, "--reruns=2", "-rR", FLAKY=1)
    assert result.ret == 0
    result.stdout.fnmatch_lines(["*1 passed, 1 rerun*"])
    result = project.run(RERUNS, "--reruns=1", VALUE=2)
    assert result.ret == 1
    result.stdout.fnmatch_lines(["regressed: n x2*", "1 regressed"])
    result.stdout.no_fnmatch_line("*twice*")


def test_an_attempt_whose_teardown_failed_counts_no_more(project: Project):
    project.write("""
    @pytest.fixture
    def failing_once():
        yield
        if not os.path.exists("failed"):
            open("failed", "w").close()
            pytest.fail("in its teardown")

    def test_s(gpuperf, failing_once): gpuperf.record("n", VALUE, kind="exact")
    """)
    result = project.run(RERUNS, "--reruns=1", "--gpuperf-strict=off", "--gpuperf-json=out.json")
    result.stdout.fnmatch_lines(["1 no baseline", "*2 passed, 1 rerun*"])
    (test,) = json.loads((project.path / "out.json").read_text())["tests"]
    assert [metric["name"] for metric in test["metrics"]] == ["n"]


def test_a_test_that_fails_every_time_shows_its_own_message(project: Project):
    project.write(
        '    def test_s(gpuperf): gpuperf.record("n", 1, kind="exact"); pytest.fail("its own message")'
    )
    result = project.run(RERUNS, "--reruns=2")
    result.stdout.fnmatch_lines(["*Failed: its own message*", "*1 failed, 2 rerun*"])
    result.stdout.no_fnmatch_line("*twice*")


def test_a_fixture_may_fail_before_an_isolated_test(project: Project):
    # That teardown is reported without a setup of the isolated test, whose setup is another process's.
    project.write(
        """
    @pytest.fixture(scope="module")
    def shared():
        yield
        assert not "torn down"

    def test_here(shared): pass

    @pytest.mark.gpuperf(isolated=True)
    def test_own(): pass
    """
    )
    result = project.run(RERUNS, "--reruns=1")
    result.assert_outcomes(passed=2, errors=1)
    result.stdout.fnmatch_lines(["ERROR test_s.py::test_own - AssertionError*"])


# --------------------------------------------------------------------------- pytest-timeout

TIMEOUT = "pytest_timeout"
METHODS = pytest.mark.parametrize("method", ["signal", "thread"])


@METHODS
def test_replicas_do_not_count_against_a_tests_time_limit(project: Project, method: str):
    project.write(
        """
    def test_s(gpuperf):
        first = "FIRST" in os.environ and not os.path.exists("spiked")
        if first:
            open("spiked", "w").close()
        elif "FIRST" in os.environ:
            time.sleep(0.6)  # each replica: together they take longer than the limit
        gpuperf.record("t", 1.5 if first else 1.0, "s")
    """
    )
    project.record()
    result = project.run(TIMEOUT, "--timeout=2", f"--timeout-method={method}", FIRST=1)
    assert result.ret == 0
    result.assert_outcomes(passed=1)
    assert (project.path / "spiked").exists()


@METHODS
def test_a_time_limit_ends_an_isolated_test_not_the_session(project: Project, method: str):
    project.write(
        """
    @pytest.mark.gpuperf(isolated=True)
    def test_hangs(): time.sleep(100)

    @pytest.mark.gpuperf(isolated=True)
    def test_phase(request):
        from pytest_gpuperf.waking import session_of
        with session_of(request.config).phase():
            time.sleep(2.5)

    def test_after(): pass
    """
    )
    start = time.monotonic()
    result = project.run(TIMEOUT, "--timeout=2", f"--timeout-method={method}")
    assert result.ret == 1
    result.assert_outcomes(passed=2, failed=1)
    result.stdout.fnmatch_lines(["*Timeout*"])
    assert time.monotonic() - start < 60


@METHODS
def test_a_time_limit_holds_for_the_test_all_the_same(project: Project, method: str):
    project.write("    def test_hangs(gpuperf): time.sleep(100)")
    result = project.run(TIMEOUT, "--timeout=1", f"--timeout-method={method}")
    assert result.ret == 1
    assert "Timeout" in f"{result.stdout}{result.stderr}"  # the thread's way ends the session, as ever


def test_what_is_left_of_a_limit_still_holds_after_a_pause(project: Project):
    project.write(
        """
    def test_s(request):
        from pytest_gpuperf.processes.limits import paused
        time.sleep(0.5)
        with paused(request.config):
            time.sleep(2)
        time.sleep(60)
    """
    )
    result = project.run(TIMEOUT, "--timeout=1.5")
    result.stdout.fnmatch_lines(["*Timeout *>1.5s*"])


def test_a_comparison_does_not_count_against_a_tests_time_limit(project: Project):
    repository = Repository(project.pytester)
    project.write('    def test_s(gpuperf): time.sleep(0.5); gpuperf.record("n", VALUE, kind="exact")')
    repository.commit()
    result = project.run(TIMEOUT, "--timeout=0.8", "--gpuperf-against=HEAD")
    assert result.ret == 0
    result.assert_outcomes(passed=1)


# --------------------------------------------------------------------------- order, coverage, reports


def test_randomly_shuffles_tests_and_every_process_has_its_seed(project: Project):
    project.write(
        """
    import random

    @pytest.mark.parametrize("number", range(4))
    def test_s(gpuperf, number):
        gpuperf.record("t", 1.0, "s")
        gpuperf.record("drawn", random.randrange(10**6), kind="exact")  # the same in all processes
    """
    )
    project.record("pytest_randomly", "-p", "cacheprovider", "--randomly-seed=7")
    assert project.run("pytest_randomly", "--randomly-seed=7").ret == 0


def test_coverage_is_the_sessions(project: Project):
    project.pytester.makepyfile(lib="def cost():\n    return 1.0\n")
    project.write("    from lib import cost\n    def test_s(gpuperf): gpuperf.record('t', cost(), 's')")
    project.record("pytest_cov.plugin", "--cov=lib", "--cov-report=json:cov.json", "--cov-fail-under=90")
    assert json.loads((project.path / "cov.json").read_text())["totals"]["percent_covered"] == 100
    result = project.run("pytest_cov.plugin", "--cov=lib", "--cov-report=term")
    assert result.ret == 0
    result.stdout.fnmatch_lines(["lib.py*100%*"])


def test_an_html_report_has_every_test_and_no_child_writes_one(project: Project):
    project.write("    def test_s(gpuperf): gpuperf.record('t', 1.0, 's')")
    plugins = "pytest_metadata.plugin pytest_html.plugin"
    project.record(plugins, "--html=report.html", "--self-contained-html")
    assert "test_s.py::test_s" in (project.path / "report.html").read_text()


def test_junit_is_the_sessions(project: Project):
    project.write(
        "    @pytest.mark.gpuperf(isolated=True)\n    def test_s(gpuperf): gpuperf.record('t', 1.0, 's')"
    )
    project.record("", "--junitxml=out.xml")
    assert re.search(r'tests="1".*name="test_s"', (project.path / "out.xml").read_text(), re.S)


def test_a_benchmarks_json_is_the_sessions(project: Project):
    project.write("    def test_s(benchmark): benchmark.pedantic(time.sleep, (0.001,), rounds=3)")
    project.record("pytest_benchmark.plugin", "--benchmark-json=out.json")
    assert len(json.loads((project.path / "out.json").read_text())["benchmarks"]) == 1
    assert len(list(project.path.glob("baselines/*/test_s.json"))) == 1


def test_a_slow_first_call_leaves_a_benchmark_its_rounds(project: Project):
    project.write("""
    def test_s(benchmark):
        calls = iter([0.3])  # as one that compiles
        benchmark(lambda: time.sleep(next(calls, 0.001)))
    """)
    project.run("pytest_benchmark.plugin", "--benchmark-json=out.json", "--benchmark-max-time=0.2")
    (timed,) = json.loads((project.path / "out.json").read_text())["benchmarks"]
    assert timed["stats"]["rounds"] > 20  # of 200; five without


def test_a_benchmark_that_was_not_timed_is_not_gone(project: Project):
    project.write("""
    def test_s(benchmark): benchmark.pedantic(time.sleep, (0.001,), rounds=3)
    def test_n(gpuperf, benchmark):
        gpuperf.record("n", 1, kind="exact")
        benchmark.pedantic(time.sleep, (0.001,), rounds=3)
    """)
    project.record("pytest_benchmark.plugin")
    (file,) = project.path.glob("baselines/*/test_s.json")
    before = file.read_text()
    untimed = "pytest_benchmark.plugin", "--benchmark-disable"
    for update in ("--gpuperf-update=prune", "--gpuperf-update"):
        result = project.run(*untimed, update)
        assert result.ret == 0
        assert "Dropped" not in result.stdout.str()
        assert file.read_text() == before
    result = project.run(*untimed, "--gpuperf-strict=off")
    result.stdout.fnmatch_lines(["missing *test_s*", "*test_s missing:", "  *pytest-benchmark is disabled*"])
    assert "=prune" not in result.stdout.str()


# --------------------------------------------------------------------------- other ways to write a test

ASYNC = """
    @pytest.mark.asyncio
    async def test_s(gpuperf): gpuperf.record("n", VALUE, kind="exact")
"""
SUBTESTS = """
    def test_s(gpuperf, subtests):
        for number in range(2):
            with subtests.test(number=number):
                gpuperf.record(f"n{number}", VALUE, kind="exact")
"""
UNITTEST = """
    import unittest

    class TestCost(unittest.TestCase):
        @pytest.fixture(autouse=True)
        def take(self, gpuperf): self.gpuperf = gpuperf

        def test_s(self): self.gpuperf.record("n", VALUE, kind="exact")
"""
# Since pytest 9 it has subtests itself.
_SUBTESTS = "" if importlib.util.find_spec("_pytest.subtests") else "pytest_subtests.plugin"


@pytest.mark.parametrize(
    ("plugins", "text"),
    [("pytest_asyncio.plugin", ASYNC), (_SUBTESTS, SUBTESTS), ("", UNITTEST)],
    ids=["asyncio", "subtests", "unittest"],
)
@pytest.mark.parametrize("isolated", [False, True], ids=["here", "isolated"])
def test_it_is_judged_like_any_other(project: Project, plugins: str, text: str, isolated: bool):
    mark = "    pytestmark = pytest.mark.gpuperf(isolated=True)\n" if isolated else ""
    project.write(mark + text)
    project.record(plugins)
    assert project.run(plugins).ret == 0
    result = project.run(plugins, VALUE=2)
    assert result.ret == 1
    result.stdout.fnmatch_lines(["regressed: n* x2*"])


# --------------------------------------------------------------------------- pytest's own selection

TWO = """
    def test_a(gpuperf): gpuperf.record("n", VALUE, kind="exact")
    def test_b(gpuperf): gpuperf.record("n", 1, kind="exact")
"""


@pytest.mark.parametrize(
    ("flag", "first", "again"),
    [
        ("-x", "1 failed in *", "1 failed in *"),
        ("--sw", "*1 failed in *", "*1 failed in *"),
        ("--lf", "1 failed, 1 passed in *", "1 failed in *"),
        ("--ff", "1 failed, 1 passed in *", "1 failed, 1 passed in *"),
        ("-k test_a", "1 failed, 1 deselected in *", "1 failed, 1 deselected in *"),
    ],
)
def test_a_selection_judges_what_it_ran_and_misses_nothing_else(
    project: Project, flag: str, first: str, again: str
):
    project.write(TWO)
    project.record()
    for outcome in (first, again):
        result = project.run("", *flag.split(), VALUE=2)
        assert result.ret in (1, 2)  # --sw interrupts the session
        result.stdout.fnmatch_lines(["regressed: n x2*", f"*{outcome}*"])
        result.stdout.no_fnmatch_line("*missing*")
    assert project.run("", *flag.split()).ret == 0
