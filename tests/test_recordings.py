"""More real work, and what was recorded of it on GPUs: the suite, its recordings and what comes of them."""

from __future__ import annotations

import ast
import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from recordedruns import CHECKOUT, RECORDINGS, STUDIES, load, runs_of, steady, with_record, write

from pytest_gpuperf.backends.arguments import check
from pytest_gpuperf.backends.emulated.device import EmulatedBackend
from pytest_gpuperf.backends.gpu import Gpu
from pytest_gpuperf.backends.kernels import Kernels
from pytest_gpuperf.errors import Unavailable
from pytest_gpuperf.instruments.counters import count
from pytest_gpuperf.measurement import Baseline
from pytest_gpuperf.rules import calibration
from pytest_gpuperf.storage.baselines import Store
from pytest_gpuperf.storage.calibrations import append_run, read_result, read_runs

pytestmark = pytest.mark.usefixtures("bare")  # the sessions that are started here need no other plugin

MODEL_UNITS = ("5bcef7a0", "26426274")  # and those of LoadGen's
UNITS = ("cbe74486", "2ccd0ac4", "bad329e4")  # the H100s whose runs are the baselines, in their order there

side_by_side, by_kernel, by_unit = load("side_by_side.py"), load("by_kernel.py"), load("by_unit.py")
store_runs, query_noise = load("store_runs.py"), load("query_noise.py")
more_work, gpu_runs = load("more_work/test_more_work.py"), load("gpu_runs.py")


def recording(name: str) -> str:
    return str(RECORDINGS / f"{name}.jsonl.xz")


def study(percent: int, *options: str, plugins: Path | None = None) -> str:
    """What the suite with more work prints, emulated."""
    done = subprocess.run(
        [
            *(sys.executable, "-m", "pytest", "docs/studies/more_work/test_more_work.py", "--gpuperf"),
            *("--gpuperf-strict=off", "--gpuperf-backend=emulated"),
            *("-p", "no:cacheprovider", *options),
        ],
        cwd=CHECKOUT,
        env=os.environ | {"GPUPERF_STUDY_PERCENT": str(percent), "PYTHONPATH": str(plugins or "")},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stdout
    return done.stdout


@pytest.fixture
def emulated():
    """An emulated device and the shipped kernels on it."""
    try:
        backend = EmulatedBackend()
    except Unavailable as missing:
        pytest.skip(str(missing))
    gpu = Gpu(backend)
    yield gpu, Kernels(CHECKOUT / "kernels", backend)
    gpu.close()


def test_more_work_is_that_much_more_of_it(emulated):
    for name, work in more_work.WORK.items():
        loads = {}
        for percent in (0, 5):
            launch, arguments, is_right = work(*emulated, name, percent)
            checked = check(launch.declaration, arguments, launch.backend)
            found = count(launch.file.program, launch.name, launch.geometry, checked)
            loads[percent] = found.global_load.sectors
            launch(*arguments)
            assert is_right()
        assert loads[5] == pytest.approx(1.05 * loads[0], rel=0.01), name


def test_what_is_wrong_with_more_work_is_seen(emulated):
    for name, work in more_work.WORK.items():
        launch, arguments, is_right = work(*emulated, name, 3)
        launch(*arguments)
        written = arguments[2] if name == "matmul_tiled" else arguments[1]
        values = written.get()
        values.reshape(-1)[0] += 1
        written.set(values)
        assert not is_right(), name


def test_the_suite_with_more_work_asks_the_same_question(tmp_path: Path):
    (tmp_path / "tell_contracts.py").write_text(
        "from pytest_gpuperf.records import payload_of\n"
        "def pytest_runtest_logreport(report):\n"
        "    record = payload_of(report).record\n"
        "    if record:\n"
        "        print('CONTRACT', [dict(m.contract) for m in record.measurements])\n"
    )
    contracts = {}
    for percent in (0, 3):
        printed = study(percent, "-p", "tell_contracts", "-s", plugins=tmp_path)
        lines = [line.partition("CONTRACT ")[2] for line in printed.splitlines() if "CONTRACT" in line]
        contracts[percent] = [ast.literal_eval(line) for line in lines]
    assert len(contracts[0]) == len(more_work.WORK)
    assert contracts[0] == contracts[3]


@pytest.mark.parametrize(
    ("study", "only", "rows_wanted", "totals"),
    [
        (
            by_kernel.WORK,
            ["26426274", "4fab7025"],
            2 * len(more_work.WORK),
            [
                "26426274, +2 % work, tolerance 1 %: 70 of 70 red",
                "4fab7025, +2 % work, tolerance 1 %: 67 of 70 red",
            ],
        ),
        (
            by_kernel.WORK,
            ["76f435df", "d6bc766d"],
            2 * len(more_work.WORK),
            [
                "76f435df, +0 % work, tolerance 1 %: 0 of 70 red",
                "76f435df, +2 % work, tolerance 1 %: 64 of 70 red",
            ],
        ),
        (
            by_kernel.MODEL,
            [],
            2 * 5,
            ["26426274, +0 blocks: 0 of 50 red", "5bcef7a0, +1 blocks: 10 of 25 red"],
        ),
    ],
)
def test_the_recorded_runs_give_the_documented_table(study, only, rows_wanted, totals):
    printed = by_kernel.table(RECORDINGS, study, only)
    assert [line for line in totals if line not in printed.splitlines()] == []
    rows = [line for line in printed.splitlines() if line.startswith("| `")]
    assert len(rows) == rows_wanted
    documented = (STUDIES / "README.md").read_text()
    assert [row for row in rows if row not in documented] == []


@pytest.mark.parametrize(
    "files",
    [
        [f"{unit}-identical" for unit in ("2eb30336", *UNITS, "83dda2fb", "dca975f1")],
        *([f"{unit}-model-{more}" for unit in MODEL_UNITS] for more in range(3)),
    ],
)
def test_the_recorded_runs_give_the_documented_medians(files):
    printed = by_unit.table([Path(recording(file)) for file in files])
    assert f"\n{printed}\n" in (STUDIES / "README.md").read_text()


@pytest.mark.parametrize("baseline", [[], ["--baseline", recording(f"{UNITS[0]}-identical")]])
def test_the_recorded_runs_give_the_documented_verdicts(baseline, monkeypatch, capsys):
    """This package's rows: 0 of 60 runs of identical code, and the power beside it."""
    monkeypatch.setattr(side_by_side, "JUDGES", dict(list(side_by_side.JUDGES.items())[:3]))
    side_by_side.main([*(recording(f"{unit}-identical") for unit in UNITS[1:]), *baseline])
    documented = (STUDIES / "README.md").read_text()
    rows = [line for line in capsys.readouterr().out.splitlines() if line.startswith("| pytest-gpuperf")]
    assert [row for row in rows if row not in documented] == []
    assert len(rows) == 3
    assert all("| 0 of 60 | 4.9 % | 0 of 780 |" in row for row in rows)


@pytest.mark.parametrize(
    ("names", "suites"),
    [([f"{unit}-identical" for unit in UNITS], 4), ([f"{unit}-model-0" for unit in MODEL_UNITS], 1)],
)
def test_the_recorded_runs_give_the_committed_baselines(tmp_path: Path, capsys, names, suites):
    """Five runs a unit; what differs is a baseline that somebody typed. Others were recorded beside them."""
    store_runs.main([*map(recording, names), "--baselines", str(tmp_path)])
    written, stores = capsys.readouterr().out.split(), (Store(tmp_path), Store(CHECKOUT / "baselines"))
    assert len(written) == suites
    for path in map(Path, written):
        suite = path.relative_to(tmp_path).with_suffix(".py")
        of_runs, committed = (
            store.load(suite.parts[0], Path(*suite.parts[1:]).as_posix()) for store in stores
        )
        for test, metrics in of_runs.items():
            for name, baseline in metrics.items():
                assert _as_recorded(committed[test][name]) == _without_code(baseline), (test, name)
                codes = zip(committed[test][name].runs, baseline.runs, strict=True)
                assert len({(now.code, then.code) for now, then in codes}) == 1, (test, name)


def _as_recorded(baseline: Baseline) -> Baseline:
    """Leave out what tools/rehash.py has added to the runs: their kernels' own hashes, and for which GPU."""
    environments = [{**run.environment} for run in baseline.runs]
    for environment in environments:
        environment.pop("compute_capability", None)
    runs = zip(baseline.runs, environments, strict=True)
    return _without_code(
        replace(baseline, runs=tuple(replace(run, environment=known) for run, known in runs))
    )


def _without_code(baseline: Baseline) -> Baseline:
    return replace(baseline, runs=tuple(replace(run, code=None) for run in baseline.runs))


def test_the_recorded_runs_give_the_committed_calibration(monkeypatch):
    """That of both units' sixty runs; the power, which takes five times as long, is left out."""
    monkeypatch.setattr(calibration, "SHIFTS", (0.02,))
    files = [Path(recording(f"{unit}-identical")) for unit in UNITS[1:]]
    runs = [run for file in files for run in side_by_side.recorded(file)]
    (found,) = calibration.calibrate(runs, 5)
    stored = read_result(CHECKOUT / "baselines" / "nvidia-h100-80gb-hbm3.calibration.json")
    assert replace(found, tests={}) == replace(stored, tests={})
    assert found.reds.runs == calibration.Rate(0, 60)
    for name, test in found.tests.items():
        for metric, result in test.metrics.items():
            assert result.power["2"] == stored.tests[name].metrics[metric].power["2"]
            assert result.spread == pytest.approx(stored.tests[name].metrics[metric].spread)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"unfit": "throttled"}, "no baseline: throttled"),
        ({"environment": {"commit": "c0de", "dirty": True}}, "at a commit without changes"),
        ({"environment": {}}, "at a commit without changes"),
    ],
)
def test_what_is_no_baseline_is_not_stored(tmp_path: Path, change, words):
    file = write(tmp_path / "runs.jsonl", with_record(runs_of(steady()), **change))
    with pytest.raises(SystemExit, match=words):
        store_runs.main([file, "--baselines", str(tmp_path / "baselines")])
    with pytest.raises(SystemExit, match="has 12 runs of the 13"):
        store_runs.main([file, "--runs", "13", "--baselines", str(tmp_path / "baselines")])
    assert not (tmp_path / "baselines").exists()


def test_what_goes_with_the_query_is_told_from_what_does_not():
    """Three processes: the host's loop has another speed in each, as the query has, and the graph has not."""
    fixed = {"copy": 0.1, "graph": 0.4, "device": 0.3}
    rounds = [
        [{**fixed, "query": 0.5 * host, "launch": 0.01 * host**2, "loop": 0.2 * host}] * 2
        for host in (1.0, 1.1, 1.3)
    ]
    rows = [
        [cell.strip() for cell in line.split("|")[1:-1]] for line in query_noise.summary(rounds).splitlines()
    ]
    found = {row[0]: row for row in rows}
    assert found["graph"] == ["graph", "0.4000", "0.00%", "0.00%", "not known"]
    assert found["loop"][4] == found["launch"][4] == "+1.00"
    assert found["query"][1] == "0.5500"
    assert found["query"][2] == found["loop"][2] == "13.28%"
    assert query_noise.row(rounds[0]) == "| 0.5000 | 0.1000 | 0.4000 | 0.3000 | 0.0100 | 0.2000 |"


# Recording


def test_the_suites_model_has_so_many_blocks_more(tmp_path: Path, monkeypatch):
    pytest.importorskip("onnx", reason="makes a model")
    import onnx

    monkeypatch.setenv("PYTEST_GPUPERF_CACHE", str(tmp_path))
    found = {}
    for more in (0, 2):
        environment = {**os.environ, **gpu_runs.variables("model", more)}
        (tmp_path / "test_it.py").write_text(
            "def test_it(resnet50):\n    print(resnet50.name, resnet50.recipe, resnet50.path, sep='|')\n"
        )
        flags = ("-p", "pytest_gpuperf.plugin", "-p", "no:cacheprovider")  # the study names its own plugin
        command = [sys.executable, "-m", "pytest", "-sq", *flags, str(tmp_path)]
        output = subprocess.run(command, env=environment, capture_output=True, text=True).stdout
        name, recipe, path = next(line for line in output.splitlines() if "|" in line).split("|")
        convolutions = sum(node.op_type == "Conv" for node in onnx.load(path).graph.node)
        found[more] = (name, recipe), convolutions
    assert found[2][0] == found[0][0]
    assert found[2][1] == found[0][1] + 2 * 3  # a bottleneck block is three of them


def test_recorded_runs_are_kept_and_added_to(pytester: pytest.Pytester, monkeypatch):
    pytester.makeini("[pytest]\ngpuperf_judge_host_times = true\n")
    pytester.makepyfile(
        test_it="import os\ndef test_it(gpuperf):\n"
        "    gpuperf.record('x', 1.0 + int(os.environ['GPUPERF_STUDY_PERCENT']), 's')\n"
    )
    monkeypatch.setattr(gpu_runs, "ROOT", pytester.path)
    out = pytester.path / "out" / "work-2.jsonl"
    out.parent.mkdir()
    append_run(out, runs_of([(9.0,)])[0])
    quick = ["--gpuperf-runs=1"]
    assert gpu_runs.record(["test_it.py"], {"GPUPERF_STUDY_PERCENT": "2"}, 6, out, quick) == 0
    values = [test.record.measurements[0].value for run in read_runs(out) for test in run.values()]
    assert values == [9.0] + [3.0] * 6
    assert json.loads((out.parent / "baselines" / "cpu.calibration.json").read_text())["runs"] == 6
