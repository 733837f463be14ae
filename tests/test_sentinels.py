"""Sentinels: when they say that the machine moved, what that does to a red, and their times on a GPU."""

from __future__ import annotations

import shutil
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from pytest_gpuperf.backends import select
from pytest_gpuperf.backends.cuda_compile import compile_cubin, find_nvcc
from pytest_gpuperf.backends.library import Kernels
from pytest_gpuperf.errors import GpuperfError, NotFit, Unavailable
from pytest_gpuperf.gpu import Gpu
from pytest_gpuperf.judging.differences import environment_differences
from pytest_gpuperf.judging.slower import slower
from pytest_gpuperf.machine import sentinels
from pytest_gpuperf.machine.guard import Guard
from pytest_gpuperf.measurement import Baseline, Metric, Run

pytestmark = pytest.mark.usefixtures("bare")

METRIC = Metric("kernel", "s", "lower", "noisy", "device_time")
STILL = (1.0, 1.0003, 0.9998, 1.0001, 0.9999)  # factors of five processes on a machine that stands still


def environment(bandwidth=1.0, compute=1.0, clock: float | None = 1980.0, code="c0de", uuid="GPU-1"):
    taken = {"bandwidth_s": 92e-6 * bandwidth, "compute_s": 530e-6 * compute, "code": code}
    if clock:
        taken["sm_mhz"] = clock
    return {"device_uuid": uuid, "sentinels": taken}


def baseline(environments) -> Baseline:
    return Baseline(METRIC, {}, {}, 0.0006, tuple(Run((1e-3,), each) for each in environments))


RECORDED = baseline([environment(factor, factor) for factor in STILL])


def processes(bandwidth=1.0, compute=1.0, **more):
    return [environment(bandwidth * factor, compute * factor, **more) for factor in STILL[:4]]


def why(old, now, tolerance, uuid=None) -> str:
    """Why the machine got slower; "" where it did not."""
    found = slower(old, now, tolerance, uuid)
    return found.reason if found else ""


def test_a_machine_that_stands_still_is_no_excuse():
    assert why(RECORDED, processes(), 0.02) == ""


@pytest.mark.parametrize("name", ["bandwidth", "compute"])
def test_either_sentinel_tells_a_machine_that_got_slower(name):
    reason = why(RECORDED, processes(**{name: 1.03}, clock=1410.0), 0.02)
    bound = {"bandwidth": "memory", "compute": "arithmetic"}[name]
    assert reason.startswith(f"the machine moved: a kernel that never changes, bound by {bound}, takes ")
    assert "+3.00 % against the baseline's runs" in reason
    assert reason.endswith("(SM clock 1980 MHz then, 1410 MHz now)")


def test_what_is_slower_on_a_faster_machine_is_slower_by_its_own_doing():
    assert why(RECORDED, processes(bandwidth=0.97, compute=0.9), 0.02) == ""
    assert why(RECORDED, processes(bandwidth=0.97, compute=1.03), 0.02)


def test_it_excuses_twice_what_the_worst_sentinel_lost():
    found = slower(RECORDED, processes(bandwidth=1.03, compute=1.02), 0.02)
    assert found is not None
    assert "bound by memory" in found.reason
    assert found.excuses(METRIC, 1.0) == pytest.approx(2 * 0.03, rel=0.1)


def test_what_a_sentinel_lost_in_seconds_weighs_more_in_a_shorter_kernel():
    found = slower(RECORDED, processes(bandwidth=1.05), 0.02)  # 4.6 of 92 us
    assert found is not None
    assert found.excuses(METRIC, 20e-6) == pytest.approx(2 * 4.6 / 20, rel=0.1)
    rate = Metric("rate", "1/s", "higher", "noisy", "device_time")
    assert found.excuses(rate, 20e-6) == pytest.approx(2 * 0.05, rel=0.1)


@pytest.mark.parametrize(("factor", "tolerance", "moves"), [(1.008, 0.02, False), (1.014, 0.02, True)])
def test_it_has_moved_beyond_half_of_the_tolerance(factor, tolerance, moves):
    assert bool(why(RECORDED, processes(compute=factor), tolerance)) is moves


def test_a_tolerant_metric_is_judged_on_a_machine_that_moved_a_little():
    assert why(RECORDED, processes(compute=1.03), 0.10) == ""


def test_an_interval_that_reaches_back_is_no_proof():
    wide = [environment(compute=factor) for factor in (1.0, 1.05, 0.99, 1.06)]
    assert why(RECORDED, wide, 0.02) == ""


def test_without_an_sm_clock_the_reason_has_none():
    reason = why(RECORDED, processes(compute=1.05, clock=None), 0.02)
    assert reason.endswith("against the baseline's runs")


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (RECORDED, [{}] * 4),
        (RECORDED, [*processes(compute=1.05)[:3], {}]),
        (baseline([{}] * 5), processes(compute=1.05)),
        (RECORDED, processes(compute=1.05, code="0the2")),
        (RECORDED, processes(compute=1.05, code=None)),
    ],
)
def test_what_was_not_taken_alike_says_nothing(old, new):
    assert why(old, new, 0.02) == ""


def test_runs_without_sentinels_are_left_out():
    old = baseline([{"device_uuid": "GPU-1"}] * 2 + [environment(factor) for factor in STILL])
    assert why(old, processes(bandwidth=1.05), 0.02)


def test_below_one_percent_only_runs_of_the_same_gpu_count():
    assert why(RECORDED, processes(compute=1.05), 0.008, "GPU-1")
    assert why(RECORDED, processes(compute=1.05), 0.008, "GPU-2") == ""


def test_sentinels_are_no_difference_between_environments():
    assert environment_differences([environment(clock=1980.0)], environment(compute=2.0, clock=900.0)) == []


# --------------------------------------------------------------------------- taking them


class FakeGpu:
    """As much of a CUDA device as the guard asks for."""

    backend, uuid = "cuda", "GPU-1"
    device = SimpleNamespace(pci="0000:1b:00.0")


@pytest.fixture
def guard(monkeypatch, tmp_path):
    """A guard whose watch finds nobody on the device, and the notes that it made."""
    monkeypatch.setenv("PYTEST_GPUPERF_LOCK_DIR", str(tmp_path / "locks"))
    monkeypatch.setattr("pytest_gpuperf.machine.fitness.FitnessWatch._import", lambda watch: None)
    notes: list[str] = []
    return Guard(1.0, on_wait=notes.append, note=notes.append), notes


def test_a_process_takes_them_once_and_holding_the_device(guard, monkeypatch, tmp_path):
    watcher, _ = guard
    locked = []

    def take(gpu):
        locked.append((tmp_path / "locks" / "GPU-1.holder").read_text() != "")
        return {"compute_s": 1.0}

    monkeypatch.setattr(sentinels, "take", take)
    for _ in range(2):
        with watcher.measuring(FakeGpu()):
            assert watcher.sentinels == {"compute_s": 1.0}
    assert locked == [True]


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


def test_a_device_without_room_is_said(guard, monkeypatch):
    watcher, notes = guard

    def full(shape, dtype):
        raise GpuperfError("no room for an array of 0.12 GiB")

    gpu = FakeGpu()
    gpu.device = SimpleNamespace(pci="0000:1b:00.0", to_device=lambda host: full(host.shape, host.dtype))
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
def test_without_stamps_or_with_a_timer_that_stands_still_there_is_no_clock(before, after):
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


def test_the_clock_is_taken_over_many_launches_and_leaves_nothing():
    device = ClockedDevice()
    assert sentinels._clocked(device, device, device.load) == pytest.approx(1980)
    assert device.cycles == 7 + sentinels.CLOCKED * 1_100_880
    assert len(device.freed) == 2


def has_nvcc() -> bool:
    try:
        find_nvcc()
    except Unavailable:
        return False
    return shutil.which("gcc") is not None


@pytest.mark.skipif(not has_nvcc(), reason="needs nvcc and gcc")
def test_the_kernels_compile(monkeypatch, tmp_path):
    monkeypatch.setenv("PYTEST_GPUPERF_CACHE", str(tmp_path))
    cubin, _ = compile_cubin(Path(sentinels.__file__).with_suffix(".cu"), (), (9, 0))
    assert b"sentinel_bandwidth" in cubin
    assert b"sentinel_compute" in cubin
    cubin, _ = compile_cubin(Path(sentinels.__file__).with_name("clock.cu"), (), (9, 0))
    assert b"stamp" in cubin


# --------------------------------------------------------------------------- the whole way

# What a GPU's processes would store: figures from a file that a test writes for each run.
CONFTEST = """
    import os
    import pathlib
    import pytest
    from pytest_gpuperf.measurement import Measurement, Metric
    from pytest_gpuperf.session import SESSION, recorder_of

    @pytest.fixture
    def figures(request):
        kernel, host, sentinel = map(float, pathlib.Path("figures.txt").read_text().split())
        shake = 1 + os.getpid() % 7 * 1e-5
        request.config.stash[SESSION].guard.sentinels = {"compute_s": sentinel * shake, "code": "c0de"}
        for name, seconds, instrument in (("kernel", kernel, "device_time"), ("host", host, "host_time")):
            metric = Metric(name, "s", "lower", "noisy", instrument)
            recorder_of(request.node).add(Measurement(metric, {}, (seconds * shake,)))
"""


def test_a_red_on_a_machine_that_moved_is_unfit_and_worth_another_machine(pytester: pytest.Pytester):
    pytester.makeini("[pytest]\n")
    pytester.makeconftest(CONFTEST)
    pytester.makepyfile(test_suite="def test_it(figures): pass")
    (pytester.path / "baselines").mkdir()

    def run(*flags: str, kernel=1.0, host=1.0, sentinel=1.0) -> pytest.RunResult:
        (pytester.path / "figures.txt").write_text(f"{kernel} {host} {sentinel}")
        return pytester.runpytest_subprocess("--gpuperf", *flags)

    assert run("--gpuperf-update", "--gpuperf-runs=3").ret == 0
    result = run("--gpuperf-strict=on", kernel=1.05, sentinel=1.04)
    assert result.ret == 20
    result.stdout.fnmatch_lines(["unfit: kernel*", "*the machine moved: *bound by arithmetic*+4.00 %*"])
    # More than the machine can have lost is the code's.
    result = run("--gpuperf-strict=on", kernel=1.12, sentinel=1.04)
    assert result.ret == 1
    result.stdout.fnmatch_lines(
        ["regressed: kernel*", "*the machine moved: *that excuses 8.* % and no more*"]
    )
    result = run("--gpuperf-strict=on", kernel=1.05, sentinel=0.96)
    assert result.ret == 1
    result.stdout.fnmatch_lines(["regressed: kernel*"])
    # A host's time is not the device's business.
    result = run("--gpuperf-strict=on", kernel=1.05, host=1.5, sentinel=1.04)
    assert result.ret == 1
    result.stdout.fnmatch_lines(["unfit: kernel*", "regressed: host*"])


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
def test_on_a_device_they_are_what_they_claim_to_be():
    gpu = Gpu(select("cuda"))
    try:
        first, second = sentinels.take(gpu), sentinels.take(gpu)
        free = gpu.device.free_memory()
        sentinels.take(gpu)
        assert gpu.device.free_memory() == free
        for name in sentinels.KERNELS:
            assert second[name] == pytest.approx(first[name], rel=0.02)
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
