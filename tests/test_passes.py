"""Energy, peak memory, first launch and compile time: each of a pass of its own."""

from __future__ import annotations

import ctypes
import json
import random
import threading
import time
from contextlib import contextmanager, nullcontext
from pathlib import Path

import numpy as np
import pytest
from test_backend_protocol import FakeBackend
from test_device_time import US, Device
from test_mlperf_energy import Nvml

from pytest_gpuperf.backends import select
from pytest_gpuperf.backends.cuda import allocations
from pytest_gpuperf.backends.cuda.allocations import Change, Memory, most
from pytest_gpuperf.backends.gpu import Gpu
from pytest_gpuperf.backends.kernels import Kernels
from pytest_gpuperf.errors import Unavailable
from pytest_gpuperf.instruments import start
from pytest_gpuperf.instruments.energy import LONGEST, SPAN, WARMUP, Looks, energy
from pytest_gpuperf.instruments.memory import peak_memory
from pytest_gpuperf.machine.energy import EnergyCounter

# --------------------------------------------------------------------------- energy


@contextmanager
def counter(device, step, watts=500.0, late=30e-3):
    """The changes of a simulated device's counter, which steps every so many seconds; each is seen late."""
    begin, draw = int(device.clock / step) + 1, random.Random(1)
    delays = [late * draw.random() for _ in range(10_000)]

    def changes():
        steps = range(begin, int(device.clock / step))
        return [(number * step + delays[number], watts * number * step) for number in steps]

    yield changes


@pytest.mark.parametrize(
    ("step", "launch"), [(0.1, 5 * US), (0.02, 300 * US), (0.1, 300 * US), (0.4, 300 * US), (0.1, 0.3)]
)
def test_a_launchs_energy_is_its_power_times_its_time(step, launch):
    device = Device(host_cost=1 * US, event_cost=0.0)
    found = energy(device, device.kernel(launch), counter(device, step))
    assert found.joules == pytest.approx(500 * launch, rel=0.01)
    assert found.watts == pytest.approx(500, rel=0.01)
    assert found.step == pytest.approx(step, rel=0.5)
    assert found.seconds >= min(SPAN, 10 * step) - step
    assert device.clock < WARMUP + LONGEST + 3 * launch + 0.5


def test_a_slow_first_launch_does_not_shorten_trains():
    device, first = Device(), iter([0.1])
    device.enqueue(0.05)
    found = energy(device, lambda: device.enqueue(next(first, 100 * US)), counter(device, 0.1))
    assert found.joules == pytest.approx(0.05, rel=0.01)


def test_the_device_is_never_idle_while_its_energy_is_read():
    device, gaps = Device(), []
    kernel = device.kernel(100 * US)

    def launch():
        gaps.append(device.clock - device.free_at)
        kernel()

    energy(device, launch, counter(device, 0.1))
    steady = gaps[len(gaps) // 4 :]
    assert max(steady) < -0.004  # more than a look takes


def test_a_counter_that_does_not_go_on_gives_no_figure():
    device = Device()
    with pytest.raises(Unavailable, match="does not change within 5 s"):
        energy(device, device.kernel(1e-3), nullcontext(list))


def test_a_thread_of_its_own_looks():
    threads, values = set(), iter([1.0, 1.0, 2.0, 2.0, 5.0])

    def read():
        threads.add(threading.get_ident())
        return next(values, 5.0)

    with Looks(read, lambda: 7.0) as changes:
        while len(changes()) < 2:
            time.sleep(1e-3)
    assert changes() == ((7.0, 2.0), (7.0, 5.0))
    assert threads
    assert threading.get_ident() not in threads


def test_a_counter_that_cannot_be_read_any_more_says_why():
    device, values = Device(), iter([1.0, 2.0])

    def read():
        if (value := next(values, None)) is None:
            raise RuntimeError("GPU is lost")
        return value

    with pytest.raises(Unavailable, match="NVML says GPU is lost"):
        energy(device, lambda: (device.enqueue(1e-3), time.sleep(1e-4)), Looks(read, time.monotonic))


def test_a_counter_says_why_there_is_none():
    assert EnergyCounter(["a"], Nvml("Not Supported")).note == "no energy: NVML says Not Supported"
    assert EnergyCounter(["a"], Nvml()).note == ""


# --------------------------------------------------------------------------- memory


def test_the_most_is_of_what_is_held_at_once():
    def change(when, allocated, address, size=0):
        return Change(when, allocated, address, size, 0)

    assert most([]) == 0
    rows = [change(1, True, 10, 100), change(2, True, 20, 50), change(3, False, 10), change(4, True, 30, 60)]
    assert most(reversed(rows)) == 150
    assert most([change(0, False, 99, 5000), *rows]) == 150  # from before
    assert most([change(1, True, 10, 100), change(2, True, 10, 100)]) == 100  # told twice


def test_a_record_is_read_by_its_first_fields():
    fields = {"kind": 49, "operation": 1, "memory": 3, "address": 4096, "bytes": 64, "timestamp": 7}
    record = Memory(**fields, device=2)
    assert allocations.read(ctypes.addressof(record)) == Change(7, True, 4096, 64, 2)
    for other in ({"kind": 10}, {"operation": 0}, {"memory": 2}):  # a kernel, neither of both, a host's
        assert allocations.read(ctypes.addressof(Memory(**{**fields, **other}))) is None


def test_the_second_call_counts(backend):
    gpu, made, sizes = Gpu(backend), [], iter([4096, 1024])

    def work():
        made.append(gpu.empty((next(sizes),), "u1"))
        gpu.empty((256,), "u1")
        gpu.empty((512,), "u1")

    assert peak_memory(backend, work, lambda: None) == 1024 + 512


# --------------------------------------------------------------------------- what happens once


class LoadedDevice(FakeBackend):
    """A device that counts how often files were loaded, and what the cache and the lock were meanwhile."""

    def __init__(self):
        super().__init__()
        self.loads = []

    def load(self, file, options=(), instance=None):
        from pytest_gpuperf.cache import cache_folder

        self.loads.append((cache_folder(), self.compiling))
        return super().load(file, options, instance)


@pytest.fixture
def loaded(tmp_path, monkeypatch):
    monkeypatch.setenv("PYTEST_GPUPERF_CACHE", str(tmp_path / "usual"))
    (tmp_path / "scale.cu").write_text('extern "C" __global__ void scale(float* x, int n) {}\n')
    device = LoadedDevice()
    device.compiling = lambda: pytest.fail("the device was given away while the compiler was timed")
    return device, Kernels(tmp_path, device)["scale.cu"], tmp_path / "usual"


def test_a_first_launch_is_of_a_program_loaded_for_it(loaded):
    device, file, _ = loaded
    times = start.first_launches(file.scale[1, 32], (Gpu(device).random(8), 8), device)
    assert len(times) == start.TIMES
    assert all(0 < seconds < 1 for seconds in times)
    assert len(device.loads) == 1 + start.TIMES


def test_each_compilation_has_an_empty_cache(loaded):
    device, file, usual = loaded
    given_away = device.compiling
    assert len(start.compile_times(file, "scale", device)) == start.TIMES
    first, *timed = device.loads
    assert first == (usual, given_away)
    assert len({folder for folder, _ in timed}) == start.TIMES
    assert usual not in {folder for folder, _ in timed}
    assert not any(folder.exists() for folder, _ in timed)
    assert device.compiling is given_away
    file.loaded_anew("scale")
    assert device.loads[-1] == (usual, given_away)


# --------------------------------------------------------------------------- in a suite


SUITE = """
import math

import numpy as np
import pytest

def test_passes(gpu, kernels, gpuperf):
    x, k = gpu.to_device(np.ones(64, "f4")), kernels["k.cu"]
    scale = k.scale[2, 32]
    times = [
        gpuperf.first_launch(scale, x, 64),
        gpuperf.compile_time(scale),
        gpuperf.compile_time(k, name="whole"),
    ]
    assert all(0 < t < 60 or math.isnan(t) for t in times)
    assert math.isnan(gpuperf.energy(scale, x, 64))
    most = gpuperf.peak_memory(lambda n: gpu.empty(n), 1000, name="made", max=5000)
    assert most == 4000 or math.isnan(most)
    gpuperf(scale, x, 64, mode="graph")
    gpuperf(scale, x, 64)
    gpuperf.peak_memory(scale, x, 64)
    assert x.get()[0] == 2**5  # each leaves what one launch makes, with the flag and without

@pytest.mark.gpuperf(isolated=True)
def test_first_call(gpu, gpuperf):
    seconds = gpuperf.first_launch(lambda: gpu.empty(8), name="made")
    assert 0 < seconds < 1 or math.isnan(seconds)

def test_not_isolated(gpuperf):
    gpuperf.first_launch(lambda: 1)

def test_no_launch(gpuperf):
    gpuperf.energy(3)

def test_no_first_launch(gpuperf):
    gpuperf.first_launch(3)

def test_kind_of_both(gpuperf):
    gpuperf.peak_memory(lambda kind: kind, kind="exact")

def test_no_file(gpuperf):
    gpuperf.compile_time(print)

def test_unknown(gpuperf):
    gpuperf.peak_memory(lambda x: x, 1, y=2)

def test_mode(gpuperf):
    gpuperf(lambda: 1, mode="grahp")

def test_too_much(gpu, gpuperf):
    gpuperf.peak_memory(lambda: gpu.empty(1000), max=3000)
"""
SCALE = """extern "C" __global__ void scale(float* x, int n) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < n) x[i] *= 2;
}
"""
WRONG = [
    "*gpuperf.first_launch(...): a callable is called for the first time once in a process*isolated=True*",
    "*gpuperf.energy(...) takes a launch or another callable, not int",
    "*gpuperf.first_launch(...) takes a launch or another callable, not int",
    "*gpuperf.compile_time(...) takes a file or a launch of kernels, not builtin_function_or_method*",
    "*gpuperf.peak_memory(...): <lambda> takes no y=*",
    "*gpuperf.peak_memory(...): kind= is gpuperf.peak_memory's own, and <lambda> takes one too*",
    '*gpuperf(...): mode=\'grahp\'; say "launch" or "graph"',
]


@pytest.fixture
def project(pytester):
    (pytester.mkdir("kernels") / "k.cu").write_text(SCALE)
    pytester.makepyfile(test_s=SUITE)
    return pytester


def test_emulated_times_are_shown_and_memory_is_judged(project):
    result = project.runpytest_subprocess(
        "--gpuperf-backend=emulated", "--gpuperf", "--gpuperf-json=out.json", "--gpuperf-strict=off", "-v"
    )
    result.assert_outcomes(passed=2, failed=8)
    result.stdout.fnmatch_lines_random([*WRONG, "*above max=3000*", "energy is a GPU's: here, what*ran once"])
    tests = json.loads((project.path / "out.json").read_text())["tests"]
    found = {m["name"]: m for test in tests for m in test["metrics"] if "too_much" not in test["name"]}
    verdicts = {name: metric["outcome"] for name, metric in found.items()}
    shown = ("scale first_launch", "scale compile_time", "whole compile_time", "scale graph_time", "scale")
    assert verdicts == {
        **dict.fromkeys((*shown, "made first_launch"), "shown"),
        "made peak_memory": "no baseline",
        "scale peak_memory": "no baseline",
    }
    assert found["made peak_memory"]["value"] == 4000
    assert found["scale first_launch"]["details"]["later"] > 0


def test_without_the_flag_each_runs_once(project):
    result = project.runpytest_subprocess("--gpuperf-backend=emulated")
    result.assert_outcomes(passed=3, failed=7)
    result.stdout.fnmatch_lines_random(WRONG)


CONFTEST = f"""
import sys
sys.path.insert(0, {str(Path(__file__).parent)!r})
import pytest_gpuperf.backends as backends
import pytest_gpuperf.session as session
import pytest_gpuperf.instruments.energy as energy
import pytest_gpuperf.machine.energy as machine
import pytest_gpuperf.machine.sentinels as sentinels
from test_backend_protocol import FakeBackend

device = FakeBackend()
device.pci = "0000:1b:00.0"
sentinels.ELEMENTS = 2**12
backends.select = lambda choice: device
session.expects_device = lambda choice: True


class Counter:
    def __init__(self, addresses):
        assert addresses == ["0000:1b:00.0"]
        self.note = open("note.txt").read()

    def read(self):
        return 7.0


def measured(timer, enqueue, looks):
    enqueue()
    return energy.Energy(0.04, 400.0, 1.5, 0.1)


machine.EnergyCounter, energy.energy = Counter, measured
"""


def test_without_a_counter_of_energy_a_test_is_skipped(project):
    project.makeconftest(CONFTEST)
    project.makepyfile(
        test_s="""
        def test_energy(gpu, kernels, gpuperf):
            joules = gpuperf.energy(kernels["k.cu"].scale[2, 32], gpu.random(64), 64)
            assert joules == 0.04

        def test_lack(gpu, kernels, gpuperf):
            open("note.txt", "w").write("no energy: NVML says Not Supported")
            gpuperf.energy(kernels["k.cu"].scale[2, 32], gpu.random(64), 64)
        """
    )
    (project.path / "note.txt").write_text("")
    result = project.runpytest_subprocess("--gpuperf", "--gpuperf-strict=off", "-rs")
    result.assert_outcomes(passed=1, skipped=1)
    result.stdout.fnmatch_lines_random(
        [
            "no baseline*energy*0.04* J*400 W",
            "energy is of the whole GPU, by NVML's counter, which changes every 0.1 s*",
            "SKIPPED *no energy: NVML says Not Supported",
        ]
    )
    result = project.runpytest_subprocess("--gpuperf", "--gpuperf-strict=on", "-o", "gpuperf_require=energy")
    assert result.ret == 22
    result.stdout.fnmatch_lines(["*no energy: NVML says Not Supported"])


# --------------------------------------------------------------------------- on a GPU


@pytest.fixture
def device():
    gpu = Gpu(select("cuda"))
    yield gpu
    gpu.close()


@pytest.mark.gpu
def test_gpu_the_drivers_own_allocations_are_seen(device):
    mebibyte = 2**20

    def work():
        kept = [device.empty((n * mebibyte,), "u1") for n in (8, 16)]
        device.device.free(kept[0])
        kept.append(device.empty((4 * mebibyte,), "u1"))
        return kept

    assert peak_memory(device.device, work, lambda: None) == 24 * mebibyte
    assert peak_memory(device.device, lambda: None, lambda: None) == 0


@pytest.mark.gpu
def test_gpu_torchs_and_cupys_allocations_are_seen(device):
    torch, cupy = pytest.importorskip("torch"), pytest.importorskip("cupy")
    a, b = torch.rand(1 << 20, device="cuda"), cupy.random.rand(1 << 20, dtype=cupy.float32)
    for call in (lambda: (a + 1) * 2, lambda: (b + 1) * 2):
        found = [peak_memory(device.device, call, lambda: None) for _ in range(3)]
        print(found)
        assert found == [2 * 4 << 20] * 3


@pytest.mark.gpu
def test_gpu_energy_of_a_copy(device):
    counted = EnergyCounter([device.device.pci])
    if counted.note:
        pytest.skip(counted.note)
    src, dst = device.random((1 << 26,), np.float32), device.empty((1 << 26,), np.float32)
    timer = device.device.timer()
    found = [
        energy(timer, lambda: device.device.copy(dst, src), Looks(counted.read, timer.now)) for _ in range(3)
    ]
    for each in found:
        print(each)
        assert 100 < each.watts < 1000
    assert max(e.joules for e in found) < 1.1 * min(e.joules for e in found)


@pytest.mark.gpu
def test_gpu_first_launch_and_compile_time(device, tmp_path):
    (tmp_path / "k.cu").write_text(SCALE)
    file, x = Kernels(tmp_path, device)["k.cu"], device.random(64)
    launches = start.first_launches(file.scale[2, 32], (x, 64), device.device)
    later = min(start.first_call(lambda: file.scale[2, 32](x, 64), device.device) for _ in range(5))
    compiled = start.compile_times(file, "scale", device.device)
    print(f"first launches {launches}, the fastest later one {later}, compiled in {compiled}")
    assert min(launches) > later
    assert min(compiled) > 0.05
