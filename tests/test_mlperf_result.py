"""LoadGen's logs read, percentiles and the number of queries behind them, and what is judged."""

import json
import os
import socket
import subprocess
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from pytest_gpuperf.errors import GpuperfError
from pytest_gpuperf.measurement import Baseline, Outcome, Run
from pytest_gpuperf.mlperf import logs, models, peak, settings
from pytest_gpuperf.mlperf.accuracy import StoredPredictions
from pytest_gpuperf.mlperf.loadgen import _fitting, require_complete, require_consistent
from pytest_gpuperf.mlperf.result import AccuracyResult, Latency, PerformanceResult, queries_needed
from pytest_gpuperf.mlperf.settings import Load, Profile, Scenario
from pytest_gpuperf.rules.verdict import judge


@pytest.mark.parametrize(
    ("fraction", "queries"), [(0.5, 11), (0.9, 64), (0.95, 130), (0.97, 219), (0.99, 662), (0.999, 6636)]
)
def test_queries_needed_are_mlperfs_early_stopping(fraction, queries):
    assert queries_needed(fraction) == queries


def test_percentiles_are_loadgens_floor_index():
    latency = Latency.of(np.arange(100, 0, -1) / 1000, queries=100)
    assert latency.p50 == 0.051
    assert latency.p99 == 0.100
    assert latency.mean == pytest.approx(0.0505)
    assert latency["p99.9"] == latency.p99_9 == 0.100
    with pytest.raises(KeyError, match="p75"):
        latency["p75"]


def test_a_percentile_knows_whether_its_queries_suffice():
    latency = Latency.of(np.ones(661), queries=661)
    assert latency.p90.enough
    assert not latency.p99.enough
    assert (latency.p99.queries, latency.p99.needed) == (661, 662)
    assert Latency.of(np.ones(662), queries=662).p99.enough


def performance(scenario="SingleStream", queries=700, **changes):
    latency = Latency.of(np.full(queries, 0.01), queries)
    values = {
        "scenario": scenario,
        "latency": latency,
        "queries": queries,
        "samples": queries,
        "duration": queries * 0.01,
        "contract": {"model": "m"},
        "environment": {},
        "log_dir": Path("logs"),
    }
    return PerformanceResult(**{**values, **changes})


def test_streams_are_judged_on_median_latency_and_qps():
    p50, qps = performance().measurements()
    assert (p50.metric.name, p50.metric.unit, p50.metric.better, p50.metric.kind) == (
        "latency_p50",
        "s",
        "lower",
        "noisy",
    )
    assert (qps.metric.name, qps.metric.better, qps.metric.instrument) == ("qps", "higher", "loadgen")
    assert p50.samples == (0.01,)
    assert qps.value == pytest.approx(100)
    assert p50.contract == {"model": "m"}


def test_offline_is_judged_on_samples_per_second_alone():
    result = performance("Offline", queries=1, samples=500, duration=2.0)
    (rate,) = result.measurements()
    assert (rate.metric.name, rate.value) == ("samples_per_second", 250.0)
    with pytest.raises(AttributeError, match="samples_per_second"):
        result.qps  # noqa: B018


def test_a_tail_without_enough_queries_is_shown_only():
    metrics = {m.metric.name: m for m in performance().measurements(tails=["p99", "p99.9"])}
    assert metrics["latency_p99"].metric.kind == "noisy"
    assert metrics["latency_p99"].metric.instrument == "loadgen_tail"
    assert metrics["latency_p99_9"].metric.kind == "shown"
    assert "700 queries; this percentile needs 6636" in metrics["latency_p99_9"].details["warning"]


def test_a_server_is_judged_on_its_latency_and_not_on_the_rate_it_was_given():
    metrics = {m.metric.name: m.metric.kind for m in performance("Server").measurements(tails=["p99"])}
    assert metrics == {"latency_p50": "noisy", "qps": "shown", "latency_p99": "noisy"}


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
    assert len(tried) <= steps + 2 + np.ceil(np.log2(np.log(2) / np.log(1.02)))


@pytest.mark.parametrize(("capacity", "why"), [(0.0, "none was valid"), (1e30, "all were valid")])
def test_a_search_without_an_end_is_given_up(capacity, why):
    with pytest.raises(GpuperfError, match=rf"in 20 phases from 50 to .* \({why}\): give another max_lat"):
        peak.search(server(capacity), 0.02)


def test_times_are_shown_where_the_machine_is_not_one_to_judge_by():
    assert {m.metric.kind for m in performance().measurements("shown", tails=["p90"])} == {"shown"}


def accuracy_result(predictions, reference):
    model = models.Model("m", Path("m.onnx"), "r", lambda count: None, reference=reference)
    labels = np.array([1, 2, 3])
    return AccuracyResult(model, "fp32", np.array(predictions), labels, {}, {}, Path("logs"))


def test_accuracy_stores_the_unexplained_and_shows_the_count():
    stored = StoredPredictions(np.array([1, 2, 9], np.uint8), np.ones(3, np.float32))
    good = accuracy_result([1, 2, 9], stored)
    good.check()
    wrong, count = good.measurements()
    assert (wrong.metric.name, wrong.metric.kind, wrong.value) == ("unexplained_predictions", "exact", 0)
    assert (count.metric.kind, count.value) == ("shown", 2)
    assert good.accuracy == pytest.approx(2 / 3)

    bad = accuracy_result([1, 0, 3], stored)
    assert bad.correct == 2  # the same count, with two other images
    assert bad.measurements()[0].value == 2
    with pytest.raises(AssertionError, match="m in fp32: 2 of 3 images changed"):
        bad.check()


def test_accuracy_without_a_reference_stores_the_count():
    result = accuracy_result([1, 2, 9], None)
    result.check()
    count, answers = result.measurements()
    assert (count.metric.name, count.metric.kind, count.value) == ("correct", "exact", 2)
    assert (answers.metric.name, answers.metric.kind) == ("answers", "exact")


def test_as_many_other_wrong_answers_are_another_result():
    first, other = (accuracy_result(wrong, None).measurements() for wrong in ([1, 2, 9], [1, 2, 8]))
    assert first[0].value == other[0].value  # two are right
    stored = Baseline(first[1].metric, {}, {}, 0.0, (Run(first[1].samples, {}),))
    again, changed = (judge(stored, now[1], tolerance=None, place={}) for now in (first, other))
    assert again.outcome is Outcome.EQUAL
    assert changed.outcome is Outcome.REGRESSED
    assert "not the answers that the baseline recorded" in changed.reason
    assert changed.change is None  # a fingerprint has no size
    # The direction and the distance do not count, nor does a tolerance.
    for value in (stored.value + 1, stored.value - 1):
        moved = replace(other[1], samples=(value,))
        outcome = judge(stored, moved, tolerance=0.5, place={}).outcome
        assert outcome is Outcome.REGRESSED


def mllog(key, value, **metadata):
    return ":::MLLOG " + json.dumps({"key": key, "value": value, "metadata": metadata}) + "\n"


def test_detail_log(tmp_path):
    (tmp_path / logs.DETAIL).write_text(
        "noise\n"
        + mllog("error_runtime", "Ran out of generated queries.", is_error=True)
        + mllog("result_validity", "INVALID")
        + mllog("result_invalid_reason", "Increase it. ")
        + mllog("num_errors", 1)
        + mllog("power_end", "now")
    )
    detail = logs.read_detail(tmp_path)
    assert not detail.valid
    assert detail.num_errors == 1
    assert detail.reason == "Increase it. Ran out of generated queries."


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, "ran nothing"),
        (mllog("result_validity", "VALID"), "did not end"),
        (":::MLLOG {oops\n", "no MLLOG entry: {oops"),
    ],
)
def test_a_detail_log_that_is_no_result(tmp_path, content, said):
    if content is not None:
        (tmp_path / logs.DETAIL).write_text(content)
    with pytest.raises(GpuperfError, match=said) as error:
        logs.read_detail(tmp_path)
    assert logs.DETAIL in str(error.value)


def sample(start_us, query, index, complete_ns):
    return (
        f'{{"name":"Sample","cat":"default","ph":"b","pid":1,"id":0,"ts":{start_us},"args":{{"sample_seq":0,'
        f'"query_seq":{query},"sample_idx":{index},"issue_start_ns":0,"complete_ns":{complete_ns}}}}},\n'
    )


def test_trace_of_queries_with_several_samples(tmp_path):
    (tmp_path / logs.TRACE).write_text(
        '{"traceEvents":[\n{"name":"LogDetail","args":{"key":""loadgen_version""}},\n'
        + sample("3000.000", 1, 7, 1_000_000)
        + sample("1000.000", 0, 5, 1_500_000)
        + sample("1000.000", 0, 6, 2_000_000)
        + sample("3000.000", 1, 8, 900_000)
    )
    trace = logs.read_trace(tmp_path)
    assert trace.latencies == pytest.approx([0.002, 0.001])
    assert trace.duration == pytest.approx(0.003)  # from 1.0 ms to 4.0 ms
    assert trace.samples == 4


def lines(latencies_ns, samples=1):
    return "".join(sample("1000.000", q, 0, ns) for q, ns in enumerate(latencies_ns) for _ in range(samples))


@pytest.mark.parametrize(
    ("scenario", "counted", "median", "whole"),
    [
        ("SingleStream", 3, 2_000_000, True),
        ("SingleStream", 4, 2_000_000, False),  # the trace lost its end
        ("SingleStream", 3, 2_000_001, False),
        ("MultiStream", 3, 2_000_000, False),  # of one sample each
    ],
)
def test_a_trace_that_is_not_what_loadgen_counted_has_no_figures(tmp_path, scenario, counted, median, whole):
    asked = Scenario.of(scenario)
    (tmp_path / logs.TRACE).write_text(lines([1_000_000, 2_000_000, 3_000_000]))
    trace = logs.read_trace(tmp_path)
    values = {"result_query_count": counted, asked.median_key: median}
    arguments = asked, logs.Detail(tmp_path, values, ()), trace, Latency.of(trace.latencies, 3)
    if whole:
        require_complete(*arguments)
    else:
        with pytest.raises(GpuperfError, match=r"trace is not whole: 3 queries with 3 samples.*disk"):
            require_complete(*arguments)


def test_the_trace_lies_in_the_cache_and_goes(tmp_path, monkeypatch):
    monkeypatch.setenv("PYTEST_GPUPERF_CACHE", str(tmp_path / "cache"))
    folder, link = tmp_path / "logs", tmp_path / "logs" / logs.TRACE
    traces = tmp_path / "cache" / "traces"
    traces.mkdir(parents=True)
    with subprocess.Popen(["true"]) as gone:
        pass
    left = [traces / f"{socket.gethostname()}-{pid}-x.json" for pid in (gone.pid, os.getppid())]
    for path in left:
        path.touch()
    for keep in (False, True):
        with logs.tracing(folder, keep):
            link.write_text(lines([5]))
            (inside,) = set(traces.iterdir()) - set(left)
            assert inside.read_text() == link.read_text()
            assert logs.read_trace(folder).samples == 1
        assert list(traces.iterdir()) == left[1:]  # of a process that lives
        assert link.exists() == keep
    assert not link.is_symlink()
    assert link.read_text() == lines([5])


def test_a_cache_that_cannot_be_written_is_named(tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setenv("PYTEST_GPUPERF_CACHE", str(tmp_path / "file"))
    said = r"trace cannot be kept in .*point PYTEST_GPUPERF_CACHE at"
    with pytest.raises(GpuperfError, match=said), logs.tracing(tmp_path / "logs"):
        pass


@pytest.mark.parametrize(
    ("scenario", "profile", "batch", "seconds", "longest"),
    [
        ("SingleStream", "short", 1, 0.02, 8_700),  # as long as anybody asks
        ("SingleStream", "short", 1, 1e-6, 5.2),  # of nothing: 3 us a query
        ("SingleStream", "valid", 1, 0.0003, 1_253),
        ("SingleStream", "valid", 1, 0.0001, 422),  # too fast for MLPerf's 600 s
        ("MultiStream", "valid", 8, 0.0009, 1_870),
        ("Offline", "short", 256, 0.0160, 340),
        ("Offline", "valid", 256, 0.0160, 1_110),
    ],
)
def test_a_phase_is_as_long_as_loadgens_memory_allows(scenario, profile, batch, seconds, longest):
    load = Load(batch, 1024, seconds)
    found = settings.longest(Scenario.of(scenario), Profile.of(profile), load)
    assert found == pytest.approx(longest, rel=0.02)


def test_a_fast_model_is_measured_shorter_and_it_is_said():
    load, notes = Load(1, 64, 1e-6), []
    fast = Scenario.of("SingleStream"), Profile.of("short"), load
    assert _fitting(*fast, 1.0, notes) == 1.0
    assert notes == []
    assert _fitting(*fast, 10.0, notes) == pytest.approx(5.2, rel=0.02)
    assert notes[0].startswith("measured 5.2 s: LoadGen makes up all queries beforehand, and those of 10 s")
    with pytest.raises(GpuperfError, match="more than 4 GiB: ask for seconds=21 or less"):
        _fitting(fast[0], Profile.of("valid"), load, None, notes)


def test_trace_in_another_form(tmp_path):
    (tmp_path / logs.TRACE).write_text("{}")
    with pytest.raises(GpuperfError, match="holds no sample"):
        logs.read_trace(tmp_path)


def entry(index, value):
    return {"seq_id": 0, "qsl_idx": index, "data": np.int64(value).tobytes().hex()}


def test_accuracy_log_counts_a_repeated_sample_once(tmp_path):
    (tmp_path / logs.ACCURACY).write_text(json.dumps([entry(1, 5), entry(0, -1), entry(1, 6)]))
    assert logs.read_accuracy(tmp_path, 2).tolist() == [-1, 5]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (json.dumps([entry(0, 1)]), "lacks 1 of 2 samples, first 1"),
        (json.dumps([entry(0, 1), entry(2, 1)]), "sample 2 with 8 bytes"),
        (json.dumps([{"qsl_idx": 0, "data": "00"}]), "sample 0 with 1 bytes"),
        ("[", "is no accuracy log"),
        ("[1]", "is no accuracy log"),
    ],
)
def test_a_damaged_accuracy_log(tmp_path, content, said):
    (tmp_path / logs.ACCURACY).write_text(content)
    with pytest.raises(GpuperfError, match=said):
        logs.read_accuracy(tmp_path, 2)


def test_the_figures_that_the_reference_harness_printed_are_refused():
    with pytest.raises(GpuperfError, match=r"242.6 queries/s times the mean latency of 0.2466 s is 59.8"):
        require_consistent("SingleStream", SimpleNamespace(mean=0.2466), 50_000, 206.09)
    # and the true ones are taken: 50,000 queries in 3.4 hours
    require_consistent("SingleStream", SimpleNamespace(mean=0.2466), 50_000, 12_330.0)


@pytest.mark.parametrize(("duration", "fits"), [(10.0, True), (10.4, True), (10.6, False), (9.4, False)])
def test_the_invariant_bears_five_percent(duration, fits):
    if fits:
        require_consistent("MultiStream", SimpleNamespace(mean=0.1), 100, duration)
    else:
        with pytest.raises(GpuperfError, match="contradict each other"):
            require_consistent("MultiStream", SimpleNamespace(mean=0.1), 100, duration)
