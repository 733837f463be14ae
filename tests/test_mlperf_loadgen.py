"""LoadGen really run, each time in a process of its own: what it gives, and how each of its traps ends."""

import json
import re
from importlib.util import find_spec

import pytest
from mlperf_child import child, shown

pytestmark = pytest.mark.skipif(
    find_spec("mlperf_loadgen") is None, reason="LoadGen is not installed: pip install mlcommons-loadgen"
)


def test_every_scenario_and_accuracy_in_one_process(tmp_path):
    found = shown(
        """
        from pytest_gpuperf.mlperf import read_logs
        echo, out = Echo(), {}
        for scenario in ("SingleStream", "MultiStream", "Offline"):
            r = loadgen.performance(echo, scenario, log_dir=Path(scenario), seconds=0.5)
            out[scenario] = dict(
                p50=r.latency.p50, rate=r.samples_per_second, queries=r.queries, samples=r.samples,
                contract=dict(r.contract), detail=json.loads(next(
                    l for l in (r.log_dir / "mlperf_log_detail.txt").read_text().splitlines()
                    if "result_50.00_percentile_latency_ns" in l).split("MLLOG ")[1])["value"])
            read = read_logs(r.log_dir)
            out[scenario] |= dict(
                early=[r.early_stopping, read.early_stopping], valid=read.valid,
                read=[read.scenario, read.mode, read.queries], percentiles=sorted(read.latency),
                p50s=[r.latency.p50, read.latency["p50"]], p99s=[r.latency.p99, read.latency["p99"]],
                rates=[r.samples_per_second, read.samples_per_second])
            a = loadgen.accuracy(echo, log_dir=Path("acc"), scenario=scenario, count=61)
            read = read_logs("acc")
            out[scenario]["accuracy_phase"] = [read.mode, read.latency, read.samples_per_second]
            out[scenario]["correct"] = [a.correct, a.total]
            out[scenario]["held"] = [echo.held, echo.released]
        show(**out)
        """,
        tmp_path,
    )
    assert list((tmp_path / "cache" / "traces").iterdir()) == []
    single, multi, offline = found["SingleStream"], found["MultiStream"], found["Offline"]
    assert all(entry["correct"] == [61, 61] for entry in found.values())
    assert all(held == released > 0 for held, released in (entry["held"] for entry in found.values()))
    for name, entry in found.items():
        assert entry["valid"]
        assert entry["read"] == [name, "PerformanceOnly", entry["queries"]]
        assert entry["percentiles"] == ["p50", "p90", "p95", "p97", "p99", "p99.9"]
        assert entry["accuracy_phase"] == ["AccuracyOnly", {}, None]
        # MultiStream has no rate in its log: that from the mean leaves out the time between queries.
        assert entry["rates"][0] == pytest.approx(entry["rates"][1], rel=0.1)
    for stream in (single, multi):
        assert stream["p50s"][0] == pytest.approx(stream["p50s"][1], rel=1e-6)
        assert stream["p99s"][0] == pytest.approx(stream["p99s"][1], rel=1e-6)
        assert stream["early"][0] == stream["early"][1] >= stream["p50"]
    assert offline["early"] == [None, None]
    # The median is LoadGen's own, to the nanosecond, whatever the machine was doing.
    assert single["p50"] == pytest.approx(single["detail"] * 1e-9, rel=1e-6)
    assert multi["p50"] == pytest.approx(multi["detail"] * 1e-9, rel=1e-6)
    assert single["p50"] > 0.001
    assert single["samples"] == single["queries"] > 11
    assert multi["samples"] == 8 * multi["queries"]
    assert offline["queries"] == 1
    assert offline["samples"] % 8 == 0
    assert 0 < offline["rate"] < 8000  # eight samples take over a millisecond
    assert single["contract"]["seed_qsl"] > 0  # that is, MLPerf's configuration was read
    assert single["contract"]["seed_qsl"] == offline["contract"]["seed_qsl"]
    assert (single["contract"]["images"], single["contract"]["performance_samples"]) == (100, 64)
    assert (multi["contract"]["samples_per_query"], multi["contract"]["seconds"]) == (8, 0.5)


def test_the_gate_through_loadgen_on_50_000_images(tmp_path):
    found = shown(
        """
        def problems(right):
            labels = np.arange(50_000) % 10
            labels[right:] = 10
            echo = Echo()
            echo.run = lambda batch: batch[:, 0].astype(np.int64)
            echo.batch_sizes = (1, 1000)
            echo.on_device = True  # which loads 1,000 images at a time and not 64
            echo.model = models.Model("echo", Path("e"), "", lambda count: Numbers(count, labels),
                                      input_shape=(1,), reference=accuracy.Gate())
            result = loadgen.accuracy(echo, log_dir=Path("logs"))
            return [result.correct, result.total, len(result.problems())]
        show(edge=problems(38_203), floor=problems(37_847))
        """,
        tmp_path,
    )
    assert found == {
        "edge": [38_203, 50_000, 0],
        "floor": [37_847, 50_000, 2],
    }


def test_an_exception_in_the_model_is_one_error(tmp_path):
    found = shown(
        """
        class Failing(Echo):
            def run(self, batch):
                if self.runs == 20:
                    raise MemoryError("no more of it")
                return super().run(batch)
        error = error_of(loadgen.performance, Failing(), "SingleStream", log_dir=Path("a"), seconds=0.3)
        again = loadgen.performance(Echo(), "SingleStream", log_dir=Path("b"), seconds=0.3)
        show(error=error, again=again.queries, poisoned=phase.poisoned())
        """,
        tmp_path,
    )
    assert found["error"] == "echo failed while LoadGen ran it: MemoryError: no more of it"
    assert found["again"] > 11
    assert found["poisoned"] is None


def test_unloadable_images_and_classes_of_another_shape(tmp_path):
    found = shown(
        """
        class Unreadable(Numbers):
            def images(self, indices):
                raise GpuperfError("a.jpg is missing")
        class Empty(Numbers):
            labels = []
            def __init__(self, count): pass
        class Scores(Echo):
            def run(self, batch):
                return np.zeros((len(batch), 10), np.int64)
        def model(dataset):
            echo = Echo()
            echo.model = models.Model("echo", Path("e"), "", dataset, input_shape=(1,))
            return echo
        show(
            perf=error_of(loadgen.performance, model(Unreadable), "Offline", log_dir=Path("a"), seconds=0.3),
            acc=error_of(loadgen.accuracy, model(Unreadable), log_dir=Path("a")),
            empty=error_of(loadgen.accuracy, model(Empty), log_dir=Path("a")),
            scores=error_of(loadgen.accuracy, Scores(), log_dir=Path("a")),
        )
        """,
        tmp_path,
    )
    assert found["perf"] == found["acc"] == "a.jpg is missing"
    assert found["empty"] == "the dataset numbers of echo has no images"
    assert found["scores"] == "8 images gave classes of shape [8, 10]; run() must return one for each"


def test_a_completion_that_never_comes_is_given_up(tmp_path):
    finished = child(
        """
        class Hanging(Echo):
            def run(self, batch):
                if self.runs == 30:
                    threading.Event().wait()
                return super().run(batch)
        begin = time.monotonic()
        hanging, folder = Hanging(), Path("a")
        error = error_of(loadgen.performance, hanging, "SingleStream", log_dir=folder, seconds=0.3, stall=1.0)
        took = time.monotonic() - begin
        next_one = error_of(loadgen.accuracy, Echo(), log_dir=Path("b"))
        show(error=error, took=took, next=next_one, poisoned=phase.poisoned())
        sys.stdout.flush()
        os._exit(0)  # as the docstring of poisoned() demands
        """,
        tmp_path,
    )
    assert finished.returncode == 0, finished.stderr
    found = json.loads(finished.stdout)
    assert found["error"].startswith("echo completed nothing for 1 s: the phase was given up")
    assert "give stall= more seconds" in found["error"]
    assert found["took"] < 10
    assert found["poisoned"] == "echo completed nothing for 1 s"
    assert found["next"] == "LoadGen cannot run again in this process: echo completed nothing for 1 s"


def test_slow_images_are_no_stall_and_a_missing_one_is(tmp_path):
    finished = child(
        """
        class Slow(Numbers):
            def images(self, indices):
                time.sleep(0.15 * len(indices))
                return super().images(indices)
        class Lost(Slow):
            def images(self, indices):
                if 3 in indices:
                    threading.Event().wait()
                return super().images(indices)
        def of(dataset):
            echo = Echo()
            echo.model = models.Model("echo", Path("e"), "", dataset, input_shape=(1,))
            return echo
        doing = []
        with phase.told(doing.append):
            slow = loadgen.accuracy(of(Slow), log_dir=Path("a"), count=16, stall=1.0)  # they take 2.4 s
        error = error_of(loadgen.accuracy, of(Lost), log_dir=Path("b"), count=16, stall=1.0)
        show(correct=slow.correct, error=error, doing=doing)
        sys.stdout.flush()
        os._exit(0)
        """,
        tmp_path,
    )
    assert finished.returncode == 0, finished.stderr
    found = json.loads(finished.stdout)
    assert found["correct"] == 16
    said = [re.fullmatch(r"(\d+) of 16 images loaded(, \d s left)?: echo", line) for line in found["doing"]]
    loaded = [int(match[1]) for match in said if match]
    assert len(set(loaded)) > 1
    assert loaded == sorted(loaded)
    assert found["error"].startswith("echo loaded no image for 1 s: the phase was given up")


def test_a_log_folder_that_cannot_be_one(tmp_path):
    (tmp_path / "file").write_text("mine")
    error = shown(
        """
        show(error=error_of(loadgen.accuracy, Echo(), log_dir=Path("file/logs")))
        """,
        tmp_path,
    )["error"]
    assert error.startswith("LoadGen's logs cannot be written to file/logs (Not a directory)")
    assert (tmp_path / "file").read_text() == "mine"


def test_an_invalid_phase_is_an_error_in_loadgens_words(tmp_path):
    error = shown(
        """
        class Sprinter(Echo):
            probing = True
            def run(self, batch):
                self.runs += 1
                if self.runs < 8:
                    time.sleep(0.05)
                return batch[:, 0].astype(np.int64)
        show(error=error_of(loadgen.performance, Sprinter(), "SingleStream", log_dir=Path("a"), seconds=1.0))
        """,
        tmp_path,
    )["error"]
    assert error.startswith("LoadGen calls this SingleStream phase INVALID")
    assert "a/mlperf_log_detail.txt" in error
    assert "generated" in error  # LoadGen: it ran out of pre-generated queries


def test_a_stray_audit_config_changes_nothing_and_is_mentioned(tmp_path):
    (tmp_path / "audit.config").write_text("*.*.sample_index_rng_seed = 7\n*.*.min_duration = 60000\n")
    found = shown(
        """
        r = loadgen.performance(Echo(), "SingleStream", log_dir=Path("a"), seconds=0.3)
        show(seed=r.contract["seed_sample"], duration=r.duration, notes=r.notes)
        """,
        tmp_path,
    )
    assert found["seed"] != 7
    assert found["duration"] < 30
    assert found["notes"] == [f"{tmp_path / 'audit.config'} lies in the working directory and was not used"]


def test_an_interrupt_ends_the_phase_in_order(tmp_path):
    found = shown(
        """
        import _thread
        threading.Timer(0.5, _thread.interrupt_main).start()
        begin = time.monotonic()
        try:
            loadgen.performance(Echo(), "SingleStream", log_dir=Path("a"), seconds=30)
            interrupted = False
        except KeyboardInterrupt:
            interrupted = True
        took = time.monotonic() - begin
        again = loadgen.performance(Echo(), "SingleStream", log_dir=Path("b"), seconds=0.3)
        show(interrupted=interrupted, took=took, again=again.queries, poisoned=phase.poisoned())
        """,
        tmp_path,
    )
    assert found["interrupted"]
    assert found["took"] < 15
    assert found["again"] > 11
    assert found["poisoned"] is None


def test_two_phases_at_once_are_refused(tmp_path):
    error = shown(
        """
        started = threading.Event()
        class Slow(Echo):
            def run(self, batch):
                started.set()
                return super().run(batch)
        other = threading.Thread(target=loadgen.performance, args=(Slow(), "SingleStream"),
                                 kwargs=dict(log_dir=Path("a"), seconds=1.0))
        other.start()
        started.wait()
        error = error_of(loadgen.accuracy, Echo(), log_dir=Path("b"))
        other.join()
        show(error=error)
        """,
        tmp_path,
    )["error"]
    assert error == "LoadGen runs one phase at a time and another is running in this process"


def test_names_that_do_not_exist(tmp_path):
    found = shown(
        """
        few = {"min_query_count": 8, "min_duration": 0}
        one = loadgen.performance(Echo(), "Offline", log_dir=Path("a"), seconds=0.1, configured=few)
        show(
            one=[one.samples, one.latency.p50 == one.duration > 0.001],
            scenario=error_of(loadgen.performance, Echo(), "Served", log_dir=Path("a")),
            profile=error_of(loadgen.performance, Echo(), "Offline", log_dir=Path("a"), profile="long"),
            loaded=error_of(loadgen.performance, Echo(), "Offline", log_dir=Path("a"), loaded=101),
            same=error_of(loadgen.performance, Echo(), "Offline", log_dir=Path("a"), loaded=10,
                          configured={"performance_issue_same": 1, "performance_issue_same_index": 10}),
            ten=loadgen.performance(Echo(), "SingleStream", log_dir=Path("a"), loaded=10, seconds=0.1)
            .contract["performance_samples"],
        )
        """,
        tmp_path,
    )
    assert found["scenario"].startswith(
        'there is no scenario "Served"; use SingleStream, MultiStream, Server'
    )
    assert found["loaded"] == "performance_sample_count=101, and the dataset numbers has 100 images"
    assert found["one"] == [8, True]  # a query of a single batch
    assert found["same"] == "performance_issue_same_index = 10, and 10 images are loaded"
    assert found["ten"] == 10
    assert found["profile"] == 'there is no LoadGen profile "long"; use short or valid'


def test_the_profile_valid_follows_mlperfs_durations(tmp_path):
    found = shown(
        """
        import mlperf_loadgen as lg
        from pytest_gpuperf.mlperf import settings
        out, load = {}, settings.Load(batch=8, loaded=1024, seconds=0.01)
        for scenario in ("SingleStream", "MultiStream", "Offline"):
            asked, valid = settings.Scenario.of(scenario), settings.Profile.of("valid")
            s = settings.performance(lg, asked, valid, None, load)
            out[scenario] = [s.min_duration_ms, s.min_query_count, s.performance_sample_count_override]
            expected = load.seconds + settings.SAMPLE_COST * load.batch
            out[scenario].append(1.1 * s.offline_expected_qps * expected / load.batch)
            out[scenario].append(s.single_stream_target_latency_percentile)
            out[scenario].append(s.multi_stream_target_latency_percentile)
        echo, many = Echo(), lambda count: Numbers(count, np.arange(1100) % 10)
        echo.model = models.Model("echo", Path("e"), "", many, input_shape=(1,))
        echo.batch_sizes = (1, 100)
        profiles = map(settings.Profile.of, settings.PROFILES)
        loaded = [loadgen.loaded_images(echo, many(None), profile) for profile in profiles]
        # MLPerf's length and count of images would take ten minutes; a short one says what it lacks.
        doing = []
        with phase.told(doing.append):
            r = loadgen.performance(Echo(), "Offline", log_dir=Path("a"), profile="valid", seconds=2.0)
        found = dict(loaded=loaded, notes=r.notes, duration=r.duration, count=r.samples, doing=doing)
        show(settings=out, **found)
        """,
        tmp_path,
    )
    asked = found["settings"]
    assert [entry[0] for entry in asked.values()] == [600_000] * 3
    assert asked["MultiStream"][1] == 662
    assert asked["Offline"][1] == 24_576
    assert asked["Offline"][3] == pytest.approx(1.22, abs=0.01)  # times 600 s, in which it takes so many
    assert (asked["SingleStream"][4], asked["MultiStream"][5]) == (0.9, 0.99)
    assert found["loaded"] == [64, 1100]  # 1,024 or more, in whole batches; few on a CPU that is not asked
    assert found["count"] >= 24_576
    assert any(re.fullmatch(r"LoadGen runs, \d s left: echo", line) for line in found["doing"])
    assert found["notes"] == [
        "MLPerf takes phases with 1,024 loaded images or more; here were 100",
        "MLPerf takes phases of 600 s or more; this one was of 2 s",
    ]


def test_a_clock_that_a_test_stopped_stops_no_phase(tmp_path):
    found = shown(
        """
        package = vars(sys.modules["pytest_gpuperf.mlperf"])
        for name in [name for name in sys.modules if name.startswith("pytest_gpuperf.mlperf.")]:
            del sys.modules[name]  # a suite loads them as a phase begins
            package.pop(name.rpartition(".")[2])
        real = time.perf_counter
        time.perf_counter = lambda: 0.0
        from pytest_gpuperf.mlperf import callbacks, loadgen, phase, warmup
        for module in list(sys.modules.values()):  # as freezegun does
            for name in [n for n, v in vars(module).items() if v is real and n != "real"]:
                setattr(module, name, time.perf_counter)
        r = loadgen.performance(Echo(), "SingleStream", log_dir=Path("a"), seconds=0.3)
        show(queries=r.queries)
        """,
        tmp_path,
    )
    assert found["queries"] > 50
