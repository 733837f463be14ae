"""Imports point one way, and the rules know neither pytest nor files nor processes."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import pytest_gpuperf
from pytest_gpuperf import on_gpu
from pytest_gpuperf.backends.cuda.driver import device_count

PACKAGE = Path(pytest_gpuperf.__file__).parent
# Each imports only what stands above it, and itself; the longest name that fits a module counts.
LAYERS = (
    "text",
    "errors",
    "figures",
    "constants",
    "measurement",
    "files",
    "cache",
    "git",
    "traces",
    "records",
    "rules",
    "backends",
    "values",
    "flags",
    "words",
    "ini",
    "options",
    "marker",
    "instruments",
    "machine",
    "storage",
    "processes",
    "report",
    "mlperf",
    "results",
    "session",
    "waking",
    "publish",
    "unchanged",
    "questions",
    "passes",
    "gpuperf",
    "counting",
    "mlperf.opening",
    "mlperf.fixtures",
    "fixtures",
    "modes",
    "hooks",
    "plugin",
    "command",
)
OUTSIDE_OF_RULES = {
    "pytest",
    "_pytest",
    "os",
    "io",
    "pathlib",
    "shutil",
    "subprocess",
    "tempfile",
    "socket",
    "time",
}


def modules() -> list[str]:
    """Every module of the package, without the package's own name."""
    files = [path.relative_to(PACKAGE).with_suffix("") for path in PACKAGE.rglob("*.py")]
    return sorted(
        ".".join(path.parts).removesuffix(".__init__") for path in files if path.parts != ("__init__",)
    )


def layer(module: str) -> int:
    fitting = [name for name in LAYERS if module == name or module.startswith(f"{name}.")]
    assert fitting, f"{module} has no place among the layers"
    return LAYERS.index(max(fitting, key=len))


def imported(module: str) -> Iterator[tuple[int, str]]:
    """Line and name of each import anywhere in a module; names out of a package as modules where they are."""
    path = PACKAGE.joinpath(*module.split("."))
    file = path.with_suffix(".py") if path.with_suffix(".py").exists() else path / "__init__.py"
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{file}:{node.lineno}: a relative import"
            for alias in node.names:
                whole = f"{node.module}.{alias.name}"
                inside = PACKAGE.parent.joinpath(*whole.split("."))
                is_module = inside.is_dir() or inside.with_suffix(".py").exists()
                yield node.lineno, whole if is_module else str(node.module)


@pytest.mark.parametrize("module", modules())
def test_a_module_imports_only_what_is_below_it(module):
    for line, name in imported(module):
        top, _, inner = name.partition(".")
        if top == PACKAGE.name and inner:
            assert layer(inner) <= layer(module), f"{module}:{line} imports {inner}, which is above it"


@pytest.mark.parametrize("module", [name for name in modules() if name.startswith("rules.")])
def test_a_rule_imports_neither_pytest_nor_input_and_output(module):
    tops = {name.partition(".")[0] for _, name in imported(module)}
    assert not tops & OUTSIDE_OF_RULES


def test_the_rules_load_nothing_heavy():
    names = ", ".join(f"{PACKAGE.name}.{name}" for name in modules() if name.startswith("rules."))
    code = f"import sys, {names}; print({{'pytest', 'numpy', 'scipy', 'msgspec'}} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


def test_no_module_imports_itself_by_way_of_others():
    """Not even for annotations."""
    known = set(modules())
    below = {
        module: {name.partition(".")[2] for _, name in imported(module)} & known - {module}
        for module in known
    }
    while free := {module for module, wanted in below.items() if not wanted}:
        below = {module: wanted - free for module, wanted in below.items() if module not in free}
    assert not below, f"these import each other: {below}"


LOADED = """
    import sys
    def pytest_unconfigure():
        names = [name.partition(".")[2] for name in sys.modules if name.startswith("pytest_gpuperf.")]
        print("loaded", *sorted(names))
"""


def test_an_idle_plugin_loads_next_to_nothing(pytester: pytest.Pytester):
    """Counted, not timed: every module is some tenths of a millisecond of every pytest session."""
    pytester.makeconftest(LOADED)
    pytester.makepyfile("def test_mine(): pass")
    result = pytester.runpytest_subprocess()
    result.assert_outcomes(passed=1)
    result.stdout.fnmatch_lines(["loaded fixtures flags plugin values waking"])
    result = pytester.runpytest_subprocess("--fixtures")
    for name in ("gpu *session*", "kernels *module*", "gpuperf", "counters", "resnet50", "loadgen"):
        result.stdout.fnmatch_lines([f"{name} -- *"])


def test_what_judges_loads_neither_numpy_nor_scipy(pytester: pytest.Pytester):
    """They take longer to load than all the rest of a process that records or judges a number."""
    heavy = 'print("heavy", *sorted({"numpy", "scipy"} & set(sys.modules)), end="|")'
    pytester.makeconftest(f"import sys\ndef pytest_unconfigure():\n    {heavy}\n")
    pytester.makeini("[pytest]\ngpuperf_judge_host_times = true\n")
    pytester.makepyfile('def test_it(gpuperf): gpuperf.record("x", 1.0, "s")')
    (pytester.path / "baselines").mkdir()
    for flag in ("--gpuperf-update", "--gpuperf-strict=off"):
        result = pytester.runpytest_subprocess("--gpuperf", flag)
        result.assert_outcomes(passed=1)
        assert "heavy|" in result.stdout.str()
    result.stdout.fnmatch_lines(["1 equal"])


def test_markers_are_checked_at_collection_without_the_rest(pytester: pytest.Pytester):
    pytester.makeconftest(LOADED)
    suite = """
        import pytest
        @pytest.mark.gpuperf(seconds={seconds})
        def test_k(gpu, kernels, gpuperf, counters, loadgen): pass
    """
    pytester.makepyfile(suite.format(seconds=1))
    result = pytester.runpytest_subprocess("--collect-only", "-q")
    result.stdout.fnmatch_lines(["*::test_k", "loaded * marker plugin *"])
    result.stdout.no_fnmatch_line("loaded * session *")
    pytester.makepyfile(suite.format(seconds="'long'"))
    result = pytester.runpytest_subprocess("--collect-only")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["*seconds='long' is out of range*"])


def test_a_fixture_asked_for_within_a_test_wakes_the_plugin(pytester: pytest.Pytester):
    pytester.makeconftest(LOADED)
    pytester.makepyfile("""
        def test_k(request):
            assert request.getfixturevalue("gpuperf")(lambda: 3).samples == ()
        def test_error(request):
            request.getfixturevalue("gpuperf")(3)
    """)
    result = pytester.runpytest_subprocess()
    result.assert_outcomes(passed=1, failed=1)
    result.stdout.fnmatch_lines(["*.py:4: gpuperf times a launch or another callable, not int"])


def test_on_gpu_answers_a_conftest_of_an_idle_session(pytester: pytest.Pytester):
    config = pytester.parseconfigure()
    assert on_gpu(config) == bool(device_count())


def test_names_of_tests_are_under_sixty_characters():
    names = (
        f"{path.name}::{node.name}"
        for path in Path(__file__).parent.glob("test_*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.FunctionDef) and node.name.startswith("test_")
    )
    assert not [name for name in names if len(name.partition("::")[2]) >= 60]
