"""The studies' scripts as modules, and recorded runs for them."""

from __future__ import annotations

import importlib.util
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np

from pytest_gpuperf.measurement import Measurement, Metric
from pytest_gpuperf.records import Record
from pytest_gpuperf.rules.trial import RecordedTest
from pytest_gpuperf.storage.calibrations import append_run

CHECKOUT = Path(__file__).parent.parent
STUDIES = CHECKOUT / "docs" / "studies"
RECORDINGS = STUDIES / "recordings" / "h100"


def load(path: str):
    """A script of the studies, as a module."""
    name = "study_" + Path(path).stem
    if name not in sys.modules:
        spec = importlib.util.spec_from_file_location(name, STUDIES / path)
        assert spec is not None
        assert spec.loader is not None
        sys.modules[name] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(sys.modules[name])
    return sys.modules[name]


def process(median=1.0, spread=0.003, count=200, seed=1):
    return np.random.default_rng(seed).normal(median, spread * median, count).tolist()


def runs_of(values, metric="time", unit="s", better="lower", contract=None):
    noisy = Metric(metric, unit, better, "noisy", "device_time")
    return [
        {"s.py::t": RecordedTest("h100", {}, Record((Measurement(noisy, contract or {}, samples),)))}
        for samples in values
    ]


def steady(count=12, level=1.0):
    return [
        tuple(process(level * np.exp(0.0005 * np.sin(i)), count=60, seed=int(1000 * level) + i))
        for i in range(count)
    ]


def with_record(runs, **change):
    """The runs with something else in every record."""
    return [
        {key: replace(test, record=replace(test.record, **change)) for key, test in run.items()}
        for run in runs
    ]


def write(path: Path, runs) -> str:
    for run in runs:
        append_run(path, run)
    return str(path)
