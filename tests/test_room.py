"""What does not fit into memory: one sentence with what was asked and what was free."""

from __future__ import annotations

import os
import subprocess
import sys
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest

from pytest_gpuperf.backends import room
from pytest_gpuperf.backends.gpu import Gpu
from pytest_gpuperf.errors import GpuperfError, KernelError

HUGE = 1 << 45
ROOM = (
    r" has no room for an array (float32|uint8)\[.*\]: [\d,.]+ GiB asked, [\d,.]+ GiB free of [\d,.]+ GiB; "
)


@pytest.mark.parametrize(
    "make",
    [
        lambda gpu: gpu.empty(HUGE),
        lambda gpu: gpu.empty((HUGE, HUGE)),
        lambda gpu: gpu.random(HUGE),
        lambda gpu: gpu.random((HUGE, HUGE)),
        lambda gpu: gpu.to_device(np.broadcast_to(np.float32(1), (HUGE,))),
    ],
    ids=["empty", "empty, beyond 64 bits", "random", "random, beyond 64 bits", "a view of one number"],
)
def test_an_array_larger_than_the_hosts_memory(backend, make):
    with pytest.raises(GpuperfError, match="this host" + ROOM):
        make(Gpu(backend))


def test_what_address_space_would_hold_and_memory_does_not(backend, monkeypatch):
    """Linux would give it, and end the process that fills it."""
    monkeypatch.setattr(room, "host_memory", lambda: (96 << 20, 2 << 30))
    gpu = Gpu(backend)
    with pytest.raises(GpuperfError, match=r"uint8.*: 0\.12 GiB asked, 0\.09 GiB free of 2\.00 GiB"):
        gpu.empty(128 << 20, np.uint8)
    assert gpu.empty(80 << 20, np.uint8).nbytes == 80 << 20


def test_what_the_system_refuses_to_map_is_told_alike(backend):
    """As under a limit of address space, which says nothing of memory."""
    script = """
import resource, numpy as np
from pytest_gpuperf.backends.emulated.memory import EmulatedMemory
from pytest_gpuperf.errors import GpuperfError
limit = 1 << 30
resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
try:
    EmulatedMemory().allocate((limit,), np.dtype("u1"))
except GpuperfError as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, env=os.environ)
    assert "1.00 GiB asked" in done.stdout, done.stderr


def test_a_containers_limit_counts(monkeypatch, tmp_path):
    monkeypatch.setattr(room, "_CGROUP", tmp_path)
    total = room.host_memory()[1]
    assert total == os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    (tmp_path / "memory.max").write_text(f"{96 << 20}\n")
    (tmp_path / "memory.current").write_text(f"{32 << 20}\n")
    assert room.host_memory() == (64 << 20, 96 << 20)
    (tmp_path / "memory.max").write_text("max\n")
    assert room.host_memory()[1] == total


# ---------------------------------------------------------------- CUDA, with a stand-in for its driver


class CudaError(Exception):
    pass


class CudaMemoryError(CudaError):
    pass


class Full:
    """Whatever is called, out of memory."""

    def __getattr__(self, name: str) -> Any:
        return Full()

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        raise CudaMemoryError("cuSomething failed: out of memory")


@pytest.fixture(params=["PyCUDA", "cuda.core"])
def cuda(monkeypatch, request):
    """A CUDA device of 80 GiB with 2 GiB free, on which nothing more can be had."""
    gpuarray = ModuleType("pycuda.gpuarray")
    gpuarray.GPUArray = type("GPUArray", (), {"__init__": Full()})
    pycuda = ModuleType("pycuda")
    pycuda.gpuarray = gpuarray
    monkeypatch.setitem(sys.modules, "pycuda", pycuda)
    monkeypatch.setitem(sys.modules, "pycuda.gpuarray", gpuarray)
    monkeypatch.delitem(sys.modules, "pytest_gpuperf.backends.cuda.array", raising=False)
    from pytest_gpuperf.backends.cuda.device import CudaBackend
    from pytest_gpuperf.backends.cuda_core.device import CudaCoreBackend

    backend = {each.binding: each for each in (CudaBackend, CudaCoreBackend)}[request.param]
    made = backend.__new__(backend)
    full = Full()
    made.driver = SimpleNamespace(
        Error=CudaError,
        MemoryError=CudaMemoryError,
        mem_get_info=lambda: (2 << 30, 80 << 30),
        module_from_buffer=full,
        memcpy_dtod_async=full,
        Event=full,
        Stream=SimpleNamespace,
        event_flags=full,
        Context=SimpleNamespace(synchronize=lambda: None),
        function_attribute=full,
        call=full,
    )
    made.device_name, made.total_memory, made.compute_capability = "H100", 80 << 30, (9, 0)
    made.lost, made.stuck, made.last_launch, made.modules = "", False, "", []
    made._arrays, made.stream = [], SimpleNamespace(handle=0)
    yield made
    sys.modules.pop("pytest_gpuperf.backends.cuda.array", None)


@pytest.mark.parametrize("count", [1 << 33, 1 << 40, 1 << 70], ids=["within", "above", "beyond 64 bits"])
def test_an_array_that_the_gpu_has_no_room_for(cuda, count: int):
    with pytest.raises(GpuperfError, match="H100" + ROOM) as caught:
        cuda.empty((count,), np.float32)
    assert "2.00 GiB free of 80.00 GiB" in str(caught.value)
    assert not cuda.lost


def _load(cuda: Any) -> None:
    from pathlib import Path

    cuda.load(SimpleNamespace(path=Path("twice.cu")))


def _launch(cuda: Any) -> None:
    from pathlib import Path

    from pytest_gpuperf.backends.cuda.program import CudaProgram
    from pytest_gpuperf.backends.geometry import Geometry

    program = CudaProgram(cuda, Path("twice.cu"), None, SimpleNamespace(symbol=str))
    program._functions["twice"] = SimpleNamespace(_launch_kernel=Full(), bound=lambda *_: Full())
    program.prepare("twice", Geometry((8, 1, 1), (256, 1, 1), 0, None), [])()


def _copy(cuda: Any) -> None:
    array = SimpleNamespace(own_address=1, nbytes=4)
    cuda.copy(array, array)


@pytest.mark.parametrize(
    ("call", "doing"),
    [
        (_load, r"loading twice\.cu \(compiled (as|by) \S+\), 4,096 bytes of code"),
        (_launch, r"launching twice \(twice\.cu\), grid \(8, 1, 1\), block \(256, 1, 1\), 0 bytes shared"),
        (_copy, "copying an array on the device"),
        (lambda cuda: cuda.timer(), "loading the timer's own kernel"),
        (lambda cuda: cuda.wait(), "waiting for the device"),
    ],
    ids=["load", "launch", "copy", "timer", "wait"],
)
def test_whatever_else_has_no_room_says_what_it_was(cuda, monkeypatch, call, doing: str):
    monkeypatch.setattr(
        "pytest_gpuperf.backends.cuda.names.compile_cubin", lambda *_: (bytes(4096), "0a1b.cubin")
    )
    monkeypatch.setattr(
        "pytest_gpuperf.backends.cuda_core.nvrtc.compile_cubin", lambda *_, **__: (bytes(4096), "")
    )
    match = f"^H100 has no room, seen while {doing}: 2\\.00 GiB free of 80\\.00 GiB; "
    with pytest.raises(GpuperfError, match=match) as caught:
        call(cuda)
    assert not isinstance(caught.value, KernelError)
    assert not cuda.lost, "other tests may go on"
