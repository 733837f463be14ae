"""The history: a flat file a run, since when a figure is what it is, and places that can hold none."""

from __future__ import annotations

import sys

import pytest

from pytest_gpuperf.errors import GpuperfError
from pytest_gpuperf.measurement import Metric, Outcome, TestKey, Verdict
from pytest_gpuperf.records import Row
from pytest_gpuperf.report import history
from pytest_gpuperf.report.results import Document, Machine, MetricResult, Samples, TestResult


def run(value: float, day: int = 1, commit: str = "c", **changes: object) -> Document:
    metric = MetricResult("sum", "s", "lower", "noisy", "device_time", "equal", value=value)
    shown = MetricResult("rate", "1/s", "higher", "shown", "record", "shown", value=3.0)
    nothing = MetricResult("gone", "s", "lower", "noisy", "device_time", "missing")
    return Document(
        schema=1,
        version="1",
        run=f"2026110{day}T000000Z-0000",
        date=f"2026-11-0{day}T00:00:00+00:00",
        exit_code=0,
        strict=False,
        command="pytest",
        commit=f"{commit}{day}",
        machines=[Machine("pool", {"backend": "cuda"}, {}, {"device_name": "H"})],
        tests=[TestResult("s.py", "test_a", "s.py::test_a", "passed", "", 0, [metric, shown, nothing])],
        **changes,  # type: ignore[arg-type]
    )


def failing(better: str = "lower", kind: str = "noisy", baseline: float = 1.0, now: float = 1.2) -> Row:
    metric = Metric("sum", "s", better, kind, "device_time")  # type: ignore[arg-type]
    verdict = Verdict(Outcome.REGRESSED, now, baseline, 0.2, tolerance=0.02, exceeds=True)
    return Row(TestKey("s.py", "test_a"), metric, verdict)


@pytest.fixture
def place(tmp_path) -> str:
    history.check(str(tmp_path / "h"))
    return str(tmp_path / "h")


@pytest.mark.parametrize(
    ("values", "says"),
    [
        (
            [1.0, 1.01, 1.2, 1.21],
            "2026-11-03, commit c3 (2 runs before this one); 1.010 s on 2026-11-02, commit c2",
        ),
        ([1.2, 1.0], "now; 1 s on 2026-11-02, commit c2"),
        (
            [1.2, 1.2],
            "2026-11-01, commit c1 (2 runs before this one), or longer: the history has no better run",
        ),
    ],
)
def test_a_failure_says_since_when(place, values, says):
    for day, value in enumerate(values, 1):
        history.append(place, run(value, day))
    history.check(place)
    assert history.since(place, "pool", failing()) == [f"  since     {says}"]
    assert history.since(place, "another pool", failing()) == []


def test_less_of_what_should_be_high_is_worse(place):
    history.append(place, run(0.5))
    assert "2026-11-01" in history.since(place, "pool", failing("higher", now=0.5))[0]
    assert "now" in history.since(place, "pool", failing("higher", baseline=0.5, now=0.4))[0]


def test_no_file_of_a_history_stops_the_others(place, tmp_path):
    history.append(place, run(1.0))
    (tmp_path / "h" / "20261102.jsonl").write_text("{\n")
    (tmp_path / "h" / "20261103.jsonl").symlink_to("/dev/zero")
    (tmp_path / "h" / "20261104.jsonl").mkdir()
    assert "2026-11-01" in history.since(place, "pool", failing())[0]


def test_table_readers_take_a_history_as_it_is(place, tmp_path):
    pandas, duckdb = pytest.importorskip("pandas"), pytest.importorskip("duckdb")
    history.append(place, run(1.0, 1))
    history.append(place, run(1.5, 2))
    first = min((tmp_path / "h").iterdir())
    frame = pandas.read_json(first, lines=True)
    assert frame.value.tolist() == [1.0, 3.0]
    assert frame.columns.tolist() == list(history.Line.__struct_fields__)
    found = duckdb.sql(f"select run, value from '{tmp_path}/h/*.jsonl' where metric = 'sum' order by date")
    assert [value for _, value in found.fetchall()] == [1.0, 1.5]


def test_a_url_is_a_place_too():
    pytest.importorskip("fsspec")
    place = "memory://fleet/gpuperf"
    history.check(place)
    history.append(place, run(1.0))
    history.check(place)
    assert "now" in history.since(place, "pool", failing())[0]


@pytest.mark.parametrize(
    ("place", "says"),
    [
        ("{tmp}/file", "is a file: name a folder"),
        ("{tmp}/file/below", "is a file: name a folder"),
        ("nosuch://me:secret@there", "cannot be read"),
    ],
)
def test_a_place_that_can_hold_no_history_is_refused(tmp_path, place, says):
    if "://" in place:
        pytest.importorskip("fsspec")
    (tmp_path / "file").write_text("")
    with pytest.raises(GpuperfError) as error:
        history.check(place.format(tmp=tmp_path))
    assert says in str(error.value)
    assert "secret" not in str(error.value)


def test_a_url_without_fsspec_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "fsspec.core", None)
    with pytest.raises(GpuperfError, match=r"pip install 'pytest-gpuperf\[history\]'"):
        history.check("s3://bucket")


def test_pytest_benchmark_loads_what_is_written_for_it(tmp_path):
    storage = pytest.importorskip("pytest_benchmark.storage.file")
    from pytest_benchmark.logger import Logger

    from pytest_gpuperf.report.benchmark import render

    metrics = [
        MetricResult(
            "sum",
            "s",
            "lower",
            "noisy",
            "device_time",
            "equal",
            samples=Samples(4, 2.5, 1.29, [1.0, 2.0, 3.0, 4.0]),
        ),
        MetricResult("bytes", "B", "lower", "exact", "record", "equal", samples=Samples(1, 2.0, 0.0, [2.0])),
        MetricResult(
            "benchmark", "s", "lower", "noisy", "host_time", "equal", samples=Samples(1, 2.0, 0.0, [2.0])
        ),
    ]
    document = run(1.0)
    document.tests[0].metrics[:] = metrics
    (tmp_path / "b.json").write_bytes(render(document))
    store = storage.FileStorage(str(tmp_path), logger=Logger(Logger.QUIET), default_machine_id="")
    found = {bench["name"]: bench for bench in store.load_benchmarks(str(tmp_path / "b.json"))}
    assert list(found) == ["test_a sum", "test_a"]
    assert (found["test_a sum"]["median"], found["test_a sum"]["rounds"]) == (2.5, 4)
    assert found["test_a sum"]["q3"] == 3.25
