"""Time work on a CUDA stream: events, the kernel that holds the stream, and the L2 flush."""

from __future__ import annotations

import ctypes
import struct
import time
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any

from pytest_gpuperf.backends.cuda import activity
from pytest_gpuperf.backends.timer import Work

if TYPE_CHECKING:
    from pytest_gpuperf.backends.cuda.context import CudaContext

# One thread that spins until so many nanoseconds have passed. In PTX, so that timing torch or CuPy
# needs no nvcc: the driver compiles it. PTX 6.0 and sm_50 are older than any driver and device in use.
_HOLD = b"""
.version 6.0
.target sm_50
.address_size 64

.visible .entry gpuperf_hold(.param .u64 nanoseconds)
{
    .reg .pred %waiting;
    .reg .u64 %start, %now, %limit, %passed;
    ld.param.u64 %limit, [nanoseconds];
    mov.u64 %start, %globaltimer;
again:
    mov.u64 %now, %globaltimer;
    sub.u64 %passed, %now, %start;
    setp.lt.u64 %waiting, %passed, %limit;
    @%waiting bra again;
    ret;
}
\0"""
_HOLD_NAME = "gpuperf_hold"
_PERSISTING_L2 = 6  # cuda.h: CU_LIMIT_PERSISTING_L2_CACHE_SIZE


class CudaTimer:
    """The ``Timer`` on the context's stream."""

    def __init__(self, context: CudaContext) -> None:
        self._context = context
        self._driver = context.driver
        self._stream = context.stream
        with context.explained("loading the timer's own kernel"):
            self._module = self._driver.module_from_buffer(_HOLD)
            self._hold = self._module.get_function(_HOLD_NAME)
        self._flushed: Any = None
        # The driver loads code at its first launch, which can take as long as a whole measurement.
        self.hold(0.0)
        self.synchronize()

    def now(self) -> float:
        return time.perf_counter()

    def event(self) -> Any:
        with self._context.explained("making an event"):
            return self._driver.Event()

    def hold(self, seconds: float) -> None:
        nanoseconds = struct.pack("=Q", round(seconds * 1e9))
        with self._context.explained("holding the stream"):
            self._hold._launch_kernel((1, 1, 1), (1, 1, 1), nanoseconds, 0, self._stream)

    def record(self, event: Any) -> None:
        with self._context.explained("recording an event"):
            event.record(self._stream)

    def unpin(self) -> bool:
        # PyCUDA has neither call. Both are of the current context; a driver before CUDA 11 has neither too.
        driver, share = ctypes.CDLL("libcuda.so.1"), ctypes.c_size_t()
        if not hasattr(driver, "cuCtxResetPersistingL2Cache"):
            return False
        driver.cuCtxResetPersistingL2Cache()
        return driver.cuCtxGetLimit(ctypes.byref(share), _PERSISTING_L2) == 0 and share.value > 0

    def watched(self) -> AbstractContextManager[list[Work]]:
        return activity.recorded(_HOLD_NAME)

    def flush(self) -> None:
        """Write twice the L2's size: no line survives then, whatever the replacement policy is."""
        if self._flushed is None:
            self._flushed = self._context.empty((2 * self._context.l2_bytes,), "u1")
        with self._context.explained("flushing the L2 cache"):
            address = self._context.address(self._flushed)
            self._driver.memset_d8_async(address, 0, self._flushed.nbytes, stream=self._stream)

    def done(self, event: Any) -> bool:
        with self._context.explained("asking an event"):
            return bool(event.query())

    def wait(self, event: Any) -> None:
        with self._context.explained("waiting for an event"):
            self._context.wait_for(event.query)

    def seconds(self, start: Any, end: Any) -> float:
        with self._context.explained("reading an event"):
            return float(end.time_since(start)) * 1e-3

    def synchronize(self) -> None:
        self._context.synchronize()
