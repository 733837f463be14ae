"""Children are the same session: which options and variables they get, and what a revision refuses."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from gitproject import Repository

from pytest_gpuperf.processes.options import NOT_INHERITED, NOT_PASSED_ON, environment, passed_on

SIZE = """
    def pytest_addoption(parser):
        parser.addoption("--size", type=float, default=1)
        parser.addoption("--lists", nargs="*", default=[])
        parser.addoption("--fast", action="store_true")
"""
ISOLATED = """
    import os, pytest
    pytestmark = pytest.mark.gpuperf(isolated=True)
"""


@pytest.mark.parametrize(
    ("given", "passed"),
    [
        ("--size 4 suites", "--size=4 suites"),
        ("--size=4 --fast", "--size=4 --fast"),
        ("--lists a b --fast c", "--lists a b --fast c"),
        ("-k one -m two --deselect x", ""),
        ("-kone --size=2", "--size=2"),
        ("-xvs", "-v"),
        ("-xvk one", "-v"),
        ("--last-failed --ff --stepwise", ""),
        ("--maxfail 1 --junitxml out.xml --junitxml=out.xml", ""),
        ("-W error -Werror -o markers=a:b", "-W error -Werror -o markers=a:b"),
        ("--import-mode importlib --basetemp there", "--import-mode=importlib"),
        ("--gpuperf --gpuperf-pool x --gpuperf-runs=3", ""),
        ("-p no:doctest --strict-markers --tb=short", "-p no:doctest --strict-markers --tb=short"),
        ("suites/test_a.py::test_b[--size]", "suites/test_a.py::test_b[--size]"),
    ],
)
def test_options_travel_but_for_those_of_the_table(pytester: pytest.Pytester, given: str, passed: str):
    pytester.makeconftest(SIZE)
    options, paths = passed_on(pytester.parseconfig(*given.split()))
    assert [*options, *paths] == passed.split()


def test_the_command_line_is_put_together_as_pytest_does(pytester: pytest.Pytester, monkeypatch):
    pytester.makeconftest(SIZE)
    pytester.makeini("[pytest]\naddopts = --size=1 -x\n")
    monkeypatch.setenv("PYTEST_ADDOPTS", "--size=2 --junitxml=out.xml")
    (pytester.path / "more").write_text("--size=3\n-kname\n")
    options, _ = passed_on(pytester.parseconfig("@more", "--fast"))
    assert options == ["--size=1", "--size=2", "--size=3", "--fast"]


def test_an_option_of_an_unloaded_plugin_is_the_projects_own(pytester: pytest.Pytester):
    pytester.makeconftest(
        """
        def pytest_addoption(parser):
            parser.addoption("--group")
            parser.addoption("--alluredir")
            parser.addoption("--covariance")
        """
    )
    words = ["--group=a", "--alluredir=b", "--covariance=c"]
    assert passed_on(pytester.parseconfig(*words))[0] == words


def test_variables_that_name_reports_stay_behind(monkeypatch):
    behind = ("PYTEST_ADDOPTS", "PYTEST_XDIST_WORKER", "COVERAGE_FILE", "COV_CORE_SOURCE")
    behind += ("GITHUB_OUTPUT", "GITHUB_STEP_SUMMARY", "GITHUB_ENV", "GITHUB_PATH", "JUNIT_XML")
    for name in (*behind, "GITHUB_SHA", "PYTEST_PLUGINS", "SIZE"):
        monkeypatch.setenv(name, "x")
    assert not set(behind) & set(environment())
    assert {"GITHUB_SHA", "PYTEST_PLUGINS", "SIZE"} <= set(environment())


def test_the_docs_name_every_option_that_stays_behind():
    text = (Path(__file__).parent.parent / "docs" / "reference.md").read_text()
    section = text.partition("## Children\n")[2].partition("\n## ")[0]
    options = [name for kind in NOT_PASSED_ON.values() for names in kind.values() for name in names.split()]
    assert not [name for name in (*NOT_INHERITED, *options) if f"`{name}`" not in section]


def test_a_child_is_the_same_session(pytester: pytest.Pytester, monkeypatch):
    pytester.makeini("[pytest]\naddopts = --import-mode=importlib\nlog_file = session.log\n")
    pytester.makeconftest(SIZE)
    (pytester.path / "session.log").write_text("the session's own")
    monkeypatch.setenv("PYTEST_ADDOPTS", "--size=4 --junitxml=out.xml")
    monkeypatch.setenv("GITHUB_OUTPUT", str(pytester.path / "output"))
    pytester.makepyfile(
        ISOLATED
        + """
    import sys, warnings

    def test_options(request, cache, tmp_path_factory):
        option = request.config.option
        assert (option.size, option.fast, option.importmode) == (4, True, "importlib")
        assert option.xmlpath is None and option.keyword == "" and not option.maxfail
        assert "PYTEST_ADDOPTS" not in os.environ and "GITHUB_OUTPUT" not in os.environ
        assert cache.get("suite/known", "") == "by the session"
        assert str(tmp_path_factory.getbasetemp()) != os.environ["THEIRS"]
        with pytest.raises(UserWarning):
            warnings.warn("as the command line says", stacklevel=1)
    """
    )
    monkeypatch.setenv("THEIRS", str(pytester.path / "theirs"))
    (pytester.path / ".pytest_cache/v/suite").mkdir(parents=True)
    (pytester.path / ".pytest_cache/v/suite/known").write_text('"by the session"')
    flags = (
        "--fast",
        "-x",
        "-k",
        "options",
        "-W",
        "error::UserWarning",
        f"--basetemp={os.environ['THEIRS']}",
    )
    result = pytester.runpytest_subprocess(*flags)
    result.assert_outcomes(passed=1)


def test_what_failed_in_a_child_is_the_sessions_last_failed(pytester: pytest.Pytester):
    pytester.makepyfile(
        ISOLATED
        + """
    def test_fails(): assert not os.path.exists("broken")
    def test_passes(): pass
    """
    )
    (pytester.path / "broken").touch()
    pytester.runpytest().assert_outcomes(passed=1, failed=1)
    kept = pytester.path / ".pytest_cache/v/cache/lastfailed"
    assert list(json.loads(kept.read_text())) == [f"{next(pytester.path.glob('test_*.py')).name}::test_fails"]
    pytester.runpytest("--lf").assert_outcomes(failed=1)
    (pytester.path / "broken").unlink()
    pytester.runpytest("--lf").assert_outcomes(passed=1)


def test_a_conftest_on_the_sessions_paths_has_its_options(pytester: pytest.Pytester):
    # pytest reads the conftest.py files of the paths that it is given, and of test* below them, at the start.
    pytester.mkdir("tests").joinpath("conftest.py").write_text(
        "def pytest_addoption(parser): parser.addoption('--size')\n"
    )
    pytester.mkdir("suites").joinpath("test_a.py").write_text(
        "import pytest\n"
        "@pytest.mark.gpuperf(isolated=True)\n"
        "def test_a(request): assert request.config.option.size == '4'\n"
    )
    pytester.runpytest_subprocess("--size=4").assert_outcomes(passed=1)


def recorded(pytester: pytest.Pytester) -> set[str]:
    files = pytester.path.glob("baselines/*/**/*.json")
    return {f"{file.stem}: {test}" for file in files for test in json.loads(file.read_text())["entries"]}


def test_a_baseline_is_recorded_with_the_options_asked_for(pytester: pytest.Pytester):
    pytester.makeini("[pytest]\ngpuperf_judge_host_times = true\n")
    pytester.makeconftest(
        """
        def pytest_addoption(parser): parser.addoption("--shapes", default="16")
        def pytest_generate_tests(metafunc):
            metafunc.parametrize("shape", metafunc.config.getoption("--shapes").split(","))
        def pytest_terminal_summary():
            with open("summaries", "a") as file:
                file.write("one ")
        """
    )
    pytester.makepyfile(test_s="def test_s(gpuperf, shape): gpuperf.record('t', float(shape), 's')\n")
    pytester.mkdir("baselines")
    command = ("--shapes", "32,64", "--gpuperf", "--gpuperf-update", "--gpuperf-runs=3")
    assert pytester.runpytest_subprocess(*command).ret == 0
    assert recorded(pytester) == {"test_s: test_s[32]", "test_s: test_s[64]"}
    assert (pytester.path / "summaries").read_text() == "one "  # nobody reads a child's


def test_files_of_one_name_are_recorded_in_importlib_mode(pytester: pytest.Pytester):
    pytester.makeini("[pytest]\ngpuperf_judge_host_times = true\n")
    for folder in "ab":
        path = pytester.mkdir(folder) / "test_s.py"
        path.write_text("def test_s(gpuperf): gpuperf.record('t', 1.0, 's')\n")
    pytester.mkdir("baselines")
    command = ("--import-mode=importlib", "--gpuperf", "--gpuperf-update", "--gpuperf-runs=3")
    assert pytester.runpytest_subprocess(*command).ret == 0
    assert len(list(pytester.path.glob("baselines/*/**/test_s.json"))) == 2


@pytest.fixture
def sized(pytester: pytest.Pytester) -> Repository:
    repository = Repository(pytester)
    repository.write("pytest.ini", "[pytest]\npythonpath = .\n")
    repository.write("cost.py", "def cost(size): return 1\n")
    repository.write(
        "test_s.py",
        """
        from cost import cost
        def test_s(gpuperf, request):
            size = request.config.getoption("--size", 1)
            gpuperf.record("n", cost(float(size)), kind="exact")
        """,
    )
    return repository


def test_both_sides_of_a_comparison_have_the_options(sized: Repository):
    sized.write("conftest.py", SIZE)
    sized.commit()
    sized.write("cost.py", "def cost(size): return 2 if size > 2 else 1\n")
    assert sized.run("--gpuperf-against=HEAD").ret == 0
    result = sized.run("--gpuperf-against=HEAD", "--size=4")
    assert result.ret == 1
    result.stdout.fnmatch_lines(["regressed: n x2*"])


def test_an_option_unknown_to_the_revision_is_refused_by_name(sized: Repository):
    sized.commit()
    sized.write("conftest.py", SIZE)
    result = sized.run("--gpuperf-against=HEAD", "--size", "4", "--fast")
    assert result.ret == 1
    result.stdout.re_match_lines(
        [r"HEAD \(\w+\) does not know --size=4 --fast: leave that out, or compare with a revision that .*"]
    )
    result.stdout.no_fnmatch_line("*unrecognized*")


def test_a_value_that_the_revision_refuses_is_named(sized: Repository):
    choices = "def pytest_addoption(parser): parser.addoption('--size', choices=[%s], default='1')\n"
    sized.write("conftest.py", choices % "'1'")
    sized.commit()
    sized.write("conftest.py", choices % "'1', '4'")
    result = sized.run("--gpuperf-against=HEAD", "--size=4")
    assert result.ret == 1
    result.stdout.re_match_lines([r"HEAD \(\w+\) refuses its options .*--size: invalid choice: '4'.*"])


def test_an_old_code_that_does_not_know_an_option_is_not_asked(sized: Repository):
    """The stored runs then decide, and the verdict says why."""
    sized.write("pytest.ini", "[pytest]\ngpuperf_judge_host_times = true\n")
    test = "def test_s(gpuperf): gpuperf.record('t', %s, 's')\n"
    sized.write("test_s.py", test % 1.0)
    sized.write("baselines/.gitkeep", "")
    sized.commit()
    assert sized.run("--gpuperf-update", "--gpuperf-runs=5").ret == 0
    sized.write("conftest.py", SIZE)
    sized.write("test_s.py", test % 2.0)
    result = sized.run("--size=4")
    assert result.ret == 1
    result.stdout.fnmatch_lines(["*does not know --size=4*"])
