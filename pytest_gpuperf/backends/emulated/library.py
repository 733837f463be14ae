"""One compiled kernel file in memory: its functions, its variables, and where they lie."""

from __future__ import annotations

import ctypes
import math
import os
import re
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from pytest_gpuperf.backends.emulated.faults import Region
from pytest_gpuperf.backends.emulated.launchers import BOUNDS
from pytest_gpuperf.backends.emulated.source import shown
from pytest_gpuperf.backends.signature import Row, Unresolved, Variable, rows_of, variable_of
from pytest_gpuperf.errors import KernelError

# CUDA C++ Programming Guide, "Technical Specifications per Compute Capability".
_STATIC_SHARED = 48 * 1024
_WORDS = 2 << 8  # simt/request.hpp: variables are watched in words of 4 bytes
_OURS = re.compile(r"(?:.*::)?gpuperf_|completed\.\d+$")  # and the C run-time's, which lies beside the user's
_HAND_OVERS = ("gpuperf_atomic", "gpuperf_fence", "gpuperf_grid_barrier")


@dataclass(frozen=True, slots=True)
class _Symbol:
    name: str
    kind: str
    value: int
    size: int
    writable: bool


class _Row(ctypes.Structure):
    """``Kernel`` of simt/cuda.hpp."""

    _fields_ = (
        ("name", ctypes.c_char_p),
        ("file", ctypes.c_char_p),
        ("line", ctypes.c_uint32),
        ("bounds", ctypes.c_uint32),
        ("types", ctypes.c_void_p),
        ("call", ctypes.c_void_p),
        ("function", ctypes.c_void_p),
    )


@dataclass(frozen=True, slots=True)
class Entry:
    """A kernel of a library: its launcher's address, the most threads of a block (0: any), its parameters.

    ``function`` is its name as shared arrays inside it have it.
    """

    name: str
    call: int
    bounds: int
    rows: tuple[Row, ...]
    where: tuple[Path, int] | None
    function: str


class Library:
    """A kernel file's shared library, loaded.

    ``shared`` are its shared variables, from the shared memory's anchor, ``variables`` the others; the spans
    are theirs for the runtime. ``in_order``: the order of the blocks would show in the results.
    """

    def __init__(self, source: Path, path: Path) -> None:
        self.path = path
        self._library = ctypes.CDLL(str(path))
        symbols = _symbols(path)
        functions = {s.value: s.name for s in symbols if s.kind == "FUNC"}
        self.shared = _shared_variables(source, symbols)
        # The order in which blocks reach an atomic would change floating-point sums from run to run. So
        # would blocks that wait for each other.
        self.in_order = any(s.name in _HAND_OVERS or "_volatile_" in s.name for s in symbols)
        anchor = next(s.value for s in symbols if s.name == "gpuperf_shared_anchor")
        self.anchor = self.function("gpuperf_shared_anchor")
        self.base = self.anchor - anchor
        instances = {s.name: self.base + s.value for s in symbols if s.name.endswith(f"::{BOUNDS}")}
        self.kernels = self._kernels(functions, instances)
        objects = (s for s in symbols if s.kind == "OBJECT" and s.size and not _OURS.match(s.name))
        own = sorted(objects, key=lambda s: (s.value, s.name))
        self.variables = [
            Region(self.base + s.value, self.base + s.value + s.size, f"variable '{s.name}'") for s in own
        ]
        self.writable = {s.name: (self.base + s.value, s.size) for s in own if s.writable}
        self.shared_spans = np.array([(r.begin, r.end) for r in self.shared], np.int64).reshape(-1, 2)
        places = [(region.begin, region.end, _WORDS) for region in self.variables]
        self.variable_spans = np.array(places, np.uint64).reshape(-1, 3)

    def _kernels(self, functions: Mapping[int, str], instances: Mapping[str, int]) -> dict[str, Entry]:
        """Read the table of the launchers; a name that several kernels have is left out.

        ``instances`` are the addresses of the launch bounds of templates.
        """
        count = ctypes.c_uint32.in_dll(self._library, "gpuperf_kernel_count").value
        rows = (_Row * (count + 1)).in_dll(self._library, "gpuperf_kernels")[:count]
        found: dict[str, list[Entry]] = {}
        for row in rows:
            name, file = (os.fsdecode(text) for text in (row.name, row.file))
            where = (Path(file), row.line) if file else None
            function = functions.get(row.function - self.base, name).removeprefix("void ")
            bounds = instances.get(f"{function}::{BOUNDS}")
            most = ctypes.c_uint32.from_address(bounds).value if bounds else row.bounds
            entry = Entry(name, row.call, most, _types(row.types), where, function)
            found.setdefault(name, []).append(entry)
        return {name: entries[0] for name, entries in found.items() if len(entries) == 1}

    @cached_property
    def loops(self) -> np.ndarray:
        """Return the blocks of the code's loops, in a build for counting: uint64[n, 3] (loops.py)."""
        return self._table("gpuperf_loop_block_count", "gpuperf_loop_blocks")

    @cached_property
    def branches(self) -> np.ndarray:
        """Return the accesses in branches that a GPU goes through switched off (branches.py), likewise."""
        return self._table("gpuperf_branch_access_count", "gpuperf_branch_accesses")

    def _table(self, count: str, rows: str) -> np.ndarray:
        try:
            length = ctypes.c_uint64.in_dll(self._library, count).value
        except ValueError:
            return np.empty((0, 3), np.uint64)
        table = (ctypes.c_uint64 * (3 * length)).in_dll(self._library, rows)
        return np.array(table, np.uint64).reshape(-1, 3)

    def function(self, name: str) -> int:
        """Return the address of a function."""
        return ctypes.cast(getattr(self._library, name), ctypes.c_void_p).value or 0

    def read(self, symbol: str, dtype: np.dtype, shape: tuple[int, ...]) -> np.ndarray:
        """Return what is in a variable."""
        address, size = self.writable[symbol]
        return np.frombuffer(ctypes.string_at(address, size), dtype, math.prod(shape)).reshape(shape).copy()

    def write(self, symbol: str, values: np.ndarray) -> None:
        """Overwrite a variable."""
        content = values.tobytes()
        ctypes.memmove(self.writable[symbol][0], content, min(len(content), self.writable[symbol][1]))

    def take(self, other: Library) -> None:
        """Copy the contents of the variables of another build of the same file."""
        for name, (address, size) in self.writable.items():
            theirs = other.writable.get(name)
            if theirs and theirs[1] == size:
                ctypes.memmove(address, theirs[0], size)


def _types(address: int) -> tuple[Row, ...]:
    """Read a table of signature.hpp."""
    count = ctypes.c_uint32.from_address(address).value
    return rows_of(ctypes.string_at(address, 4 + 12 * count))


def probed(path: Path, name: str) -> Variable:
    """Return the variable that a library tells of (launchers.probe_of)."""
    library = ctypes.CDLL(str(path))
    rows = _types(ctypes.addressof(ctypes.c_uint32.in_dll(library, "gpuperf_types_of")))
    symbols = _symbols(path)
    anchor = next(s.value for s in symbols if s.name == "gpuperf_shared_anchor")
    base = (ctypes.cast(library.gpuperf_shared_anchor, ctypes.c_void_p).value or 0) - anchor
    address = ctypes.c_uint64.in_dll(library, "gpuperf_address").value - base
    symbol = next((s.name for s in symbols if s.kind == "OBJECT" and s.value == address), "")
    if not symbol:
        raise Unresolved("that is no variable")
    return variable_of(name, symbol, rows)


# Of g++'s own: whether shared variables are constructed (compiler.py).
_CONSTRUCTION = re.compile(r"guard variable for |(?:__tls_guard|gpuperf_constructed)$")
_SECTION = re.compile(r"^\s*\[\s*(\d+)\] \S+\s+\S+\s+(?:[0-9a-f]+ ){3}\S+ +([A-Zlxop]*)", re.MULTILINE)
_ROW = re.compile(r"^\s*\d+: ([0-9a-f]+)\s+(\w+) (\w+)\s+\w+\s+\w+\s+(\w+) (.+)$", re.MULTILINE)


def _symbols(library: Path) -> list[_Symbol]:
    """Return every symbol, by readelf, which comes with g++'s linker."""
    command = ["readelf", "--sections", "--symbols", "--wide", "--demangle", str(library)]
    output = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    writable = {match[1] for match in _SECTION.finditer(output) if "W" in match[2]}
    return [
        _Symbol(match[5], match[3], int(match[1], 16), int(match[2], 0), match[4] in writable)
        for match in _ROW.finditer(output)
    ]


def _shared_variables(path: Path, symbols: Sequence[_Symbol]) -> list[Region]:
    """Return the static shared variables, as offsets from the dynamic shared memory, where the anchor is."""
    variables = {(s.name, s.value, s.size) for s in symbols if s.kind == "TLS" and s.size}
    anchor = next(value for name, value, _ in variables if name == "gpuperf_dynamic_shared")
    found, per_function = [], dict[str, int]()
    for name, value, size in sorted(variables):
        if value == anchor or _CONSTRUCTION.match(name):
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
