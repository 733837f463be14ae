"""The contract of a backend holds: one that implements it and no more serves every caller."""

from __future__ import annotations

import ast
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pytest
from test_device_time import US, Device

import pytest_gpuperf
from pytest_gpuperf import backends
from pytest_gpuperf.backends import base
from pytest_gpuperf.backends.base import Backend, Program
from pytest_gpuperf.backends.cuda.device import CudaBackend
from pytest_gpuperf.backends.cuda.program import CudaProgram
from pytest_gpuperf.backends.cuda_core.device import CudaCoreBackend
from pytest_gpuperf.backends.emulated.program import EmulatedProgram
from pytest_gpuperf.backends.geometry import Geometry
from pytest_gpuperf.backends.gpu import Gpu
from pytest_gpuperf.backends.kernels import Kernels
from pytest_gpuperf.backends.signature import Unresolved
from pytest_gpuperf.backends.timer import Timer
from pytest_gpuperf.errors import KernelError
from pytest_gpuperf.instruments import counters, device_time
from pytest_gpuperf.machine import environment, sentinels
from pytest_gpuperf.machine.guard import Guard

PACKAGE = Path(pytest_gpuperf.__file__).parent


class FakeArray:
    def __init__(self, host):
        self.host = host
        self.shape, self.dtype, self.nbytes = host.shape, host.dtype, host.nbytes

    def get(self):
        return self.host.copy()


class FakeProgram:
    """Kernels that take 100 us each and do nothing."""

    def __init__(self, device):
        self._device = device

    def code_hash(self, name):
        return f"hash of {name}"

    def prepare(self, name, geometry, arguments):
        return self._device.kernel(100 * US)

    def trace(self, name, geometry, arguments):
        return ((1, 4, 4),) * 4

    def figures(self, name):
        return {}

    def signature(self, name):
        raise Unresolved("no such kernel")

    def variable(self, name):
        raise Unresolved("no such variable")

    def read(self, variable):
        raise AssertionError

    def write(self, variable, values):
        raise AssertionError


class FakeBackend:
    """The protocol and no more."""

    name, device_name, uuid, pci = "fake", "Fake 9000", "FAKE-1", None
    compute_capability = context = stream = None
    judges_times, models_traffic = True, True
    seconds, lost, stuck = 60.0, "", False
    l2_bytes, peak_bandwidth, peak_flops, peak_fp32 = 50 * 2**20, 3.352e12, 2.141e15, 6.69e13
    compiling = staticmethod(nullcontext)
    compiler_version = "fcc 1.2"

    def __init__(self):
        self._device, self._freed = Device(), []

    def place(self):
        return {"backend": "fake", "gpu": "Fake 9000"}

    def software(self):
        return {"driver": "7.1"}

    def empty(self, shape, dtype):
        return FakeArray(np.empty(shape, dtype))

    def to_device(self, host):
        return FakeArray(host.copy())

    def free(self, array):
        self._freed.append(array)

    def address(self, argument):
        return id(argument) if isinstance(argument, FakeArray) else None

    def owns_memory(self, array):
        return isinstance(array, FakeArray)

    def copy(self, destination, source):
        destination.host[...] = source.host

    def free_memory(self):
        return 2**30

    def load(self, file, options=(), instance=None):
        return FakeProgram(self._device)

    def count(self, work):
        work()
        work()
        return [base.Counted("scale", ((1, 4, 4),) * 4, {})]

    def capture(self, work):
        work()
        return base.Graph(work, 1)

    def peak_memory(self, work):
        work()
        return 4096

    def timer(self):
        return self._device

    def synchronize(self):
        self._device.synchronize()

    def close(self):
        pass


def members(protocol):
    named = set(protocol.__annotations__) | set(vars(protocol))
    return {name for name in named if not name.startswith("_")}


def public(made):
    return {name for name in dir(made) if not name.startswith("_")}


@pytest.fixture
def gpu():
    return Gpu(FakeBackend())


@pytest.fixture
def scale(gpu, tmp_path):
    (tmp_path / "scale.cu").write_text('extern "C" __global__ void scale(float* x, int n) {}\n')
    return Kernels(tmp_path, gpu)["scale.cu"].scale[(2, 3), 32]


def test_the_stand_in_has_what_the_protocol_lists_and_no_more(gpu, scale):
    assert public(gpu.device) == members(Backend)
    assert public(scale.file.program) == members(Program)
    assert public(gpu.device.timer()) >= members(Timer)


def test_the_protocol_suffices_for_launches_times_and_counters(gpu, scale):
    array = gpu.random(1024, seed=1)
    scale(array, 1024)
    timing = device_time.measure(gpu, scale, (array, 1024))
    assert timing.details["moved"] is True
    assert timing.median == pytest.approx(100 * US, rel=0.01)
    assert scale.work_hash(array, 1024)
    found = counters.count(scale.file.program, scale.name, scale.geometry, [array, 1024])
    assert found.global_load.sectors_per_request == 4
    assert counters.count_all(gpu.device, lambda: scale(array, 1024), "it").kernels.keys() == {"scale"}
    mark = gpu.mark()
    assert gpu.to_device(np.zeros(3)).get().tolist() == [0, 0, 0]
    assert gpu.free_since(mark) == 0
    gpu.synchronize()
    gpu.close()


def test_the_protocol_suffices_to_guard_the_machine(gpu, monkeypatch, tmp_path):
    monkeypatch.setenv("PYTEST_GPUPERF_LOCK_DIR", str(tmp_path / "locks"))
    monkeypatch.setattr(sentinels, "ELEMENTS", 2**12)
    notes = []
    guard = Guard(1.0, on_wait=notes.append, note=notes.append)
    guard.wanted = True
    with guard.measuring(gpu), guard.unlocked():
        pass
    assert guard.unfit == ""
    assert guard.sentinels["code"] == "hash of None"
    assert guard.sentinels["compute_s"] == pytest.approx(100 * US, rel=0.01)
    found = environment.describe(gpu.device, tmp_path, "baselines")
    assert (found["device_uuid"], found["compiler"], found["driver"]) == ("FAKE-1", "fcc 1.2", "7.1")


def test_the_emulated_backend_has_every_member(backend):
    assert members(Backend) <= public(backend)
    assert members(Program) <= public(EmulatedProgram)
    assert backend.compiler_version.startswith("g++ ")
    array = backend.to_device(np.arange(4, dtype=np.float32))
    copied = backend.empty((4,), np.float32)
    backend.copy(copied, array)
    assert copied.get().tolist() == [0, 1, 2, 3]
    assert backend.owns_memory(array)
    assert backend.free_memory() > 0


def test_the_cuda_backend_has_every_member():
    """By its class: opening it takes a GPU."""
    assigned = {
        node.attr
        for node in ast.walk(ast.parse(Path(CudaBackend.__init__.__code__.co_filename).read_text()))
        if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store)
    }
    assert members(Backend) <= public(CudaBackend) | assigned
    assert public(CudaBackend) <= public(CudaCoreBackend)
    assert members(Program) <= public(CudaProgram)


def test_what_a_place_says_is_what_the_backend_says(backend):
    for device in (backend, CudaBackend, CudaCoreBackend):
        place = {"backend": device.name}
        assert backends.judges_times(place) is device.judges_times
        assert backends.is_modelled(place) is device.models_traffic
    assert not backends.judges_times({"backend": "cpu"})
    assert not backends.is_modelled({})


def test_a_geometry_states_what_is_wrong_with_it():
    assert Geometry.of(4, (32, 2)) == Geometry((4, 1, 1), (32, 2, 1), 0, None)
    with pytest.raises(KernelError, match="grid 0 has x = 0"):
        Geometry.of(0, 1)
    assert Geometry.of(4, 1, 0, 7).stream == 7
    for stream in ("default", 1.5, True, object()):
        with pytest.raises(KernelError, match=f"a stream is gpu.stream, .*; {stream!r} was given"):
            Geometry.of(4, 1, 0, stream)


# --------------------------------------------------------------------------- nobody asks around it

NAMES = {"cuda", "cuda-core", "emulated"}
OBJECTS = {"backend", "device", "program", "gpu"}


def last_name(node):
    return node.attr if isinstance(node, ast.Attribute) else getattr(node, "id", "").strip("_")


@pytest.mark.parametrize("path", sorted(PACKAGE.rglob("*.py")), ids=lambda path: path.name)
def test_no_file_asks_for_a_backend_by_name_or_by_attribute(path):
    for node in ast.walk(ast.parse(path.read_text())):
        where = f"{path}:{getattr(node, 'lineno', 0)}"
        if isinstance(node, ast.Compare) and PACKAGE / "backends" not in path.parents:
            compared = {n.value for n in ast.walk(node) if isinstance(n, ast.Constant)} & NAMES
            assert not compared, f"{where} compares with {compared}"
        if isinstance(node, ast.Call) and last_name(node.func) in ("getattr", "hasattr"):
            assert last_name(node.args[0]) not in OBJECTS, f"{where} probes a backend"
