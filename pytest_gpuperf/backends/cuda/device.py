"""Run kernels on a CUDA GPU, through PyCUDA and the device's primary context."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from pytest_gpuperf.backends.base import DeviceArray, Graph
from pytest_gpuperf.backends.cuda.allocations import most_allocated
from pytest_gpuperf.backends.cuda.compile import compiler_version
from pytest_gpuperf.backends.cuda.context import CudaContext
from pytest_gpuperf.backends.cuda.driver import cuda_version, kernel_driver, settings
from pytest_gpuperf.backends.cuda.graph import capture
from pytest_gpuperf.backends.cuda.grid import Module, grid_kernels
from pytest_gpuperf.backends.cuda.names import Names
from pytest_gpuperf.backends.cuda.program import CudaProgram
from pytest_gpuperf.backends.cuda.timer import CudaTimer

if TYPE_CHECKING:
    from pytest_gpuperf.backends.declarations import Declarations
    from pytest_gpuperf.backends.signature import Signature


class CudaBackend(CudaContext):
    """Device ``index`` of CUDA_VISIBLE_DEVICES; its primary context opens and closes with it."""

    name, binding, cuda_of_binding = "cuda", "PyCUDA", "cuda_pycuda"
    judges_times, models_traffic = True, False
    compiling: Callable[[], AbstractContextManager[None]] = staticmethod(nullcontext)
    _timer: CudaTimer | None = None

    def place(self) -> dict[str, Any]:
        """Return backend, GPU model and memory, and if NVML tells: MIG profile, ECC and power limit in W."""
        memory = round(self.total_memory / 2**30, 1)
        return {"backend": self.name, "gpu": self.device_name, "memory_gib": memory, **settings(self.uuid)}

    def software(self) -> dict[str, str]:
        """Return ``binding``, ``driver``, the newest CUDA that this supports, and the CUDA of the binding."""
        known = {"binding": self.binding} | ({"driver": found} if (found := kernel_driver()) else {})
        versions = {"cuda_driver": cuda_version(), self.cuda_of_binding: self.driver.get_version()}
        return {**known, **{name: ".".join(map(str, parts)) for name, parts in versions.items()}}

    @property
    def names(self) -> type[Names]:
        """Return what compiles a kernel file."""
        return Names

    @cached_property
    def compiler_version(self) -> str:
        return compiler_version()

    def to_device(self, host: np.ndarray) -> DeviceArray:
        array: Any = self.empty(host.shape, host.dtype)
        array.set(np.asarray(host, order="C"))
        return array

    def free(self, array: Any) -> None:
        if self.stuck:
            return  # the driver would wait for the kernel
        with self.explained("freeing an array"):
            array.free()

    def owns_memory(self, array: Any) -> bool:
        owner = array
        while getattr(owner, "base", None) is not None:
            owner = owner.base
        return hasattr(owner, "freed") and bool(owner.nbytes == array.nbytes)  # other libraries' have none

    def copy(self, destination: Any, source: Any) -> None:
        """Enqueue a device-to-device copy on ``stream``."""
        to, of = self.address(destination), self.address(source)
        with self.explained("copying an array on the device"):
            self.driver.memcpy_dtod_async(to, of, source.nbytes, stream=self.stream)

    def load(
        self, file: Declarations, options: Sequence[str] = (), instance: Signature | None = None
    ) -> CudaProgram:
        path = file.path
        assert self.compute_capability
        names = self.names(path, options, self.compute_capability, self.compiling, instance)
        cubin = names.cubin
        self.check_alive()
        with self.explained(f"loading {path.name} (compiled {names.how}), {len(cubin):,} bytes of code"):
            own = grid_kernels(cubin)
            self.modules.append(Module(self, cubin) if own else self.driver.module_from_buffer(cubin))
            return CudaProgram(self, path, self.modules[-1], names)

    def capture(self, work: Callable[[], Any]) -> Graph:
        return capture(self, self.stream, work)

    def peak_memory(self, work: Callable[[], Any]) -> int:
        return most_allocated(work, self.synchronize)

    def timer(self) -> CudaTimer:
        self.check_alive()
        self._timer = self._timer or CudaTimer(self)
        return self._timer

    def close(self) -> None:
        self._timer = None
        super().close()
