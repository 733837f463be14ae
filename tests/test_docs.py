"""README and docs: their commands run, their suites measure, their links lead somewhere."""

from __future__ import annotations

import ast
import os
import re
import shutil
import subprocess
import sys
import tomllib
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

import pytest

from pytest_gpuperf.flags import SETTINGS, add_options

CHECKOUT = Path(__file__).parent.parent
POOL = "baselines/nvidia-h100-80gb-hbm3/suites/test_transpose.json"
READ = sorted(str(path.relative_to(CHECKOUT)) for path in (CHECKOUT / "docs").glob("*.md"))
RUN = ("README.md", *READ, "docs/studies/README.md")
"""Pages of which every block is run, or says beside it why not."""
ELSEWHERE = {"docs/frameworks.md": "tests/test_frameworks.py"}
"""Pages whose blocks another file runs, on a GPU."""
KERNEL_PAGES = {
    "docs/suites.md": ("kernels",),
    "docs/profile.md": ("kernels", "suites/conftest.py", "suites/test_transpose.py"),
    "docs/plan.md": ("kernels", "suites/conftest.py", "suites/test_transpose.py", POOL),
}
"""Pages whose project is this one's: what of it."""
FROM_INIT = ("docs/reports.md", "docs/reference.md")
"""Pages that begin where ``gpuperf init`` has left off."""
BLOCK = re.compile(r"(?:^<!-- (?P<mark>[^\n]*?) -->\n)?^```(?P<kind>\S*)\n(?P<text>.*?)^```$", re.M | re.S)


@dataclass(frozen=True)
class Block:
    """A fenced block: its kind, its text, and the comment before it.

    The comment is "not run: WHY", or any of "file: PATH" (it is that file), "test: NAME.py" (a test module,
    run at the page's end), "script: MODULE" (run where that is), "needs: COMMAND" and "exit: CODE or CODE".
    """

    kind: str
    text: str
    mark: str

    @property
    def marks(self) -> dict[str, str]:
        if self.mark.startswith("not run: "):
            return {"not run": self.mark.removeprefix("not run: ")}
        return dict(part.split(": ", 1) for part in self.mark.split("; ")) if self.mark else {}

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
    modules = {
        "pytest": "pytest",
        "gpuperf": "pytest_gpuperf.command",
        "python": "",
        "pytest-benchmark": "pytest_benchmark",
    }
    for name, module in modules.items():
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


def furnish(page: str, project: Path, shell) -> None:
    """Put into the project what the page takes to be there."""
    for name in KERNEL_PAGES.get(page, ()):
        (project / name).parent.mkdir(parents=True, exist_ok=True)
        (shutil.copytree if (CHECKOUT / name).is_dir() else shutil.copy)(CHECKOUT / name, project / name)
    if page in FROM_INIT:
        assert shell("gpuperf init && git init -q && git add -A && git commit -q -m first").returncode == 0


def run_commands(page: str, block: Block, shell) -> None:
    commands = block.commands()
    assert commands, f"{page}: a console block without a command: {block.text}"
    needed = block.marks.get("needs", "sh")
    if not shutil.which(needed):
        warnings.warn(f"{page}: not run, for want of {needed}: {commands[0]}", stacklevel=2)
        return
    for number, line in enumerate(commands, start=1):
        done = shell(line)
        expected = block.marks.get("exit", "0") if number == len(commands) else "0"
        codes = [int(code) for code in expected.split(" or ")]
        assert done.returncode in codes, f"{page}: {line}\n{done.stdout}{done.stderr}"


def run_tests(page: str, tests: dict[str, str], shell) -> None:
    """Run a page's test modules in one session, with the names that the page leaves to its reader."""
    given = CHECKOUT / "tests" / "pages" / f"{Path(page).stem}_page.py"
    before = ""
    if given.exists():
        for module in ("mlperf_loadgen", "onnx", "onnxruntime"):
            pytest.importorskip(module)
        before = f"from {given.stem} import *\n"
        paths = [str(given.parent), str(CHECKOUT / "tests")]
        (shell.project / "conftest.py").write_text(f"import sys\nsys.path += {paths}\n")
    for name, text in tests.items():
        (shell.project / name).write_text(before + text)
    done = shell(f"pytest -q -rs {' '.join(tests)}")
    assert done.returncode == 0, f"{page}\n{done.stdout}{done.stderr}"
    assert " skipped" not in done.stdout, done.stdout


@pytest.mark.parametrize("page", RUN)
def test_every_block_of_a_page_runs_or_says_why_not(page, shell, kernel_cache):
    text = re.sub(BLOCK, "", (CHECKOUT / page).read_text())
    assert not re.search(r"^    \S", text, re.M), f"{page}: an indented block is not run; fence it"
    if page in ELSEWHERE:
        assert Path(page).name in (CHECKOUT / ELSEWHERE[page]).read_text()
        return
    if not shutil.which("g++"):
        pytest.skip("needs a C++ compiler")
    furnish(page, shell.project, shell)
    tests: dict[str, str] = {}
    for block in blocks(page):
        marks = block.marks
        if "not run" in marks:
            assert len(marks["not run"]) > 10
            for name in re.findall(r"\b(?:tests|suites)/\w+\.py", marks["not run"]):
                assert (CHECKOUT / name).exists(), f"{page}: {name}"
        elif "file" in marks:
            path = shell.project / marks["file"]
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(block.text)
        elif "test" in marks:
            tests[marks["test"]] = block.text
        elif "script" in marks:
            if find_spec(marks["script"]):
                done = shell(f"python - <<'END'\n{block.text}END")
                assert done.returncode == 0, f"{page}\n{done.stderr}"
        elif block.kind == "console":
            run_commands(page, block, shell)
        elif block.kind == "python":  # a suite that the page has written down already, or repeats
            suites = [path.read_text() for path in shell.project.glob("suites/*.py")]
            assert block.text in suites, f"{page}: this suite is nowhere in the project:\n{block.text}"
        else:  # text is output or a formula
            assert block.kind == "text" or block.kind[0] == "{", f"{page}: a {block.kind!r} that nobody runs"
    if tests:
        run_tests(page, tests, shell)
    if (shell.project / "pytest.ini").exists():
        done = shell("pytest suites --gpuperf")
        assert done.returncode == 0, done.stdout + done.stderr


@pytest.fixture
def reference(monkeypatch):
    monkeypatch.syspath_prepend(CHECKOUT / "tools")
    return import_module("reference")


@pytest.mark.parametrize("page", [*RUN, "CONTRIBUTING.md"])
def test_every_flag_and_ini_key_of_a_page_exists(page, reference):
    text = (CHECKOUT / page).read_text()
    declared = reference.Collector()
    add_options(declared)
    flags = {re.split(r"[=\[]", flag)[0] for flag, _ in declared.flags}
    assert set(re.findall(r"--gpuperf-[a-z-]*[a-z]", text)) <= flags
    assert set(re.findall(r"`(gpuperf_\w+)[`\s=]", text)) <= {key for key, _ in declared.keys}


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


def test_the_reference_is_the_codes(reference):
    assert reference.generated() in (CHECKOUT / "docs/reference.md").read_text(), (
        "run python tools/reference.py"
    )


def test_the_reference_explains_every_flag_and_ini_key_by_hand():
    text = (CHECKOUT / "docs/reference.md").read_text().partition("<!-- from here on")[0]
    for setting in SETTINGS:
        if setting.flag:
            assert f"`--gpuperf-{setting.name.replace('_', '-')}" in text, setting.name
        if setting.ini is not None:
            assert f"`gpuperf_{setting.name}`" in text, setting.name


def test_the_site_builds_without_a_warning(tmp_path):
    for module in ("sphinx", "myst_parser", "furo"):
        pytest.importorskip(module, reason="needs the extra docs")
    command = [sys.executable, "-m", "sphinx", "-q", "-W", "--keep-going", CHECKOUT / "docs", tmp_path]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr


def said_by_the_package() -> str:
    """Return every text of the package, with what is put into it as "..."."""
    found = []
    for path in (CHECKOUT / "pytest_gpuperf").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.JoinedStr):
                found.append(
                    "".join(
                        str(getattr(part, "value", "")) if isinstance(part, ast.Constant) else "..."
                        for part in node.values
                    )
                )
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                found.append(node.value)
    return "\n".join(found)


def test_each_message_of_troubleshooting_is_said_by_the_code():
    text, said = (CHECKOUT / "docs/troubleshooting.md").read_text(), said_by_the_package()
    cells = re.findall(r"^\| (`.*?) \|", text, re.M)
    assert len(cells) > 40
    for message in (quoted for cell in cells for quoted in re.findall(r"`([^`]+)`", cell)):
        for part in re.split(r"\.\.\.|\bREV\b", message):
            assert part.strip(" :,") in said, message
