"""The primary context of a CUDA device: its stream and memory, and what the driver's errors mean."""

from __future__ import annotations

import atexit
import time
import weakref
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any

import numpy as np

from pytest_gpuperf.backends.base import Counted, DeviceArray
from pytest_gpuperf.backends.cuda.driver import device_uuid
from pytest_gpuperf.backends.cuda.metrics import METRICS, counted
from pytest_gpuperf.backends.cuda.peak import peak_flops, peak_fp32
from pytest_gpuperf.backends.geometry import Geometry
from pytest_gpuperf.backends.room import FREED, gib, nbytes, no_room
from pytest_gpuperf.errors import GpuperfError, KernelError, NotFit, Unavailable

if TYPE_CHECKING:
    from pytest_gpuperf.backends.cuda.cupti import RangeProfiler

# Errors of the machine rather than of a kernel, and that of a thread without a context, by cuGetErrorString's
# words for them.
_NO_CONTEXT = "invalid device context"
_MACHINE_ERRORS = ("ECC", "NVLink", "system not yet initialized", "GPU is lost", "busy or unavailable")


class CudaContext:
    """The primary context of device ``index`` of CUDA_VISIBLE_DEVICES, current on this thread.

    torch, CuPy and ONNX Runtime use the same primary context, so their arrays are kernel arguments
    here. ``stream`` is a blocking stream: the legacy default stream orders with it. ``driver`` is PyCUDA's,
    or has as much of it as is used here. ``last_launch`` is to be named when a later call reports what it
    did. Waiting for the device ends after ``seconds``, with the device ``lost`` and ``stuck``. ``modules``
    are kept until the end, since unloading one waits for the device. While it is ``capturing``, no error is
    a sign of a lost context. Raises Unavailable, naming what to install, if PyCUDA, the driver or the device
    is missing.
    """

    seconds = 60.0
    capturing = False

    def __init__(self, index: int = 0) -> None:
        driver = self.driver = self.open_driver()
        self._index = index
        self.lost = ""
        self.stuck = False
        self.last_launch = ""
        self._arrays: list[weakref.ref[Any]] = []
        self._kept: list[Any] = []
        self.modules: list[Any] = []
        try:
            driver.init()
            device = driver.Device(index)
            self.device_name: str = device.name()
            self.compute_capability: tuple[int, int] | None = tuple(device.compute_capability())
            self.context: Any = self.made_current(device)
        except driver.Error as error:
            raise Unavailable(
                f"CUDA device {index} cannot be used: {error}; see what nvidia-smi says."
            ) from None
        self._device = device
        self._open = True
        # PyCUDA aborts the process at exit when its context stack is not empty.
        atexit.register(self.close)
        self.uuid = device_uuid(index)
        self.pci: str | None = device.pci_bus_id()  # of the whole GPU, also of a MIG instance
        self.stream: Any = self.made_stream()
        self.total_memory: int = device.total_memory()
        known = driver.device_attribute
        self.l2_bytes: int = device.get_attribute(known.L2_CACHE_SIZE)
        kilohertz, bits = map(device.get_attribute, (known.MEMORY_CLOCK_RATE, known.GLOBAL_MEMORY_BUS_WIDTH))
        self.peak_bandwidth: float = 2 * 1e3 * kilohertz * bits / 8  # two transfers a clock
        units, kilohertz = map(device.get_attribute, (known.MULTIPROCESSOR_COUNT, known.CLOCK_RATE))
        self.multiprocessors = units
        self.peak_flops: float = peak_flops(self.compute_capability, units, 1e3 * kilohertz)
        self.peak_fp32: float = peak_fp32(self.compute_capability, units, 1e3 * kilohertz)

    @staticmethod
    def open_driver() -> Any:
        """Import what speaks to the driver; raises Unavailable, naming what to install."""
        return _pycuda()

    @staticmethod
    def made_current(device: Any) -> Any:
        """Make a device's primary context current on this thread, and return it."""
        context = device.retain_primary_context()
        context.push()
        return context

    def made_stream(self) -> Any:
        """Return a stream that the legacy default stream orders with, and that other libraries can take."""
        from pytest_gpuperf.backends.cuda.export import speaking

        return speaking(self.driver.Stream)()

    def allocated(self, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Any:
        """Return a new array, or raise the driver's own error."""
        from pytest_gpuperf.backends.cuda.array import Array

        return Array(shape, dtype)

    def empty(self, shape: Sequence[int], dtype: Any) -> DeviceArray:
        if self.capturing:  # its memory would be given back, and written to by every replay
            raise KernelError("it makes an array of gpu, which is to be made before")
        self.check_alive()
        shape, dtype = tuple(shape), np.dtype(dtype)
        if nbytes(shape, dtype) > self.total_memory:  # PyCUDA itself counts in 64 bits
            raise no_room(self.device_name, shape, dtype, self.free_memory(), self.total_memory)
        with self.explained("allocating an array"):
            try:
                array = self.allocated(shape, dtype)
            except self.driver.MemoryError:
                free = self.free_memory()
                raise no_room(self.device_name, shape, dtype, free, self.total_memory) from None
        array.explained, array.wait = self.explained, self.wait
        self._arrays = [each for each in self._arrays if each() is not None]
        self._arrays.append(weakref.ref(array))
        return array

    def bound(self, function: Any, geometry: Geometry, buffer: bytes) -> Callable[[], Any]:
        """Return the driver's launch of a function with a buffer of parameters, at little cost a call."""
        stream, own = geometry.stream or self.stream, self.driver.Stream
        if isinstance(own, type) and not isinstance(stream, own):
            raise KernelError(
                f"PyCUDA launches on its own streams alone; {stream!r} was given. Take gpu.stream, or "
                "--gpuperf-backend=cuda-core, which takes any library's."
            )
        return partial(
            function._launch_kernel, geometry.grid, geometry.block, buffer, geometry.shared, stream
        )

    @cached_property
    def profiler(self) -> RangeProfiler:
        """Return what counts a launch's work; raises Unavailable without CUPTI or the right to count."""
        from pytest_gpuperf.backends.cuda.cupti import RangeProfiler

        return RangeProfiler(METRICS, self._index)

    def count(self, work: Callable[[], Any]) -> list[Counted]:
        from pytest_gpuperf.backends.cuda.launches import Launches

        profiler = self.profiler
        with Launches() as first:  # compilers, autotuners and libraries that are loaded late have their turn
            work()
            self.synchronize()
        if first.graphs:
            whole = profiler.count_whole(work, self.synchronize)
            return [counted(first.whole, whole, len(first.seen))]
        with Launches() as launches:
            found = profiler.count(work, self.synchronize, len(first.seen))
        names = launches.names(len(found))
        return [counted(name, values) for name, values in zip(names, found, strict=True)]

    def free_memory(self) -> int:
        return int(self.driver.mem_get_info()[0])

    def address(self, argument: Any) -> int | None:
        """Return the address, also of anything with ``__cuda_array_interface__`` (torch's, CuPy's arrays)."""
        owner = argument
        while owner is not None:  # views are plain GPUArrays whose base is the array that has the memory
            if getattr(owner, "freed", False):
                raise KernelError(FREED)
            owner = getattr(owner, "base", None)
        if (own := getattr(argument, "own_address", None)) is not None:
            return int(own)
        interface = getattr(argument, "__cuda_array_interface__", None)
        return int(interface["data"][0]) if interface else None

    def synchronize(self) -> None:
        self.wait()
        with self.explained("waiting for the device"):
            self.driver.Context.synchronize()  # streams that do not wait for the default one

    def wait(self) -> None:
        """Wait for what was enqueued, but in streams of others that do not block; raises KernelError."""
        self.check_alive()
        with self.explained("waiting for the device"):
            event = self.driver.Event(self.driver.event_flags.DISABLE_TIMING)
            event.record()  # on the legacy default stream, which waits for every blocking one
            self.wait_for(event.query)

    def wait_for(self, ended: Callable[[], bool]) -> None:
        """Ask ``ended`` until it says so; raises KernelError after ``seconds``, and the device is stuck."""
        begin, pause = time.monotonic(), 0.0
        while not ended():
            waited = time.monotonic() - begin
            if waited > self.seconds:
                raise self._give_up()
            pause = min(1e-3, waited / 16)  # short waits are asked often, long ones seldom
            if pause > 50e-6:
                time.sleep(pause)

    def _give_up(self) -> KernelError:
        """Say that a kernel does not end, and keep whatever would wait for it when it is freed."""
        kernel = self.last_launch or "a kernel"
        self.lost = f"{kernel} has not ended after {self.seconds:g} s"
        self.stuck = True
        self._kept = [array for each in self._arrays if (array := each()) is not None]
        return KernelError(
            f"{self.lost} (ini key gpuperf_kernel_timeout); only the end of this process can end it."
        )

    def check_alive(self) -> None:
        """Raise NotFit once the context is lost: nothing in this process can use the device any more."""
        if self.lost:
            raise self._gone()

    @contextmanager
    def explained(self, doing: str) -> Iterator[None]:
        """Raise the driver's errors as ours, with what was being done."""
        try:
            yield
        except self.driver.Error as error:
            raise self.explain(error, doing) from None

    def explain(self, error: Exception, doing: str) -> GpuperfError:
        """Turn the driver's error into ours: NotFit for the machine's, KernelError for what a kernel did."""
        said = str(error).strip()
        if any(words in said for words in _MACHINE_ERRORS):
            self.lost = said
            return NotFit(f"{self.device_name} failed while {doing}: {said}.")
        if isinstance(error, self.driver.MemoryError) and not self.lost:
            free = f"{gib(self.free_memory())} free of {gib(self.total_memory)}"
            return GpuperfError(
                f"{self.device_name} has no room, seen while {doing}: {free}; "
                "make the test's arrays smaller, or see with nvidia-smi who has the rest."
            )
        if _NO_CONTEXT in said and not self.lost:
            return KernelError(
                f"No CUDA context is current on this thread, seen while {doing}: {said}. Use gpu on the "
                "thread that runs the test, or make the device current on this one first "
                "(torch.cuda.set_device, cuda.core.Device().set_current, cudaSetDevice)."
            )
        if not self.lost and not self.capturing and self._context_is_dead():
            self.lost = said
            after = f" The last launch was {self.last_launch}." if self.last_launch else ""
            return KernelError(
                f"A kernel broke the CUDA context, seen while {doing}: {said}.{after} To find the line, run "
                "it with --gpuperf-sanitize=memcheck or --gpuperf-backend=emulated: both check every access."
            )
        return self._gone() if self.lost else KernelError(f"CUDA refused while {doing}: {said}.")

    def _gone(self) -> NotFit:
        return NotFit(f"This process lost its CUDA context earlier ({self.lost}); run again in a fresh one.")

    def _context_is_dead(self) -> bool:
        """Say whether an error was sticky, as an illegal access is: then every call of the context fails."""
        try:
            self.driver.Context.synchronize()
        except self.driver.Error:
            return True
        return False

    def close(self) -> None:
        if self._open:
            self._open = False
            atexit.unregister(self.close)
            if self.stuck:
                return  # giving the context back would wait for the kernel
            self.stream = None
            self.modules.clear()
            self.release()

    def release(self) -> None:
        """Give the primary context back."""
        # Not pop: PyCUDA 2026.1 releases a primary context by the wrong call when it is collected.
        self.context.detach()


def _pycuda() -> Any:
    try:
        from pycuda import driver
    except ImportError as error:
        if "libcuda" in str(error):
            raise Unavailable("PyCUDA finds no libcuda.so.1; install the NVIDIA driver.") from None
        raise Unavailable(
            f"There is a CUDA device but PyCUDA cannot be imported ({error}); "
            'pip install "pytest-gpuperf[cuda]", or "pytest-gpuperf[cuda-core]", which needs no compiler, or '
            "choose --gpuperf-backend=emulated."
        ) from None
    return driver
