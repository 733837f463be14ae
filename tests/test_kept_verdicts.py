"""A baseline file of the first release of the rule, and what that called seventy tests judged by it.

``kept/baselines`` was stored by commit 994e3cd, and its tests were drawn at random, with every kind of
metric, baseline, replica, budget, waiver and comparison. ``kept/cases.jsonl`` has what they come to. When
units became a random effect and the old code came before the replicas, four of seventy outcomes changed, none
to a failure.
"""

from __future__ import annotations

import datetime
import json
from pathlib import Path
from types import SimpleNamespace

import pytest

from pytest_gpuperf.measurement import Bounds, Measurement, Metric, TestKey
from pytest_gpuperf.modes.case import held_to
from pytest_gpuperf.modes.mode import conclude
from pytest_gpuperf.records import Record
from pytest_gpuperf.rules.case import Case, Compared, Evidence, Replicas
from pytest_gpuperf.rules.decide import decide, screen
from pytest_gpuperf.rules.old_code import to_ask
from pytest_gpuperf.rules.tolerances import default_tolerance
from pytest_gpuperf.rules.waivers import Expectation, Quarantine
from pytest_gpuperf.storage.baselines import Store

KEPT = Path(__file__).parent / "kept"
CASES = [json.loads(line) for line in (KEPT / "cases.jsonl").read_text().splitlines()]
REVISION = "HEAD (bbbbbbbbbb)"


def measurement(told, samples, contract="contract") -> Measurement:
    metric = Metric(*(told[key] for key in ("name", "unit", "better", "kind", "instrument")))
    return Measurement(metric, told[contract], tuple(samples), told["code"], {}, Bounds(*told["bounds"]))


def compared(told, first) -> Compared:
    return Compared(
        revision=REVISION,
        here=[measurement(told, samples) for samples in told["here"]],
        there=[measurement(told, samples, "oldcontract") for samples in told["there"]],
        why_not=first["why"],
        borrowed=first["borrowed"],
        unfit=first["unfit"],
    )


def case_of(number, told, stored, record) -> Case:
    waiver = Expectation("why", datetime.date.fromisoformat(told["expected"])) if told["expected"] else None
    if told["quarantined"]:
        waiver = Quarantine("*", "*", "", "r", "o", datetime.date.max)
    unit, metrics = told["env"].get("device_uuid"), [(m, measurement(m, m["now"])) for m in told["measured"]]
    return Case(
        key=TestKey("test_suite.py", f"test_{number}"),
        unit=unit,
        stored={} if told["against"] else held_to(stored, record),
        due={} if told["against"] else stored,
        tolerances={
            m["name"]: default_tolerance(found.metric) if m["tol"] is None else m["tol"]
            for m, found in metrics
        },
        waiver=waiver,
        today=datetime.date(2026, 11, 26),
        strict=told["strict"],
        acquits=told["acquit"] and not told["against"],
        against=REVISION if told["against"] else "",
    )


def judged(case, told, record):
    """The rows of a test, with the evidence that a run would have fetched for it."""
    measured = told["measured"]
    if case.against:
        lost = [Measurement(Metric("lost", "1", "lower", "exact", "record"), {}, (1.0,))]
        evidence = Evidence(
            compared={m["name"]: compared(m, measured[0]) for m in measured},
            lost=lost if told["lost"] else [],
        )
        return decide(case, record, evidence)
    spent = "the budget was spent" if told["budget"] in ("spent", "left") else ""
    again, found, answers = told["repl"], Replicas(), {}
    if not spent:
        by_name = {m["name"]: m for m in measured}
        answers = {
            name: compared(by_name[name], measured[0]) if by_name[name]["ask"] else "its runs name no commit"
            for name in to_ask(case, record, decide(case, record))
        }
    if screen(case, record).tripped and not spent:
        found = Replicas(
            [
                Record(
                    tuple(measurement(m, m["again"][i]) for m in measured),
                    told["place"],
                    environment=environment,
                    unfit="" if i else again["unfit"],
                )
                for i, environment in enumerate(again["envs"])
            ],
            again["trouble"],
            again["notfit"],
        )
    evidence = Evidence(replicas=found, old_code=answers, spent=spent, left_out=told["budget"] == "left")
    return decide(case, record, evidence)


NO_PROJECT = SimpleNamespace(since=lambda commit: "")  # nobody knows how far back a commit is


@pytest.mark.parametrize("number", range(len(CASES)))
def test_a_kept_file_judges_as_it_did(number):
    told = CASES[number]
    stored = Store(KEPT / "baselines").load("h100", "test_suite.py").get(f"test_{number}", {})
    record = Record(
        tuple(measurement(m, m["now"]) for m in told["measured"]),
        told["place"],
        environment=told["env"],
        unfit=told["screenunfit"],
    )
    case = case_of(number, told, stored, record)
    rows, wanted = judged(case, told, record), told["verdict"]
    payload, text = conclude(case, record, rows, NO_PROJECT)
    assert (payload.cause, bool(text) and not payload.cause) == (wanted["cause"], wanted["xfail"])
    found = [
        {
            "metric": row.metric.name,
            "outcome": row.verdict.outcome.value,
            "change": row.verdict.change,
            "excuse": row.excuse,
            "over_budget": row.over_budget,
        }
        for row in rows
    ]
    assert found == [{**row, "change": pytest.approx(row["change"], abs=1e-12)} for row in wanted["rows"]]


def test_the_kept_cases_show_every_verdict_that_a_test_can_get():
    outcomes = {row["outcome"] for told in CASES for row in told["verdict"]["rows"]}
    assert len(outcomes) == 11
    assert {told["verdict"]["cause"] for told in CASES} == {
        None,
        "wrong",
        "setup",
        "environment",
        "infrastructure",
    }
