"""What a pull request shows: the Markdown summary, the annotations, and the documented workflows."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
from gitproject import Repository

from pytest_gpuperf.measurement import Metric, Outcome, TestKey, Verdict
from pytest_gpuperf.records import Row
from pytest_gpuperf.report.markdown import MARKER, annotation, markdown

CI = (Path(__file__).parent.parent / "docs" / "ci.md").read_text()


def row(name: str, outcome: Outcome, now: float) -> Row:
    metric = Metric("time", "s", "lower", "noisy", "record")
    verdict = Verdict(outcome, now, 1.0, now - 1, (now - 1.01, now - 0.99), 0.05)
    cause = "wrong" if outcome is Outcome.REGRESSED else None
    return Row(TestKey("suites/test_a.py", name), metric, verdict, command=f"pytest {name}", cause=cause)


def test_the_verdict_comes_first_and_what_changed_is_not_folded():
    rows = [row("test_b", Outcome.EQUAL, 1.0), row("test_a", Outcome.REGRESSED, 1.5)]
    note = "a note\n  of two lines:\n  pytest a.py::t --gpuperf"
    text = markdown("NVIDIA H100 (cuda)", rows, [note], 1)
    assert text.startswith("**gpuperf: failed**: 1 regressed, 1 equal on NVIDIA H100 ")
    shown, folded = text.split("<details>", 1)
    assert "1 s | 1.500 s | +50.00 % | +49.00 % to +51.00 %" in shown
    assert "    pytest test_a" in shown
    assert "| equal |" in folded
    assert "- a note of two lines&#58;\n\n      pytest a.py::t --gpuperf\n" in folded


def test_what_a_failed_test_shows_keeps_its_lines():
    """A process of a recording that failed shows its code, which was one paragraph."""
    said = "failed in run 2: s.py::t: x = 1\n\n    def t():\n>       assert x\nE       <b>"
    lines = markdown("", [], [said], 1).splitlines()
    at = lines.index("- failed in run 2&#58; s.py&#58;&#58;t&#58; x &#61; 1")
    code = ["", "          def t():", "      >       assert x", "      E       <b>"]
    assert [line.rstrip() for line in lines[at + 1 : at + 6]] == ["", *code]


def test_a_failed_assertion_is_told_with_its_reason():
    rows = [row("test_a", Outcome.REGRESSED, 1.5)]
    failed = {"suites/test_a.py::test_a": "regressed", "suites/test_a.py::test_b": "assert 1 == 2"}
    shown = markdown("d", rows, [], 1, failed).split("To see it again")[0].replace("&#58;", ":")
    assert shown.count("test&#95;a.py::test&#95;a") == 1  # in the table alone
    assert "test&#95;b: assert 1 &#61;&#61; 2" in shown


def test_names_are_data_in_markdown():
    text = markdown("d", [row("t[@a|<b>`![x](http://c)]\n#1", Outcome.REGRESSED, 1.5)], ["@b"], 1)
    table = next(line for line in text.splitlines() if line.startswith("| regressed"))
    assert table.count("|") == 8
    assert not re.search(r"[@<>`!()]", text.partition("To see it again")[0].split("--:|")[-1])
    assert "@b" not in text


def test_an_annotation_cannot_be_left():
    line = annotation("a,b:c.py", 3, "t::x", "one\n::error::two 5 %")
    assert line == "::error file=a%2Cb%3Ac.py,line=3,title=t%3A%3Ax::one%0A::error::two 5 %25"


@pytest.fixture
def repository(pytester: pytest.Pytester) -> Repository:
    suite = "\n\ndef test_it(gpuperf): gpuperf.record('n', 1, '1', 'lower', kind='exact')\n"
    return Repository(pytester, {"test_it.py": suite})


def slow(repository: Repository, value: int) -> str:
    path = repository.path / "test_it.py"
    path.write_text(re.sub(r"'n', \d", f"'n', {value}", path.read_text()))
    return repository.commit()


def test_a_failure_reaches_the_pull_request(repository: Repository, monkeypatch: pytest.MonkeyPatch):
    slow(repository, 2)
    monkeypatch.setenv("GITHUB_ACTIONS", "true")
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(repository.path / "step.md"))
    against = "--gpuperf-against=HEAD~1"
    result = repository.run(against, "--gpuperf-markdown=out.md", "--gpuperf-json=out.json")
    assert result.ret == 1
    result.stdout.fnmatch_lines(
        ["::error file=test_it.py,line=3,title=test_it.py%3A%3Atest_it::regressed x2: n"]
    )
    text = (repository.path / "out.md").read_text()
    assert text == (repository.path / "step.md").read_text()
    assert text.startswith("**gpuperf: failed**: 1 regressed on the host")
    again = f"pytest test_it.py::test_it --gpuperf '{against}'"
    assert f"To see it again:\n\n    {again}\n" in text
    document = json.loads((repository.path / "out.json").read_text())
    assert document["tests"][0]["metrics"][0]["command"] == again


def test_bisect_finds_the_commit(repository: Repository):
    good = repository.git("rev-parse", "HEAD").strip()
    repository.commit()
    bad = slow(repository, 2)
    repository.commit()
    assert "git bisect run pytest suites/test_reduce.py --gpuperf --gpuperf-against=GOOD" in CI
    repository.git("bisect", "start", "HEAD", good)
    command = (sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "test_it.py", "--gpuperf")
    told = repository.git("bisect", "run", *command, f"--gpuperf-against={good}")
    assert f"{bad} is the first bad commit" in told


def test_the_documented_workflows_hold_together():
    github, gitlab = re.findall(r"```yaml\n(.*?)```", CI, re.DOTALL)
    assert "pull-requests: write" in github
    written = re.search(r"--gpuperf-markdown=(\S+)", github)
    assert written
    assert github.count(f"body=@{written[1]}") == 2
    assert "exit_codes: [20]" in gitlab
    junit = re.search(r"--junitxml=(\S+)", gitlab)
    assert junit
    assert f"junit: {junit[1]}" in gitlab


@pytest.mark.parametrize(
    ("found", "posted"),
    [
        ("", "api repos/o/r/issues/7/comments -F body=@gpuperf.md"),
        ("42", "api -X PATCH repos/o/r/issues/comments/42 -F body=@gpuperf.md"),
    ],
)
def test_one_comment_is_made_and_then_updated(tmp_path: Path, found: str, posted: str):
    script = textwrap.dedent(re.search(r"run: \|\n((?: {10}.*\n)+)", CI)[1])  # type: ignore[index]
    assert MARKER in script
    assert MARKER in markdown("d", [], [], 0)
    gh = tmp_path / "gh"
    gh.write_text(f'#!/bin/sh\necho "$@" >> log\ncase "$*" in *--jq*) echo "{found}";; esac\n')
    gh.chmod(0o755)
    env = {"PATH": f"{tmp_path}:{os.environ['PATH']}", "ISSUES": "repos/o/r/issues", "NUMBER": "7"}
    subprocess.run(["sh", "-ec", script], cwd=tmp_path, env=env, check=True)
    assert (tmp_path / "log").read_text().splitlines()[-1] == posted
