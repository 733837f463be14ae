"""cuda.core in PyCUDA's place: its arrays and its driver, by stand-ins and on a GPU."""

from __future__ import annotations

import ctypes
import sys
import threading
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest
from gpuproject import BINDINGS, opened

from pytest_gpuperf.backends.cuda.context import CudaContext
from pytest_gpuperf.backends.cuda.program import pack
from pytest_gpuperf.backends.cuda_core.array import Array
from pytest_gpuperf.backends.geometry import Geometry
from pytest_gpuperf.backends.kernels import Kernels
from pytest_gpuperf.backends.room import FREED
from pytest_gpuperf.errors import KernelError

# --------------------------------------------------------------------------- arrays, in the host's memory


class HostDriver:
    """A driver whose device is this host's memory."""

    def __init__(self):
        self.live = {}

    def call(self, function, *arguments):
        if function == "cuMemAlloc":
            memory = ctypes.create_string_buffer(*arguments)
            self.live[ctypes.addressof(memory)] = memory
            return ctypes.addressof(memory)
        assert function == "cuMemFree"
        return self.live.pop(*arguments) and ()

    def memcpy_htod(self, address, values):
        ctypes.memmove(address, values.ctypes.data, values.nbytes)

    def memcpy_dtoh(self, values, address):
        ctypes.memmove(values.ctypes.data, address, values.nbytes)


@pytest.fixture
def array():
    made = Array(HostDriver(), (3, 4), np.dtype(np.int16))
    made.set(HOST)
    return made


HOST = np.arange(12, dtype=np.int16).reshape(3, 4)


@pytest.mark.parametrize(
    "part",
    [
        lambda a: a[1],
        lambda a: a[-1, 2],
        lambda a: a[:, 1:3],
        lambda a: a[::-1, None],
        lambda a: a[..., 2],
        lambda a: a.T,
        lambda a: a.T[1:],
        lambda a: a.reshape(2, 6)[1],
        lambda a: a.reshape((4, 3)),
        lambda a: a.view(np.uint8),
    ],
)
def test_parts_of_an_array_are_numpys(array, part):
    found, expected = part(array), np.asarray(part(HOST))
    assert np.array_equal(found.get(), expected)
    assert (found.shape, found.dtype, found.nbytes) == (expected.shape, expected.dtype, expected.nbytes)
    interface = found.__cuda_array_interface__
    if expected.ndim:  # NumPy copies a single element
        offset = expected.ctypes.data - HOST.ctypes.data
        assert interface["data"][0] == array.own_address + offset
    assert interface["strides"] == (None if expected.flags.c_contiguous else expected.strides)
    assert found.base is array


def test_what_would_need_a_copy_is_refused(array):
    for refused in (lambda: array[[0, 1]], lambda: array[HOST > 3], lambda: array.T.reshape(12)):
        with pytest.raises(
            KernelError, match=r"indexed by integers and slices alone|only a C-contiguous array"
        ):
            refused()
    for values in (HOST.astype(np.int32), HOST[1:]):
        with pytest.raises(KernelError, match=r"does not fit <int16\[3, 4\] on the device>"):
            array.set(values)


def test_an_array_that_others_may_write_to_has_unknown_contents(array):
    array.contents = "known"
    array.get()
    assert array.own_address
    assert array.contents == "known"
    _ = array[1].__cuda_array_interface__
    assert array.contents is None


def test_memory_is_given_back_once_and_not_used_again(array):
    view, driver = array[1:], array._driver
    array.free()
    array.free()
    assert driver.live == {}
    for use in (array.get, view.get, lambda: array.set(HOST), lambda: view.ptr):
        with pytest.raises(KernelError, match=FREED[:30]):
            use()
    kept = Array(driver, (2,), np.dtype("f4"))
    assert len(driver.live) == 1
    del kept
    assert driver.live == {}


# --------------------------------------------------------------------------- the driver, by a stand-in


class Result(int):
    name = property(lambda self: f"CUDA_ERROR_{int(self)}")


class Driver(ModuleType):
    """As much of cuda.bindings.driver as a launch takes; ``result`` is what each call says."""

    result, seen = Result(0), None
    CUresult = SimpleNamespace(CUDA_ERROR_NOT_READY=Result(600))

    def __getattr__(self, name):
        if name.startswith("CU"):
            return type(name, (), {"__getattr__": lambda self, attribute: attribute})()
        raise AttributeError(name)

    def cuLaunchKernel(self, function, *rest):
        shape, (shared, stream, parameters, extra) = rest[:6], rest[6:]
        told = (ctypes.c_void_p * 5).from_address(extra)
        size = ctypes.c_size_t.from_address(told[3]).value
        self.seen = function, shape, shared, stream, parameters, ctypes.string_at(told[1], size), told[::2]
        return (self.result,)

    def cuMemGetInfo(self):
        return self.result, 1, 2

    def cuEventQuery(self, event):
        return (self.result,)

    def cuGetErrorString(self, result):
        return Result(0), {2: b"out of memory", 700: b"an illegal memory access was encountered"}[result]


@pytest.fixture
def driver(monkeypatch):
    """cuda_core's driver on a stand-in for cuda.bindings and cuda.core."""
    bindings, core = ModuleType("cuda.bindings"), ModuleType("cuda.core")
    bindings.driver = Driver("cuda.bindings.driver")
    core.Device = lambda index=0: SimpleNamespace(
        create_event=lambda options: SimpleNamespace(handle=5, timed=options), device=index
    )
    core.EventOptions = lambda timing_enabled: timing_enabled
    utils = ModuleType("cuda.core._utils.cuda_utils")
    utils.CUDAError = type("CUDAError", (Exception,), {})
    package = ModuleType("cuda")
    package.core, package.bindings = core, bindings
    made = {"cuda": package, "cuda.bindings": bindings, "cuda.bindings.driver": bindings.driver}
    made |= {"cuda.core": core, "cuda.core._utils": ModuleType("_utils"), utils.__name__: utils}
    for name, module in made.items():
        monkeypatch.setitem(sys.modules, name, module)
    name = "pytest_gpuperf.backends.cuda_core.driver"
    monkeypatch.delitem(sys.modules, name, raising=False)
    monkeypatch.delattr(name, raising=False)  # of its package, where the real one was imported
    from pytest_gpuperf.backends.cuda_core import driver

    yield driver
    sys.modules.pop(name, None)
    del sys.modules["pytest_gpuperf.backends.cuda_core"].driver


def test_a_launch_hands_the_driver_its_parameters_as_they_lie(driver):
    buffer = pack([np.int8(1), np.float64(0.5), np.int32(3)])
    stream = SimpleNamespace(__cuda_stream__=lambda: (0, 77))
    launch = driver.Function(None, 11).bound(Geometry((2, 3, 4), (32, 1, 1), 512), buffer, stream)
    for _ in range(2):
        launch()
        assert driver.cuda_driver.seen == (
            *(11, (2, 3, 4, 32, 1, 1), 512, 77, 0, buffer),
            [1, 2, None],  # CU_LAUNCH_PARAM_BUFFER_POINTER, _BUFFER_SIZE and _END
        )
        assert len(buffer) == 20
    driver.cuda_driver.result = Result(700)
    with pytest.raises(driver.DriverError, match="cuLaunchKernel failed: an illegal memory access"):
        launch()


def test_the_drivers_errors_have_its_own_words(driver):
    assert driver.mem_get_info() == (1, 2)
    driver.cuda_driver.result = Result(2)
    with pytest.raises(driver.MemoryError, match="cuMemGetInfo failed: out of memory"):
        driver.mem_get_info()
    driver.cuda_driver.result = Result(700)
    with pytest.raises(driver.Error, match="illegal memory access") as caught:
        driver.Event().query()
    assert not isinstance(caught.value, driver.MemoryError)


def test_a_driver_older_than_the_bindings_is_said(driver):
    def old(flags):
        raise RuntimeError("Failed to get cuGetProcAddress_v2")

    driver.cuda_driver.cuInit = old
    with pytest.raises(driver.DriverError, match=r"driver too old \(Failed to get cuGetProcAddress_v2\)"):
        driver.init()


def test_a_thread_without_a_context_loses_nothing(driver):
    """Every call of that thread fails, as all do once a kernel broke the context."""
    context = object.__new__(CudaContext)
    context.driver, context.lost = driver, ""
    error = driver.DriverError("cuLaunchKernel failed: invalid device context")
    said = context.explain(error, "launching k")
    assert isinstance(said, KernelError)
    assert str(said).startswith("No CUDA context is current on this thread, seen while launching k: cuLaunch")
    assert context.lost == ""


def test_an_event_that_has_not_happened_is_no_error(driver):
    assert driver.Event().query() is True
    driver.cuda_driver.result = Result(600)
    assert driver.Event().query() is False


@pytest.mark.parametrize(
    "stream",
    [
        7,
        SimpleNamespace(handle=7),
        SimpleNamespace(handle=8, __cuda_stream__=lambda: (0, 7)),
        SimpleNamespace(cuda_stream=7),
        SimpleNamespace(ptr=7),
        SimpleNamespace(handle=ctypes.c_void_p(7)),
    ],
    ids=["an address", "a handle", "the protocol", "torch's", "CuPy's", "Numba's"],
)
def test_streams_of_other_libraries_are_taken(driver, stream):
    assert driver.handle_of(stream) == 7
    assert Geometry.of(1, 1, 0, stream).stream is stream


def test_pycuda_takes_no_other_librarys_stream():
    own, context = type("Stream", (), {"handle": 5}), object.__new__(CudaContext)
    context.driver, context.stream = SimpleNamespace(Stream=own), own()
    function = SimpleNamespace(_launch_kernel=lambda *given: given)
    assert context.bound(function, Geometry.of(2, 3), b"x")()[-1] is context.stream
    with pytest.raises(KernelError, match="PyCUDA launches on its own streams alone; 7 was given"):
        context.bound(function, Geometry.of(2, 3, 0, 7), b"x")


# --------------------------------------------------------------------------- on a GPU


@pytest.fixture(params=BINDINGS)
def real(request):
    gpu = opened(request.param)
    yield gpu
    gpu.close()


@pytest.mark.gpu
def test_gpu_a_thread_without_a_context_loses_nothing(real):
    array, said = real.to_device(HOST), []

    def use():
        for call in (lambda: real.device.copy(array, array), lambda: real.empty(4)):
            try:
                call()
            except KernelError as error:
                said.append(str(error))

    thread = threading.Thread(target=use)
    thread.start()
    thread.join()
    print(said)
    assert said
    assert all(text.startswith("No CUDA context is current on this thread") for text in said)
    real.synchronize()
    assert np.array_equal(array.get(), HOST)


@pytest.mark.gpu
def test_gpu_a_launch_on_other_libraries_streams(real, tmp_path):
    (tmp_path / "k.cu").write_text('extern "C" __global__ void k(float* x) { x[threadIdx.x] = 7; }\n')
    torch, cupy = pytest.importorskip("torch"), pytest.importorskip("cupy")
    streams, kernel = [torch.cuda.Stream(), cupy.cuda.Stream()], Kernels(tmp_path, real)["k.cu"].k
    for stream in streams:
        array = real.to_device(np.zeros(32, np.float32))
        if real.device.binding == "PyCUDA":
            with pytest.raises(KernelError, match="PyCUDA launches on its own streams alone"):
                kernel[1, 32, 0, stream](array)
            continue
        kernel[1, 32, 0, stream](array)
        stream.synchronize()
        assert array.get().tolist() == [7] * 32
