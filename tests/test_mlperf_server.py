"""Server: queries batched as they come in, and the highest rate that keeps a latency."""

import itertools
import json
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from importlib.util import find_spec
from types import SimpleNamespace

import numpy as np
import pytest
from mlperf_child import shown
from test_mlperf_sut import BATCH, LoadGen, tens
from waiting import wait_until

from pytest_gpuperf.errors import GpuperfError, NotFit
from pytest_gpuperf.mlperf import logs, peak, warmup
from pytest_gpuperf.mlperf import server as server_module
from pytest_gpuperf.mlperf.library import Kept
from pytest_gpuperf.mlperf.loadgen import _patience
from pytest_gpuperf.mlperf.server import Batcher
from pytest_gpuperf.mlperf.settings import Scenario
from pytest_gpuperf.mlperf.timing import LONG_ENOUGH, InvalidPhase, answering
from pytest_gpuperf.mlperf.warmup import require_in_time


def batcher(loadgen, run=lambda images: images[:, 0].astype(np.int64), max_wait=0.0, workers=1):
    made = Batcher(loadgen, [SimpleNamespace(run=run)] * workers, tens(), BATCH, max_wait)
    made.load(range(32))
    return made


def test_a_server_answers_what_has_gathered_in_batches():
    """The first query runs alone; the ten that come while it does run as 4, 4 and 2."""
    loadgen, running, gathered = LoadGen(), threading.Event(), threading.Event()

    def run(images):
        running.set()
        gathered.wait(20)
        return images[:, 0].astype(np.int64)

    server = batcher(loadgen, run)
    names = server.start(lambda: server.on_each(lambda worker: threading.current_thread().name))
    assert names[0].startswith("worker-0")
    server.issue([100], [0])
    running.wait(20)
    for index in range(1, 11):
        server.issue([100 + index], [index])
    assert loadgen.batches == []  # issuing waits for nothing
    gathered.set()
    wait_until(lambda: len(loadgen.answers) == 11)
    server.stop()
    assert loadgen.answers == {100 + index: 10 * index for index in range(11)}
    assert loadgen.batches == [1, 4, 4, 2]
    assert server.failure is None


def test_several_workers_serve_at_once():
    loadgen, meeting = LoadGen(), threading.Barrier(2)

    def run(images):
        meeting.wait(20)
        return images[:, 0].astype(np.int64)

    server = batcher(loadgen, run, workers=2)
    server.start(lambda: None)
    server.issue(range(2 * BATCH), range(2 * BATCH))  # at once, for each of them a batch
    wait_until(lambda: len(loadgen.answers) == 2 * BATCH)
    server.stop()
    assert server.failure is None
    assert loadgen.answers == {index: 10 * index for index in range(2 * BATCH)}


def test_a_server_waits_for_a_fuller_batch_as_long_as_it_may():
    loadgen = LoadGen()
    server = batcher(loadgen, max_wait=30)
    server.start(lambda: None)
    for index in range(BATCH):
        server.issue([index], [index])
    wait_until(lambda: loadgen.batches == [BATCH])  # at once: it is full
    server.stop()

    loadgen = LoadGen()
    server = batcher(loadgen, max_wait=0.2)
    server.start(lambda: None)
    begin = time.monotonic()
    server.issue([1], [1])
    server.issue([2], [2])
    wait_until(lambda: loadgen.batches == [2])
    assert time.monotonic() - begin > 0.15
    server.stop()


def test_waiting_for_a_fuller_batch_is_no_stall(monkeypatch):
    monkeypatch.setattr(server_module, "_LOOK", 0.01)
    server = batcher(LoadGen(), max_wait=0.5)
    server.start(lambda: None)
    server.issue([1], [1])
    before = server.progress
    wait_until(lambda: server.progress > before + 0.1)
    assert server.completions == []
    server.stop()


def test_a_phase_that_is_lost_is_ended():
    """What waits longer than the whole phase lasts: at a rate far too high the rest would take hours."""
    runs, loadgen = [], LoadGen()

    def run(images):
        runs.append(len(images))
        time.sleep(0.05)
        return images[:, 0].astype(np.int64)

    server = batcher(loadgen, run)
    server.patience = 0.12
    server.start(lambda: None)
    count = 100 * BATCH
    server.issue(range(count), [1] * count)
    wait_until(lambda: len(loadgen.answers) == count)
    server.stop()
    assert server.abandoned
    assert server.failure is None
    assert 1 <= len(server.completions) <= len(runs) < 10  # those unanswered tell nothing of the rate


def test_the_length_of_a_servers_phase():
    def patience(qps, seconds, **changes):
        made = SimpleNamespace(min_query_count=662, min_duration_ms=1000 * seconds)
        notes = []
        scenario = replace(Scenario.of("Server"), qps=qps, **changes)
        return _patience(made, scenario, seconds, notes), notes

    assert patience(400, 2) == (12, [])
    assert patience(400, 2, max_latency=9, max_wait=1) == (29, [])
    assert patience(66.2, 2) == (20, ["measured 10 s, not 2: 662 queries, 66.2 a second"])
    with pytest.raises(GpuperfError, match=r"^qps=0.001: a phase has 662 queries .* 184 hours at"):
        patience(0.001, 2)


def test_an_idle_server_is_no_stall_and_a_failing_one_answers():
    def run(images):
        raise ValueError("the model broke")

    loadgen = LoadGen()
    server = batcher(loadgen, run)
    server.start(lambda: None)
    before = server.progress
    wait_until(lambda: server.progress > before)
    server.issue([7, 8], [1, 2])
    wait_until(lambda: loadgen.answers == {7: 0, 8: 0})
    server.stop()
    assert str(server.failure) == "the model broke"

    server = batcher(loadgen)
    with pytest.raises(KeyError):
        server.start(lambda: {}["of the warm-up"])
    server.stop()


@pytest.mark.parametrize("hung", ["the model", "LoadGen"])
def test_an_idle_worker_does_not_hide_that_another_hangs(monkeypatch, hung):
    """Nor does one after a query that could not be completed, for which LoadGen waits for ever."""
    monkeypatch.setattr(server_module, "_LOOK", 0.01)
    going_on, loadgen = threading.Event(), LoadGen()

    def run(images):
        return images[:, 0].astype(np.int64) if hung == "LoadGen" or going_on.wait(20) else None

    def refuse(responses):
        raise RuntimeError("an unknown query")

    if hung == "LoadGen":
        loadgen.QuerySamplesComplete = refuse
    server = batcher(loadgen, run, workers=2)
    server.start(lambda: None)
    server.issue([1], [1])
    wait_until(lambda: server._running == 1 if hung == "the model" else server.failure)
    before = server.progress
    time.sleep(0.2)
    assert server.progress - before < 0.1
    going_on.set()
    server.stop()


def server(capacity, limit=None, spoilt=lambda: False):
    """A stand-in for phases: one that answers ``limit`` a second and keeps its latency up to ``capacity``."""
    limit = limit or capacity

    def attempt(rate, part):
        rate = rate or 50.0
        return peak.Attempt(
            rate, f"at {rate:g}" if rate <= capacity and not spoilt() else None, min(rate, limit)
        )

    return attempt


@pytest.mark.parametrize(
    ("capacity", "limit"), [(3, 50), (49, 50), (51, 51), (777, 790), (12_345, 30_000), (500, 200)]
)
def test_the_peak_is_found_to_its_resolution(capacity, limit):
    best, tried = peak.search(server(capacity, limit), 0.02)
    assert best.rate in [rate for rate, valid in tried if valid]
    assert capacity / 1.02 <= best.rate <= capacity
    assert min(rate for rate, valid in tried if not valid) > capacity
    assert len(tried) <= 40


@pytest.mark.parametrize("share", [0.0, 0.02, 0.05, 0.1])
def test_spoilt_phases_do_not_lower_the_peak(share):
    """Sixty searches, of which none is more than the resolution away, however many phases are spoilt."""
    chance = np.random.default_rng(17)
    found = [peak.search(server(777, 790, lambda: chance.random() < share), 0.02) for _ in range(60)]
    rates = [best.rate for best, _ in found]
    assert (max(rates) - min(rates)) / np.median(rates) <= 0.02
    assert min(rates) >= 777 / 1.02
    assert max(rates) <= 777
    assert np.mean([len(tried) for _, tried in found]) < 22  # five of them to flood it


@pytest.mark.parametrize(
    ("capacity", "resolution", "why"),
    [
        (0, 0.02, r"in 62 phases from .* \(none was valid\): give another max_latency$"),
        (777, 0.0005, r"in 66 phases from 50 to 1600 .*: .* apart; give a coarser resolution$"),
        (1e30, 0.02, "1.024e.05 queries/s are answered, and all before$"),
    ],
)
def test_a_search_without_an_end_is_given_up(capacity, resolution, why):
    with pytest.raises(GpuperfError, match=f"^no highest rate was found.* {why}") as caught:
        peak.search(server(capacity, {0: 50, 777: 790, 1e30: 1e30}[capacity]), resolution)
    assert not isinstance(caught.value, NotFit)


def test_phases_that_contradict_each_other_are_the_machines():
    chance = np.random.default_rng(3)
    why = r"from 50 to 1600 .* \(some contradict others\): the peak lies between 774.8 and 780.2, 0.7 % apart"
    with pytest.raises(NotFit, match=f"^no highest rate was found in 66 phases {why}; run again"):
        peak.search(server(777, 790, lambda: chance.random() < 0.4), 0.0005)


@pytest.mark.parametrize("differing", [0.01, 0.02, 0.04])
def test_phases_that_end_either_way_still_find_the_peak(differing):
    """A hundred searches on a busy host; of all 300, 14 were given up that tried only the likeliest rate."""
    chance = np.random.default_rng(17)

    def attempt(rate, part):
        capacity = 777 * np.exp(differing * chance.standard_normal())
        return server(capacity, 790)(rate, part)

    rates = [peak.search(attempt, 0.02)[0].rate for _ in range(100)]
    assert abs(np.median(rates) / 777 - 1) < differing
    assert np.std(rates) / 777 < max(0.01, differing)


def detail(folder, **values):
    lines = [{"key": key, "value": value} for key, value in {**values, "power_end": ""}.items()]
    (folder / "mlperf_log_detail.txt").write_text("".join(f":::MLLOG {json.dumps(line)}\n" for line in lines))
    return logs.read_detail(folder)


def test_a_phase_that_only_early_stopping_refuses_is_too_slow(tmp_path):
    """Seen on a CPU: 2 of 662 queries late, all else met, and LoadGen gave no reason."""
    met = {"result_min_duration_met": True, "result_min_queries_met": True, "result_invalid_reason": ""}
    said = " * Run unsuccessful.\n * Processed 662 queries."
    found = detail(tmp_path, result_validity="INVALID", early_stopping_result=said, **met)
    invalid = InvalidPhase(Scenario.of("Server"), found)
    assert invalid.too_slow
    assert "no figures: * Run unsuccessful. * Processed 662 queries. (" in str(invalid)
    assert not InvalidPhase(Scenario.of("MultiStream"), found).too_slow
    short = detail(tmp_path, result_validity="INVALID", **{**met, "result_min_duration_met": False})
    assert not InvalidPhase(Scenario.of("Server"), short).too_slow
    assert detail(tmp_path, result_validity="VALID", early_stopping_result=said).reason == ""


def test_a_latency_that_no_query_keeps_is_said_before_the_phase():
    server = batcher(LoadGen(), lambda images: time.sleep(0.02) or np.zeros(len(images), np.int64))
    with pytest.raises(GpuperfError, match=r"one query alone takes 2.* ms, longer than max_latency=0\.01:"):
        server.start(lambda: require_in_time(server, replace(Scenario.of("Server"), max_latency=0.01)))
    require_in_time(server, replace(Scenario.of("Server"), max_latency=5.0))
    server.stop()


@pytest.mark.parametrize(
    ("takes", "longest", "lasts"),
    [
        (lambda at: 0.010, 3.0, 0.5),
        (lambda at: 0.010 - 0.002 * min(at, 1), 3.0, 1.5),  # the clocks rise for a second
        (lambda at: 0.010 * (1 - 0.015 * at), 3.0, 3.0),  # they go on rising
        (lambda at: 0.010, 0.2, 0.2),
        (lambda at: 0.5, 0.2, 2.0),  # four runs at least
    ],
)
def test_a_warm_up_lasts_until_batches_take_the_same_time(monkeypatch, takes, longest, lasts):
    clock = [0.0]

    class Worker:
        def run(self, images):
            clock[0] += takes(clock[0])

    calls = SimpleNamespace(
        library=SimpleNamespace(slice=lambda first, count: None),
        abandoned=False,
        on_each=lambda work: [work(Worker())],
    )
    monkeypatch.setattr(warmup, "perf_counter", lambda: clock[0])
    took = warmup.probe(calls, 8, (), longest)
    assert clock[0] == pytest.approx(lasts, abs=0.05)
    assert took == pytest.approx(takes(clock[0]), rel=0.2)


def test_no_worker_ends_its_warm_up_before_the_others(monkeypatch):
    monkeypatch.setattr(warmup, "WINDOW", 0.02)
    monkeypatch.setattr(warmup, "STEADY", 0.5)
    ends = {}

    def worker(name, takes):
        def run(images):
            time.sleep(next(takes))
            ends[name] = time.perf_counter()

        return SimpleNamespace(run=run)

    workers = worker("steady", itertools.repeat(0.005)), worker("slower", (0.001 * 1.2**n for n in range(99)))
    calls = SimpleNamespace(
        library=SimpleNamespace(slice=lambda first, count: None),
        abandoned=False,
        on_each=lambda work: list(ThreadPoolExecutor(2).map(work, workers)),
    )
    begin = time.perf_counter()
    warmup.probe(calls, 8, (), 0.5)
    assert ends["steady"] - begin > 0.49
    assert ends["slower"] - begin > 0.49


def test_kept_images_are_loaded_once_and_let_go_at_the_end():
    asked, held = [], []
    dataset = SimpleNamespace(images=lambda indices: asked.extend(indices) or np.array(indices)[:, None])
    kept = Kept(dataset, np.float32, lambda images: held.append("held") or (lambda: held.append("let go")))
    kept.load(range(4))
    kept.load([7, 1, 3, 0])  # more than there are: anew
    kept.unload()
    kept.load(range(2))
    kept.load([0, 1, 3, 7])
    assert kept.batch([7, 3]).tolist() == [[7], [3]]
    assert sorted(asked) == [0, 0, 1, 1, 2, 3, 3, 7]
    assert held == ["held", "let go", "held"]
    kept.close()
    assert held == ["held", "let go", "held", "let go"]


def test_what_a_flooded_server_answers_leaves_out_a_pause():
    ends = [0.001 * batch + (0.5 if batch > 50 else 0) for batch in range(100)]
    assert answering([(end, 8) for end in ends]) == pytest.approx(8_000)
    assert answering([(1.0, 8)]) == 0


def test_a_search_ends_where_a_phase_would_take_too_long(monkeypatch):
    """A query that takes nearly all of the latency: whatever comes in the meantime is late, at any rate."""

    def performance(session, scenario, **options):
        late = SimpleNamespace(values=dict.fromkeys(LONG_ENOUGH, True), num_errors=0, reason="", path="")
        raise InvalidPhase(replace(scenario, qps=scenario.qps or 2.0), late, [])

    monkeypatch.setattr(peak, "performance", performance)
    monkeypatch.setattr(peak, "answering", lambda completions: 1.2)
    monkeypatch.setattr(peak, "dataset_of", lambda model, count: None)
    session = SimpleNamespace(model=None, dtype=None, hold=lambda images: lambda: None)
    with pytest.raises(GpuperfError, match=r"^no rate .* keeps max_latency=0.2, and a phase of less takes"):
        peak.find_peak(session, replace(Scenario.of("Server"), max_latency=0.2), seconds=1, resolution=0.1)


@pytest.mark.parametrize(("answered", "said"), [(1e4, "a phase of 1 s"), (300.0, "a phase of 2.21 s")])
def test_a_latency_that_bears_any_backlog_of_a_phase_is_refused(monkeypatch, answered, said):
    """A search at 43,000 times what is answered would not end."""

    def performance(session, scenario, **options):
        late = SimpleNamespace(values=dict.fromkeys(LONG_ENOUGH, True), num_errors=0, reason="", path="")
        raise InvalidPhase(replace(scenario, qps=scenario.qps or 2 * answered), late, [])

    monkeypatch.setattr(peak, "performance", performance)
    monkeypatch.setattr(peak, "answering", lambda completions: answered)
    monkeypatch.setattr(peak, "dataset_of", lambda model, count: None)
    session = SimpleNamespace(model=None, dtype=None, hold=lambda images: lambda: None)
    asked = replace(Scenario.of("Server"), max_latency=5.0)
    with pytest.raises(
        GpuperfError, match=f"^max_latency=5 is longer than {said}, so that no rate is too high"
    ):
        peak.find_peak(session, asked, seconds=1, resolution=0.1)


@pytest.mark.skipif(
    find_spec("mlperf_loadgen") is None, reason="LoadGen is not installed: pip install mlcommons-loadgen"
)
def test_server_and_its_peak(tmp_path):
    found = shown(
        """
        from dataclasses import replace
        import threading
        from pytest_gpuperf.mlperf import peak, settings
        ran = set()
        class Slower(Echo):
            def run(self, batch):
                ran.add(threading.get_ident())
                time.sleep(0.003)  # a millisecond in all would be the machine's own noise
                return super().run(batch)
        echo, server = Slower(), replace(settings.Scenario.of("Server"), max_latency=0.2)
        r = loadgen.performance(echo, replace(server, qps=400.0), log_dir=Path("a"), seconds=0.3)
        a = loadgen.accuracy(echo, log_dir=Path("b"), scenario="Server", count=61)
        much = replace(server, qps=8_000.0)
        late = error_of(loadgen.performance, echo, much, log_dir=Path("c"), seconds=0.3)
        ran.clear()
        p = peak.find_peak(echo, server, seconds=0.3, resolution=0.5, log_dir=Path("d"))
        threads, left = len(ran), [t.name for t in threading.enumerate() if t.name.startswith("worker")]
        pairs = replace(settings.Scenario.of("MultiStream"), samples_per_query=3)
        m = loadgen.performance(echo, pairs, log_dir=Path("e"), seconds=0.2)
        show(p50=r.latency.p50, queries=r.queries, qps=r.qps, contract=dict(r.contract), late=late,
             correct=[a.correct, a.total], peak=p.qps, phases=p.phases, stored=dict(p.contract),
             best=p.best.latency.p99, threads=threads, left=left,
             three=[m.queries, m.samples, m.contract["samples_per_query"]])
        """,
        tmp_path,
    )
    assert found["p50"] > 0.004
    assert found["queries"] >= 662  # of which a p99 is taken
    assert found["qps"] == pytest.approx(400, rel=0.25)  # as random as its schedule
    assert (found["contract"]["target_qps"], found["contract"]["max_batchsize"]) == (400, 8)
    assert found["correct"] == [61, 61]
    assert found["late"].startswith("LoadGen calls this Server phase INVALID")
    assert "Reduce target QPS" in found["late"]
    # Eight every four milliseconds are 2,000 a second; a backlog of 0.2 s in 0.3 s makes them 3,333.
    assert 200 < found["peak"] < 3_400
    assert found["best"] <= 0.2
    assert (found["threads"], found["left"]) == (1, [])  # phases share a thread, which holds CUDA graphs
    assert [rate for rate, valid in found["phases"] if valid][-1] == found["peak"]
    assert "target_qps" not in found["stored"]
    assert found["stored"]["resolution"] == 0.5
    queries, samples, size = found["three"]
    assert (samples, size) == (3 * queries, 3)
