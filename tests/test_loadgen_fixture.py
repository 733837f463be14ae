"""The ``loadgen`` and ``resnet50`` fixtures end to end: suites run models on the CPU."""

from __future__ import annotations

from importlib.util import find_spec
from types import SimpleNamespace

import numpy as np
import pytest

from pytest_gpuperf.errors import GpuperfError
from pytest_gpuperf.files import own_folder
from pytest_gpuperf.instruments import device_time
from pytest_gpuperf.mlperf.fixtures import LoadGen
from pytest_gpuperf.mlperf.logs import DETAIL
from pytest_gpuperf.mlperf.request import Request
from pytest_gpuperf.mlperf.session import Team
from pytest_gpuperf.mlperf.sut import Sut

pytestmark = [
    pytest.mark.skipif(
        not all(find_spec(name) for name in ("mlperf_loadgen", "onnx", "onnxruntime")),
        reason="needs mlcommons-loadgen, onnx and onnxruntime: pip install 'pytest-gpuperf[mlperf,cpu]'",
    ),
]

# A network small enough for tests, one class for each of the ten values an image of one pixel can have.
MODEL = """
    import dataclasses, time
    from pathlib import Path
    import numpy as np
    import onnx
    import pytest
    from onnx import TensorProto, helper, numpy_helper
    from pytest_gpuperf.mlperf.accuracy import StoredPredictions
    from pytest_gpuperf.mlperf.models import Model

    class Numbers:
        name = "numbers"
        def __init__(self, count=None):
            self.labels = (np.arange(64) % 10)[:count]
        def __len__(self):
            return len(self.labels)
        def images(self, indices):
            images = np.zeros((len(indices), 10), np.float32)
            images[np.arange(len(indices)), np.asarray(indices) % 10] = 1
            return images

    def network(path, weights, inputs=10):
        graph = helper.make_graph(
            [helper.make_node("MatMul", ["x", "w"], ["scores"])],
            "tiny",
            [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", inputs])],
            [helper.make_tensor_value_info("scores", TensorProto.FLOAT, ["n", 10])],
            [numpy_helper.from_array(weights.astype(np.float32), "w")],
        )
        onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), path)
        return path

    @pytest.fixture
    def tiny(tmp_path):
        stored = StoredPredictions((np.arange(64) % 10).astype(np.uint8), np.ones(64, np.float32))
        path = network(tmp_path / "tiny.onnx", np.eye(10))
        return Model("tiny", path, "by hand", Numbers, input_shape=(10,), reference=stored)
"""
QUICK = ("-p", "no:cacheprovider")


def run(pytester: pytest.Pytester, test: str, *flags: str) -> pytest.RunResult:
    import textwrap

    pytester.makepyfile(test_model=textwrap.dedent(MODEL) + textwrap.dedent(test))
    return pytester.runpytest_subprocess(*QUICK, *flags)


PHASES = """
@pytest.mark.parametrize("scenario", ["SingleStream", "Offline"])
def test_performance(loadgen, tiny, scenario):
    result = loadgen(tiny, scenario, seconds=0.2)
    assert result.samples_per_second > 0

def test_accuracy(loadgen, tiny):
    assert loadgen(tiny, mode="accuracy", output="out").correct == 64

def test_server(loadgen, tiny):
    result = loadgen(tiny, "Server", qps=2000, max_latency=0.5, seconds=0.2)  # 662 queries at least
    assert result.latency.p99.enough

def test_peak(loadgen, tiny):
    peak = loadgen.find_peak(tiny, max_latency=0.5, seconds=0.5, resolution=9)
    assert peak.qps > 200

def test_recorded(loadgen, tiny):  # classes 3 and 4 are wrong, and once "swapped" is there, 5 and 3 are
    weights, (one, other) = np.eye(10), (3, 4) if not Path("swapped").exists() else (5, 3)
    weights[:, one] = weights[:, other] = 0
    network(tiny.path, weights)
    loadgen(dataclasses.replace(tiny, reference=None), mode="accuracy", count=60)
"""


def test_times_are_shown_and_accuracy_is_judged(pytester: pytest.Pytester):
    (pytester.path / "baselines").mkdir()
    what_is_stored = ("-k", "accuracy or recorded", "--gpuperf-update", "--gpuperf-runs=1")
    result = run(pytester, PHASES, "--gpuperf", *what_is_stored)
    assert result.ret == 0, result.stdout.str()
    result = pytester.runpytest_subprocess(*QUICK, "--gpuperf", "--gpuperf-strict=on")
    assert result.ret == 0, result.stdout.str()
    result.stdout.fnmatch_lines(
        [
            "equal *test_accuracy*",
            "shown *eStream*",
            "shown *latency_p50*",
            "shown *test_peak*1/s*",
            "*p99.9*",
        ]
    )
    (pytester.path / "audit.config").touch()  # what is said of a phase comes out of the test's own process
    (pytester.path / "swapped").touch()
    result = pytester.runpytest_subprocess(*QUICK, "--gpuperf", "-k", "recorded")
    assert result.ret == 1
    result.stdout.fnmatch_lines(["*regressed: answers*", "*not the answers that the baseline recorded*"])
    result.stdout.fnmatch_lines(["*::test_recorded: */audit.config lies in the working directory and*"])
    (logs,) = (pytester.path / ".gpuperf" / "loadgen").glob("*Offline*")
    assert list(logs.rglob("mlperf_log_summary.txt"))
    assert not list((pytester.path / ".gpuperf").rglob("mlperf_log_trace.json"))  # megabytes of every phase


def test_two_sessions_of_one_checkout_keep_their_logs_apart(pytester: pytest.Pytester):
    one = "def test_it(loadgen, tiny): assert loadgen(tiny, 'SingleStream').latency.p50"
    theirs = pytester.path / ".gpuperf" / "loadgen" / "test_model.py_test_it"
    logs = f"1-SingleStream-fp32/{DETAIL}"
    with own_folder(theirs):  # as another session does, on another GPU
        (theirs / logs).parent.mkdir()
        (theirs / logs).write_text("theirs")
        run(pytester, one).assert_outcomes(passed=1)
        assert (theirs / logs).read_text() == "theirs"
    assert (theirs.with_name(f"{theirs.name}-2") / logs).exists()
    run(pytester, one).assert_outcomes(passed=1)
    assert (theirs / logs).read_text() != "theirs"  # in place of a finished run's


def test_without_the_flag_phases_are_short_and_unjudged(pytester: pytest.Pytester):
    phases = """
        def test_it(loadgen, tiny):
            begin = time.perf_counter()
            with pytest.raises(Exception, match="output: .*test_model.py is no folder"):
                loadgen(tiny, "SingleStream", output=__file__)
            assert loadgen(tiny, "SingleStream", seconds=600).samples_per_second > 0
            assert loadgen(tiny, mode="accuracy", output="out").correct == 64
            assert loadgen(tiny, "Offline", max_batchsize=4, seconds=600).contract["max_batchsize"] == 4
            assert loadgen.find_peak(tiny, max_latency=0.5, seconds=600).qps > 200
            assert time.perf_counter() - begin < 60
    """
    result = run(pytester, phases)
    result.assert_outcomes(passed=1)
    assert '"good_items": 64' in (pytester.path / "out" / "results.json").read_text()
    assert "verdict" not in result.stdout.str()


def test_a_disturbed_model_is_red_and_names_the_images(pytester: pytest.Pytester):
    result = run(
        pytester,
        """
        def test_accuracy(loadgen, tiny, tmp_path):
            weights = np.eye(10)
            weights[[3, 4]] = weights[[4, 3]]
            network(tiny.path, weights)
            loadgen(tiny, mode="accuracy")

        @pytest.mark.parametrize("cheats", [False, True])
        def test_audit(loadgen, cheats):
            from pytest_gpuperf.mlperf import Sut
            known = {}
            def run(batch):
                (number,) = batch.argmax(axis=1).tolist()
                if number not in known or not cheats:
                    time.sleep(0.005)
                    known[number] = number
                return [known[number]]
            class Distinct(Numbers):
                def images(self, indices):
                    return np.eye(64, dtype=np.float32)[np.asarray(indices)]
            mine = Sut(name="mine", run=run, dataset=Distinct)
            found = loadgen.audit("TEST04", mine, "SingleStream", seconds=0.2)
            assert len(found.rounds) > 0
        """,
        "--gpuperf",
    )
    result.assert_outcomes(failed=2, passed=1)
    result.stdout.fnmatch_lines(["*TEST04 in SingleStream: the same image again and again is faster*"])
    result.stdout.fnmatch_lines(["*images changed their class*image 3: 3 became 4*"])
    result.stdout.no_fnmatch_line("*mlperf/fixtures.py*")  # none of the plugin's own lines


def test_a_wrong_request_is_one_sentence(pytester: pytest.Pytester):
    """What each says is seen by one test; how it is shown, in a test that fails."""
    result = run(
        pytester,
        """
        def test_what_is_said(loadgen, tiny):
            from pytest_gpuperf.errors import GpuperfError
            def said(words, *given, call=loadgen, **options):
                with pytest.raises(GpuperfError) as error:
                    call(*given, **options)
                assert words in str(error.value)
            said("Server needs qps=, the queries a second; loadgen.find_peak finds", tiny, "Server")
            said('there is no mode "speed"', tiny, mode="speed")
            said("dataset_list= is for resnet50 on ImageNet; tiny has", tiny, dataset_list="few.txt")
            said('there is no audit "TEST1"; use TEST01 or TEST04', "TEST1", tiny, call=loadgen.audit)
            said("Server needs qps=", "TEST01", tiny, "Server", call=loadgen.audit)
            loadgen(tiny, mode="accuracy", count=10)
            said("twice; a phase of the same mode belongs into a test of its own", tiny, mode="accuracy")
            network(tiny.path, np.eye(10)[:7], 7)
            said("tiny.onnx takes x tensor(float) ['n', 7]; tiny is fed one", tiny)
            tiny.path.write_text("no model")
            said("ONNX Runtime failed while loading the graph (tiny,", tiny)
            for folder in Path.cwd().glob(".gpuperf"):
                folder.rename("moved")
            (Path.cwd() / ".gpuperf").write_text("a file")
            network(tiny.path, np.eye(10))
            said(".gpuperf: cannot be made, and a run keeps its logs there", tiny)

        def test_how_it_is_shown(loadgen, tiny):
            loadgen(tiny, "SingleStream", seconds=-1)
        """,
        "--gpuperf",
    )
    result.assert_outcomes(passed=1, failed=1)
    result.stdout.fnmatch_lines(["*test_model.py:*: *seconds=-1; give a number of seconds above 0*"])
    assert "Traceback" not in result.stdout.str()


def test_the_models_name_stands_in_the_tests_id(pytester: pytest.Pytester, monkeypatch):
    pytester.makepyfile("def test_it(loadgen, resnet50): pass")
    pytester.runpytest("--collect-only", "-q").stdout.fnmatch_lines(["*::test_it[[]resnet50-digits]"])
    monkeypatch.setenv("MODEL_DIR", str(pytester.path))
    pytester.runpytest("--collect-only", "-q").stdout.fnmatch_lines(["*::test_it[[]resnet50]"])


def test_a_missing_mlperf_model_is_named(pytester: pytest.Pytester):
    pytester.makepyfile("def test_it(loadgen, resnet50): pass")
    result = pytester.runpytest_subprocess(*QUICK, f"--gpuperf-model-dir={pytester.path}")
    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines(["*MODEL_DIR*DATA_DIR*"])


@pytest.mark.parametrize(
    ("asked", "sizes"),
    [
        ({"scenario": "Server"}, [1, 2, 4, 8, 16, 32, 64]),  # a CUDA graph each, and a batch is padded to one
        ({"scenario": "Server", "max_batchsize": 24}, [1, 2, 4, 8, 16, 24]),
        ({"scenario": "Offline"}, [256]),
        ({"scenario": "Offline", "max_batchsize": 100}, [100]),
        ({"scenario": "MultiStream", "samples_per_query": 3}, [3]),
    ],
)
def test_the_batch_sizes_that_a_gpu_is_prepared_for(monkeypatch, asked, sizes):
    opened = []
    monkeypatch.setattr("pytest_gpuperf.mlperf.opening.open_session", lambda *given: opened.append(given))
    session = SimpleNamespace(expects_device=lambda: True, options=SimpleNamespace(active=False))
    LoadGen(session, None)._open("m", Request.of(mode="performance", precision="fp16", **asked))
    assert opened == [("m", "cuda", "fp16", sizes, None, None, Team())]
    threads = Request.of(mode="performance", precision="fp16", threads=2, **asked)
    with pytest.raises(GpuperfError, match="threads= is for ONNX models on the CPU"):
        LoadGen(session, None)._open("m", threads)


def test_streams_devices_and_resident_images_need_a_gpu(monkeypatch):
    opened = []
    monkeypatch.setattr("pytest_gpuperf.mlperf.opening.open_session", lambda *given: opened.append(given))
    given = {"streams": 2, "devices": 3, "qsl": "device"}
    asked = Request.of(scenario="Offline", mode="performance", precision="fp16", **given)
    gpu = SimpleNamespace(expects_device=lambda: True, options=SimpleNamespace(active=False))
    LoadGen(gpu, None)._open("m", asked)
    assert opened[0][-1] == Team(2, 3, "device")
    with pytest.raises(GpuperfError, match="qsl= and backend= are for ONNX models, not for a Sut"):
        LoadGen(gpu, None)._open(Sut(name="s", run=len, dataset=Digits), asked)
    halved = Request.of(scenario="Offline", mode="performance", precision="fp16")
    with pytest.raises(GpuperfError, match='precision="fp16" converts ONNX models; s is a Sut'):
        LoadGen(gpu, None)._open(Sut(name="s", run=len, dataset=Digits), halved)
    own = Sut(name="s", run=len, dataset=Digits, precision="fp16")
    assert LoadGen(gpu, None)._open(own, halved).precision == "fp16"
    cpu = SimpleNamespace(expects_device=lambda: False)
    with pytest.raises(GpuperfError, match="devices=, qsl= and backend= other than"):
        LoadGen(cpu, None)._open("m", asked)


@pytest.mark.parametrize("gpu", [False, True])
def test_a_model_runs_on_a_gpu_hosts_cpu_where_asked(monkeypatch, gpu):
    opened, made = [], SimpleNamespace(contract={})
    monkeypatch.setattr(
        "pytest_gpuperf.mlperf.opening.open_session", lambda *given: opened.append(given) or made
    )
    session = SimpleNamespace(expects_device=lambda: gpu, options=SimpleNamespace(active=True))
    asked = Request.of(
        scenario="Offline", mode="performance", precision="fp32", backend="cpu", threads=2, streams=2
    )
    assert LoadGen(session, None)._open("m", asked) is made
    assert opened == [("m", "cpu", "fp32", [8], None, 2, Team(streams=2))]
    assert made.contract == {"backend": "cpu"}


class Digits:
    name, labels = "three", np.arange(3)

    def __init__(self, count=None):
        assert count is None  # three where eight are asked for would be an error

    def __len__(self):
        return 3

    def images(self, indices):
        return np.array(indices, np.float32)[:, None]


@pytest.mark.parametrize(
    ("active", "warmup"),
    [(True, 0), pytest.param(True, 0.01, marks=pytest.mark.gpuperf(warmup=0.01)), (False, None)],
)
def test_a_batch_on_the_device_is_timed_whatever_the_phase_was(request, monkeypatch, active, warmup):
    """The question names no phase: neither its seconds nor LoadGen's version changes the model's own time."""
    replayed, looked, warmups = [], [], []
    measure = device_time.measure
    monkeypatch.setattr(
        device_time,
        "measure",
        lambda gpu, launch, args, settings, **more: (
            warmups.append(settings.warmup) or measure(gpu, launch, args, settings, **more)
        ),
    )
    device = SimpleNamespace(judges_times=False)
    gpu = SimpleNamespace(device=device, synchronize=lambda: None, origin=lambda array: None)
    session = SimpleNamespace(
        options=SimpleNamespace(active=active),
        gpu=lambda: gpu,
        batch=lambda item, name: None,
        telling=lambda item, name: lambda count: None,
        guard=SimpleNamespace(sample=lambda: looked.append(True)),
    )
    model = SimpleNamespace(
        on_device=True,
        batch_sizes=(1, 8),
        precision="fp16",
        dtype=np.float32,
        model=SimpleNamespace(name="m", recipe="seed 1", dataset=Digits),
        contract={"backend": "tensorrt"},
        replay=lambda: lambda: replayed.append(True),
    )
    taken = LoadGen(session, request.node)._on_device(model)
    if not active:
        assert not taken
        return
    (measurement,) = taken
    assert measurement.metric.name == "gpu_compute_time"
    assert measurement.contract == {
        "timing": "events",
        "l2": "hot",
        "model": "m",
        "recipe": "seed 1",
        "dataset": "three",
        "precision": "fp16",
        "images": 8,
        "input_copy": False,
        "backend": "tensorrt",
        "arguments": "",
    }
    assert replayed
    assert looked
    assert warmups == [warmup]  # the phase was one
    assert not LoadGen(session, request.node)._on_device(SimpleNamespace(on_device=False))
