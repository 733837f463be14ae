"""Baselines and measurements for the tests of the rule, and its verdicts on them."""

from __future__ import annotations

from hypothesis import settings
from hypothesis import strategies as st

from pytest_gpuperf.measurement import Baseline, Measurement, Metric, Run, TestKey, Verdict
from pytest_gpuperf.records import Record
from pytest_gpuperf.rules.case import Case
from pytest_gpuperf.rules.decide import screen
from pytest_gpuperf.rules.verdict import judge

TIME = Metric("time", "s", "lower", "noisy", "device_time")
LATENCY = Metric("p50", "s", "lower", "noisy", "loadgen")
QPS = Metric("qps", "1/s", "higher", "noisy", "loadgen")
CONFLICTS = Metric("bank_conflicts", "1", "lower", "exact", "counters")
ACCURACY = Metric("accuracy", "1", "higher", "exact", "accuracy")
BANDWIDTH = Metric("bandwidth", "B/s", "higher", "shown", "device_time")
PLACE = {"backend": "cuda", "gpu": "NVIDIA H100 80GB HBM3", "power_limit_w": 700}
CONTRACT = {"dtype": "float32", "shape": "8192x8192"}
OUR_UNIT = "GPU-1"
HERE = {"device_uuid": OUR_UNIT, "gpus": 1}
BASE = (1.000e-3, 1.001e-3, 0.999e-3, 1.0005e-3, 0.9995e-3)

quick = settings(max_examples=150, deadline=None, database=None)
values = st.floats(1e-6, 1e6)


def measured(value, metric=TIME, contract=CONTRACT, code=None):
    return Measurement(metric, contract, (value,), code)


def recorded(values, metric=TIME, units=(OUR_UNIT,), code=None, **environment):
    runs = tuple(
        Run((value,), {"device_uuid": units[i % len(units)], "gpus": 1, **environment}, code)
        for i, value in enumerate(values)
    )
    return Baseline(metric, CONTRACT, PLACE, metric.constants.prior_sd, runs)


def decide(baseline, now, replicas=(), *, tolerance=None, place=PLACE, **more) -> Verdict:
    metric = baseline.metric if baseline else TIME
    again = [measured(value, metric) for value in replicas]
    return judge(
        baseline, measured(now, metric), again, tolerance=tolerance, place=place, environment=HERE, **more
    )


def passes(baseline, measurement, tolerance=None, unit=OUR_UNIT) -> bool:
    """Whether the test's own measurement is enough, without replicas."""
    name = measurement.metric.name
    tolerances = {} if tolerance is None else {name: tolerance}
    case = Case(
        key=TestKey("s.py", "t"),
        unit=unit,
        stored={name: baseline} if baseline else {},
        tolerances=tolerances,
    )
    return not screen(case, Record((measurement,), device=PLACE, environment=HERE)).tripped
