"""Baselines, and a store in a folder of the test's own, for the tests of what is stored."""

from __future__ import annotations

from dataclasses import replace

import pytest

from pytest_gpuperf.measurement import Baseline, Metric, Run
from pytest_gpuperf.storage.baselines import Store

POOL = "NVIDIA H100 80GB HBM3"
SUITE = "suites/test_transpose.py"
TIME = Metric("time", "s", "lower", "noisy", "device_time")
CONFLICTS = Metric("bank_conflicts", "1", "lower", "exact", "counters")
ENVIRONMENT = {
    "commit": "0a1b2c",
    "dirty": False,
    "date": "2026-08-01T12:00:00+00:00",
    "device_uuid": "GPU-1",
    "versions": {"numpy": "2.4", "onnxruntime-gpu": "1.31"},
}


def baseline(*samples, metric=TIME, environment=ENVIRONMENT, code=None, **changes):
    run = Run(samples or (1.8145e-4, 1.8146e-4, 1.8147e-4), environment, code)
    made = Baseline(metric, {"dtype": "float32", "n": 8192}, {"backend": "cuda"}, 6e-4, (run,))
    return replace(made, **changes)


EXACT = baseline(2048.0, metric=CONFLICTS, prior_sd=0.0)


@pytest.fixture(name="store")
def empty_store(tmp_path):
    return Store(tmp_path / "baselines")


@pytest.fixture(name="path")
def two_tests(store):
    """A file with two tests in it."""
    return store.save(POOL, SUITE, {"test_a": {"time": baseline()}, "test_b[8-x.y]": {"conflicts": EXACT}})
