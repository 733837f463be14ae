"""--gpuperf-against: judged against a git revision, here and now, without a baseline and without a GPU."""

from __future__ import annotations

import datetime
import os
import signal
import subprocess
import sys

import pytest
from gitproject import Repository
from waiting import wait_until

# Each side's processes read their figures from files of their own checkout: code that can be committed.
SUITE = """
    import pathlib
    import pytest

    HERE = pathlib.Path(__file__).parent

    def figure(name):
        words = (HERE / f"{name}.txt").read_text().split()
        count = HERE / f"{name}-count.txt"
        number = int(count.read_text()) if count.exists() else 0
        count.write_text(str(number + 1))
        return float(words[number % len(words)])

    @pytest.mark.parametrize("name", ["same", "slower", "faster", "flaky"])
    def test_latency(gpuperf, name):
        gpuperf.record("latency", figure(name), "s")
"""
# What needs no alternation is compared in one process of each side.
EXACT = "def test_size(gpuperf): gpuperf.record('size', {}, kind='exact')"
WITHIN_NOISE = "1.0 1.0 1.002 0.999 1.001"


@pytest.fixture
def repository(pytester: pytest.Pytester, tmp_path_factory, monkeypatch) -> Repository:
    monkeypatch.setenv("TMPDIR", str(tmp_path_factory.mktemp("temporary")))
    return Repository(pytester, {"test_size.py": EXACT.format("4.0")})


def against(repository: Repository, *flags: str, revision: str = "HEAD") -> pytest.RunResult:
    return repository.run(f"--gpuperf-against={revision}", *flags)


def temporary() -> list[str]:
    """What the tool left in its temporary folder; pytester's own files are named otherwise."""
    return [name for name in os.listdir(os.environ["TMPDIR"]) if name.startswith("gpuperf-")]


def test_times_are_judged_without_a_baseline_and_without_a_gpu(repository: Repository):
    repository.write("test_size.py", SUITE)
    for name in ("same", "slower", "faster", "flaky"):
        repository.write(f"{name}.txt", WITHIN_NOISE)
    repository.commit()
    repository.write("slower.txt", "1.3 1.3 1.302 1.299 1.301")
    repository.write("faster.txt", "0.7")
    repository.write("flaky.txt", "1.0 1.0 1.0 nonsense 1.0")
    result = against(repository, "--gpuperf-strict=on", "--gpuperf-blocks=5", "--junitxml=out.xml")
    assert result.ret == 1
    result.assert_outcomes(passed=2, failed=2)
    result.stdout.fnmatch_lines(["gpuperf: *against HEAD (*) in 5 blocks", "*could not convert*nonsense*"])
    result.stdout.no_fnmatch_line("*--gpuperf-update*")
    head = repository.git("rev-parse", "HEAD")[:10]
    result.stdout.fnmatch_lines(
        [
            "regressed: latency +29.9? % (+*% to +*%), tolerance 5 %",
            f"  against   1.000 s  (HEAD ({head}), 4 processes)",
            "  now       1.300 s  (4 processes, alternating)",
            "  again     pytest 'test_size.py::test_latency?slower?' --gpuperf --gpuperf-against=HEAD "
            "--gpuperf-blocks=5",
            "regressed *test_latency?slower? *1.300 s *",
            "improved *test_latency?faster? *-30.0*",
            "equal *test_latency?same? *",
            "1 regressed, 1 improved, 1 equal",
            "Compared the working tree (3 uncommitted files) with HEAD (*).",
        ]
    )
    assert 'name="gpuperf.latency.verdict" value="regressed"' in (repository.path / "out.xml").read_text()
    assert (repository.path / "same-count.txt").read_text() == "5"  # one to warm up, two a block
    assert repository.worktrees == 1
    assert temporary() == []


def test_a_clean_tree_is_compared_with_an_older_commit(repository: Repository):
    repository.write("test_size.py", EXACT.format("32.0"))
    repository.commit()
    assert against(repository).ret == 0
    result = against(repository, revision="HEAD~1")
    assert result.ret == 1
    result.stdout.fnmatch_lines(["regressed: size x8*", "  against   4  (HEAD~1 (*))"])
    result.stdout.no_fnmatch_line("Compared the working tree*")


def test_the_revisions_code_is_used_wherever_it_is_found(repository: Repository):
    """A module at the root, one below src through PYTHONPATH, a conftest and a kernel's file."""
    repository.write("root_module.py", "VALUE = 2.0")
    repository.write("src/inner/__init__.py", "VALUE = 3.0")
    repository.write("suites/conftest.py", "import pytest\n@pytest.fixture\ndef five(): return 5.0")
    repository.write("suites/data.txt", "7.0")
    repository.write(
        "suites/test_parts.py",
        """
        import pathlib
        import inner, root_module

        def test_parts(gpuperf, five):
            data = float((pathlib.Path(__file__).parent / "data.txt").read_text())
            found = dict(root=root_module.VALUE, src=inner.VALUE, conftest=five, data=data)
            for name, value in found.items():
                gpuperf.record(name, value, kind="exact")
        """,
    )
    repository.commit()
    for name, value in (("root_module.py", 2), ("src/inner/__init__.py", 3), ("suites/data.txt", 7)):
        path = repository.path / name
        path.write_text(path.read_text().replace(f"{value}.0", f"{2 * value}.0"))
    repository.write("suites/conftest.py", "import pytest\n@pytest.fixture\ndef five(): return 10.0")
    command = [sys.executable, "-m", "pytest", "suites", "--gpuperf", "--gpuperf-against=HEAD"]
    env = {**os.environ, "PYTHONPATH": str(repository.path / "src")}
    done = subprocess.run(command, cwd=repository.path, env=env, capture_output=True, text=True)
    assert done.returncode == 1, done.stdout
    for name in ("root", "src", "conftest", "data"):
        assert f"regressed: {name} x2" in done.stdout


def test_code_not_taken_from_the_revision_is_never_equal(repository: Repository):
    repository.write("lib/stuck.py", "VALUE = 1.0")
    repository.write(
        "test_stuck.py",
        f"""
        import sys
        sys.path.insert(0, {str(repository.path / "lib")!r})
        import stuck

        def test_stuck(gpuperf): gpuperf.record("value", stuck.VALUE, kind="exact")
        """,
    )
    repository.commit()
    repository.write("lib/stuck.py", "VALUE = 2.0")
    result = against(repository, "test_stuck.py", "--gpuperf-strict=on")
    assert result.ret == 1
    result.stdout.fnmatch_lines(["unmeasured: value*", "*imported lib/stuck.py from this checkout*"])


def test_the_plugin_is_this_one_on_both_sides(repository: Repository, monkeypatch):
    for name in ("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "PYTEST_PLUGINS"):
        monkeypatch.delenv(name)
    repository.write("pytest_gpuperf/__init__.py", "raise ImportError('the old plugin')")
    repository.commit()
    (repository.path / "pytest_gpuperf/__init__.py").unlink()
    repository.write("test_size.py", EXACT.format("32.0"))
    result = repository.pytester.runpytest_subprocess("--gpuperf", "--gpuperf-against=HEAD")
    assert result.ret == 1
    result.stdout.fnmatch_lines(["regressed: size x8*"])


@pytest.mark.parametrize(
    ("old", "words"),
    [
        (None, "has no such test"),
        ("def test_other(): pass", "has no such test"),
        ("def test_size(gpuperf): assert 1 + 1 == 3", "fails it: assert (1 + 1) == 3"),
        ("import pytest\n@pytest.mark.skip(reason='old')\ndef test_size(gpuperf): pass", "skips it: old"),
        ("import not_there", "cannot collect it: ModuleNotFoundError: No module named 'not_there'"),
        ("def test_size(gpuperf): gpuperf.record('size', 1.0, kind='shown')", "only shows it"),
        ("import os\ndef test_size(gpuperf): os.abort()", "has a process that died of SIGABRT"),
    ],
)
def test_what_the_revision_lacks_is_said_and_fails_nothing(
    repository: Repository, old: str | None, words: str
):
    if old is None:
        (repository.path / "test_size.py").unlink()
    else:
        repository.write("test_size.py", old)
    repository.write("test_a_same.py", "def test_same(gpuperf): gpuperf.record('x', 1.0, kind='exact')")
    repository.commit()
    repository.write("test_size.py", EXACT.format("4.0"))
    result = against(repository, "--gpuperf-strict=on")
    assert result.ret == 0, result.stdout.str()
    result.assert_outcomes(passed=2)
    result.stdout.fnmatch_lines(["no baseline *test_size*", "equal *test_same*"])
    assert words in result.stdout.str()


def test_a_renamed_metric_is_lost_and_fails_strict(repository: Repository):
    repository.write("test_size.py", EXACT.replace("'size'", "'width'").format("9.0"))
    assert against(repository, "--gpuperf-strict=off").ret == 0
    result = against(repository, "--gpuperf-strict=on")
    assert result.ret == 1
    result.stdout.fnmatch_lines(
        ["missing: size", "*why*measures it, and this checkout does not; strict lets no*"]
    )
    result.stdout.fnmatch_lines(["no baseline *", "* does not measure it"])


def test_another_question_is_named_and_fails_strict(repository: Repository):
    changed = "import pytest\n@pytest.mark.gpuperf(version=2)\n" + EXACT.format("9.0")
    repository.write("test_size.py", changed)
    repository.write("test_same.py", "def test_same(gpuperf): gpuperf.record('x', 1.0, kind='exact')")
    result = against(repository)
    assert result.ret == 0
    result.stdout.fnmatch_lines(["contract changed *test_size*", "*version not set -> 2*"])
    result = against(repository, "--gpuperf-strict=on")
    assert result.ret == 1
    result.stdout.fnmatch_lines(
        ["contract changed: size", "*why*version not set -> 2; strict lets no judged*"]
    )


def test_a_test_that_fails_here_fails_with_its_own_words(repository: Repository):
    repository.write("test_sum.py", "def test_sum(gpuperf):\n    assert 1 + 1 == 3\n")
    result = against(repository)
    assert result.ret == 1
    result.assert_outcomes(passed=1, failed=1)
    result.stdout.fnmatch_lines(["*assert (1 + 1) == 3*"])


LOST = """
    import pathlib
    from pytest_gpuperf.errors import NotFit

    def test_rate(gpuperf):
        if "lost" in (pathlib.Path(__file__).parent / "machine.txt").read_text():
            raise NotFit("phases contradict each other")
        gpuperf.record("rate", 4.0, "1/s", "higher")
"""


@pytest.mark.parametrize(("there", "here"), [("lost", "fit"), ("fit", "lost")])
def test_a_side_kept_from_measuring_is_neither_red_nor_green(repository: Repository, there, here):
    repository.write("test_size.py", LOST)
    repository.write("machine.txt", there)
    repository.commit()
    repository.write("machine.txt", here)
    result = against(repository, "--gpuperf-strict=on", "-o", "gpuperf_cooldown=0.01")
    assert result.ret == 20, result.stdout.str()
    result.stdout.fnmatch_lines(["*phases contradict each other*"])


def test_plain_tests_run_once_and_here(repository: Repository):
    repository.write("test_plain.py", "import os\ndef test_plain(): open('ran.txt', 'a').write('x')")
    result = against(repository)
    result.assert_outcomes(passed=2)
    assert (repository.path / "ran.txt").read_text() == "x"


def test_an_isolated_test_is_compared_too(repository: Repository):
    isolated = "import pytest\npytestmark = pytest.mark.gpuperf(isolated=True)\n"
    repository.write("test_size.py", isolated + EXACT.format("32.0"))
    result = against(repository)
    assert result.ret == 1
    result.stdout.fnmatch_lines(["regressed: size x8*"])


def test_a_fixture_requested_while_running_is_told(repository: Repository):
    repository.write(
        "test_late.py",
        "def test_late(request): request.getfixturevalue('gpuperf').record('x', 1.0, kind='exact')",
    )
    assert against(repository, "test_late.py", "--gpuperf-strict=off").ret == 0
    result = against(repository, "test_late.py", "--gpuperf-strict=on")
    assert result.ret == 1
    result.stdout.fnmatch_lines(["*name gpuperf, counters, benchmark or loadgen among its arguments*"])


def test_nothing_judged_under_strict_is_a_matter_of_set_up(repository: Repository):
    repository.write("test_plain.py", "def test_plain(): pass")
    result = against(repository, "test_plain.py", "--gpuperf-strict=on")
    assert result.ret == 22
    result.stdout.fnmatch_lines(["nothing was judged in this run"])


def test_outside_a_repository_is_a_usage_error(pytester: pytest.Pytester):
    pytester.makepyfile("def test_it(gpuperf): pass")
    result = pytester.runpytest_subprocess("--gpuperf", "--gpuperf-against=HEAD")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["*not a git repository, so it has no revision 'HEAD': git init, and commit"])


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_comparison_leaves_no_worktree(repository: Repository, number: signal.Signals):
    repository.write(
        "test_slow.py", "import time\ndef test_slow(gpuperf):\n    open('begun', 'w')\n    time.sleep(60)"
    )
    repository.commit()
    command = [sys.executable, "-m", "pytest", "test_slow.py", "--gpuperf", "--gpuperf-against=HEAD"]
    process = subprocess.Popen(command, cwd=repository.path, stdout=subprocess.PIPE, text=True)
    wait_until((repository.path / "begun").exists)
    assert repository.worktrees == 2
    process.send_signal(number)
    process.communicate(timeout=30)
    assert process.returncode == pytest.ExitCode.INTERRUPTED
    assert repository.worktrees == 1
    assert temporary() == []


def test_a_failed_comparison_is_one_sentence_and_leaves_nothing(repository: Repository):
    (repository.path / ".git/worktrees").write_text("in the way")
    result = against(repository)
    assert result.ret == 1
    result.stdout.fnmatch_lines(["git worktree in *"])
    assert "Traceback" not in result.stdout.str()
    assert temporary() == []


SOON = datetime.date.today() + datetime.timedelta(days=30)
MARKED = """
    import pytest
    @pytest.mark.gpuperf(expected="waits for a driver", until="{until}")
    def test_size(gpuperf): gpuperf.record("size", {size}, kind="exact")
"""


def test_an_expected_regression_is_an_xfail_here_too(repository: Repository):
    repository.write("test_size.py", MARKED.format(until=SOON, size="6.0"))
    result = against(repository, "--gpuperf-strict=on", "-rx")
    assert result.ret == 0
    result.assert_outcomes(xfailed=1)
    result.stdout.fnmatch_lines(["expected *test_size *+50.00 %", "XFAIL*waits for a driver*"])
    repository.write("test_size.py", MARKED.format(until="2020-12-31", size="6.0"))
    result = against(repository)
    assert result.ret == 1
    result.stdout.fnmatch_lines(["regressed: size*", "*waits for a driver, and that day has passed"])


def test_an_expected_regression_on_both_sides_breaks_nothing(repository: Repository):
    repository.write("test_size.py", MARKED.format(until=SOON, size="6.0"))
    repository.commit()
    result = against(repository)
    assert result.ret == 0
    result.assert_outcomes(passed=1)


def test_a_quarantine_that_held_is_named_here_too(repository: Repository):
    repository.write(
        "baselines/quarantine.toml",
        f"""
        [[quarantine]]
        test = "test_size.py::*"
        pool = "*"
        reason = "driver 580"
        owner = "me"
        expires = {SOON}
        """,
    )
    repository.write("test_size.py", EXACT.format("6.0"))
    result = against(repository, "--gpuperf-strict=on")
    assert result.ret == 0
    result.stdout.fnmatch_lines(
        [
            "quarantined *test_size *+50.00 %",
            f"quarantine.toml: entry 1, test_size.py::* (me: driver 580), holds until {SOON}",
        ]
    )
