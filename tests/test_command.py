"""The command ``gpuperf``: what it shows, compares, renames, checks and starts."""

from __future__ import annotations

import io
import json
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import scipy.special  # noqa: F401  (before pytester forgets what it imported)
from gitproject import Repository

import pytest_gpuperf.report.results  # noqa: F401
from pytest_gpuperf.command import SUBCOMMANDS, main
from pytest_gpuperf.command import checks as looked_at
from pytest_gpuperf.errors import Unavailable
from pytest_gpuperf.files import writing
from pytest_gpuperf.measurement import Baseline, Metric, Run
from pytest_gpuperf.storage.baselines import Store

CHECKOUT = Path(__file__).parent.parent
TIME = Metric("latency", "s", "lower", "noisy", "device_time")
POOL = "NVIDIA H100 80GB HBM3"


def baseline(*values: float, driver: str = "580.1", device_uuid: str = "GPU-1", **contract: str) -> Baseline:
    environment = {
        "date": "2026-11-20T00:00:00+00:00",
        "driver": driver,
        "device_uuid": device_uuid,
        "commit": "ab",
    }
    runs = tuple(Run((value,), {**environment, "number": i}) for i, value in enumerate(values))
    return Baseline(TIME, contract, {"backend": "cuda"}, 0.001, runs)


@pytest.fixture
def store(tmp_path, monkeypatch) -> Store:
    """The baselines of two suite files, in the current folder."""
    monkeypatch.chdir(tmp_path)
    store = Store(tmp_path / "baselines")
    tests = {
        name: {"latency": baseline(1e-3, 1.001e-3, 0.999e-3)}
        for name in ("test_x[1]", "test_x[2]", "test_xy")
    }
    store.save(POOL, "suites/test_a.py", tests)
    store.save("emulated", "suites/test_a.py", {"test_x[1]": {"latency": baseline(2e-3, device_uuid="")}})
    return store


def test_show_lists_pools_and_on_demand_each_metric(store, capsys):
    assert main(["show"]) == 0
    listed = capsys.readouterr().out
    assert "nvidia-h100-80gb-hbm3  3 tests, 3 metrics, 1 unit, recorded 2026-11-20" in listed
    assert "emulated  1 test, 1 metric, recorded 2026-11-20" in listed
    assert main(["show", "suites/test_a.py::test_x", "--pool", POOL]) == 0
    out = capsys.readouterr().out
    assert "1000 µs (runs within 0.2 %)" in out
    assert "latency  3 runs, 2026-11-20, commit ab" in out
    assert "test_xy" not in out
    assert main(["show", "--json"]) == 0
    assert len(json.loads(capsys.readouterr().out)) == 4


# --------------------------------------------------------------------------- rename


def test_a_renamed_tests_baselines_follow_whole(store, tmp_path):
    before = Store(tmp_path / "baselines").load(POOL, "suites/test_a.py")
    assert main(["rename", "suites/test_a.py::test_x", "suites/test_b.py::test_z"]) == 0
    after = Store(tmp_path / "baselines")
    assert set(after.load(POOL, "suites/test_a.py")) == {"test_xy"}
    moved = after.load(POOL, "suites/test_b.py")
    assert moved == {"test_z[1]": before["test_x[1]"], "test_z[2]": before["test_x[2]"]}
    assert f'"pool": "{POOL}"' in after.path(POOL, "suites/test_b.py").read_text()
    assert after.suites("emulated") == ["suites/test_b.py"]


def test_a_renamed_files_baselines_follow(store, tmp_path, capsys):
    assert main(["rename", "suites/test_a.py", "suites/new/test_a.py"]) == 0
    assert Store(tmp_path / "baselines").suites(POOL) == ["suites/new/test_a.py"]
    assert "nvidia-h100-80gb-hbm3: 3 tests" in capsys.readouterr().out


def test_a_rename_replaces_no_other_baseline(store, tmp_path, capsys):
    other = {"test_z[2]": {"latency": baseline(5e-3)}}
    store.save(POOL, "suites/test_b.py", other)
    files = {path: path.read_bytes() for path in (tmp_path / "baselines").rglob("*.json")}
    assert main(["rename", "suites/test_a.py::test_x", "suites/test_b.py::test_z"]) == 2
    assert "test_z[2] has baselines already" in capsys.readouterr().err
    assert {path: path.read_bytes() for path in (tmp_path / "baselines").rglob("*.json")} == files


def test_a_rename_that_was_cut_off_may_be_repeated(store, tmp_path):
    there = {"test_z[1]": store.load(POOL, "suites/test_a.py")["test_x[1]"]}
    store.save(POOL, "suites/test_b.py", there)
    assert main(["rename", "suites/test_a.py::test_x", "suites/test_b.py::test_z"]) == 0
    assert set(Store(tmp_path / "baselines").load(POOL, "suites/test_b.py")) == {"test_z[1]", "test_z[2]"}


def test_a_rename_waits_for_who_writes_the_file(store, monkeypatch, capsys):
    monkeypatch.setattr("pytest_gpuperf.files._PATIENCE", 0.2)
    path = store.path(POOL, "suites/test_a.py")
    before = path.read_bytes()
    with writing(path, store.folder):
        assert main(["rename", "suites/test_a.py", "suites/test_b.py"]) == 2
    assert "Another process has been writing it" in capsys.readouterr().err
    assert path.read_bytes() == before


def test_rename_names_the_quarantine_entry(store, tmp_path, capsys):
    (tmp_path / "baselines" / "quarantine.toml").write_text(
        '[[quarantine]]\ntest = "suites/test_a.py::test_xy"\npool = "*"\nreason = "r"\nowner = "o"\n'
        f"expires = {__import__('datetime').date.today()}\n"
    )
    assert main(["rename", "suites/test_a.py::test_xy", "suites/test_a.py::test_q"]) == 0
    assert "an entry names 'suites/test_a.py::test_xy'; rename it there, too" in capsys.readouterr().out


# --------------------------------------------------------------------------- diff


def test_diff_compares_revisions_of_baselines(pytester, monkeypatch, capsys):
    repository = Repository(pytester)
    store = Store(repository.path / "baselines")
    old = {
        "test_a": {"latency": baseline(1e-3, 1.001e-3, 0.999e-3)},
        "test_gone": {"latency": baseline(1e-3)},
        "test_far": {"latency": baseline(1e-3, 1e-3, 1e-3)},
    }
    store.save(POOL, "test_s.py", {**old, "test_noisy": {"latency": baseline(1e-3, 1.2e-3, 0.8e-3)}})
    repository.commit()
    new = {
        "test_a": {"latency": baseline(1.1e-3, 1.101e-3, 1.099e-3, driver="590.2")},
        "test_gone": {},
        "test_far": {"latency": baseline(8e-3, 8e-3, 8e-3)},
        "test_noisy": {"latency": baseline(1.1e-3, 1.3e-3, 0.9e-3, driver="590.2")},
    }
    store.save(POOL, "test_s.py", new)
    monkeypatch.chdir(repository.path)
    assert main(["diff", "HEAD"]) == 0
    out = capsys.readouterr().out
    assert "driver 580.1 -> 590.2" in out
    assert "latency  1000 µs -> 1.100 ms  +10.00 %" in out
    assert "the runs vary by as much" in out
    assert "latency  1.000 ms -> 8.000 ms  x8" in out
    assert out.endswith("2 worse, 1 unclear, 1 only in A\n")
    assert main(["diff", "HEAD", "--markdown"]) == 0
    row = "| `test_s.py::test_a` | `latency` | 1000 µs -> 1.100 ms  +10.00 % |  |"
    assert f"| 🔴 worse | nvidia-h100-80gb-hbm3 {row}" in capsys.readouterr().out
    monkeypatch.setattr("sys.stdout", io.TextIOWrapper(io.BytesIO(), encoding="ascii"))
    assert main(["diff", "HEAD", "--markdown"]) == 0, "an encoding without these characters is no traceback"


def results(path: Path, value: float, driver: str, here: tuple[float, ...]) -> str:
    from pytest_gpuperf.report import results as r

    metric = r.MetricResult(
        "latency", "s", "lower", "noisy", "device_time", "equal", value=value, here=[*here]
    )
    machine = r.Machine(POOL, {}, {}, {"driver": driver})
    test = r.TestResult("suites/test_a.py", "test_x", machine=0, metrics=[metric])
    document = r.Document(
        1,
        "0.1.0",
        "r",
        "2026-11-27T00:00:00+00:00",
        0,
        False,
        "pytest",
        "c" * 40,
        machines=[machine],
        tests=[test],
    )
    path.write_bytes(r.render(document))
    return str(path)


def test_diff_of_two_stacks_names_the_driver_first(tmp_path, capsys):
    old = results(tmp_path / "old.json", 1e-3, "580.1", (1e-3, 1.001e-3, 0.999e-3))
    new = results(tmp_path / "new.json", 1.1e-3, "590.2", (1.1e-3, 1.101e-3, 1.099e-3))
    assert main(["diff", old, new]) == 0
    out = capsys.readouterr().out
    assert 0 < out.index("driver 580.1 -> 590.2") < out.index("worse")
    assert main(["diff", old, results(tmp_path / "one.json", 1.1e-3, "590.2", ())]) == 0
    assert "rests on 3 and 1 process:" in capsys.readouterr().out


# --------------------------------------------------------------------------- doctor


def test_doctor_says_what_is_there_and_what_to_do(store, capsys, monkeypatch):
    monkeypatch.setattr("pytest_gpuperf.backends.cuda.driver.device_count", lambda: 0)
    assert main(["doctor", "--json"]) == 0
    found = {each["name"]: each for each in json.loads(capsys.readouterr().out)}
    assert found["driver"]["state"] == "warn"
    assert found["host compiler"]["state"] == "ok"
    assert (found["git"]["state"], found["git"]["do"]) == ("missing", "git init, and commit")
    assert found["baselines"]["says"].startswith("emulated: newest of 2026-11-20")
    monkeypatch.setenv("CXX", "/no/such/compiler")
    assert main(["doctor"]) == 1
    line = next(line for line in capsys.readouterr().out.splitlines() if "host compiler" in line)
    assert line.startswith("missing  host compiler")


@pytest.mark.parametrize(
    ("entries", "code", "says"),
    [({}, 0, "has none of emulated (but of: "), ({"test_a": {"x": 1}}, 1, "test_a")],
)
def test_doctor_reads_every_baseline_of_the_device(store, capsys, monkeypatch, entries, code, says):
    """A file without an entry was a traceback, and one that fails every test was not needed."""
    monkeypatch.setattr("pytest_gpuperf.backends.cuda.driver.device_count", lambda: 0)
    path = next((store.folder / "emulated").rglob("*.json"))
    path.write_text(json.dumps({**json.loads(path.read_text()), "entries": entries}))
    assert main(["doctor", "--json"]) == code
    found = {each["name"]: each for each in json.loads(capsys.readouterr().out)}
    assert found["baselines"]["state"] == "missing"
    assert says in found["baselines"]["says"]


def test_doctor_on_a_gpu_lacks_what_is_not_there(store, capsys, monkeypatch):
    def none(*_):
        raise Unavailable("nvcc is not on PATH; install it.")

    monkeypatch.setattr("pytest_gpuperf.backends.cuda.compile.find_nvcc", none)
    assert main(["doctor", "--backend=cuda", "--json"]) == 1
    found = {each["name"]: each for each in json.loads(capsys.readouterr().out)}
    assert found["nvcc"] == {
        "name": "nvcc", "state": "missing", "says": "nvcc is not on PATH", "do": "install it", "needed": True
    }  # fmt: skip


def test_doctor_asks_no_compiler_of_cuda_core(store, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "cuda", None)

    def none():
        raise Unavailable("NVRTC is missing; get it.")

    monkeypatch.setattr("pytest_gpuperf.backends.cuda_core.nvrtc.library", none)
    assert main(["doctor", "--backend=cuda-core", "--json"]) == 1
    found = {each["name"]: each for each in json.loads(capsys.readouterr().out)}
    assert found["cuda.core"]["do"] == 'pip install "pytest-gpuperf[cuda-core]"'
    assert found["cuda.core"]["says"].startswith("cuda.core cannot be imported")
    assert (found["NVRTC"]["state"], found["NVRTC"]["do"]) == ("missing", "get it")
    assert not {"PyCUDA", "nvcc", "host compiler"} & found.keys()


class StandInNvml(SimpleNamespace):
    """A GPU that is hot, and that another process uses."""

    nvmlInit = nvmlShutdown = staticmethod(lambda: None)
    nvmlDeviceGetCount = staticmethod(lambda: 1)
    nvmlDeviceGetHandleByIndex = staticmethod(lambda index: index)
    nvmlDeviceGetClockInfo = staticmethod(lambda device, kind: 1200)
    nvmlDeviceGetMaxClockInfo = staticmethod(lambda device, kind: 1980)
    nvmlDeviceGetCurrentClocksEventReasons = staticmethod(lambda device: 0x40)
    nvmlDeviceGetComputeRunningProcesses = staticmethod(lambda device: [SimpleNamespace(pid=4711)])


def test_doctor_names_throttling_and_other_processes():
    found = looked_at._gpu_state(StandInNvml())
    assert found.state == "warn"
    assert "SM clock 1200 of 1980 MHz, its hardware slowed it down for heat" in found.says
    assert "1 other process on it: 4711" in found.says


# --------------------------------------------------------------------------- init, and wrong input


def test_init_writes_a_suite_that_runs_and_overwrites_nothing(pytester, capsys, kernel_cache):
    folder = pytester.path
    (folder / "suites").mkdir()
    (folder / ".gitlab-ci.yml").write_text("mine")
    assert main(["init", str(folder), "--ci=gitlab"]) == 0
    out = capsys.readouterr().out
    assert f"kept   {folder / '.gitlab-ci.yml'}" in out
    assert (folder / ".gitlab-ci.yml").read_text() == "mine"
    (folder / ".gitlab-ci.yml").unlink()
    assert main(["init", str(folder)]) == main(["init", str(folder), "--ci=gitlab"]) == 0
    assert "@REQUIREMENT@" not in (folder / ".github/workflows/gpuperf.yml").read_text()
    assert 'pip install "pytest-gpuperf' in (folder / ".gitlab-ci.yml").read_text()
    for workflow in (".github/workflows/gpuperf.yml", ".gitlab-ci.yml"):
        assert (folder / workflow).read_text().count("gpuperf-accept") >= 2  # a label, and the flag
    done = pytester.runpytest_subprocess(
        "suites", "--gpuperf", "--gpuperf-backend=emulated", "--gpuperf-update"
    )
    done.stdout.fnmatch_lines(["Recorded 6 metrics of 1 test *"])


WRONG = {
    "show nothing.py": "has no baselines of nothing.py",
    "show --pool=h999": "has no pool 'h999', but emulated, nvidia-h100-80gb-hbm3",
    "show --baselines=nowhere": "--baselines=nowhere: there is no such folder",
    "show ../test_a.py": "lies outside",
    "rename suites/test_a.py suites/test_a.py::test_x": "give two files, or two tests",
    "rename suites/test_a.py::test_no suites/test_a.py::test_x": "has no baselines of suites/",
    "rename suites/test_a.txt suites/b.py": "is no test: give FILE.py or FILE.py::TEST",
    "diff no.json other.json": "no.json: there is no such file",
    "diff result.json": "result.json is a file: give two result files",
    "diff result.json result.json": "result.json: line 1 column 1 is not JSON",
    "diff HEAD": "not a git repository",
    "nosuch": "invalid choice: 'nosuch'",
}


@pytest.mark.parametrize("line", WRONG)
def test_wrong_input_is_one_sentence(line, store, tmp_path, capsys):
    (tmp_path / "result.json").write_text("mine")
    try:
        status = main(line.split())
    except SystemExit as exit:
        status = exit.code
    err = capsys.readouterr().err
    assert (status, err.count("\n")) == (2, 1), err
    assert WRONG[line] in err


def test_every_subcommand_explains_itself(capsys):
    for name in SUBCOMMANDS:
        with pytest.raises(SystemExit) as end:
            main([name, "--help"])
        assert end.value.code == 0
        assert len(capsys.readouterr().out) > 200
