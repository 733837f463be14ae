"""What flags, ini keys and markers are refused for, in one sentence, before a test runs."""

from __future__ import annotations

import shlex

import pytest
from gitproject import Repository

BOTH = "leave one of them out"


@pytest.fixture
def repository(pytester: pytest.Pytester) -> Repository:
    return Repository(pytester, {"test_s.py": "def test_it(): pass"})


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        ("--gpuperf-backend=vulkan", "'vulkan' is not one of"),
        ("--gpuperf-runs=0", "'0' is not a whole number from 1"),
        ("--gpuperf-strict=maybe", "'maybe' is not one of"),
        ("--gpuperf-lock-timeout=-1", "'-1' is"),
        ("-o gpuperf_strict=maybe", "gpuperf_strict: 'maybe' is not one of"),
        ("--gpuperf --gpuperf-max-confirm=0", "is not a whole number from 1"),
        ("--gpuperf --gpuperf-max-confirm=few", "is not a whole number from 1"),
        ("--gpuperf --gpuperf-runs=3", "ERROR: --gpuperf-runs is how many runs are recorded: "),
        ("--gpuperf --gpuperf-update=later", "'later' is"),
        ("--gpuperf-update", "needs --gpuperf beside it"),
        # a budget
        ("--gpuperf --gpuperf-budget=0", "not a number of minutes above 0"),
        ("--gpuperf --gpuperf-budget=nan", "not a number of minutes above 0"),
        ("--gpuperf-budget=5", "needs --gpuperf beside it"),
        ("--gpuperf --gpuperf-budget=5 --gpuperf-update", "leave it out beside --gpuperf-update"),
        ("--gpuperf --gpuperf-budget=5 --gpuperf-against=HEAD", "leave it out beside --gpuperf-against"),
        # another revision
        ("--gpuperf --gpuperf-against=nowhere", "'nowhere' is not a valid revision of"),
        ("--gpuperf --gpuperf-against=--help", "'--help' is not a valid revision of"),
        ("--gpuperf --gpuperf-against=HEAD --gpuperf-update", BOTH),
        ("--gpuperf-against=HEAD", "needs --gpuperf beside it"),
        ("--gpuperf --gpuperf-against=HEAD --gpuperf-blocks=1", "'1' is not a whole number from 2"),
        ("--gpuperf --gpuperf-against=HEAD -p xdist -n2", "leave out -n"),
        ("--gpuperf --gpuperf-against=HEAD --gpuperf-baselines-from=HEAD", "needs no stored baselines"),
        ("--gpuperf --gpuperf-baselines-from=nowhere", "'nowhere' is not a valid revision of"),
        ("--gpuperf --gpuperf-baselines-from=HEAD --gpuperf-update", BOTH),
        ("--gpuperf --gpuperf-baselines-from=HEAD --gpuperf-calibrate=60", BOTH),
        ("--gpuperf-baselines-from=HEAD", "needs --gpuperf beside it"),
        ("--gpuperf -o gpuperf_acquit=perhaps", "gpuperf_acquit: 'perhaps' is not one of auto, off"),
        # unchanged launches
        (
            "--gpuperf-skip-unchanged",
            "--gpuperf-skip-unchanged is about what is measured, so it needs --gpuperf",
        ),
        ("--gpuperf-skip-unchanged --gpuperf --gpuperf-update", f"-update records*{BOTH}"),
        ("--gpuperf-skip-unchanged --gpuperf --gpuperf-calibrate=60", "and --gpuperf-calibrate records"),
        ("--gpuperf-skip-unchanged --gpuperf --gpuperf-against=HEAD", "-against compares with a revision"),
        (
            "--gpuperf-skip-unchanged --gpuperf --gpuperf-baselines-from=HEAD --gpuperf-accept",
            "and --gpuperf-accept judges by two sets of baselines",
        ),
        # modes that measure nothing
        ("--gpuperf-sanitize=memchek", "--gpuperf-sanitize: 'memchek' is not one of memcheck, racecheck"),
        ("--gpuperf-sanitize --gpuperf-plan", "--gpuperf-plan measures nothing: leave out *-sanitize"),
        ("--gpuperf-sanitize -p xdist -n2", "--gpuperf-sanitize starts processes one*leave out -n"),
        (
            "--gpuperf --gpuperf-sanitize --gpuperf-json=r.json",
            "--gpuperf-sanitize measures nothing: leave out --gpuperf-json",
        ),
        (
            "--gpuperf-trace --gpuperf --gpuperf-update",
            "--gpuperf-trace measures nothing: leave out --gpuperf-update",
        ),
        (
            "--gpuperf-trace --gpuperf-sanitize",
            "--gpuperf-trace measures nothing: leave out --gpuperf-sanitize",
        ),
        (
            "--gpuperf-trace --gpuperf --gpuperf-markdown=m.md",
            "-trace measures nothing: leave out --gpuperf-markdown",
        ),
        ("--gpuperf-trace=no/trace.json", "trace=no/trace.json is no file*in a folder that exists"),
        ("--gpuperf-trace test_s.py", "--gpuperf-trace=test_s.py is no file*paths of suites before"),
    ],
)
def test_a_wrong_flag(repository: Repository, flags: str, words: str):
    command = ("-p", "no:cacheprovider", "-o", "gpuperf_backend=emulated", *shlex.split(flags))
    result = repository.pytester.runpytest_inprocess(*command)
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines([f"*{words}*"])
    assert "Traceback" not in result.stderr.str()


@pytest.mark.parametrize(
    "flag",
    ["strict=on", "pool=team-a", "tolerance=x = 3 %", "runs=3", "max-confirm=2", "blocks=3", "acquit=off"],
)
def test_a_flag_that_does_nothing_is_refused_where_it_was_typed(pytester: pytest.Pytester, flag: str):
    pytester.makepyfile("def test_it(): pass")
    result = pytester.runpytest_inprocess(f"--gpuperf-{flag}")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    name = flag.partition("=")[0]
    result.stderr.fnmatch_lines(
        [f"ERROR: --gpuperf-{name} is about what is measured, so it needs --gpuperf *"]
    )
    pytester.makeini(f"[pytest]\naddopts = '--gpuperf-{flag}'\n")
    assert pytester.runpytest_inprocess().ret == 0


@pytest.mark.parametrize(
    ("marker", "words"),
    [
        ("tolerance=2", "tolerance=2 is out of range"),
        ("tolerance='x'", "tolerance='x' is out of range"),
        ("tolerance=float('nan')", "tolerance=nan is out of range"),
        ("tollerance=0.1", "no argument 'tollerance'"),
        ("0.1", "keyword arguments only"),
        ("l2='warm'", 'give "hot" or "cold"'),
        ("backend='emulated'", "backend='emulated' is out of range; give \"cuda\", for a test that needs"),
        ('expected="why"', "expected= and until= go together"),
        ('until="2026-12-31"', "expected= and until= go together"),
        ('expected="", until="2026-12-31"', "expected='' is out of range; give the reason"),
        ('expected="why", until="2026-02-30"', "give a day such as"),
        ('expected="why", until="20261231"', "give a day such as"),
        ('expected="why", until="tomorrow"', "give a day such as"),
        ('expected="why", until=2026', "give a day such as"),
    ],
)
def test_a_wrong_marker(pytester: pytest.Pytester, marker: str, words: str):
    pytester.makepyfile(f"import pytest\n@pytest.mark.gpuperf({marker})\ndef test_it(): pass")
    result = pytester.runpytest_inprocess()
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines([f"*{words}*"])
