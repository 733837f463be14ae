"""One kernel file on the emulated device: check its launches, and count their traffic."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from pytest_gpuperf.backends.base import Counted, Traffic
from pytest_gpuperf.backends.emulated.faults import Launched, Region, describe
from pytest_gpuperf.backends.emulated.library import Library, probed
from pytest_gpuperf.backends.emulated.memory import EmulatedMemory
from pytest_gpuperf.backends.emulated.runtime import Outcome, Runtime
from pytest_gpuperf.backends.emulated.source import shown
from pytest_gpuperf.backends.geometry import Geometry
from pytest_gpuperf.backends.signature import Signature, Variable
from pytest_gpuperf.errors import KernelError, Unsupported
from pytest_gpuperf.text import counted

if TYPE_CHECKING:
    from pytest_gpuperf.backends.declarations import Declarations

# CUDA C++ Programming Guide, "Technical Specifications per Compute Capability".
_SHARED_PER_BLOCK = 227 * 1024  # compute capability 9.0, static and dynamic together
# Below this many threads a second OS thread costs more to wake than it saves.
_WORTH_A_THREAD = 8192
_READ_ONLY = 1  # simt/request.hpp
on_launch: Callable[[str, int, int], None] | None = None
"""Told each launch that ended: its kernel, its start and its end (ns of ``time.time_ns``)."""


class EmulatedProgram:
    """One compiled kernel file. ``threads`` OS threads run its blocks, for at most ``seconds`` a launch.

    ``build`` makes its library, and with ``counting`` the one for counters.
    """

    def __init__(
        self,
        declared: Declarations,
        build: Callable[..., Path],
        instance: str,
        runtime: Runtime,
        memory: EmulatedMemory,
        threads: int,
        seconds: float,
    ) -> None:
        self._runtime, self._memory = runtime, memory
        self._threads, self._seconds = threads, seconds
        self._path = declared.path
        self._written: dict[tuple[str, int], bool] = {}  # by kernel and argument, as launches have shown
        self._variables: dict[str, Variable] = {}
        self._build, self._instance = build, instance
        self._plain = Library(self._path, build(kernel=instance))
        self._signatures = {
            name: Signature(name, name, entry.rows, bool(instance), entry.where)
            for name, entry in self._plain.kernels.items()
        }
        self._declared = {name: declared.declared(signature) for name, signature in self._signatures.items()}

    @cached_property
    def _counting(self) -> Library:
        """Return the build that tells the runtime where loops begin anew, for counters alone."""
        return Library(self._path, self._build(kernel=self._instance, counting=True))

    def signature(self, name: str) -> Signature:
        if name not in self._signatures:
            library = Library(self._path, self._build(kernel=name))
            entry = library.kernels[name]
            self._signatures[name] = Signature(name, name, entry.rows, True, None)
        return self._signatures[name]

    def variable(self, name: str) -> Variable | None:
        if name not in self._variables:
            self._variables[name] = probed(self._build(variable=name), name)
        found = self._variables[name]
        return found if found.symbol in self._plain.writable else None

    def read(self, variable: Variable) -> np.ndarray:
        return self._plain.read(variable.symbol, variable.dtype, variable.shape)

    def write(self, variable: Variable, values: np.ndarray) -> None:
        self._plain.write(variable.symbol, values)

    def code_hash(self, name: str | None) -> None:
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
        if self._runtime.counted is None:
            start = time.time_ns()
            self._run(self._plain, name, geometry, arguments)
            if on_launch:
                on_launch(name, start, time.time_ns())
        else:
            self._runtime.counted.append(Counted(name, self._count(name, geometry, arguments).traffic, {}))

    def figures(self, name: str) -> Mapping[str, float]:
        """Return nothing: what a GPU would do beside its traffic is not modelled."""
        return {}

    def trace(self, name: str, geometry: Geometry, arguments: Sequence[Any]) -> tuple[Traffic, ...]:
        """Run kernel ``name`` like ``launch`` and count what a GPU's load/store unit would have moved.

        Raises KernelError also if a kernel that is given arrays touched none: a count of nothing is no
        measurement.
        """
        outcome = self._count(name, geometry, arguments)
        if not outcome.traced and any(self._memory.address(a) is not None for a in arguments):
            raise KernelError(
                f"{shown(self._path)}: kernel {name} was given arrays and touched none of them, so there is "
                "nothing to count; launch it with a size at which it has work."
            )
        return outcome.traffic

    def _count(self, name: str, geometry: Geometry, arguments: Sequence[Any]) -> Outcome:
        self._counting.take(self._plain)
        outcome = self._run(self._counting, name, geometry, arguments)
        self._plain.take(self._counting)
        return outcome

    def _run(self, library: Library, name: str, geometry: Geometry, arguments: Sequence[Any]) -> Outcome:
        if name not in self._declared:
            known = ", ".join(sorted(self._declared)) or "none"
            raise KernelError(f"{shown(self._path)} has no kernel {name!r}; it has {known}.")
        entry = library.kernels[name]
        owner = f"shared array '{entry.function}::"
        static = sum(r.end - r.begin for r in library.shared if r.name.startswith(owner))
        if geometry.shared > _SHARED_PER_BLOCK - static:
            raise KernelError(
                f"{name}: {geometry.shared} bytes of dynamic shared memory beside {static} static ones; "
                f"a block has {_SHARED_PER_BLOCK} at most."
            )
        threads = math.prod(geometry.block)
        if 0 < (most := entry.bounds) < threads:
            raise KernelError(
                f"{shown(self._path)}:{self._declared[name].line}: kernel {name} is launched with {threads} "
                f"threads a block and has __launch_bounds__({most}); a GPU refuses the launch."
            )
        blocks = math.prod(geometry.grid)
        alone = library.in_order or blocks * threads < _WORTH_A_THREAD
        outcome = self._runtime.launch(
            entry.call,
            library.anchor,
            geometry,
            values=self._packed(name, arguments),
            memory=self._watched(name, arguments),
            variables=library.variable_spans,
            shared=library.shared_spans,
            loops=library.loops,
            branches=library.branches,
            workers=1 if alone else min(blocks, self._threads),
            counting=library is not self._plain,
            seconds=self._seconds,
        )
        self._note_written(name, arguments)
        if outcome.fault:
            said = describe(outcome.fault, self._launched(library, name, geometry, arguments))
            raise (Unsupported if outcome.fault.unsupported else KernelError)(said)
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
        rows = self._plain.kernels[name].rows
        if len(arguments) != len(rows):
            raise KernelError(f"{name} takes {counted(len(rows), 'argument')}, {len(arguments)} given.")
        values = []
        for number, (argument, row) in enumerate(zip(arguments, rows, strict=True), 1):
            address = self._memory.address(argument)
            if (address is not None) != row.pointer:
                wanted = "an array of this device" if row.pointer else "a number"
                raise KernelError(f"{name}, argument {number}: {wanted} is needed, not {argument!r}.")
            value = np.array(argument if address is None else np.uint64(address))
            if value.nbytes != row.nbytes:
                raise KernelError(
                    f"{name}, argument {number}: {value.nbytes} bytes ({value.dtype}) were given, and the "
                    f"compiled kernel takes {row.nbytes}."
                )
            values.append(value)
        return values

    def _launched(
        self, library: Library, name: str, geometry: Geometry, arguments: Sequence[Any]
    ) -> Launched:
        parameters = self._declared[name].parameters
        regions = []
        for array in self._memory.arrays():
            number = next((n for n, argument in enumerate(arguments, 1) if argument is array), None)
            title = f"an array that is no argument ({array})"
            if number is not None:
                title = f"argument {number} '{parameters[number - 1].name}' ({array})"
            regions.append(Region(array.address, array.address + array.nbytes, title))
        dynamic = [Region(0, geometry.shared, "the dynamic shared memory")] if geometry.shared else []
        owner = f"shared array '{library.kernels[name].function}::"
        if not dynamic and not any(region.name.startswith(owner) for region in library.shared):
            # without this a kernel that was given none would be told of another kernel's array
            dynamic = [Region(0, 0, f"the dynamic shared memory ({name}[grid, block, bytes] gives it)")]
        return Launched(
            self._path, name, library.path, library.base, geometry.block, self._seconds,
            regions, self._memory.freed[::-1], [*library.shared, *dynamic], library.variables, geometry.grid,
        )  # fmt: skip
