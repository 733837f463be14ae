"""--gpuperf-skip-unchanged: a launch that is its baseline's own to the bit runs once and is not measured."""

from pathlib import Path

import pytest
from once import run_once

CONFTEST = f"""
import sys
from pathlib import Path

sys.path.insert(0, {str(Path(__file__).parent)!r})
import pytest_gpuperf.backends as backends
import pytest_gpuperf.machine.sentinels as sentinels
import pytest_gpuperf.session as session
from test_backend_protocol import FakeBackend, FakeProgram


class Program(FakeProgram):
    def code_hash(self, name):
        return Path("code.txt").read_text() + str(name)

    def prepare(self, name, geometry, arguments):
        enqueue = super().prepare(name, geometry, arguments)

        def launch():
            with open("launches.txt", "a") as file:
                file.write(name + "\\n")
            enqueue()

        return launch


class Device(FakeBackend):
    name = "cuda"

    def place(self):
        return {{"backend": "cuda", "gpu": "Fake 9000"}}

    def software(self):
        return {{"driver": Path("driver.txt").read_text()}}

    def load(self, file, options=()):
        return Program(self._device)


backends.select = lambda choice: Device()
sentinels.ELEMENTS = 2**12
take = sentinels.take


def taking(gpu):
    with open("taken.txt", "a") as file:
        print("a child" if any("--gpuperf-child" in each for each in sys.argv) else "it", file=file)
    return take(gpu)


sentinels.take = taking
session.expects_device = lambda choice: True
"""
KERNELS = """
extern "C" __global__ void scale(float *x, int n) {}
extern "C" __global__ void shift(float *x, int n) {}
"""
SUITE = """
import pytest

LIMIT = None


@pytest.mark.parametrize("name", ["scale", "shift"])
def test_latency(gpu, kernels, gpuperf, name):
    x = gpu.random(1024, seed=1)
    timing = gpuperf(kernels["k.cu"][name][1, 32], x, 7, max=LIMIT)
    assert timing.median > 0
    assert True
"""


BASELINES = "baselines/fake-9000/test_suite.json"


@pytest.fixture
def project(pytester):
    """A project on a stand-in of a GPU, whose kernels' machine code is in a file, with recorded baselines."""
    for path, text in {
        "conftest.py": CONFTEST,
        "kernels/k.cu": KERNELS,
        "test_suite.py": SUITE,
        "code.txt": "0123456789abcdef",
        "driver.txt": "7.1",
    }.items():
        file = pytester.path / path
        file.parent.mkdir(exist_ok=True)
        file.write_text(text)
    result = run_once(pytester, "--gpuperf", "--gpuperf-update", "--gpuperf-runs=1")
    result.assert_outcomes(passed=2)
    (pytester.path / "launches.txt").unlink()
    assert (pytester.path / "taken.txt").read_text() == "a child\n", "others took what nobody stores"
    return pytester


def run(pytester, *flags):
    return pytester.runpytest_subprocess("-p", "no:cacheprovider", *flags, "--gpuperf")


def skip(project, *flags):
    return run(project, "--gpuperf-skip-unchanged", "--gpuperf-strict=on", *flags)


def launches(project):
    file = project.path / "launches.txt"
    return file.read_text().split() if file.exists() else []


def rewrite(project, file, old, new):
    path = project.path / file
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


def test_workers_of_xdist_skip_what_is_unchanged_too(project):
    result = skip(project, "-p", "xdist", "-n2")
    assert result.ret == 0
    result.stdout.fnmatch_lines(
        ["unchanged *test_latency?scale?*", "2 unchanged", "unchanged: 2 launches of 2*"]
    )
    assert sorted(launches(project)) == ["scale", "shift"]
    rewrite(project, "code.txt", "0123", "3210")
    result = skip(project, "-p", "xdist", "-n2")
    result.stdout.fnmatch_lines(["2 equal", "measured: 2 launches: other machine code*"])


def test_unchanged_launches_run_once_and_count_as_judged(project):
    result = skip(project)
    result.assert_outcomes(passed=2)
    assert result.ret == 0
    result.stdout.fnmatch_lines(
        ["unchanged*test_latency?scale?*", "2 unchanged", "unchanged: 2 launches of 2*"]
    )
    result.stdout.no_fnmatch_line("*nothing was judged*")
    result.stdout.no_fnmatch_line("measured: *")
    kernels = [name for name in launches(project) if not name.startswith("s") or name in ("scale", "shift")]
    assert sorted(kernels) == ["scale", "shift"]


def test_without_the_flag_all_are_measured(project):
    result = run(project)
    assert result.ret == 0
    result.stdout.no_fnmatch_line("*unchanged*")
    assert launches(project).count("scale") > 20


@pytest.mark.parametrize(
    ("file", "old", "new", "why"),
    [
        ("code.txt", "0", "1", "*2 launches: other machine code*"),
        (
            "driver.txt",
            "7.1",
            "7.2",
            "*2 launches: other software than the baseline's: *driver 7.1 -> 7.2*",
        ),
        ("test_suite.py", "x, 7", "x, 8", "*2 launches: other machine code, geometry, scalars or inputs*"),
        ("test_suite.py", "seed=1", "seed=2", "*2 launches: the test no longer measures*seed=2*"),
        ("test_suite.py", "[1, 32]", "[2, 32]", "*2 launches: other machine code, geometry*"),
        (
            "test_suite.py",
            "LIMIT = None",
            "LIMIT = 1e-9",
            "*2 launches: its baseline's own figure is above*",
        ),
    ],
    ids=["code", "driver", "scalar", "contract", "geometry", "bound"],
)
def test_what_is_not_the_baselines_own_is_measured_and_said_why(project, file, old, new, why):
    rewrite(project, file, old, new)
    result = skip(project)
    result.stdout.fnmatch_lines([f"measured: {why}"])
    result.stdout.no_fnmatch_line("unchanged: *")
    assert launches(project).count("scale") > 20


def test_arrays_that_something_wrote_to_are_measured(project):
    rewrite(project, "test_suite.py", "    timing =", '    kernels["k.cu"].shift[1, 32](x, 7)\n    timing =')
    result = skip(project)
    result.stdout.fnmatch_lines(["measured: 2 launches: what is in one of its arrays is not known*"])


def test_a_baseline_of_an_older_version_is_measured_against(project):
    rewrite(project, BASELINES, '"code": "k-', '"code": "')
    result = skip(project)
    assert result.ret == 0
    result.stdout.fnmatch_lines(["measured: 2 launches: its baseline has a hash of an older kind: record*"])


def test_only_what_changed_is_measured(project):
    rewrite(project, "test_suite.py", "x, 7", "x, 7 + (name == 'shift')")
    result = skip(project)
    assert result.ret == 0
    result.stdout.fnmatch_lines(["equal*shift*", "unchanged*scale*", "1 equal, 1 unchanged"])
    assert launches(project).count("scale") == 1


FOREIGN = """
from types import SimpleNamespace


class Foreign:
    \"\"\"A kernel of numba-cuda, as far as this package looks at one.\"\"\"

    griddim, blockdim, sharedmem = (1, 1, 1), (32, 1, 1), 0

    def __init__(self, launch):
        self.dispatcher, self.launch = SimpleNamespace(overloads={}), launch

    def __call__(self, x):
        self.launch(x, 7)
        code = open("code.txt").read().encode()
        library = SimpleNamespace(get_cubin=lambda: code)
        self.dispatcher.overloads["sig"] = SimpleNamespace(_codelibrary=library)


def test_foreign(gpu, kernels, gpuperf):
    x = gpu.random(1024, seed=1)
    gpuperf(Foreign(kernels["k.cu"].scale[1, 32]), x, name="foreign")
"""


def test_an_unchanged_foreign_kernel_is_left_out(project):
    (project.path / "test_foreign.py").write_text(FOREIGN)
    run(project, "test_foreign.py", "--gpuperf-update", "--gpuperf-runs=1").assert_outcomes(passed=1)
    (project.path / "launches.txt").unlink()
    skip(project, "test_foreign.py").stdout.fnmatch_lines(["1 unchanged"])
    assert launches(project).count("scale") == 2, "once to be compiled, and once for the test"
    rewrite(project, "code.txt", "0", "1")
    skip(project, "test_foreign.py").stdout.fnmatch_lines(["measured: 1 launch: other machine code*"])


def test_correctness_still_counts(project):
    rewrite(project, "test_suite.py", "assert True", "assert name != 'shift'")
    result = skip(project)
    result.assert_outcomes(passed=1, failed=1)
    assert result.ret == 1


def test_what_is_expected_to_regress_is_measured(project):
    rewrite(project, "test_suite.py", "@pytest", "@pytest.mark.gpuperf(expected='why', until=DAY)\n@pytest")
    rewrite(project, "test_suite.py", "import pytest", "import datetime\nimport pytest")
    rewrite(project, "test_suite.py", "LIMIT = None", "LIMIT = None\nDAY = str(datetime.date.today())")
    skip(project).stdout.no_fnmatch_line("*unchanged*")
    assert launches(project).count("scale") > 20
