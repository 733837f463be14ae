"""LoadGen's logs read, percentiles and the number of queries behind them, and what is judged."""

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from pytest_gpuperf.errors import GpuperfError
from pytest_gpuperf.measurement import Baseline, Outcome, Run
from pytest_gpuperf.mlperf import models, reference, settings
from pytest_gpuperf.mlperf.accuracy import StoredPredictions
from pytest_gpuperf.mlperf.loadgen import _fitting
from pytest_gpuperf.mlperf.result import AccuracyResult, Latency, PerformanceResult, queries_needed
from pytest_gpuperf.mlperf.settings import Load, Profile, Scenario
from pytest_gpuperf.mlperf.timing import require_consistent
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


def test_a_server_is_judged_on_its_latency_not_its_rate():
    metrics = {m.metric.name: m.metric.kind for m in performance("Server").measurements(tails=["p99"])}
    assert metrics == {"latency_p50": "noisy", "qps": "shown", "latency_p99": "noisy"}


def test_times_are_shown_where_the_machine_cannot_judge():
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


def test_the_reference_harnesss_figures_are_refused():
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


def test_the_invariant_bears_what_loadgen_takes_of_many_samples():
    """Seen with a model that does nothing, in queries of 1,000 samples: 679.9 a second, of 1.368 ms."""
    latency = SimpleNamespace(mean=0.001368)
    require_consistent(replace(Scenario.of("MultiStream"), samples_per_query=1000), latency, 6799, 10.0)
    with pytest.raises(GpuperfError, match="contradict each other"):
        require_consistent("MultiStream", latency, 6799, 10.0)


def test_results_json_has_the_references_shape_and_notes(tmp_path):
    phase = performance(contract={"scenario": "SingleStream"}, environment={"provider": "CPU"})
    path = reference.write(
        reference.folder_of(tmp_path, "new/one"), phase, {"scenario": "SingleStream", "qps": None}, "a"
    )
    found = json.loads(path.read_text())
    assert found["args"] == {"scenario": "SingleStream"}
    entry = found["TestScenario.SingleStream"]
    assert entry["percentiles"] == dict.fromkeys(("50.0", "80.0", "90.0", "95.0", "99.0", "99.9"), 0.01)
    assert (entry["count"], entry["took"], entry["qps"]) == (700, 7.0, pytest.approx(100))
    assert "accuracy" not in entry
    assert "59 times" in found["note"]
    offline = reference.entry(performance("Offline", queries=1, samples=500, duration=2.0))
    assert (offline["qps"], offline["count"]) == (250, 500)
    right = SimpleNamespace(correct=3, total=4, accuracy=0.75)
    accuracy = {"accuracy": 75.0, "count": 4, "good_items": 3, "total_items": 4}
    assert reference.entry(right) == accuracy  # and neither took nor qps
    (tmp_path / "results.json").mkdir()
    with pytest.raises(GpuperfError, match=r"results\.json cannot be written: "):
        reference.write(tmp_path, phase, {}, "a")


def test_results_json_of_another_phase_stays(tmp_path):
    phase = performance(contract={"scenario": "SingleStream"}, environment={})
    for text in ("{}", "[", "5"):  # of another program
        (tmp_path / "results.json").write_text(text)
        reference.require_own(tmp_path, "a.py::test_a")
    path = reference.write(tmp_path, phase, {"qps": 1}, "a.py::test_a")
    reference.write(tmp_path, phase, {"qps": 2}, "a.py::test_a")  # of the same one, run again
    with pytest.raises(
        GpuperfError, match=r"results\.json is that of a\.py::test_a: give each phase a folder"
    ):
        reference.write(tmp_path, phase, {"qps": 3}, "a.py::test_a (2)")
    assert json.loads(path.read_text())["args"] == {"qps": 2}


@pytest.mark.parametrize("output", [3, True, "file", "file/below"])
def test_an_output_that_is_no_folder_is_refused(tmp_path, output):
    (tmp_path / "file").touch()
    with pytest.raises(GpuperfError, match=r"^loadgen: output.* folder"):
        reference.folder_of(tmp_path, output)
