"""Device time on a real GPU: the hold, the samples and what cannot be timed."""

import shutil
import subprocess
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from gpuproject import copy, needs_nvcc, side_stream
from samplekernels import sample_kernels  # noqa: F401  (a fixture)

from pytest_gpuperf.backends.cuda.compile import find_nvcc
from pytest_gpuperf.backends.cuda.timer import _HOLD
from pytest_gpuperf.errors import KernelError
from pytest_gpuperf.instruments import device_time, stopwatch
from pytest_gpuperf.instruments.device_time import Settings, measure


@needs_nvcc
@pytest.mark.parametrize("architecture", ["sm_75", "sm_90", "sm_120"])
def test_the_holding_kernel_assembles(tmp_path, architecture):
    ptxas = find_nvcc().resolve().parent / "ptxas"
    if not ptxas.exists():
        ptxas = Path(shutil.which("ptxas") or "/usr/local/cuda/bin/ptxas")
    if not ptxas.exists():
        pytest.skip("ptxas is not beside nvcc")
    (tmp_path / "hold.ptx").write_bytes(_HOLD.rstrip(b"\0"))
    command = [ptxas, f"-arch={architecture}", tmp_path / "hold.ptx", "-o", tmp_path / "hold.cubin"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.gpu
def test_a_copy_takes_as_long_as_the_memory_needs(gpu):
    rate = device_time.copy_bandwidth(gpu)
    assert 1e10 < rate < 2e13
    src, dst = gpu.empty(2**26, np.uint8), gpu.empty(2**26, np.uint8)
    timing = measure(gpu, gpu.device.copy, (dst, src))
    assert timing.details["gated"] is True
    assert timing.details["batch"] == 1
    assert 0.5 < 2 * src.nbytes / timing.median / rate < 4  # 64 MiB may profit from the cache
    assert len(timing.samples) >= stopwatch.FEWEST


@pytest.mark.gpu
def test_two_measurements_of_a_kernel_agree(gpu, kernels):
    n = 2**26
    src, dst = gpu.random(n, seed=1), gpu.empty(n)
    launch = kernels.scale[n // 256, 256]
    first, second = (measure(gpu, launch, (src, dst, n, 2.0)).median for _ in range(2))
    assert abs(first / second - 1) < 0.01


@pytest.mark.gpu
def test_whole_arrays_are_told_from_parts_and_foreign_ones(gpu):
    array = gpu.empty((4, 6))
    assert gpu.device.owns_memory(array)
    assert gpu.device.owns_memory(array.reshape(24))
    assert not gpu.device.owns_memory(array[1:])
    assert not gpu.device.owns_memory(SimpleNamespace(nbytes=96, base=None))


@pytest.mark.gpu
def test_arrays_are_measured_in_many_places_and_given_back(gpu, kernels):
    n = 2**22
    src, dst = gpu.random(n, seed=1), gpu.empty(n)
    launch, addresses = kernels.scale[n // 256, 256], set()
    bind = launch.bind
    launch.bind = lambda *args: (addresses.add(gpu.device.address(args[0])), bind(*args))[1]
    before = gpu.device.free_memory()
    timing = measure(gpu, launch, (src, dst, n, 2.0))
    assert timing.details["moved"] is True
    assert len(addresses) > 5
    assert gpu.device.free_memory() == before
    assert np.array_equal(dst.get(), 2 * src.get())


@pytest.mark.gpu
def test_an_empty_kernel_is_timed_in_batches(gpu, kernels):
    timing = measure(gpu, kernels.nothing[1, 1])
    assert timing.details["gated"] is True
    assert timing.details["batch"] >= 8
    assert 0.3e-6 < timing.median < 10e-6


@pytest.mark.gpu
def test_a_cold_cache_is_slower_than_a_hot_one(gpu, kernels):
    n = gpu.device.l2_bytes // 16
    src, dst = gpu.random(n, seed=1), gpu.empty(n)
    launch = kernels.scale[(n + 255) // 256, 256]
    hot = measure(gpu, launch, (src, dst, n, 2.0), Settings(l2="hot"), batch=1)
    cold = measure(gpu, launch, (src, dst, n, 2.0), Settings(l2="cold"))
    assert cold.details["gated"] is True
    assert cold.median > 1.1 * hot.median


@pytest.mark.gpu
def test_work_on_the_default_stream_is_seen(gpu):
    src, dst = gpu.empty(2**28, np.uint8), gpu.empty(2**28, np.uint8)
    own = measure(gpu, gpu.device.copy, (dst, src))

    other = measure(gpu, copy, (dst, src))
    assert other.details["gated"] is True
    assert other.median == pytest.approx(own.median, rel=0.05)


@pytest.mark.gpu
def test_work_on_a_stream_of_its_own_is_refused(gpu):
    src, dst = gpu.empty(2**28, np.uint8), gpu.empty(2**28, np.uint8)
    with pytest.raises(KernelError, match="non-blocking stream"):
        measure(gpu, copy, (dst, src, side_stream(gpu)))


@pytest.mark.gpu
def test_a_synchronising_callable_is_host_bound(gpu, kernels):
    def synchronising():
        kernels.nothing[1, 1]()
        gpu.synchronize()

    timing = measure(gpu, synchronising)
    assert timing.details["gated"] is False
    assert "host-bound" in timing.details


@pytest.mark.gpu
def test_the_hold_lasts_as_long_as_it_says(gpu):
    timer = gpu.device.timer()
    start, end = timer.event(), timer.event()
    for seconds in (1e-3, 16e-3):
        lasted = []
        for _ in range(5):
            timer.hold(1e-3)  # while the host enqueues the rest, or its own gaps would count
            timer.record(start)
            timer.hold(seconds)
            timer.record(end)
            timer.wait(end)
            lasted.append(timer.seconds(start, end))
        assert min(lasted) == pytest.approx(seconds, rel=0.05, abs=50e-6)
