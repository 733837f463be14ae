"""One kernel file on the emulated device: check its launches, and count their traffic."""

from __future__ import annotations

import ctypes
import math
import re
import subprocess
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from pytest_gpuperf.backends.base import Geometry, Traffic
from pytest_gpuperf.backends.emulated.faults import Launched, Region, describe
from pytest_gpuperf.backends.emulated.memory import EmulatedMemory
from pytest_gpuperf.backends.emulated.runtime import Outcome, Runtime
from pytest_gpuperf.backends.emulated.source import shown
from pytest_gpuperf.errors import KernelError

if TYPE_CHECKING:
    from pytest_gpuperf.backends.declarations import Declarations

# CUDA C++ Programming Guide, "Technical Specifications per Compute Capability".
_STATIC_SHARED = 48 * 1024
_SHARED_PER_BLOCK = 227 * 1024  # compute capability 9.0, static and dynamic together
# Below this many threads a second OS thread costs more to wake than it saves.
_WORTH_A_THREAD = 8192
_POINTER = 0x100
_READ_ONLY, _WORDS = 1, 2 << 8  # simt/runtime.hpp
_HAND_OVERS = ("gpuperf_atomic", "gpuperf_fence")


class EmulatedProgram:
    """One compiled kernel file. ``threads`` OS threads run its blocks, for at most ``seconds`` a launch."""

    def __init__(
        self,
        declared: Declarations,
        library: Path,
        runtime: Runtime,
        memory: EmulatedMemory,
        threads: int,
        seconds: float,
    ) -> None:
        self._runtime, self._memory = runtime, memory
        self._threads, self._seconds = threads, seconds
        self._path = declared.path
        self._declared = declared
        self._written: dict[tuple[str, int], bool] = {}  # by kernel and argument, as launches have shown
        self._file = library
        self._library = ctypes.CDLL(str(library))
        symbols = _symbols(library)
        self._shared = _shared_variables(self._path, symbols)
        # The order in which blocks reach an atomic would change floating-point sums from run to run.
        # So would blocks that wait for each other.
        self._in_order = any(name in _HAND_OVERS or "_volatile_" in name for name, *_ in symbols)
        anchor = next(value for name, _, value, _ in symbols if name == "gpuperf_shared_anchor")
        self._base = _address(self._library.gpuperf_shared_anchor) - anchor
        self._variables = _variables(symbols, self._base)
        spans = [(region.begin, region.end) for region in self._shared]
        self._spans = np.array(spans, np.int64).reshape(-1, 2)
        places = sorted((region.begin, region.end, _WORDS) for region in self._variables)
        self._variable_spans = np.array(places, np.uint64).reshape(-1, 3)

    def code_hash(self, name: str) -> None:
        """Return None: g++'s machine code says nothing about a GPU's."""
        return

    def prepare(self, name: str, geometry: Geometry, arguments: Sequence[Any]) -> Callable[[], None]:
        return partial(self.launch, name, geometry, arguments)

    def launch(self, name: str, geometry: Geometry, arguments: Sequence[Any]) -> None:
        """Run kernel ``name`` to its end and check every access.

        Raises KernelError with line, block and thread of the first thing forbidden: an access out of bounds
        or to freed memory (stopped before it happens), a race, a read of shared memory that nobody
        wrote, a barrier that not all threads reach, an endless loop, a crash, a failed assert.
        """
        self._run(name, geometry, arguments, counting=False)

    def figures(self, name: str) -> Mapping[str, float]:
        """Return nothing: what a GPU would do beside its traffic is not modelled."""
        return {}

    def trace(self, name: str, geometry: Geometry, arguments: Sequence[Any]) -> tuple[Traffic, ...]:
        """Run kernel ``name`` like ``launch`` and count what a GPU's load/store unit would have moved.

        Raises KernelError also if a kernel that is given arrays touched none: a count of nothing is no
        measurement.
        """
        outcome = self._run(name, geometry, arguments, counting=True)
        if not outcome.traced and any(self._memory.address(a) is not None for a in arguments):
            raise KernelError(
                f"{shown(self._path)}: kernel {name} was given arrays and touched none of them, so there is "
                "nothing to count; launch it with a size at which it has work."
            )
        return outcome.traffic

    def _run(self, name: str, geometry: Geometry, arguments: Sequence[Any], counting: bool) -> Outcome:
        if name not in self._declared:
            known = ", ".join(sorted(self._declared)) or "none"
            raise KernelError(f"{shown(self._path)} has no kernel {name!r}; it has {known}.")
        static = sum(r.end - r.begin for r in self._shared if r.name.startswith(f"shared array '{name}::"))
        if geometry.shared > _SHARED_PER_BLOCK - static:
            raise KernelError(
                f"{name}: {geometry.shared} bytes of dynamic shared memory beside {static} static ones; "
                f"a block has {_SHARED_PER_BLOCK} at most."
            )
        threads = math.prod(geometry.block)
        if 0 < (most := getattr(self._library, f"gpuperf_bounds_{name}")()) < threads:
            raise KernelError(
                f"{shown(self._path)}:{self._declared[name].line}: kernel {name} is launched with {threads} "
                f"threads a block and has __launch_bounds__({most}); a GPU refuses the launch."
            )
        blocks = math.prod(geometry.grid)
        alone = self._in_order or blocks * threads < _WORTH_A_THREAD
        outcome = self._runtime.launch(
            _address(getattr(self._library, f"gpuperf_call_{name}")),
            _address(self._library.gpuperf_shared_anchor),
            geometry,
            values=self._packed(name, arguments),
            memory=self._watched(name, arguments),
            variables=self._variable_spans,
            shared=self._spans,
            workers=1 if alone else min(blocks, self._threads),
            counting=counting,
            seconds=self._seconds,
        )
        self._note_written(name, arguments)
        if outcome.fault:
            raise KernelError(describe(outcome.fault, self._launched(name, geometry, arguments)))
        return outcome

    def _watched(self, name: str, arguments: Sequence[Any]) -> np.ndarray:
        """Return the live arrays, and mark those that the launch only reads.

        That is what a pointer to const says, or an earlier launch has shown; an array that is written after
        all is watched from then on.
        """
        spans = self._memory.spans().copy()
        read, written = set[int](), set[int]()
        for number, parameter in enumerate(self._declared[name].parameters[: len(arguments)]):
            if self._memory.owns(array := arguments[number]):
                only_read = parameter.const or not self._written.get((name, number), True)
                (read if only_read else written).add(array.address)
        flags = spans[:, 2]
        flags |= np.isin(spans[:, 0], list(read - written)) * np.uint64(_READ_ONLY)
        return spans

    def _note_written(self, name: str, arguments: Sequence[Any]) -> None:
        for number, array in enumerate(arguments):
            if self._memory.owns(array) and not self._written.get((name, number)):
                self._written[name, number] = self._runtime.written(array.address)

    def _packed(self, name: str, arguments: Sequence[Any]) -> list[np.ndarray]:
        """Return each argument's bytes, checked against what the compiled kernel takes.

        Declarations are read without a preprocessor, so they may differ from it.
        """
        count = getattr(self._library, f"gpuperf_count_{name}")()
        sizes_of = getattr(self._library, f"gpuperf_sizes_{name}")
        sizes_of.restype = ctypes.POINTER(ctypes.c_uint32)
        sizes = sizes_of()[:count]
        if len(arguments) != count:
            raise KernelError(f"{name} takes {count} arguments, {len(arguments)} given.")
        values = []
        for number, (argument, size) in enumerate(zip(arguments, sizes, strict=True), 1):
            address = self._memory.address(argument)
            if (address is not None) != bool(size & _POINTER):
                wanted = "an array of this device" if size & _POINTER else "a number"
                raise KernelError(f"{name}, argument {number}: {wanted} is needed, not {argument!r}.")
            value = np.array(argument if address is None else np.uint64(address))
            if value.nbytes != size & (_POINTER - 1):
                raise KernelError(
                    f"{name}, argument {number}: {value.nbytes} bytes ({value.dtype}) were given, and the "
                    f"compiled kernel takes {size & (_POINTER - 1)}."
                )
            values.append(value)
        return values

    def _launched(self, name: str, geometry: Geometry, arguments: Sequence[Any]) -> Launched:
        parameters = self._declared[name].parameters
        regions = []
        for array in self._memory.arrays():
            number = next((n for n, argument in enumerate(arguments, 1) if argument is array), None)
            title = f"an array that is no argument ({array})"
            if number is not None:
                title = f"argument {number} '{parameters[number - 1].name}' ({array})"
            regions.append(Region(array.address, array.address + array.nbytes, title))
        dynamic = [Region(0, geometry.shared, "the dynamic shared memory")] if geometry.shared else []
        return Launched(
            self._path, name, self._file, self._base, geometry.block, self._seconds,
            regions, self._memory.freed[::-1], [*self._shared, *dynamic], self._variables, geometry.grid,
        )  # fmt: skip


def _address(function: Any) -> int:
    return ctypes.cast(function, ctypes.c_void_p).value or 0


def _symbols(library: Path) -> list[tuple[str, str, int, int]]:
    """Return name, type, value and size of every symbol, by readelf, which comes with g++'s linker."""
    command = ["readelf", "--symbols", "--wide", "--demangle", str(library)]
    output = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    row = re.compile(r"^\s*\d+: ([0-9a-f]+)\s+(\w+) (\w+)\s+\w+\s+\w+\s+\w+ (.+)$", re.MULTILINE)
    return [(m[4], m[3], int(m[1], 16), int(m[2], 0)) for m in row.finditer(output)]


def _variables(symbols: Sequence[tuple[str, str, int, int]], base: int) -> list[Region]:
    """Return the library's own variables: __device__, __constant__ and static ones."""
    found = {
        (base + value, base + value + size, name)
        for name, kind, value, size in symbols
        if kind == "OBJECT" and size
    }
    return [Region(begin, end, f"variable '{name}'") for begin, end, name in sorted(found)]


def _shared_variables(path: Path, symbols: Sequence[tuple[str, str, int, int]]) -> list[Region]:
    """Return the static shared variables, as offsets from the dynamic shared memory, where the anchor is."""
    variables = {(name, value, size) for name, kind, value, size in symbols if kind == "TLS" and size}
    anchor = next(value for name, value, _ in variables if name == "gpuperf_dynamic_shared")
    found, per_function = [], dict[str, int]()
    for name, value, size in sorted(variables):
        if value == anchor:
            continue
        function = name.rpartition("::")[0]
        per_function[function] = per_function.get(function, 0) + size
        found.append(Region(value - anchor, value - anchor + size, f"shared array '{name}'"))
    for function, size in per_function.items():
        if size > _STATIC_SHARED:
            raise KernelError(
                f"{shown(path)}: {function or 'the file'} has {size} bytes of static shared memory; "
                f"CUDA allows {_STATIC_SHARED}. Make it dynamic: extern __shared__ float name[];"
            )
    return found
