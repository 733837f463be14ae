"""README and docs: their commands run, their suites measure, their links lead somewhere."""

from __future__ import annotations

import ast
import os
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from pytest_gpuperf.flags import SETTINGS

CHECKOUT = Path(__file__).parent.parent
RUN = ("README.md", "docs/index.md", "docs/tutorial.md", "docs/howto.md")
"""Pages of which every block is run, or says beside it why not."""
READ = sorted(str(path.relative_to(CHECKOUT)) for path in (CHECKOUT / "docs").glob("*.md"))
BLOCK = re.compile(r"(?:^<!-- (?P<mark>[^\n]*?) -->\n)?^```(?P<kind>\S*)\n(?P<text>.*?)^```$", re.M | re.S)


@dataclass(frozen=True)
class Block:
    """A fenced block: its kind, its text, and the comment before it: "not run: WHY", "file: X", "exit: N"."""

    kind: str
    text: str
    mark: str

    @property
    def about(self) -> str:
        return self.mark.partition(": ")[2]

    def commands(self) -> list[str]:
        whole = self.text.replace("\\\n", "")
        return [line.removeprefix("$ ") for line in whole.splitlines() if line.startswith("$ ")]


def blocks(page: str) -> Iterator[Block]:
    for found in BLOCK.finditer((CHECKOUT / page).read_text()):
        yield Block(found["kind"], found["text"], found["mark"] or "")


@pytest.fixture
def shell(tmp_path, bare_environment):
    """Run a line in an empty project folder, by the commands of a fresh installation."""
    bin = tmp_path / "bin"
    bin.mkdir()
    for name, module in {"pytest": "pytest", "gpuperf": "pytest_gpuperf.command", "python": ""}.items():
        start = f"-m {module} " if module else ""
        (bin / name).write_text(f'#!/bin/sh\nexec {sys.executable} {start}"$@"\n')
        (bin / name).chmod(0o755)
    project = tmp_path / "project"
    project.mkdir()
    author = {f"GIT_{who}_{what}": "a@b.c" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}
    environment = {
        **bare_environment,
        **author,
        "PATH": f"{bin}:{os.environ['PATH']}",
        "PYTHONPATH": str(CHECKOUT),
        "PYTEST_ADDOPTS": "-p no:cacheprovider -o gpuperf_backend=emulated",
    }

    def run(line: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["bash", "-c", line], cwd=project, env=environment, capture_output=True, text=True, timeout=120
        )

    run.project = project
    return run


@pytest.mark.parametrize("page", RUN)
def test_every_block_of_a_page_runs_or_says_why_not(page, shell, kernel_cache):
    if not shutil.which("g++"):
        pytest.skip("needs a C++ compiler")
    text = re.sub(BLOCK, "", (CHECKOUT / page).read_text())
    assert not re.search(r"^    \S", text, re.M), f"{page}: an indented block is not run; fence it"
    for block in blocks(page):
        if block.mark.startswith("not run: "):
            assert len(block.about) > 10
        elif block.mark.startswith("file: "):
            path = shell.project / block.about
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(block.text)
        elif block.kind == "console":
            commands = block.commands()
            assert commands, f"{page}: a console block without a command: {block.text}"
            for number, line in enumerate(commands, start=1):
                done = shell(line)
                last = block.mark.startswith("exit: ") and number == len(commands)
                expected = int(block.about) if last else 0
                assert done.returncode == expected, f"{page}: {line}\n{done.stdout}{done.stderr}"
        elif block.kind == "python":  # a suite that the page has written down already, or repeats
            suites = [path.read_text() for path in shell.project.glob("suites/*.py")]
            assert block.text in suites, f"{page}: this suite is nowhere in the project:\n{block.text}"
        else:
            assert block.kind.startswith("{"), f"{page}: a block of {block.kind!r} that nobody runs"


@pytest.mark.parametrize("page", READ)
def test_what_a_page_shows_can_be_read(page):
    for block in blocks(page):
        if block.kind == "python":
            ast.parse(block.text)
        elif block.kind == "toml":
            tomllib.loads(block.text)


@pytest.mark.parametrize("page", ["README.md", "CONTRIBUTING.md", *READ])
def test_a_pages_links_lead_to_files_and_headings(page):
    text = re.sub(r"^```.*?^```$", "", (CHECKOUT / page).read_text(), flags=re.M | re.S)
    text = re.sub(r"`[^`\n]*`|^    .*$", "", text, flags=re.M)
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        name, _, anchor = target.partition("#")
        if ":" in name:
            continue
        path = (CHECKOUT / page).parent / name if name else CHECKOUT / page
        assert path.exists(), f"{page}: {target}"
        if anchor:
            headings = re.findall(r"^#+ (.*)$", path.read_text(), re.M)
            slugs = {re.sub(r"[^\w\- ]", "", each.lower()).replace(" ", "-") for each in headings}
            assert anchor in slugs, f"{page}: {target}"


def test_every_page_is_in_the_index():
    index = (CHECKOUT / "docs/index.md").read_text()
    for page in READ:
        assert page == "docs/index.md" or f"]({Path(page).name})" in index, page


def test_the_reference_is_the_codes():
    sys.path.append(str(CHECKOUT / "tools"))
    try:
        from reference import generated
    finally:
        sys.path.pop()
    assert generated() in (CHECKOUT / "docs/reference.md").read_text(), "run python tools/reference.py"


def test_the_reference_explains_every_flag_and_ini_key_by_hand():
    text = (CHECKOUT / "docs/reference.md").read_text().partition("<!-- from here on")[0]
    for setting in SETTINGS:
        if setting.flag:
            assert f"`--gpuperf-{setting.name.replace('_', '-')}" in text, setting.name
        if setting.ini is not None:
            assert f"`gpuperf_{setting.name}`" in text, setting.name
