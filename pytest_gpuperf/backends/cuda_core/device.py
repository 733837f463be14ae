"""Run kernels on a CUDA GPU through cuda.core: the CUDA backend with another driver and another compiler."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from pytest_gpuperf.backends.cuda.device import CudaBackend
from pytest_gpuperf.backends.geometry import Geometry
from pytest_gpuperf.errors import Unavailable

if TYPE_CHECKING:
    from pytest_gpuperf.backends.cuda.names import Names


class CudaCoreBackend(CudaBackend):
    """The same device, primary context and launches as ``CudaBackend`` has.

    ``context`` and ``stream`` are cuda.core's own objects.
    """

    binding, cuda_of_binding = "cuda.core", "cuda_bindings"

    @staticmethod
    def open_driver() -> Any:
        try:
            from pytest_gpuperf.backends.cuda_core import driver
        except (ImportError, RuntimeError) as error:
            raise Unavailable(
                f"There is a CUDA device but cuda.core cannot be imported ({error}); "
                'pip install "pytest-gpuperf[cuda-core]", or choose --gpuperf-backend=emulated.'
            ) from None
        return driver

    @staticmethod
    def made_current(device: Any) -> Any:
        return device.primary_context()

    def made_stream(self) -> Any:
        return self.driver.Stream()

    @cached_property
    def compiler_version(self) -> str:
        from pytest_gpuperf.backends.cuda_core.nvrtc import compiler_version

        return compiler_version()

    @property
    def names(self) -> type[Names]:
        from pytest_gpuperf.backends.cuda_core.nvrtc import NvrtcNames

        return NvrtcNames

    def allocated(self, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Any:
        from pytest_gpuperf.backends.cuda_core.array import Array

        return Array(self.driver, shape, dtype)

    def bound(self, function: Any, geometry: Geometry, buffer: bytes) -> Callable[[], Any]:
        launch: Callable[[], Any] = function.bound(geometry, buffer, geometry.stream or self.stream)
        return launch

    def release(self) -> None:
        """Do nothing: cuda.core keeps the primary context until the process ends."""
