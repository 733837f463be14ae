"""Stand for a GPU that is not here: compile its kernels, know its arrays' contents, and run nothing.

Whatever needs a result of the GPU's raises NeedsResult. Arrays that no launch may have written to still hold
what they were made of, and give it.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import cached_property
from typing import TYPE_CHECKING, Any, NoReturn

import numpy as np

from pytest_gpuperf.backends.base import Counted, Graph, Traffic
from pytest_gpuperf.backends.cuda.compile import compiler_version
from pytest_gpuperf.backends.cuda.names import Names
from pytest_gpuperf.backends.cuda.program import CompiledProgram
from pytest_gpuperf.backends.cuda_core import nvrtc
from pytest_gpuperf.backends.geometry import Geometry
from pytest_gpuperf.backends.planned import NeedsResult
from pytest_gpuperf.errors import KernelError

if TYPE_CHECKING:
    from pytest_gpuperf.backends.declarations import Declarations
    from pytest_gpuperf.backends.signature import Signature, Variable

_ADDRESSES = itertools.count(1 << 20, 1 << 8)  # as aligned as the driver's


class PlannedArray:
    """An array of a GPU that is not here, with the host's values that it was made of; None for none."""

    freed = False
    base = None

    def __init__(self, shape: tuple[int, ...], dtype: np.dtype[Any], host: np.ndarray | None = None) -> None:
        self.shape, self.dtype = shape, dtype
        self.size = int(np.prod(shape, dtype=np.int64))
        self.nbytes = self.size * dtype.itemsize
        self.contents: str | None = None
        self.address = next(_ADDRESSES)
        self._host = host

    def get(self) -> np.ndarray:
        """Return the values that it was made of, as long as nothing may have written to it."""
        if self._host is None or self.contents is None:
            raise NeedsResult("the contents of an array")
        return self._host.copy()

    @property
    def __cuda_array_interface__(self) -> NoReturn:
        raise NeedsResult("an array for another library")


class PlannedProgram(CompiledProgram):
    """A kernel file that was compiled and not loaded."""

    def read(self, variable: Variable) -> np.ndarray:
        raise NeedsResult("the contents of a variable")

    def write(self, variable: Variable, values: np.ndarray) -> None:
        """Do nothing: what the host puts there is part of the launches' work already."""

    def prepare(self, name: str, geometry: Geometry, arguments: Sequence[Any]) -> Callable[[], None]:
        """Return what does nothing; the launch has been checked, and what it may write to is unknown now."""
        return lambda: None

    def trace(self, name: str, geometry: Geometry, arguments: Sequence[Any]) -> tuple[Traffic, ...]:
        raise NeedsResult("counters")

    def figures(self, name: str) -> Mapping[str, float]:
        return {}


class PlannedBackend:
    """The GPU of a pool, by the name, compute capability and place that the pool's baselines tell."""

    name = "cuda"
    judges_times, models_traffic = True, False
    pci: str | None = None
    context: Any = None
    stream: Any = None
    l2_bytes, peak_bandwidth, peak_flops, peak_fp32 = 0, 0.0, 0.0, 0.0
    seconds = 60.0
    lost, stuck = "", False
    uuid = "planned"
    compiling: Callable[[], AbstractContextManager[None]] = staticmethod(nullcontext)
    names = Names

    def __init__(self, device_name: str, capability: tuple[int, int], place: Mapping[str, Any]) -> None:
        self.device_name = device_name
        self.compute_capability: tuple[int, int] | None = capability
        self._capability, self._place = capability, dict(place)

    @cached_property
    def compiler_version(self) -> str:
        return compiler_version()

    def place(self) -> dict[str, Any]:
        return dict(self._place)

    def software(self) -> Mapping[str, str]:
        return {}

    def empty(self, shape: Sequence[int], dtype: Any) -> PlannedArray:
        return PlannedArray(tuple(shape), np.dtype(dtype))

    def to_device(self, host: np.ndarray) -> PlannedArray:
        """Keep the values: a copy where their owner may still write to them."""
        values = np.array(host, order="C", copy=True) if host.flags.writeable else host
        return PlannedArray(host.shape, host.dtype, values)

    def free(self, array: Any) -> None:
        array.freed = True

    def address(self, argument: Any) -> int | None:
        if not isinstance(argument, PlannedArray):
            return None
        if argument.freed:
            raise KernelError("the array's memory was given back; make another.")
        return argument.address

    def owns_memory(self, array: Any) -> bool:
        return isinstance(array, PlannedArray)

    def copy(self, destination: Any, source: Any) -> None:
        destination.contents = None

    def free_memory(self) -> int:
        raise NeedsResult("the GPU's free memory")

    def load(
        self, file: Declarations, options: Sequence[str] = (), instance: Signature | None = None
    ) -> PlannedProgram:
        return PlannedProgram(self.names(file.path, options, self._capability, self.compiling, instance))

    def count(self, work: Callable[[], Any]) -> list[Counted]:
        raise NeedsResult("counters")

    def capture(self, work: Callable[[], Any]) -> Graph:
        raise NeedsResult("a graph")

    def peak_memory(self, work: Callable[[], Any]) -> int:
        raise NeedsResult("what is allocated")

    def timer(self) -> Any:
        raise NeedsResult("a time")

    def synchronize(self) -> None:
        raise NeedsResult("the end of what was launched")

    def close(self) -> None:
        """Do nothing: there is nothing to give back."""


class NvrtcPlannedBackend(PlannedBackend):
    """The same with the compiler of the cuda.core backend."""

    names = nvrtc.NvrtcNames

    @cached_property
    def compiler_version(self) -> str:
        return nvrtc.compiler_version()


def planned_for(choice: str) -> type[PlannedBackend]:
    """Return what stands for the GPU of a session with this choice: nvcc's, unless cuda.core is asked for."""
    return NvrtcPlannedBackend if choice == "cuda-core" else PlannedBackend
