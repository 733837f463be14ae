"""Run unmodified CUDA C++ without a GPU, compiled with g++; every access of every launch is checked."""

from __future__ import annotations

import os
import platform
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import TYPE_CHECKING, Any, NoReturn

import numpy as np

from pytest_gpuperf.backends.base import Counted, Graph
from pytest_gpuperf.backends.emulated.compiler import build_kernels, build_runtime, find_compiler
from pytest_gpuperf.backends.emulated.memory import EmulatedArray, EmulatedMemory
from pytest_gpuperf.backends.emulated.program import EmulatedProgram
from pytest_gpuperf.backends.emulated.runtime import processors, runtime
from pytest_gpuperf.backends.room import host_memory
from pytest_gpuperf.errors import Unavailable

if TYPE_CHECKING:
    from pytest_gpuperf.backends.declarations import Declarations
    from pytest_gpuperf.backends.signature import Signature


class EmulatedBackend:
    """The emulated device. ``threads`` OS threads run its blocks; a launch is stopped after ``seconds``.

    Raises Unavailable, naming what to install, if no g++ works. ``__device__`` variables live as long as the
    process, per kernel file and options.
    """

    name = "emulated"
    uuid = "emulated"
    pci: str | None = None
    compute_capability: tuple[int, int] | None = None
    context: Any = None
    stream: Any = None
    judges_times, models_traffic = False, True
    lost, stuck = "", False
    l2_bytes, peak_bandwidth, peak_flops, peak_fp32 = 0, 0.0, 0.0, 0.0

    def __init__(self, threads: int | None = None, seconds: float = 60.0) -> None:
        self._compiler = find_compiler(os.environ.get("CXX") or None)
        self._runtime_path = build_runtime(self._compiler)
        self.runtime = runtime(self._runtime_path)
        self.memory = EmulatedMemory()
        self._threads = threads or processors()
        self.seconds = seconds
        self.device_name = f"emulated ({self.compiler_version}, {platform.machine()})"
        # Never entered: the compiler runs on the processors that are this device.
        self.compiling: Callable[[], AbstractContextManager[None]] = nullcontext

    def place(self) -> dict[str, Any]:
        """Return a place without compiler and processor: counters are equal on all of them."""
        return {"backend": self.name, "counters": "modelled"}

    @property
    def compiler_version(self) -> str:
        return f"g++ {self._compiler.version}"

    def software(self) -> dict[str, str]:
        return {}

    def empty(self, shape: Sequence[int], dtype: Any) -> EmulatedArray:
        """Allocate an array full of 0xff bytes: reading NaN, -1 or the largest number shows."""
        array = self.memory.allocate(tuple(shape), np.dtype(dtype))
        array.host.reshape(-1).view(np.uint8)[...] = 0xFF
        return array

    def to_device(self, host: np.ndarray) -> EmulatedArray:
        array = self.memory.allocate(host.shape, host.dtype)
        array.set(host)
        return array

    def free(self, array: Any) -> None:
        array.free()

    def address(self, argument: Any) -> int | None:
        return self.memory.address(argument)

    def owns_memory(self, array: Any) -> bool:
        return self.memory.owns(array)

    def copy(self, destination: Any, source: Any) -> None:
        destination.host.reshape(-1).view(np.uint8)[...] = source.host.reshape(-1).view(np.uint8)

    def free_memory(self) -> int:
        return host_memory()[0]

    def count(self, work: Callable[[], Any]) -> list[Counted]:
        work()
        counted: list[Counted] = []
        self.runtime.counted = counted
        try:
            work()
        finally:
            self.runtime.counted = None
        return counted

    def capture(self, work: Callable[[], Any]) -> Graph:
        """Return the work itself: there is no queue that a graph could spare it."""
        return Graph(work)

    def peak_memory(self, work: Callable[[], Any]) -> int:
        before = self.memory.most = self.memory.in_use
        work()
        return self.memory.most - before

    def timer(self) -> NoReturn:
        raise Unavailable("The emulated device has no clock of its own; time kernels on a GPU.")

    def synchronize(self) -> None:
        """Do nothing: a launch returns when its kernel has ended."""

    def load(
        self, file: Declarations, options: Sequence[str] = (), instance: Signature | None = None
    ) -> EmulatedProgram:
        """Compile a kernel file, or take it from the cache; raises KernelError with the compiler's line.

        Of nvcc's options, -D, -U, -I and --std count; the others have no meaning here.
        """
        build = partial(build_kernels, self._compiler, self._runtime_path, file, options)
        kernel = instance.name if instance else ""
        return EmulatedProgram(file, build, kernel, self.runtime, self.memory, self._threads, self.seconds)

    def close(self) -> None:
        """Free every array that is left."""
        for array in self.memory.arrays():
            array.free()
