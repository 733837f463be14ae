"""Recording: one run far from the others is an accident, and two are a second mode."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from pytest_gpuperf.constants import INSTRUMENTS
from pytest_gpuperf.measurement import Baseline, Measurement, Metric, Run
from pytest_gpuperf.modes.runs import NotRecorded, baselines_of
from pytest_gpuperf.records import Record
from pytest_gpuperf.rules.recording import far_runs, replaced, usual_spread

HOST = INSTRUMENTS["host_time"]
TIME = Metric("time", "s", "lower", "noisy", "host_time")


def baseline(*values, metric=TIME, units=()):
    units = units or [None] * len(values)
    runs = tuple(Run((value,), {"device_uuid": unit}) for value, unit in zip(values, units, strict=True))
    return Baseline(metric, {}, {}, metric.constants.prior_sd, runs)


@pytest.mark.parametrize(
    ("values", "far"),
    [
        ((1.0, 1.001, 0.999, 1.1, 1.0), [3]),
        ((1.0, 1.001, 0.999, 0.9, 1.0), [3]),
        ((1.1, 1.001, 0.999, 1.1, 1.0), [0, 3]),
        ((1.0, 1.0, 1.0, 1.0, 1.019), []),
        ((1.0, 1.0, 1.0, 1.0, 1.021), [4]),
        ((1.0, 1.04, 0.96, 1.08, 0.92), []),
        ((1.0,), []),
        ((1.0, 1.5), []),
    ],
    ids=[
        "slower",
        "faster",
        "two",
        "within half the tolerance",
        "beyond it",
        "noisy",
        "a single run",
        "two runs",
    ],
)
def test_a_run_is_far_beyond_noise_and_half_the_tolerance(values, far):
    assert far_runs(values, 0.001, np.expm1(2 * np.log(1.02))) == far


def test_the_usual_spread_is_at_least_the_instruments():
    assert usual_spread(HOST, []) == HOST.prior_sd
    assert usual_spread(HOST, [baseline(1.0, 1.0001)]) == HOST.prior_sd
    noisy = [baseline(1.0, np.exp(sd * np.sqrt(2))) for sd in (0.05, 0.06, 0.9)]
    assert usual_spread(HOST, noisy) == pytest.approx(0.06)
    other = Metric("time", "s", "lower", "noisy", "loadgen")
    exact = Metric("n", "1", "lower", "exact", "host_time")
    for metric in (other, exact):
        assert usual_spread(HOST, [baseline(1.0, 9.0, metric=metric)]) == HOST.prior_sd
    # units differ by more than runs do
    assert usual_spread(HOST, [baseline(1.0, 1.0, 9.0, 9.0, units="AABB")]) == HOST.prior_sd
    assert usual_spread(HOST, [baseline(1.0, 9.0, units="AB")]) == HOST.prior_sd


def test_a_far_run_is_replaced_once_and_kept_to_be_seen():
    recorded = baseline(1.0, 1.001, 1.3, 0.999, 1.0)
    found = replaced(recorded, 2, Run((1.002,), {}), 0.001, 0.05)
    assert [run.value for run in found.runs] == [1.0, 1.001, 0.999, 1.0, 1.002]
    assert [run.value for run in found.left_out] == [1.3]


def test_a_second_far_run_is_a_second_mode_and_all_are_kept():
    recorded = baseline(1.0, 1.001, 1.3, 0.999, 1.0)
    for again in (1.31, 0.7):
        found = replaced(recorded, 2, Run((again,), {}), 0.001, 0.05)
        assert [run.value for run in found.runs] == [1.0, 1.001, 1.3, 0.999, 1.0, again]
        assert found.left_out == ()


# --------------------------------------------------------------------------- by simulation


def needless(sd, spread, tolerance, trials=2000):
    """The share of recordings of nothing but noise in which a run is measured again."""
    rng = np.random.default_rng(20261126)
    values = np.exp(rng.normal(0, sd, (trials, 5))).tolist()
    return sum(bool(far_runs(row, spread, tolerance)) for row in values) / trials


@pytest.mark.parametrize("sd", [0.0006, 0.001, 0.003, 0.01, 0.02])
def test_noise_of_the_usual_size_is_not_measured_again(sd):
    assert needless(sd, sd, 0.02) < 0.001


def test_without_the_pools_spread_noise_is_measured_again():
    """Why the spread is the pool's own: at ten times the instrument's constant."""
    assert needless(0.01, 0.001, 0.02) > 0.2


@pytest.mark.parametrize(("jump", "least"), [(0.10, 0.999), (0.02, 0.98)])
def test_an_accident_is_seen(jump, least):
    """One process in five that was disturbed, at the spread of device times."""
    rng = np.random.default_rng(20261126)
    logs = rng.normal(0, 0.001, (2000, 5))
    logs[:, 2] += jump
    assert sum(far_runs(row, 0.001, 0.02) == [2] for row in np.exp(logs).tolist()) >= least * 2000


# --------------------------------------------------------------------------- processes that measure otherwise


def record(*metrics, contract=()):
    return Record(tuple(Measurement(metric, dict(contract), (3.0,)) for metric in metrics))


@pytest.mark.parametrize(
    ("other", "why"),
    [
        (record(replace(TIME, unit="ms")), "time is another figure in another process: metric.unit s -> ms"),
        (record(replace(TIME, better="higher")), "metric.better lower -> higher"),
        (record(replace(TIME, kind="exact")), "metric.kind noisy -> exact"),
        (record(TIME, contract={"arguments": "float32[7]"}), r"arguments not set -> float32\[7\]"),
        (record(TIME, replace(TIME, name="y")), "y was measured in 1 of 2 processes, and not at first"),
        (record(), "time was measured in 1 of 2 processes"),
    ],
)
def test_processes_that_measure_otherwise_make_no_baseline(other, why):
    """Seconds and milliseconds were stored as runs of one metric."""
    with pytest.raises(NotRecorded, match=why):
        baselines_of(record(TIME), [record(TIME), other], 2)


def test_a_host_that_was_late_in_one_process_is_no_other_figure():
    late = record(replace(TIME, instrument="device_time"))
    assert len(baselines_of(record(TIME), [record(TIME), late], 2)["time"].runs) == 2
