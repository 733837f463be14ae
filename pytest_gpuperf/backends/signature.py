"""What a compiler tells of a kernel or a variable, asked by a C++ expression (signature.hpp tells it)."""

from __future__ import annotations

import re
import struct
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pytest_gpuperf.errors import KernelError

HEADER = Path(__file__).with_name("signature.hpp")
PLACE = "the name of a kernel or a variable"
"""What compilers call the lines that hold the expression."""

_ROW = struct.Struct("<IIcBBx")


class Unresolved(Exception):
    """An expression that names nothing of the file's; the message is the compiler's."""


def unresolved(said: str) -> Unresolved | None:
    """Return the error of an expression that a compiler's messages are about, None if they are not."""
    if found := re.search(rf"^{PLACE}\(\d+\): error: (.+)", said, re.MULTILINE):
        return Unresolved(found[1])
    own = re.search(rf"^(?:.*/)?{re.escape(HEADER.name)}\(\d+\): error: ", said, re.MULTILINE)
    return Unresolved("that is neither a kernel nor a variable") if own else None


@dataclass(frozen=True, slots=True)
class Row:
    """A parameter's type, or that of what it points to: ``lanes`` numbers of ``size`` bytes."""

    size: int
    lanes: int
    kind: str
    pointer: bool
    const: bool

    @property
    def dtype(self) -> np.dtype | None:
        """Return the type of a lane, None for a struct and for void."""
        known = self.kind in "biuf" and self.size in (1, 2, 4, 8)
        return np.dtype(f"{self.kind}{self.size}") if known else None

    @property
    def nbytes(self) -> int:
        """Return the size of the parameter."""
        return 8 if self.pointer else self.size * self.lanes


@dataclass(frozen=True, slots=True)
class Signature:
    """A kernel by the expression ``name``, and its name in the machine code.

    ``own``: it is a template's instantiation that the file itself does not make, so it needs a program of its
    own. ``where``: file and line of its definition, None if the compiler does not tell.
    """

    name: str
    symbol: str
    rows: tuple[Row, ...]
    own: bool
    where: tuple[Path, int] | None = None


@dataclass(frozen=True, slots=True)
class Variable:
    """A ``__constant__`` or ``__device__`` variable: its name in the machine code, and the array that it is.

    Vectors are a last dimension: ``float4 c[3]`` is float32[3, 4]. ``dtype`` is bytes (V) for a struct.
    """

    name: str
    symbol: str
    dtype: np.dtype
    shape: tuple[int, ...]

    def __str__(self) -> str:
        return f"{self.name} ({self.dtype}{list(self.shape)})"


def rows_of(table: bytes) -> tuple[Row, ...]:
    """Read the table that ``Described`` of signature.hpp makes."""
    (count,) = struct.unpack_from("<I", table)
    rows = (_ROW.unpack_from(table, 4 + number * _ROW.size) for number in range(count))
    return tuple(
        Row(size, lanes, kind.decode(), bool(pointer), bool(const))
        for size, lanes, kind, pointer, const in rows
    )


def variable_of(name: str, symbol: str, rows: tuple[Row, ...]) -> Variable:
    """Return the variable that a table describes."""
    element, *extents = rows
    lanes = (element.lanes,) if element.lanes > 1 else ()
    dtype = np.dtype(np.uint64) if element.pointer else element.dtype or np.dtype(f"V{element.size}")
    return Variable(name, symbol, dtype, (*(extent.size for extent in extents), *lanes))


def address_of(name: str) -> str:
    """Return the C++ expression for the address of ``name``, which parameters in brackets tell from others.

    Raises Unresolved for what cannot be a name.
    """
    if not name.strip() or re.search(r"""[;{}\n#"'\\]""", name):
        raise Unresolved("that is no name")
    if not name.endswith(")"):
        return f"&{name}"
    depth = 0
    for offset in range(len(name) - 1, -1, -1):
        depth += (name[offset] == ")") - (name[offset] == "(")
        if depth == 0:
            return f"static_cast<void (*){name[offset:]}>(&{name[:offset].strip()})"
    raise Unresolved("its brackets do not match")


def fitting(variable: Variable, given: object) -> np.ndarray:
    """Return ``given`` as the variable's bytes are; raises KernelError where it does not fit."""
    if isinstance(given, (bool, int, float)) and not variable.shape and variable.dtype.kind in "biuf":
        with np.errstate(all="ignore"):
            value = np.array(given).astype(variable.dtype)
        if variable.dtype.kind == "f" or value == given:
            return value
        raise KernelError(f"{variable} was given {given!r}, which does not fit.")
    if not isinstance(given, (np.ndarray, np.generic)):
        raise KernelError(f"{variable} was given {type(given).__name__}; give it a NumPy array of that type.")
    array = np.asarray(given)
    structs = variable.dtype.kind == "V" and array.dtype.itemsize == variable.dtype.itemsize
    if array.shape != variable.shape or not (array.dtype == variable.dtype or structs):
        raise KernelError(
            f"{variable} was given {array.dtype}{list(array.shape)}; make the two equal, for example with "
            f".astype(np.{variable.dtype.name}).reshape{variable.shape}."
        )
    return np.ascontiguousarray(array).reshape(array.shape)
