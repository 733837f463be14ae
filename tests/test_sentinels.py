"""Sentinels: who takes them, when, and what they are on a GPU."""

from __future__ import annotations

import json
import os
import socket
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from gpuproject import BINDINGS, needs_nvcc, opened

from pytest_gpuperf.backends.cuda.compile import compile_cubin
from pytest_gpuperf.backends.kernels import Kernels
from pytest_gpuperf.constants import LAUNCH_SENTINEL, SENTINELS
from pytest_gpuperf.errors import GpuperfError, NotFit, Unavailable
from pytest_gpuperf.machine import sentinels
from pytest_gpuperf.machine.guard import Guard
from pytest_gpuperf.processes.reporter import ChildReporter


class FakeGpu:
    """As much of a CUDA device as the guard asks for."""

    uuid = "GPU-1"
    device = SimpleNamespace(judges_times=True, pci="0000:1b:00.0")


@pytest.fixture
def guard(monkeypatch, tmp_path):
    """A guard of a process that may be stored, whose watch finds nobody on the device, and its notes."""
    monkeypatch.setenv("PYTEST_GPUPERF_LOCK_DIR", str(tmp_path / "locks"))
    monkeypatch.setattr("pytest_gpuperf.machine.nvml.FitnessWatch._import", lambda watch: None)
    notes: list[str] = []
    watcher = Guard(1.0, on_wait=notes.append, note=notes.append)
    watcher.wanted = True
    return watcher, notes


def test_a_process_takes_them_once_and_holding_the_device(guard, monkeypatch, tmp_path):
    watcher, _ = guard
    locked = []

    def take(gpu):
        locked.append((tmp_path / "locks" / f"GPU-1.{os.getuid()}.holder").read_text() != "")
        return {"compute_s": 1.0}

    monkeypatch.setattr(sentinels, "take", take)
    for _ in range(2):
        with watcher.measuring(FakeGpu()):
            assert watcher.sentinels == {"compute_s": 1.0}
    assert locked == [True]


@pytest.mark.parametrize(
    ("told", "repeats"),
    [
        ({}, True),  # it is recorded, or confirms
        ({"limits": True}, False),  # a test's own process: what looks worse there is measured again
        ({"top": "/side", "root": "/side/code"}, False),  # two sides that alternate need no third thing
    ],
)
def test_only_a_process_that_is_stored_or_confirms_takes_them(guard, monkeypatch, told, repeats):
    monkeypatch.setattr(ChildReporter, "_end_with_parent", lambda reporter: None)
    config = SimpleNamespace(args=[], pluginmanager=SimpleNamespace(has_plugin=lambda name: False))
    ours, theirs = socket.socketpair()
    with ours:
        ours.sendall(json.dumps(told).encode() + b"\n")
        reporter = ChildReporter(config, theirs.detach())
        reporter.link.close()
    assert reporter.repeats is repeats
    watcher, _ = guard
    watcher.wanted = reporter.repeats
    monkeypatch.setattr(sentinels, "take", lambda gpu: {"compute_s": 1.0})
    with watcher.measuring(FakeGpu()):
        assert bool(watcher.sentinels) is repeats


def test_without_nvcc_it_says_so_and_measures(guard, monkeypatch):
    watcher, notes = guard

    def take(gpu):
        raise Unavailable("nvcc is not here; install it")

    monkeypatch.setattr(sentinels, "take", take)
    with watcher.measuring(FakeGpu()):
        pass
    assert "whether the machine moved is not watched: nvcc is not here; install it" in notes
    assert (watcher.sentinels, watcher.unfit) == ({}, "")


def test_a_device_lost_meanwhile_is_not_hidden(guard, monkeypatch):
    watcher, _ = guard

    def take(gpu):
        raise NotFit("GPU is lost")

    monkeypatch.setattr(sentinels, "take", take)
    with pytest.raises(NotFit), watcher.measuring(FakeGpu()):
        pass


def test_a_device_without_room_is_said(guard):
    watcher, notes = guard

    def full(shape, dtype):
        raise GpuperfError("no room for an array of 0.12 GiB")

    gpu = FakeGpu()
    gpu.device = SimpleNamespace(**vars(FakeGpu.device), to_device=lambda host: full(host.shape, host.dtype))
    with watcher.measuring(gpu):
        pass
    assert any("not watched: no room for an array" in note for note in notes)


def stamps(*sms):
    """What SMs left, by their numbers: (cycles, nanoseconds), or nothing."""
    found = np.zeros((8, 2), "u8")
    for number, each in enumerate(sms):
        found[number] = each or (0, 0)
    return found


def test_the_clock_is_that_of_the_sms_that_left_both_stamps():
    before = stamps((100, 10**18), (2**63, 10**18), None, (100, 10**18))
    after = stamps(
        (100 + 110_880_000, 10**18 + 56_000_000),
        (2**63 + 110_990_000, 10**18 + 56_000_000),
        (10**9, 10**18 + 56_000_000),
        None,
    )
    assert sentinels.sm_mhz(before, after) == pytest.approx((1980 + 110_990 / 56) / 2)


@pytest.mark.parametrize(
    ("before", "after"), [((), ()), (((5, 5),), ()), (((5, 5),), ((900, 5),)), (((5, 5),), ((900, 4),))]
)
def test_without_stamps_or_a_running_timer_there_is_no_clock(before, after):
    assert sentinels.sm_mhz(stamps(*before), stamps(*after)) is None


class ClockedDevice:
    """A device of 132 SMs at 1,980 MHz, on which a load lasts 556 us."""

    def __init__(self):
        self.cycles, self.nanoseconds, self.freed = 7, 10**18, []

    def to_device(self, host):
        held = host.copy()
        return SimpleNamespace(get=lambda: held, held=held)

    def free(self, array):
        self.freed.append(array)

    def bind(self, array, places):
        assert len(array.held) == places

        def stamp():
            array.held[:132] = self.cycles, self.nanoseconds

        return stamp

    def load(self):
        self.nanoseconds += 556_000
        self.cycles += 1_100_880


def test_the_clock_is_taken_over_many_launches():
    device = ClockedDevice()
    assert sentinels._clocked(device, device, device.load) == pytest.approx(1980)
    assert device.cycles == 7 + sentinels.CLOCKED * 1_100_880
    assert len(device.freed) == 2


@needs_nvcc
def test_the_kernels_compile(monkeypatch, tmp_path):
    monkeypatch.setenv("PYTEST_GPUPERF_CACHE", str(tmp_path))
    cubin, _ = compile_cubin(Path(sentinels.__file__).with_suffix(".cu"), (), (9, 0))
    assert b"sentinel_bandwidth" in cubin
    assert b"sentinel_compute" in cubin
    for name, kernel in (("clock.cu", b"stamp"), ("launch.cu", b"sentinel_launch")):
        cubin, _ = compile_cubin(Path(sentinels.__file__).with_name(name), (), (9, 0))
        assert kernel in cubin


# --------------------------------------------------------------------------- on a GPU


def clock_of(gpu) -> float:
    """The SMs' clock in MHz while the compute sentinel runs, by NVML."""
    nvml = pytest.importorskip("pynvml")
    nvml.nvmlInit()
    handle = nvml.nvmlDeviceGetHandleByUUID(gpu.uuid)
    file = Kernels(Path(sentinels.__file__).parent, gpu)["sentinels.cu"]
    dst, counts = gpu.empty(2**25), gpu.empty(2, "u8")
    launch = file["sentinel_compute"][1056, 256].bind(dst, counts, 0.999, 0.5, 16384)
    for _ in range(200):  # 0.1 s
        launch()
    clock = nvml.nvmlDeviceGetClockInfo(handle, nvml.NVML_CLOCK_SM)
    gpu.synchronize()
    nvml.nvmlShutdown()
    return clock


@pytest.mark.gpu
@pytest.mark.parametrize("choice", BINDINGS)
def test_on_a_device_they_are_what_they_claim_to_be(choice):
    gpu = opened(choice)
    try:
        first, second = sentinels.take(gpu), sentinels.take(gpu)
        free = gpu.device.free_memory()
        third = sentinels.take(gpu)
        assert gpu.device.free_memory() == free
        for name in SENTINELS:
            assert second[name] == pytest.approx(first[name], rel=0.02)
        # A GPU reads its commands from the host's memory: 3.9 us were seen in one take and 3.2 in the next.
        shortest, usual, _ = sorted(each[LAUNCH_SENTINEL] for each in (first, second, third))
        assert usual == pytest.approx(shortest, abs=0.3e-6)
        assert 0.5e-6 < shortest < 20e-6
        assert second["sm_mhz"] == pytest.approx(first["sm_mhz"], rel=0.01)  # a step of 15 MHz
        assert first["sm_mhz"] == pytest.approx(clock_of(gpu), rel=0.02)
        assert first["code"] == second["code"]

        file = Kernels(Path(sentinels.__file__).parent, gpu)["sentinels.cu"]
        src, dst = gpu.random((4096,), seed=1), gpu.empty((4096,))
        file["sentinel_bandwidth"][4, 256](src, dst)
        assert np.array_equal(dst.get(), src.get())
        clocks = gpu.to_device(np.zeros(2, np.uint64))
        file["sentinel_compute"][16, 256](dst, clocks, 0.5, 1.0, 100)
        assert dst.get() == pytest.approx(np.full(4096, 8.0))  # four chains at 1 / (1 - 0.5)
        assert (clocks.get() > 0).all()
    finally:
        gpu.close()
