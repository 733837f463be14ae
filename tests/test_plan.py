"""--gpuperf-plan: what has to be measured, said on a machine without a GPU."""

import fnmatch
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from test_machine_code import changed, needs_nvcc, sections

from pytest_gpuperf.backends.gpu import Gpu
from pytest_gpuperf.backends.kernels import Kernels
from pytest_gpuperf.backends.planned import NeedsResult
from pytest_gpuperf.backends.planned.device import PlannedBackend
from pytest_gpuperf.measurement import Baseline, Measurement, Metric, Run
from pytest_gpuperf.rules.identical import compare
from pytest_gpuperf.storage.baselines import Store

KEPT = Path(__file__).parent / "kept"
CUBIN = (KEPT / "two_kernels.cubin").read_bytes()
POOL = "Fake 9000"
PLACE = {"backend": "cuda", "gpu": POOL}
SUITE = """
import numpy as np
import pytest


@pytest.fixture
def values(gpu):
    return gpu.random(64, seed=1)


def test_scale(kernels, gpuperf, values):
    gpuperf(kernels["two.cu"].scale[1, 64], values, 1)
    assert values.get()[0] >= 0


def test_reverse(gpu, kernels, gpuperf, values):
    host = values.get()
    gpuperf(kernels["two.cu"].reverse[1, 64], values)
    gpu.synchronize()
    assert False, "never reached"


def test_counted(gpu, kernels, counters, values):
    found = counters(kernels["two.cu"].scale[1, 64], values, 1)
    assert found.global_load.sectors_per_request == 4


def test_correct(gpu, kernels, values):
    assert False, "measures nothing, and is not run"
"""
COUNTERS = ("global_load.sectors_per_request", "global_load.requests")


@pytest.fixture
def cubin(monkeypatch):
    """What the compiler makes, which needs none here: replace its first item."""
    made = [CUBIN]
    monkeypatch.setattr(
        "pytest_gpuperf.backends.cuda.names.compile_cubin", lambda *_: (made[0], Path("cached"))
    )
    monkeypatch.setattr("pytest_gpuperf.backends.planned.device.compiler_version", lambda: "nvcc 13.0.88")
    monkeypatch.delenv("GITHUB_OUTPUT", raising=False)
    return made


@pytest.fixture
def project(pytester, cubin):
    """A project with two kernels, three tests that measure them, and the baselines of a GPU."""
    (pytester.path / "kernels").mkdir()
    (pytester.path / "kernels/two.cu").write_text((KEPT / "two_kernels.cu").read_text())
    pytester.makepyfile(test_suite=SUITE)
    store(pytester.path)
    return pytester


def store(folder, **environment):
    """Store the baselines; the environment is that of their runs, with what it says otherwise."""
    known = {"compute_capability": "9.0", "compiler": "nvcc 13.0.88", "device_name": POOL, **environment}
    gpu = Gpu(PlannedBackend(POOL, (9, 0), PLACE))
    kernels, values = Kernels(folder / "kernels", gpu)["two.cu"], gpu.random(64, seed=1)
    work = {"scale": (kernels.scale, (values, 1)), "reverse": (kernels.reverse, (values,))}

    def baseline(metric, kernel, contract):
        kernel, arguments = work[kernel]
        code = kernel[1, 64].work_hash(*arguments)
        contract = {"arguments": "float32[64] random(seed=1)", **contract}
        return Baseline(metric, contract, PLACE, 0.001, (Run((1.0,), known, code),))

    timed = {"timing": "events", "l2": "hot", "batch": 64}
    entries = {
        f"test_{name}": {name: baseline(Metric(name, "s", "lower", "noisy", "device_time"), name, timed)}
        for name in work
    }
    entries["test_counted"] = {
        f"scale {figure}": baseline(
            Metric(f"scale {figure}", "1", "lower", "exact", "counters"),
            "scale",
            {"counters": "measured"},
        )
        for figure in COUNTERS
    }
    (folder / "baselines/fake-9000/test_suite.json").unlink(missing_ok=True)
    Store(folder / "baselines").save(POOL, "test_suite.py", entries)


def run(project, *flags, pool=POOL):
    where = [f"--gpuperf-pool={pool}"] if pool else []
    return project.runpytest_inprocess("-p", "no:cacheprovider", "--gpuperf-plan", *where, *flags)


def planned(project):
    return (project.path / "gpuperf-plan.txt").read_text().splitlines()


def lines(result):
    """The plan's words by test, with the reasons."""
    found, last = {}, ""
    for line in result.outlines:
        word, _, rest = line.partition("test_suite.py::")
        if rest and word.strip() in ("identical", "changed", "cannot say", "no baseline", "missing"):
            last = rest.partition(":")[0]
            found[last] = word.strip()
        elif last and line.startswith(" " * 14):
            found[last] += f": {line.strip()}"
            last = ""
    return found


def rewrite(project, old, new, file="test_suite.py"):
    path = project.path / file
    assert old in path.read_text()
    path.write_text(path.read_text().replace(old, new))


def test_what_did_not_change_needs_no_gpu(project, monkeypatch):
    monkeypatch.setenv("GITHUB_OUTPUT", str(project.path / "output"))
    result = run(project)
    assert result.ret == 0
    assert set(lines(result).values()) == {"identical"}
    result.stdout.fnmatch_lines(
        ["*plan for Fake 9000 (sm_90, nvcc 13.0.88)*", "3 identical", "1 test without a figure*"]
    )
    assert planned(project) == []
    assert (project.path / "output").read_text() == "measure=0\n"


def test_a_plan_for_cuda_core_compiles_by_nvrtc(project, monkeypatch):
    nvrtc = "pytest_gpuperf.backends.cuda_core.nvrtc"
    monkeypatch.setattr(f"{nvrtc}.compile_cubin", lambda *_, **__: (CUBIN, ""))
    monkeypatch.setattr(f"{nvrtc}.compiler_version", lambda: "NVRTC 13.0.88")
    result = run(project, "--gpuperf-backend=cuda-core")
    result.stdout.fnmatch_lines(["*plan for Fake 9000 (sm_90, NVRTC 13.0.88)*", "3 cannot say"])
    said = "cannot say: compiled by NVRTC 13.0.88 here, and by nvcc 13.0.88 for its baseline"
    assert set(lines(result).values()) == {said}
    store(project.path, compiler="NVRTC 13.0.88")
    result = run(project, "--gpuperf-backend=cuda-core")
    assert set(lines(result).values()) == {"identical"}


def test_a_changed_kernel_and_no_other_is_to_be_measured(project, cubin, monkeypatch):
    monkeypatch.setenv("GITHUB_OUTPUT", str(project.path / "output"))
    cubin[0] = changed(CUBIN, sections(CUBIN)[".text.reverse"][0])
    result = run(project)
    assert result.ret == 23
    assert planned(project) == ["test_suite.py::test_reverse"]
    result.stdout.fnmatch_lines(["changed *test_reverse", "*other machine code*", "1 changed, 2 identical"])
    result.stdout.fnmatch_lines(["1 test to be measured:", "  pytest @gpuperf-plan.txt --gpuperf *"])
    assert (project.path / "output").read_text() == "measure=1\n"


def test_energy_follows_its_launch_in_a_plan(project):
    rewrite(project, "    gpu.synchronize()", '    gpuperf.compile_time(kernels["two.cu"])')
    found = lines(run(project))
    assert found["test_reverse"].startswith("cannot say: a number that the test takes itself")
    rewrite(project, "    gpuperf(kernels", "    gpuperf.energy(kernels")
    kernel = Kernels(project.path / "kernels", gpu := Gpu(PlannedBackend(POOL, (9, 0), PLACE)))[
        "two.cu"
    ].scale
    code = kernel[1, 64].work_hash(gpu.random(64, seed=1), 1)
    metric = Metric("scale energy", "J", "lower", "noisy", "energy")
    contract = {"arguments": "float32[64] random(seed=1)", "energy": "nvml"}
    known = {"compute_capability": "9.0", "compiler": "nvcc 13.0.88", "device_name": POOL}
    stored = Baseline(metric, contract, PLACE, 0.01, (Run((1.0,), known, code),))
    (project.path / "baselines/fake-9000/test_suite.json").unlink()
    Store(project.path / "baselines").save(POOL, "test_suite.py", {"test_scale": {metric.name: stored}})
    assert lines(run(project))["test_scale"] == "identical"


def test_the_plan_can_be_given_to_pytest(project, cubin):
    cubin[0] = changed(CUBIN, sections(CUBIN)[".text.reverse"][0])
    (project.path / "below").mkdir()
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(project.path / "below")
        run(project, "..", "--gpuperf-plan=plan.txt")
        result = project.runpytest_inprocess("@plan.txt", "--collect-only", "-q")
    assert result.ret == 0
    result.stdout.fnmatch_lines(["test_suite.py::test_reverse", "", "1 test collected*"])


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        (
            "values, 1)\n    assert",
            "values, 0)\n    assert",
            "changed: other machine code, *",
        ),
        (
            "[1, 64], values, 1)\n    assert",
            "[2, 64], values, 1)\n    assert",
            "changed: other machine code*",
        ),
        ("seed=1", "seed=2", "changed: the test no longer measures*random(seed=2)*"),
        (
            "values, 1)\n    assert",
            "values, 1, max=0.5)\n    assert",
            "changed: *is above max=0.5*",
        ),
        (
            "    gpuperf(k",
            "    gpuperf(lambda: None, name='new')\n    gpuperf(k",
            "no baseline: it has no baseline",
        ),
        ("    gpuperf(k", "    raise OSError('no')\n    gpuperf(k", "cannot say: OSError: no"),
        ("    gpuperf(k", "    pytest.skip('not today')\n    gpuperf(k", "cannot say: not today"),
        ("    gpuperf(k", "    return\n    gpuperf(k", "cannot say: it ends before it measures scale"),
        ("gpu.random(64, seed=1)", "gpu.to_device(1 / 0)", "cannot say: ZeroDivisionError: *"),
        (
            "    gpuperf(k",
            "    kernels['two.cu'].scale[1, 64](values, 1)\n    gpuperf(k",
            "cannot say: *not known*",
        ),
        (
            "assert values.get()[0]",
            "assert gpuperf.record('x', 2.0, 's') is None or 1",
            "*: a number that*",
        ),
        ("assert values.get()[0] >= 0", "raise OSError('late')", "cannot say: OSError: late"),
        ("assert values.get()[0] >= 0", "assert values.get()[0] > 2", "identical"),
    ],
)
def test_what_else_is_to_be_measured_says_why(project, old, new, said):
    rewrite(project, old, new)
    found = lines(run(project))["test_scale"]
    assert fnmatch.fnmatch(found, said)
    assert (found == "identical") == ("test_suite.py::test_scale" not in planned(project))


@pytest.mark.parametrize(
    ("teardown", "said"),
    [("gpu.synchronize()", "identical"), ("raise OSError('left')", "cannot say: OSError: left")],
)
def test_a_teardown_that_waits_for_the_gpu_is_no_failure(project, teardown, said):
    rewrite(project, "    return gpu.random(64, seed=1)", f"    yield gpu.random(64, seed=1)\n    {teardown}")
    result = run(project)
    assert lines(result)["test_scale"] == said
    assert result.ret == (0 if said == "identical" else 23)


def test_a_test_with_only_shown_numbers_needs_no_measuring(project):
    (project.path / "test_shown.py").write_text(
        "def test_it(gpuperf): gpuperf.record('x', 1.0, 's', kind='shown')\n"
    )
    result = run(project, "test_shown.py")
    assert result.ret == 0
    result.stdout.fnmatch_lines(["no test measures", "1 test without a figure: *"])


def test_what_is_expected_to_regress_is_to_be_measured(project):
    marker = "@pytest.mark.gpuperf(expected='why', until=DAY)\n"
    rewrite(project, "def test_scale", f"{marker}def test_scale")
    rewrite(project, "import pytest", "import datetime\nimport pytest\nDAY = str(datetime.date.today())")
    assert lines(run(project))["test_scale"] == "cannot say: its marker expects it to regress"


WAITING = """
    try:
        WAIT
    except Exception:
        pass
"""


@pytest.mark.parametrize(
    ("wait", "what"),
    [
        ("gpu.synchronize()", "the end of what was launched"),
        ("kernels['two.cu'].reverse[1, 64](values); values.get()", "the contents of an array"),
        ("np.asarray(gpu.empty(3).get())", "the contents of an array"),
        ("values.__cuda_array_interface__", "an array for another library"),
        ("gpu.device.timer()", "a time"),
        ("counters(kernels['two.cu'].scale[1, 64], values, 1).global_load", "global_load of counters(...)"),
    ],
)
def test_a_result_that_a_test_needs_before_it_measures_is_named(project, wait, what):
    rewrite(project, "def test_scale(", "def test_scale(gpu, counters, ")
    rewrite(project, "    gpuperf(k", WAITING.replace("WAIT", wait) + "    gpuperf(k")
    result = run(project)
    assert result.ret == 23
    if wait.startswith("counters"):  # of which the baseline has none
        assert lines(result)["test_scale"] == "no baseline: it has no baseline"
    else:
        assert lines(result)["test_scale"] == f"cannot say: it needs {what} before it measures scale"


def test_arrays_that_nothing_wrote_to_are_known():
    gpu = Gpu(PlannedBackend(POOL, (9, 0), PLACE))
    host = np.arange(6, dtype=np.float32).reshape(2, 3)
    array = gpu.to_device(host)
    host[:] = 0
    assert array.get().tolist() == [[0, 1, 2], [3, 4, 5]]
    array.contents = None
    with pytest.raises(NeedsResult):
        array.get()


# ------------------------------------------------------------- the baselines


def test_another_compiler_cannot_say(project):
    store(project.path, compiler="nvcc 12.8.93")
    result = run(project)
    assert result.ret == 23
    assert lines(result)["test_scale"] == (
        "cannot say: compiled by nvcc 13.0.88 here, and by nvcc 12.8.93 for its baseline"
    )


def test_a_hash_of_an_older_kind_cannot_say(project):
    rewrite(project, '"code": "k-', '"code": "', "baselines/fake-9000/test_suite.json")
    assert lines(run(project))["test_scale"] == (
        "cannot say: its baseline has a hash of an older kind: record again"
    )


@pytest.mark.parametrize(
    ("codes", "word"),
    [
        (["k-1", "k-1"], "identical"),
        (["k-2", "k-2"], "changed"),
        (["k-1", "k-2"], "cannot say"),
        (["k-1?"], "cannot say"),
        ([None, "k-1"], "cannot say"),
        (["1"], "cannot say"),
        ([], "new"),
    ],
)
def test_work_is_identical_only_if_all_baseline_runs_did_it(codes, word):
    metric = Metric("m", "s", "lower", "noisy", "device_time")
    baseline = Baseline(metric, {}, PLACE, 0.001, tuple(Run((1.0,), {}, code) for code in codes))
    assert compare(baseline, Measurement(metric, {}, (), "k-1")).word == word
    for unknown in (None, "k-1?"):
        assert compare(baseline, Measurement(metric, {}, (), unknown)).word in ("cannot say", "new")


def test_only_what_was_selected_is_planned(project, cubin):
    cubin[0] = changed(CUBIN, sections(CUBIN)[".text.reverse"][0])
    result = run(project, "-k", "scale or counted")
    assert result.ret == 0
    assert set(lines(result)) == {"test_scale", "test_counted"}
    assert run(project, "-k", "correct").ret == 0, "there is nothing to measure"
    assert run(project, "-k", "no_such_test").ret == pytest.ExitCode.NO_TESTS_COLLECTED


@pytest.mark.parametrize(("strict", "code"), [("on", 1), ("off", 0)])
def test_a_test_that_is_gone_is_named_and_fails_strict(project, strict, code):
    rewrite(project, "def test_reverse", "def test_turned")
    rewrite(project, 'assert False, "never reached"', "pass")
    rewrite(project, "def test_turned", "def helper")
    result = run(project, f"--gpuperf-strict={strict}")
    assert result.ret == code
    assert lines(result)["test_reverse"] == "missing"


def test_tests_of_the_host_and_of_models_are_always_measured(project):
    project.makepyfile(test_host="def test_host(benchmark):\n    benchmark(lambda: None)\n")
    result = run(project)
    assert result.ret == 23
    assert planned(project) == ["test_host.py::test_host"]
    result.stdout.fnmatch_lines(["*the host's times are no matter of machine code*"])


def test_a_run_that_is_cut_off_makes_no_plan(project):
    project.makepyfile(test_broken="import no_such_module")
    assert run(project).ret == pytest.ExitCode.INTERRUPTED
    assert not (project.path / "gpuperf-plan.txt").exists()


# ------------------------------------------------------------- what it refuses


@pytest.mark.parametrize(
    ("flags", "pool", "said"),
    [
        ([], "", "*for a pool of GPUs: name it with --gpuperf-pool*"),
        ([], "Fake 9001", "*Fake 9001: there are no baselines of it in *baselines; pools there: fake-9000*"),
        (
            ["--gpuperf-plan=.", "test_suite.py"],
            POOL,
            "*--gpuperf-plan=. is no file that a plan*",
        ),
        (
            ["--gpuperf-plan=no/plan"],
            POOL,
            "*--gpuperf-plan=no/plan is no file*in a folder that exists*",
        ),
        (
            ["--gpuperf-plan", "test_suite.py"],
            POOL,
            "*-plan=test_suite.py is no file*before the flag*",
        ),
        (["--gpuperf-plan", "test_suite.py::test_k"], POOL, "*=test_suite.py::test_k is no file*"),
        (["--gpuperf-plan=notes.txt"], POOL, "*=notes.txt: cannot be written (it is there*"),
        (
            ["--gpuperf", "--gpuperf-update"],
            POOL,
            "*measures nothing: leave out --gpuperf-update*",
        ),
        (["--gpuperf", "--gpuperf-skip-unchanged"], POOL, "*leave out --gpuperf-skip-unchanged*"),
        (["--gpuperf", "--gpuperf-against=HEAD"], POOL, "*leave out --gpuperf-against*"),
        (["-p", "xdist", "-n", "2"], POOL, "*--gpuperf-plan plans in one process; leave out -n*"),
    ],
)
def test_what_it_cannot_do_is_a_usage_error(project, flags, pool, said):
    (project.path / "notes.txt").write_text("not to be lost")
    result = run(project, *flags, pool=pool)
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines([said])


def test_baselines_without_a_capability_are_a_usage_error(project):
    store(project.path, compute_capability=None)
    result = run(project)
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["*do not say one compute capability (*did not store it); record a*"])


def test_baselines_of_no_gpu_are_a_usage_error(project):
    rewrite(project, '"backend": "cuda"', '"backend": "emulated"', "baselines/fake-9000/test_suite.json")
    result = run(project)
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["*its baselines are no GPU's, and --gpuperf-plan is for GPUs*"])


# ------------------------------------------------------------- this repository's own


@needs_nvcc
def test_an_h100s_baselines_are_identical_but_for_a_change(tmp_path):
    """As on a machine of its own: the kernels, suites and baselines of this repository."""
    root = KEPT.parents[1]
    for name in ("kernels", "suites", "baselines"):
        shutil.copytree(root / name, tmp_path / name)
    shutil.copy(root / "pyproject.toml", tmp_path)

    def run(*picked):
        environment = {**os.environ, "PYTHONPATH": str(root)}
        command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", *picked]
        command += ["--gpuperf-plan", "--gpuperf-pool=nvidia-h100-80gb-hbm3"]
        done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
        return done.returncode, done.stdout

    def to_measure():
        return (tmp_path / "gpuperf-plan.txt").read_text().splitlines()

    if "nvcc 13.0.88" not in run("suites/test_layout.py", "-k", "sectors")[1]:
        pytest.skip("the baselines are another nvcc's")
    code, said = run("suites", "--ignore=suites/test_resnet50.py")
    assert to_measure() == ["suites/test_launch_overhead.py::test_launch_and_wait"], said
    assert code == 23
    assert "37 identical" in said

    kernels = tmp_path / "kernels/reduce.cu"
    kernels.write_text(kernels.read_text().replace("#pragma unroll 8", "#pragma unroll 4"))
    assert run("suites/test_reduce.py")[0] == 23
    assert to_measure() == [
        f"suites/test_reduce.py::test_{test}[sum_vectorized]" for test in ("latency", "sectors_and_conflicts")
    ]
