"""LoadGen's logs read, its trace kept out of the project, and what it counted itself."""

import errno
import json
import os
import socket
import subprocess

import numpy as np
import pytest

from pytest_gpuperf.errors import GpuperfError
from pytest_gpuperf.mlperf import logs, read_logs
from pytest_gpuperf.mlperf.result import Latency
from pytest_gpuperf.mlperf.settings import Scenario
from pytest_gpuperf.mlperf.timing import require_complete


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
        (None, "LoadGen ran nothing, or this is not its folder"),
        (mllog("result_validity", "VALID"), "did not end"),
        (2 * (mllog("loadgen_version", "6") + mllog("power_end", "now")), "the logs of several phases, one"),
        (":::MLLOG {oops\n", "no MLLOG entry: {oops"),
        (":::MLLOG 5\n", "no MLLOG entry: 5"),
        (':::MLLOG {"key": "a", "value": 1, "metadata": [1]}\n', "no MLLOG entry: {"),
        (":::MLLOG " + "[" * 10**5 + "]" * 10**5 + "\n", "no MLLOG entry: ..."),
        ('"pid": 1, "tid": 1, "ts": 3775ns : version : .5a1 @ 61220457de\n', "LoadGen of 2020 or before"),
    ],
)
def test_a_detail_log_that_is_no_result(tmp_path, content, said):
    if content is not None:
        (tmp_path / logs.DETAIL).write_text(content)
    with pytest.raises(GpuperfError, match=said) as error:
        logs.read_detail(tmp_path)
    assert logs.DETAIL in str(error.value)


def test_a_foreign_log_whose_numbers_are_none(tmp_path):
    def read(*lines):
        (tmp_path / logs.DETAIL).write_text("".join([*lines, mllog("power_end", "now")]))
        return read_logs(tmp_path)

    scenario = mllog("effective_scenario", "MultiStream")
    phase = read(scenario, mllog("num_errors", None), mllog("effective_performance_sample_count", None))
    assert (phase.queries, phase.latency, phase.samples_per_second) == (None, {}, None)
    mean = mllog("result_mean_query_latency_ns", 4_000_000)
    assert read(scenario, mean).samples_per_second is None
    assert read(scenario, mean, mllog("effective_samples_per_query", 8)).samples_per_second == 2000
    for name in ("result_50.00_percentile_latency_ns", "result_query_count", "num_errors"):
        with pytest.raises(GpuperfError, match=f"{name} is 'NaN', which is no number"):
            read(scenario, mllog(name, "NaN"))
    few = mllog("result_mean_query_latency_ns", 1e-320)
    assert read(scenario, few, mllog("effective_samples_per_query", 8)).samples_per_second == np.inf
    assert read(mllog("sut_name", "mine").replace("mine", "my\u2028own")).values["sut_name"] == "my\u2028own"


def test_a_path_that_is_no_log_folder(tmp_path):
    (tmp_path / logs.DETAIL).mkdir()
    for given, said in (
        (None, "read_logs: None is no path; give the folder"),
        (tmp_path, "cannot be read: Is a directory"),
        ("a\0b", "cannot be read: embedded null byte"),
        ("a\ud800b", "cannot be read: .*surrogates not allowed"),
    ):
        with pytest.raises(GpuperfError, match=said):
            read_logs(given)


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


@pytest.mark.parametrize(
    ("gaps_us", "pauses"),
    [([], 0), ([5] * 9, 0), ([5, 5, 905, 5, 5, 2005], 0.0029), ([900] * 9, 0)],  # all of them are no pauses
)
def test_a_busy_hosts_gaps_between_queries_are_pauses(tmp_path, gaps_us, pauses):
    begins = np.cumsum([1000, *[gap + 100 for gap in gaps_us]])
    (tmp_path / logs.TRACE).write_text("".join(sample(t, q, 0, 100_000) for q, t in enumerate(begins)))
    assert logs.read_trace(tmp_path).pauses == pytest.approx(pauses)


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
def test_a_trace_unlike_loadgens_count_has_no_figures(tmp_path, scenario, counted, median, whole):
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


def test_the_trace_lies_in_the_cache_and_goes(tmp_path, cache):
    folder, link = tmp_path / "logs", tmp_path / "logs" / logs.TRACE
    traces = cache / "traces"
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


def test_a_trace_without_room_to_be_kept_is_said_of_its_folder(tmp_path, cache, monkeypatch):
    def full(source, target):
        target.write_text("a part")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(logs.shutil, "copyfile", full)
    folder = tmp_path / "logs"
    said = (
        r"trace, 3 bytes, cannot be kept in .*/logs \(No space left on device\): make room, or leave out keep"
    )
    with pytest.raises(GpuperfError, match=said), logs.tracing(folder, keep=True):
        (folder / logs.TRACE).write_text("all")
    assert list(folder.iterdir()) == []


def test_a_cache_that_cannot_be_written_is_named(tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setenv("PYTEST_GPUPERF_CACHE", str(tmp_path / "file"))
    said = r"trace cannot be kept in .*point PYTEST_GPUPERF_CACHE at"
    with pytest.raises(GpuperfError, match=said), logs.tracing(tmp_path / "logs"):
        pass


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


def test_the_logs_of_two_tests_lie_apart_whatever_their_ids():
    plain = "suites/test_a.py::TestB::test_c[SingleStream-8]"
    assert logs.folder_name(plain) == "suites_test_a.py_TestB_test_c_SingleStream-8_"
    ids = ["a/b", "a_b", "a b", "a\\u6a21", "x" * 300, "x" * 301, "\u6a21" * 90]
    names = [logs.folder_name(f"test_a.py::test_b[{each}]") for each in ids]
    assert len({*names}) == len(ids)
    assert max(len(name.encode()) for name in names) < 200  # a second session's has a number behind it
