"""The results of a run as one document: what it says of a verdict, its file, and its schema."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import pytest

import pytest_gpuperf
from pytest_gpuperf.errors import GpuperfError
from pytest_gpuperf.measurement import Measurement, Metric, Outcome, TestKey
from pytest_gpuperf.records import REPORTED_SAMPLES, Keeper, Record
from pytest_gpuperf.report.results import Document, MetricResult, TestResult, json_schema, load, render
from pytest_gpuperf.rules.case import Case, Compared, Evidence, Replicas
from pytest_gpuperf.rules.decide import decide

KEY = TestKey("s.py", "test_a")
TIME = Metric("sum", "s", "lower", "noisy", "device_time")


def document(**changes: object) -> Document:
    known = {
        "schema": 1,
        "version": "1",
        "run": "r",
        "date": "2026-11-27T06:00:00+00:00",
        "exit_code": 1,
        "strict": False,
        "command": "pytest",
    }
    return Document(**{**known, **changes})  # type: ignore[arg-type]


def result(**changes: object) -> MetricResult:
    known = {"name": "sum", "unit": "s", "better": "lower", "kind": "noisy", "instrument": "device_time"}
    return MetricResult(**{**known, "outcome": "equal", **changes})  # type: ignore[arg-type]


def test_the_shipped_schema_is_the_codes():
    shipped = (Path(pytest_gpuperf.__file__).parent / "report" / "results.schema.json").read_text()
    assert shipped == json_schema(), (
        "run python -m pytest_gpuperf.report.results > pytest_gpuperf/report/results.schema.json"
    )


def test_a_document_is_read_as_it_was_written(tmp_path):
    written = document(
        tests=[TestResult("s.py", "test_a", metrics=[result(interval=(0.1, 0.2), here=[1.0])])]
    )
    (tmp_path / "r.json").write_bytes(render(written))
    assert load(tmp_path / "r.json") == written


def test_what_json_cannot_say_is_null_or_escaped():
    metric = result(value=math.inf, change=math.nan, reason="half a \ud800 pair")
    data = render(document(tests=[TestResult("s.py", "test_a", metrics=[metric])]))
    (found,) = json.loads(data, parse_constant=pytest.fail)["tests"][0]["metrics"]
    assert (found["value"], found["change"]) == (None, None)
    assert found["reason"] == r"half a \ud800 pair"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ('{"schema": 2}', "upgrade pytest-gpuperf"),
        ('{"schema": 1, "run": ', "cut short"),
        ("[]", "a file of results holds a JSON object"),
        (render(document(tests=[TestResult("s", "t", machine=3)])).decode(), "$.tests[0].machine is 3"),
        (None, "give a file that --gpuperf-json wrote"),
    ],
)
def test_a_file_that_is_no_result_is_refused_by_name(tmp_path, text, says):
    if text is not None:
        (tmp_path / "r.json").write_text(text)
    with pytest.raises(GpuperfError) as error:
        load(tmp_path / "r.json")
    assert str(error.value).startswith(str(tmp_path / "r.json"))
    assert says in str(error.value)


def test_a_field_of_a_later_version_is_passed_over(tmp_path):
    (tmp_path / "r.json").write_text(json.dumps({**json.loads(render(document())), "news": 1}))
    assert load(tmp_path / "r.json") == document()


def test_samples_are_kept_for_reports_within_bounds():
    samples = tuple(float(1 + i % 1000) for i in range(5000))
    record = Record((Measurement(TIME, {"l2": "hot"}, samples, details={"notes": []}),), {"gpu": "G"})
    (kept,) = Keeper(REPORTED_SAMPLES).record(record).measurements
    assert len(kept.samples) == REPORTED_SAMPLES
    assert (kept.samples[0], kept.value, kept.samples[-1]) == (1.0, 500.5, 1000.0)
    assert (kept.contract, kept.details["sampled"].count) == ({"l2": "hot"}, 5000)
    assert kept.details["sampled"].mean == pytest.approx(500.5)
    assert Keeper().record(record).measurements[0].samples == ()
    coded = replace(record, measurements=(replace(record.measurements[0], code="c0de"),))
    (median,) = Keeper(1).record(coded).measurements  # what a session keeps that records
    assert (median.samples, median.code) == ((500.5,), "c0de")


def test_a_row_has_the_processes_that_decided_it():
    measured = Measurement(TIME, {}, (2.0,))
    record = Record((measured,))
    again = Replicas([Record((Measurement(TIME, {}, (value,)),)) for value in (2.1, 2.2)])
    (by_replicas,) = decide(Case(key=KEY), record, Evidence(replicas=again))
    assert (by_replicas.here, by_replicas.there) == ((2.1, 2.2), ())
    sides = Compared(revision="abc", here=again_of(2.3, 2.4), there=again_of(1.0, 1.1))
    (compared,) = decide(Case(key=KEY, against="abc"), record, Evidence(compared={"sum": sides}))
    assert (compared.here, compared.there) == ((2.3, 2.4), (1.0, 1.1))


def again_of(*values: float) -> list[Measurement]:
    return [Measurement(TIME, {}, (value,)) for value in values]


def test_a_row_learns_which_test_it_is_of():
    row = decide(Case(key=KEY), Record((Measurement(TIME, {}, (2.0,)),)))[0]
    assert Keeper().row(row, "s.py::test_a").nodeid == "s.py::test_a"


def test_a_row_keeps_the_command_that_something_will_name():
    row = decide(Case(key=KEY, command="pytest a"), Record((Measurement(TIME, {}, (2.0,)),)))[0]
    new = replace(row, cause=None)  # its command may be a renamed test's
    calm = replace(new, verdict=replace(row.verdict, outcome=Outcome.EQUAL))
    failing = replace(calm, cause="setup")
    assert [Keeper().row(each).command for each in (calm, new, failing)] == ["", "pytest a", "pytest a"]
    assert Keeper(REPORTED_SAMPLES).row(calm).command == "pytest a"


def test_tests_share_what_is_the_same_of_them():
    records = [Record((Measurement(TIME, {}, (float(n),)),), {"gpu": "G"}) for n in (1, 2)]
    keeper = Keeper()
    first, second = map(keeper.record, records)
    assert first is second
    assert keeper.record(replace(records[0], unfit="hot")).unfit == "hot"
