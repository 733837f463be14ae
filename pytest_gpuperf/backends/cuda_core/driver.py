"""As much of PyCUDA's driver module as the CUDA backend uses, by cuda.core and cuda.bindings.

The device, its primary context, streams and events are cuda.core's own objects, which other libraries know;
they are called through the driver's functions, whose errors are told in the driver's words as PyCUDA does.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import cuda.core
import numpy as np
from cuda.bindings import driver as cuda_driver
from cuda.core._utils.cuda_utils import CUDAError

from pytest_gpuperf.backends.cuda.export import handle_of
from pytest_gpuperf.backends.geometry import Geometry

_OUT_OF_MEMORY = 2  # cuda.h, CUDA_ERROR_OUT_OF_MEMORY
_BUFFER_POINTER, _BUFFER_SIZE, _END = 1, 2, 0  # cuda.h, CU_LAUNCH_PARAM_*


class DriverError(Exception):
    """What the driver says against a call, in its own words."""


class DriverMemoryError(DriverError):
    """The device has no room."""


Error, MemoryError = (DriverError, CUDAError), DriverMemoryError
event_flags = SimpleNamespace(DISABLE_TIMING=2)
function_attribute = SimpleNamespace(
    MAX_DYNAMIC_SHARED_SIZE_BYTES=cuda_driver.CUfunction_attribute.CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES
)
device_attribute = SimpleNamespace(
    **{
        name: getattr(cuda_driver.CUdevice_attribute, f"CU_DEVICE_ATTRIBUTE_{name}")
        for name in (
            *("L2_CACHE_SIZE", "MEMORY_CLOCK_RATE", "GLOBAL_MEMORY_BUS_WIDTH"),
            *("MULTIPROCESSOR_COUNT", "CLOCK_RATE"),
        )
    }
)


def call(function: str, *arguments: Any) -> Any:
    """Call a function of the driver and return what it gives; raises DriverError."""
    result, *given = getattr(cuda_driver, function)(*arguments)
    if result:
        _, said = cuda_driver.cuGetErrorString(result)
        kind = DriverMemoryError if int(result) == _OUT_OF_MEMORY else DriverError
        raise kind(f"{function} failed: {said.decode() if said else result!s}")
    return given[0] if len(given) == 1 else tuple(given)


def init() -> None:
    try:
        call("cuInit", 0)
    except RuntimeError as error:  # of a driver without what the bindings look for at their first call
        raise DriverError(f"cuda.bindings finds this NVIDIA driver too old ({error})") from None


def get_version() -> tuple[int, ...]:
    """Return the version of the bindings, whose driver API is that CUDA's."""
    from importlib.metadata import version

    return tuple(int(part) for part in version("cuda-bindings").split(".")[:3])


class Device:
    """A device."""

    def __init__(self, index: int) -> None:
        self._device = cuda.core.Device(index)
        self._handle = call("cuDeviceGet", index)

    def name(self) -> str:
        return str(self._device.name)

    def compute_capability(self) -> tuple[int, int]:
        major, minor = self._device.compute_capability
        return major, minor

    def pci_bus_id(self) -> str:
        return str(self._device.pci_bus_id)

    def total_memory(self) -> int:
        return int(call("cuDeviceTotalMem", self._handle))

    def get_attribute(self, attribute: Any) -> int:
        return int(call("cuDeviceGetAttribute", attribute, self._handle))

    def primary_context(self) -> Any:
        """Make the device's primary context current on this thread, and return it."""
        self._device.set_current()
        return self._device.context


def Stream() -> Any:
    """Make a cuda.core stream that the legacy default stream orders with."""
    return cuda.core.Device().create_stream(options=cuda.core.StreamOptions(nonblocking=False))


class Event:
    """An event, with timing unless ``flags`` say otherwise."""

    def __init__(self, flags: int = 0) -> None:
        timed = flags != event_flags.DISABLE_TIMING
        self._event = cuda.core.Device().create_event(options=cuda.core.EventOptions(timing_enabled=timed))
        self.handle = self._event.handle

    def record(self, stream: Any = None) -> None:
        """Record it on a stream, the legacy default one if none is given."""
        call("cuEventRecord", self.handle, handle_of(stream) if stream is not None else 0)

    def query(self) -> bool:
        (result,) = cuda_driver.cuEventQuery(self.handle)
        if result == cuda_driver.CUresult.CUDA_ERROR_NOT_READY:
            return False
        if result:
            call("cuEventQuery", self.handle)
        return True

    def time_since(self, start: Event) -> float:
        return float(call("cuEventElapsedTime", start.handle, self.handle))


class Module:
    """Loaded machine code or PTX; unloaded when nobody holds it."""

    def __init__(self, code: bytes) -> None:
        self._handle: Any = None
        self._handle = call("cuModuleLoadData", code)

    def get_function(self, name: str) -> Function:
        return Function(self, call("cuModuleGetFunction", self._handle, name.encode()))

    def get_global(self, name: str) -> tuple[int, int]:
        address, size = call("cuModuleGetGlobal", self._handle, name.encode())
        return int(address), size

    def __del__(self) -> None:
        if self._handle is not None:
            cuda_driver.cuModuleUnload(self._handle)


module_from_buffer = Module


class Function:
    """A kernel of a module, which it keeps loaded."""

    def __init__(self, module: Module, handle: Any) -> None:
        self.module, self.handle = module, handle

    num_regs = property(lambda self: self._get("NUM_REGS"))
    local_size_bytes = property(lambda self: self._get("LOCAL_SIZE_BYTES"))
    shared_size_bytes = property(lambda self: self._get("SHARED_SIZE_BYTES"))

    def _get(self, name: str) -> int:
        attribute = getattr(cuda_driver.CUfunction_attribute, f"CU_FUNC_ATTRIBUTE_{name}")
        return int(call("cuFuncGetAttribute", attribute, self.handle))

    def set_attribute(self, attribute: Any, value: int) -> None:
        call("cuFuncSetAttribute", self.handle, attribute, value)

    def bound(self, geometry: Geometry, buffer: bytes, stream: Any) -> Callable[[], None]:
        """Return the launch with a buffer of parameters, at little cost a call."""
        kept, size = ctypes.create_string_buffer(buffer, len(buffer) or 1), ctypes.c_size_t(len(buffer))
        told = (ctypes.c_void_p * 5)(
            _BUFFER_POINTER, ctypes.addressof(kept), _BUFFER_SIZE, ctypes.addressof(size), _END
        )
        launch, function, extra = cuda_driver.cuLaunchKernel, self.handle, ctypes.addressof(told)
        shape, shared, handle = (*geometry.grid, *geometry.block), geometry.shared, handle_of(stream)

        def launched(alive: Any = (kept, size, told, stream)) -> None:  # the driver has bare addresses
            (result,) = launch(function, *shape, shared, handle, 0, extra)
            if result:
                _, said = cuda_driver.cuGetErrorString(result)
                raise DriverError(f"cuLaunchKernel failed: {said.decode() if said else result!s}")

        return launched

    def _launch_kernel(self, grid: Any, block: Any, buffer: bytes, shared: int, stream: Any) -> None:
        """Launch at once, as the timer's own kernel is."""
        self.bound(Geometry(grid, block, shared), buffer, stream)()


class Context:
    """The current context."""

    synchronize = staticmethod(lambda: call("cuCtxSynchronize"))


def mem_get_info() -> tuple[int, int]:
    free, total = call("cuMemGetInfo")
    return int(free), int(total)


def memcpy_htod(address: int, values: np.ndarray) -> None:
    call("cuMemcpyHtoD", address, values.ctypes.data, values.nbytes)


def memcpy_dtoh(values: np.ndarray, address: int) -> None:
    call("cuMemcpyDtoH", values.ctypes.data, address, values.nbytes)


def memcpy_dtod_async(to: int, of: int, nbytes: int, stream: Any) -> None:
    call("cuMemcpyDtoDAsync", to, of, nbytes, handle_of(stream))


def memset_d8_async(address: int, value: int, nbytes: int, stream: Any) -> None:
    call("cuMemsetD8Async", address, value, nbytes, handle_of(stream))
