"""Check a launch's arguments against the kernel's declaration.

CUDA is given packed bytes and believes them: a wrong argument is a wild pointer on the device. All
backends therefore launch only what ``check`` has let through.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NoReturn

import numpy as np

from pytest_gpuperf.backends.base import Backend
from pytest_gpuperf.backends.declarations import Declaration, Parameter
from pytest_gpuperf.errors import KernelError
from pytest_gpuperf.text import counted


def check(declaration: Declaration, arguments: Sequence[Any], backend: Backend) -> list[Any]:
    """Return the arguments as a ``Program`` wants them: device arrays as given, numbers as NumPy scalars.

    Raises KernelError, naming kernel, declaration, argument and remedy, if count, pointer or scalar, dtype,
    contiguity, alignment, range or place (host, freed, another device) do not fit.
    """
    parameters = declaration.parameters
    if len(arguments) != len(parameters):
        raise KernelError(
            f"{declaration.name} ({declaration.where}) takes "
            f"{counted(len(parameters), 'argument')}, {len(arguments)} given: {declaration}."
        )
    checked = []
    for number, (parameter, argument) in enumerate(zip(parameters, arguments, strict=True), 1):
        slot = _Slot(declaration, parameter, number)
        checked.append(slot.array(argument, backend) if parameter.pointer else slot.scalar(argument))
    return checked


@dataclass(frozen=True, slots=True)
class _Slot:
    """One argument position; it states what is wrong with the argument put there."""

    declaration: Declaration
    parameter: Parameter
    number: int

    def reject(self, what: str) -> NoReturn:
        raise KernelError(
            f"{self.declaration.name} ({self.declaration.where}), argument {self.number} "
            f"`{self.parameter}`: {what}"
        ) from None

    def array(self, argument: Any, backend: Backend) -> Any:
        if isinstance(argument, np.ndarray):
            self.reject("a NumPy array on the host was given; pass gpu.to_device(array).")
        if isinstance(argument, (int, float, np.generic)):
            self.reject(f"{argument!r} was given where a device array is needed.")
        try:
            address = backend.address(argument)
        except KernelError as error:  # the backend knows more, such as that the array was freed
            self.reject(str(error))
        if address is None:
            self.reject(
                f"{_kind(argument)} was given, which is no live array of this device "
                f"({backend.device_name}); pass one made by gpu.empty, gpu.random or gpu.to_device."
            )
        dtype, nbytes, contiguous = self._layout(argument)
        if not contiguous:
            self.reject("the array is not C-contiguous; copy it before the launch.")
        self._fits(dtype, nbytes, address)
        return argument

    def _layout(self, argument: Any) -> tuple[np.dtype, int, bool]:
        """Return dtype, bytes and C-contiguity of a device array of this or another library."""
        if hasattr(argument, "contents"):  # ours, and asking it for its address would give it away
            return argument.dtype, argument.nbytes, True
        try:
            interface = getattr(argument, "__cuda_array_interface__", None)
        except Exception as error:  # torch refuses for tensors that need a gradient, among others
            self.reject(f"{_kind(argument)} does not show its memory: {error}")
        if interface is None:
            dtype, shape, strides = argument.dtype, argument.shape, getattr(argument, "strides", None)
        else:
            dtype, shape, strides = interface["typestr"], interface["shape"], interface.get("strides")
        dtype = np.dtype(dtype)
        contiguous = strides is None or _is_c_order(tuple(shape), tuple(strides), dtype.itemsize)
        return dtype, math.prod(shape) * dtype.itemsize, contiguous

    def _fits(self, dtype: np.dtype, nbytes: int, address: int) -> None:
        want, lanes = self.parameter.dtype, self.parameter.lanes
        if want is None:
            return
        pair = lanes == 2 and dtype.kind == "c" and dtype.itemsize == 2 * want.itemsize
        if dtype != want and not pair:
            self.reject(f"a {dtype.name} array was given; it needs {want.name}.")
        width = lanes * want.itemsize
        if nbytes % width:
            self.reject(f"{nbytes} bytes were given, which is no multiple of the element's {width}.")
        if lanes in (2, 4) and address % min(width, 16):
            self.reject(f"the array starts at an address that is no multiple of {min(width, 16)} bytes.")

    def scalar(self, argument: Any) -> np.generic:
        want = self.parameter.dtype
        if want is None or self.parameter.lanes > 1:
            if isinstance(argument, np.generic):
                return argument
            self.reject(
                f"{_kind(argument)} was given for a type that is not known here; pass a NumPy scalar of "
                "the same layout, such as np.int32(3) for an enum or an np.void (align=True) for a struct."
            )
        if not isinstance(argument, (bool, int, float, complex, np.number, np.bool_)):
            self.reject(f"{_kind(argument)} was given where a number is needed.")
        if want.kind in "iu":
            return self._integer(argument, want)
        if want.kind == "b":
            if argument not in (0, 1):
                self.reject(f"{argument!r} was given; it needs True or False.")
            return np.bool_(argument)
        return self._floating(argument, want)

    def _integer(self, argument: Any, want: np.dtype) -> np.generic:
        try:
            value = operator.index(int(argument) if isinstance(argument, np.bool_) else argument)
        except TypeError:
            self.reject(
                f"{argument!r} was given where an integer is needed; write int({argument!r}) to cut it."
            )
        bounds = np.iinfo(want)
        if not bounds.min <= value <= bounds.max:
            self.reject(f"{value} does not fit {want.name} ({bounds.min} to {bounds.max}).")
        return want.type(value)

    def _floating(self, argument: Any, want: np.dtype) -> np.generic:
        if want.kind == "f" and isinstance(argument, (complex, np.complexfloating)):
            self.reject(f"{argument!r} was given where a real number is needed.")
        try:
            with np.errstate(over="ignore"):
                value = want.type(argument)
        except OverflowError:
            value = want.type(np.inf)
        if not np.isfinite(value) and (isinstance(argument, int) or np.isfinite(argument)):
            self.reject(f"{argument!r} does not fit {want.name}.")
        return value


def _is_c_order(shape: tuple[int, ...], strides: tuple[int, ...], itemsize: int) -> bool:
    if 0 in shape:
        return True
    expected = itemsize
    for length, stride in zip(reversed(shape), reversed(strides), strict=True):
        if length > 1 and stride != expected:
            return False
        expected *= length
    return True


def _kind(argument: Any) -> str:
    name = type(argument).__name__
    return "None" if argument is None else f"{'an' if name[0] in 'aeiouAEIOU' else 'a'} {name}"
