"""Launch kernels that synchronise their grid, whose blocks must all run at once: cooperatively.

Which kernels do is told by the PTX, from which the compiler makes the machine code: they read where the
driver keeps the barrier, which it makes for a cooperative launch alone. Their names are kept behind the
cubin, where the driver does not read.
"""

from __future__ import annotations

import ctypes
import math
import re
from collections.abc import Callable, Iterator, Sequence
from ctypes import byref, c_int, c_size_t, c_uint, c_void_p
from typing import TYPE_CHECKING, Any

from pytest_gpuperf.backends.cuda.export import handle_of
from pytest_gpuperf.backends.cuda.graph import driver
from pytest_gpuperf.backends.geometry import Geometry
from pytest_gpuperf.errors import KernelError

if TYPE_CHECKING:
    from pytest_gpuperf.backends.cuda.context import CudaContext

# Since CUDA 11 cooperative_groups reads two registers, before it called a function.
_BARRIER = re.compile(r"%envreg[12]\b|\bcudaCG\w+")
_NOT_CODE = re.compile(r'//[^\n]*|/\*.*?\*/|"(?:\\.|[^"\\\n])*"', re.DOTALL)
_FUNCTION = re.compile(r"\.(entry|func)\b\s*(?:\([^)]*\)\s*)?([\w$%]+)")
_VARIABLE = re.compile(r"([\w$%]+)(?:\[\d*\])*\s*=")
_MARK = b"\0gpuperf: kernels that synchronise their grid: "
# cuda.h, CUfunction_attribute
_SHARED_SIZE, _LOCAL_SIZE, _REGISTERS = 1, 3, 4


def noted(cubin: bytes, ptx: str) -> bytes:
    """Return a cubin with the names of those of its kernels that synchronise their grid, if any does."""
    names = " ".join(sorted(_synchronising(ptx)))
    return cubin + _MARK + names.encode() if names else cubin


def grid_kernels(cubin: bytes) -> frozenset[str]:
    """Return the names that ``noted`` put there."""
    return frozenset(cubin.rpartition(_MARK)[2].decode().split()) if _MARK in cubin else frozenset()


def _synchronising(ptx: str) -> set[str]:
    """Return the kernels that read where the barrier is, or reach a function or a table of such that does."""
    if not _BARRIER.search(ptx):
        return set()
    kernels, texts = set[str](), dict[str, str]()
    for text in _definitions(_NOT_CODE.sub(" ", ptx)):
        function = _FUNCTION.search(text)
        if named := function or _VARIABLE.search(text):
            name = named[named.re.groups]
            texts[name] = texts.get(name, "") + text[named.end() :]
            if function and function[1] == "entry":
                kernels.add(name)
    reaching = {name for name, text in texts.items() if _BARRIER.search(text)}
    mentioned = {name: set(re.findall(r"[\w$%]+", text)) & texts.keys() for name, text in texts.items()}
    while more := {name for name in mentioned if mentioned[name] & reaching} - reaching:
        reaching |= more
    return kernels & reaching


def _definitions(code: str) -> Iterator[str]:
    """Yield each function and each variable."""
    begin = depth = 0
    for mark in re.finditer(r"[{};]", code):
        depth += {"{": 1, "}": -1, ";": 0}[mark[0]]
        if depth == 0 and not (mark[0] == "}" and code[mark.end() : mark.end() + 1] == ";"):
            yield code[begin : mark.end()]
            begin = mark.end()


class Module:
    """A cubin, loaded by the driver itself: PyCUDA cannot launch cooperatively, nor tell its handles.

    It has as much of PyCUDA's names as is used; the driver's errors are raised as the binding's own.
    """

    def __init__(self, context: CudaContext, cubin: bytes) -> None:
        kinds = context.driver.Error
        self.error: type[Exception] = kinds[0] if isinstance(kinds, tuple) else kinds
        self.context, self.kernels, self._handle = context, grid_kernels(cubin), c_void_p()
        self.call("cuModuleLoadData", byref(self._handle), cubin)

    def call(self, function: str, *arguments: Any) -> None:
        self.check(function, getattr(driver(), function)(*arguments))

    def check(self, function: str, result: int) -> None:
        if result:
            said = ctypes.c_char_p()
            driver().cuGetErrorString(result, byref(said))
            words = (said.value or b"").decode() or f"CUDA error {result}"
            raise self.error(f"{function} failed: {words}")

    def get_global(self, name: str) -> tuple[int, int]:
        address, size = c_void_p(), c_size_t()
        self.call("cuModuleGetGlobal_v2", byref(address), byref(size), self._handle, name.encode())
        return address.value or 0, size.value

    def get_function(self, name: str) -> Function:
        handle = c_void_p()
        self.call("cuModuleGetFunction", byref(handle), self._handle, name.encode())
        return Function(self, handle, name in self.kernels)


class Function:
    """A kernel of a ``Module``."""

    def __init__(self, module: Module, handle: c_void_p, cooperative: bool) -> None:
        self._module, self._handle, self._cooperative = module, handle, cooperative

    num_regs = property(lambda self: self._get(_REGISTERS))
    local_size_bytes = property(lambda self: self._get(_LOCAL_SIZE))
    shared_size_bytes = property(lambda self: self._get(_SHARED_SIZE))

    def _get(self, attribute: int) -> int:
        value = c_int()
        self._module.call("cuFuncGetAttribute", byref(value), c_int(attribute), self._handle)
        return value.value

    def set_attribute(self, attribute: Any, value: int) -> None:
        self._module.call("cuFuncSetAttribute", self._handle, c_int(int(attribute)), c_int(value))

    def bound(
        self, what: str, geometry: Geometry, buffer: bytes, places: Sequence[int], stream: Any
    ) -> Callable[[], None]:
        """Return the launch with the parameters that lie at ``places`` of a buffer, at little cost a call.

        Raises KernelError, which says ``what``, if the grid synchronises and not all of it can run at once.
        """
        if self._cooperative:
            self._check_room(what, geometry)
        kept = ctypes.create_string_buffer(buffer, len(buffer) or 1)
        parameters = (c_void_p * len(places))(*(ctypes.addressof(kept) + place for place in places))
        name = "cuLaunchCooperativeKernel" if self._cooperative else "cuLaunchKernel"
        launch, check = getattr(driver(), name), self._module.check
        shape = [c_uint(extent) for extent in (*geometry.grid, *geometry.block, geometry.shared)]
        given: list[Any] = [self._handle, *shape, c_void_p(handle_of(stream)), parameters]
        if not self._cooperative:
            given.append(None)  # parameters in one piece

        def launched(alive: Any = (kept, stream)) -> None:  # the driver has bare addresses
            if result := launch(*given):
                check(name, result)

        return launched

    def _check_room(self, what: str, geometry: Geometry) -> None:
        context, each = self._module.context, c_int()
        given = c_int(math.prod(geometry.block)), c_size_t(geometry.shared)
        self._module.call("cuOccupancyMaxActiveBlocksPerMultiprocessor", byref(each), self._handle, *given)
        blocks, room = math.prod(geometry.grid), each.value * context.multiprocessors
        if blocks > room:
            raise KernelError(
                f"{what} synchronises its grid, so that all its {blocks} blocks must run at once, and "
                f"{context.device_name} has room for {room} ({each.value} of {given[0].value} threads and "
                f"{geometry.shared} bytes of dynamic shared memory on each of its {context.multiprocessors} "
                "multiprocessors); launch fewer, and let each do more."
            )
