"""PyCUDA's array with errors in one sentence; import it only once PyCUDA is known to be there."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import numpy as np
from pycuda import gpuarray

from pytest_gpuperf.backends.cuda.export import dlpack
from pytest_gpuperf.backends.room import FREED
from pytest_gpuperf.errors import KernelError


class Array(gpuarray.GPUArray):
    """A ``pycuda.gpuarray.GPUArray`` that names its error once its memory was given back.

    ``explained`` turns a driver's error into ours and ``wait`` waits for the device, but neither in a result
    of PyCUDA's own arithmetic, which we did not make. Copies come here first when a kernel misbehaved: a
    launch returns before its kernel runs, and the next synchronising call reports the error.
    """

    explained: Any = staticmethod(nullcontext)
    wait: Any = staticmethod(lambda: None)
    freed = False
    base: Any
    contents: str | None = None
    _memory: Any = None

    @property
    def gpudata(self) -> Any:
        """Return the memory, which PyCUDA and other libraries may write to from then on."""
        self.contents = None
        return self._memory

    @gpudata.setter
    def gpudata(self, memory: Any) -> None:
        self._memory = memory

    @property
    def own_address(self) -> int:
        """Return the address for a use that is known, such as a launch of ours."""
        return int(self._memory)

    def __dlpack__(self, **how: Any) -> Any:
        return dlpack(self.ptr, self).__dlpack__(**how)

    def __dlpack_device__(self) -> tuple[int, int]:
        device: tuple[int, int] = dlpack(self.ptr, self).__dlpack_device__()
        return device

    def get(self, *args: Any, **kwargs: Any) -> np.ndarray:
        """Copy it to the host, after everything enqueued so far has finished."""
        known = self.contents
        try:
            return self._copy(super().get, *args, **kwargs)
        finally:
            self.contents = known

    def set(self, *args: Any, **kwargs: Any) -> None:
        """Overwrite the array from the host."""
        self._copy(super().set, *args, **kwargs)

    def free(self) -> None:
        """Give the memory back; freeing twice is no error."""
        if not self.freed:
            self.freed = True
            if self._memory is not None:
                self._memory.free()
            self._memory = None

    def _copy(self, copy: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        if self.freed:
            raise KernelError(FREED)
        self.wait()  # for so long as a kernel may run, and no longer
        with self.explained("copying an array between host and device"):
            return copy(*args, **kwargs)
