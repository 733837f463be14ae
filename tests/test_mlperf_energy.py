"""The energy of a phase, from a stand-in for NVML's counter."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from test_mlperf_sut import LoadGen, callbacks

from pytest_gpuperf.machine.energy import EnergyMeter
from pytest_gpuperf.mlperf.result import Latency, PerformanceResult


class Nvml:
    """Two devices whose counters go up by 500 mJ at every fourth look."""

    def __init__(self, refusal=None):
        self.looks, self.refusal = 0, refusal

    def nvmlInit(self):
        pass

    def nvmlDeviceGetHandleByPciBusId(self, address):
        return address

    def nvmlDeviceGetTotalEnergyConsumption(self, device):
        if self.refusal:
            raise RuntimeError(self.refusal)
        self.looks += 1
        return 500 * (self.looks // 4)


def test_a_span_is_measured_and_the_counters_step_is_told():
    nvml = Nvml()
    meter = EnergyMeter(["a", "b"], nvml)
    meter.begin()
    first = nvml.looks
    nvml.looks += 800
    meter.end()
    assert meter.joules == pytest.approx(2 * 800 / 4 * 0.5, abs=6), first
    assert 0 < meter.step < 0.1
    assert meter.note == ""


def test_a_device_without_a_counter_says_so_and_has_no_figure():
    meter = EnergyMeter(["a"], Nvml("Not Supported"))
    meter.begin()
    meter.end()
    assert (meter.joules, meter.note) == (None, "no energy: NVML says Not Supported")


def test_a_counter_that_is_lost_in_a_phase_is_no_failure_of_it():
    nvml = Nvml()
    meter = EnergyMeter(["a"], nvml)
    meter.begin()
    nvml.refusal = "GPU is lost"
    meter.end()
    assert (meter.joules, meter.note) == (None, "no energy: NVML says GPU is lost")
    meter.begin()


def test_the_meter_runs_from_loading_to_unloading():
    called, order = callbacks(LoadGen()), []
    called.meter = SimpleNamespace(begin=lambda: order.append("begin"), end=lambda: order.append("end"))
    called.load(range(4))
    called.issue([1], [2])
    called.unload([])
    assert order == ["begin", "end"]


def test_energy_is_shown_a_query_and_in_offline_a_sample():
    latency = Latency.of(np.full(20, 0.1), 20)
    given = ({}, {}, Path("logs"), (), None, (40.0, 0.02))
    stream = PerformanceResult("SingleStream", latency, 20, 20, 2.0, *given)
    energy = stream.measurements()[-1]
    assert (energy.metric.name, energy.metric.unit, energy.metric.kind) == ("energy_per_query", "J", "shown")
    assert energy.samples == (2.0,)
    assert energy.details["step"] == "0.02 s of 2 s"
    offline = PerformanceResult("Offline", latency, 1, 400, 2.0, *given)
    assert offline.measurements()[-1].samples == (0.1,)
    assert "J" not in {each.metric.unit for each in replace(stream, energy=None).measurements()}
