"""One kernel file on a CUDA device, and the parameter buffers of its launches."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from pytest_gpuperf.backends.base import Traffic
from pytest_gpuperf.backends.cuda.grid import Function
from pytest_gpuperf.backends.cuda.machine_code import file_hash, kernel_hash
from pytest_gpuperf.backends.cuda.metrics import counted
from pytest_gpuperf.backends.cuda.names import Names
from pytest_gpuperf.backends.geometry import Geometry
from pytest_gpuperf.backends.signature import Signature, Variable

if TYPE_CHECKING:
    from pytest_gpuperf.backends.cuda.context import CudaContext

# Above this the driver wants to be asked (CUDA C++ Programming Guide, "Dynamic Shared Memory").
_SHARED_WITHOUT_ASKING = 48 * 1024


class CompiledProgram:
    """What is known of one kernel file once it is compiled."""

    def __init__(self, names: Names) -> None:
        self._names = names
        self._hashes: dict[str | None, str] = {}

    def signature(self, name: str) -> Signature:
        return self._names.signature(name)

    def variable(self, name: str) -> Variable | None:
        return self._names.variable(name)

    def code_hash(self, name: str | None) -> str | None:
        if name not in self._hashes:
            cubin, symbol = self._names.cubin, self._names.symbol(name) if name else ""
            self._hashes[name] = kernel_hash(cubin, symbol) if symbol else file_hash(cubin)
        return self._hashes[name]


class CudaProgram(CompiledProgram):
    """One kernel file, compiled and loaded."""

    def __init__(self, context: CudaContext, path: Path, module: Any, names: Names) -> None:
        super().__init__(names)
        self._context = context
        self._path = path
        self._module = module
        self._functions: dict[str, Any] = {}
        self._figures: dict[str, Mapping[str, float]] = {}
        self._shared: dict[str, int] = {}

    def read(self, variable: Variable) -> np.ndarray:
        values = np.empty(variable.shape, variable.dtype)
        address = self._ready(variable)
        with self._context.explained(f"reading {variable}"):
            self._context.driver.memcpy_dtoh(values, address)
        return values

    def write(self, variable: Variable, values: np.ndarray) -> None:
        address = self._ready(variable)
        with self._context.explained(f"writing {variable}"):
            self._context.driver.memcpy_htod(address, values)

    def _ready(self, variable: Variable) -> int:
        """Wait for what was enqueued; return a variable's address."""
        self._context.synchronize()
        with self._context.explained(f"looking for {variable} in {self._path.name}"):
            address, _ = self._module.get_global(variable.symbol)
        return int(address)

    def trace(self, name: str, geometry: Geometry, arguments: Sequence[Any]) -> tuple[Traffic, ...]:
        """Run kernel ``name`` under CUPTI's range profiler; raises Unavailable if that cannot count."""
        profiler = self._context.profiler
        enqueue = self.prepare(name, geometry, arguments)
        (values,) = profiler.count(enqueue, self._context.synchronize)
        found = counted(name, values)
        function = self._functions[name]
        self._figures[name] = {
            **found.figures,
            "registers": function.num_regs,
            "spill_bytes": function.local_size_bytes,
            "shared_bytes": function.shared_size_bytes + geometry.shared,
        }
        return found.traffic

    def figures(self, name: str) -> Mapping[str, float]:
        return self._figures.get(name, {})

    def prepare(self, name: str, geometry: Geometry, arguments: Sequence[Any]) -> Callable[[], None]:
        """Pack the launch's parameters once, so that enqueuing it costs the host little."""
        context, error_type = self._context, self._context.driver.Error
        grid, block, shared = geometry.grid, geometry.block, geometry.shared
        what = f"{name} ({self._path.name})"
        doing = f"launching {what}, grid {grid}, block {block}, {shared} bytes shared"
        with context.explained(doing):
            if name not in self._functions:
                self._functions[name] = self._module.get_function(self._names.symbol(name))
            function = self._functions[name]
            if shared > self._shared.get(name, _SHARED_WITHOUT_ASKING):
                attribute = context.driver.function_attribute.MAX_DYNAMIC_SHARED_SIZE_BYTES
                function.set_attribute(attribute, shared)
                self._shared[name] = shared
        values = [self._value(argument) for argument in arguments]
        buffer = pack(values)
        if isinstance(function, Function):
            stream = geometry.stream or context.stream
            with context.explained(doing):
                enqueue = function.bound(what, geometry, buffer, places(values), stream)
        else:
            enqueue = context.bound(function, geometry, buffer)

        def prepared(alive: Sequence[Any] = arguments) -> None:  # the buffer holds bare addresses
            try:
                enqueue()
            except error_type as error:
                raise context.explain(error, doing) from None
            context.last_launch = what

        return prepared

    def _value(self, argument: Any) -> np.generic:
        if isinstance(argument, np.generic):
            return argument
        address = self._context.address(argument)
        assert address is not None, "arguments are checked before they come here"
        return np.uint64(address)


def pack(values: Sequence[np.generic]) -> bytes:
    """Make a kernel's parameter buffer, with each value at a multiple of its alignment, as CUDA's ABI has it.

    A struct's alignment is its dtype's, so it needs ``align=True``.
    """
    buffer = bytearray()
    for value, place in zip(values, places(values), strict=True):
        buffer.extend(bytes(place - len(buffer)))
        buffer.extend(value.tobytes())
    return bytes(buffer)


def places(values: Sequence[np.generic]) -> list[int]:
    """Return where in the buffer each value lies."""
    found, end = list[int](), 0
    for value in values:
        found.append(end + -end % value.dtype.alignment)
        end = found[-1] + value.nbytes
    return found
