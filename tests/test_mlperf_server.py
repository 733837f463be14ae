"""Server: queries batched as they come in, and the highest rate that keeps a latency."""

import threading
import time
from importlib.util import find_spec
from types import SimpleNamespace

import numpy as np
import pytest
from mlperf_child import shown
from test_mlperf_sut import BATCH, LoadGen

from pytest_gpuperf.errors import GpuperfError
from pytest_gpuperf.mlperf import peak
from pytest_gpuperf.mlperf.library import SampleLibrary
from pytest_gpuperf.mlperf.server import Batcher


def batcher(loadgen, run=lambda images: images[:, 0].astype(np.int64), max_wait=0.0, workers=1):
    dataset = SimpleNamespace(images=lambda indices: 10.0 * np.array(indices)[:, None])
    loaded = SampleLibrary(dataset, np.float32, lambda images: lambda: None)
    made = Batcher(loadgen, [SimpleNamespace(run=run)] * workers, loaded, BATCH, max_wait)
    made.load(range(32))
    return made


def wait_for(condition):
    end = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.001)


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
    wait_for(lambda: len(loadgen.answers) == 11)
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
    wait_for(lambda: len(loadgen.answers) == 2 * BATCH)
    server.stop()
    assert server.failure is None
    assert loadgen.answers == {index: 10 * index for index in range(2 * BATCH)}


def test_a_server_waits_for_a_fuller_batch_as_long_as_it_may():
    loadgen = LoadGen()
    server = batcher(loadgen, max_wait=30)
    server.start(lambda: None)
    for index in range(BATCH):
        server.issue([index], [index])
    wait_for(lambda: loadgen.batches == [BATCH])  # at once: it is full
    server.stop()

    loadgen = LoadGen()
    server = batcher(loadgen, max_wait=0.2)
    server.start(lambda: None)
    begin = time.monotonic()
    server.issue([1], [1])
    server.issue([2], [2])
    wait_for(lambda: loadgen.batches == [2])
    assert time.monotonic() - begin > 0.15
    server.stop()


def test_an_idle_server_is_no_stall_and_a_failing_one_answers():
    def run(images):
        raise ValueError("the model broke")

    loadgen = LoadGen()
    server = batcher(loadgen, run)
    server.start(lambda: None)
    before = server.progress
    wait_for(lambda: server.progress > before)
    server.issue([7, 8], [1, 2])
    wait_for(lambda: loadgen.answers == {7: 0, 8: 0})
    server.stop()
    assert str(server.failure) == "the model broke"

    server = batcher(loadgen)
    with pytest.raises(KeyError):
        server.start(lambda: {}["of the warm-up"])
    server.stop()


def server(capacity):
    """A stand-in for phases of a server that keeps its latency up to so many queries a second."""
    return lambda rate: (rate or 50.0, f"at {rate or 50.0:g}" if (rate or 50.0) <= capacity else None)


@pytest.mark.parametrize("capacity", [3.0, 49.0, 50.0, 51.0, 777.0, 12_345.0])
def test_the_peak_is_bisected_to_its_resolution(capacity):
    best, tried = peak.search(server(capacity), 0.02)
    rate = max(rate for rate, valid in tried if valid)
    assert best == f"at {rate:g}"
    assert rate <= capacity <= 1.02 * rate
    assert min(rate for rate, valid in tried if not valid) > capacity
    assert tried[0][0] == 50
    steps = abs(np.log2(capacity / 50))
    rates = dict.fromkeys(rate for rate, _ in tried)
    assert len(rates) <= steps + 2 + np.ceil(np.log2(np.log(2) / np.log(1.02)))


@pytest.mark.parametrize("spoiled", range(12))
def test_one_spoiled_phase_does_not_lower_the_peak(spoiled):
    phases, good = iter(range(100)), server(777.0)

    def attempt(rate):
        asked, found = good(rate)
        return asked, None if next(phases) == spoiled else found

    best, tried = peak.search(attempt, 0.02)
    assert 777 / 1.02 <= float(best.removeprefix("at ")) <= 777
    assert len(tried) <= peak.MOST_PHASES


@pytest.mark.parametrize(("capacity", "why"), [(0.0, "none was valid"), (1e30, "all were valid")])
def test_a_search_without_an_end_is_given_up(capacity, why):
    with pytest.raises(GpuperfError, match=rf"in 30 phases from 50 to .* \({why}\): give another max_lat"):
        peak.search(server(capacity), 0.02)


@pytest.mark.skipif(
    find_spec("mlperf_loadgen") is None, reason="LoadGen is not installed: pip install mlcommons-loadgen"
)
def test_server_and_its_peak(tmp_path):
    found = shown(
        """
        from dataclasses import replace
        from pytest_gpuperf.mlperf import peak, settings
        class Slower(Echo):
            def run(self, batch):
                time.sleep(0.003)  # a millisecond in all would be the machine's own noise
                return super().run(batch)
        echo, server = Slower(), replace(settings.Scenario.of("Server"), max_latency=0.2)
        r = loadgen.performance(echo, replace(server, qps=400.0), log_dir=Path("a"), seconds=0.3)
        a = loadgen.accuracy(echo, log_dir=Path("b"), scenario="Server", count=61)
        much = replace(server, qps=8_000.0)
        late = error_of(loadgen.performance, echo, much, log_dir=Path("c"), seconds=0.3)
        p = peak.find_peak(echo, server, seconds=0.3, resolution=0.5, log_dir=Path("d"))
        pairs = replace(settings.Scenario.of("MultiStream"), samples_per_query=3)
        m = loadgen.performance(echo, pairs, log_dir=Path("e"), seconds=0.2)
        show(p50=r.latency.p50, queries=r.queries, qps=r.qps, contract=dict(r.contract), late=late,
             correct=[a.correct, a.total], peak=p.qps, phases=p.phases, stored=dict(p.contract),
             best=p.best.latency.p99, three=[m.queries, m.samples, m.contract["samples_per_query"]])
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
    assert [rate for rate, valid in found["phases"] if valid][-1] == found["peak"]
    assert "target_qps" not in found["stored"]
    assert found["stored"]["resolution"] == 0.5
    queries, samples, size = found["three"]
    assert (samples, size) == (3 * queries, 3)
