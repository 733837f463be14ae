"""Ask nvcc what a C++ expression names in a kernel file, by a cubin that is read and never loaded.

It holds two variables behind the file's own code: the address of what is named, which the machine code will
have as a name to be resolved, and the table of its types.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from functools import cached_property
from pathlib import Path

from pytest_gpuperf.backends.cuda.compile import compile_cubin
from pytest_gpuperf.backends.cuda.machine_code import contents, symbols
from pytest_gpuperf.backends.signature import (
    HEADER,
    PLACE,
    Signature,
    Unresolved,
    Variable,
    address_of,
    rows_of,
    variable_of,
)

_PROBE = """
#include "{header}"
#line 1 "{place}"
__device__ const volatile void *gpuperf_address = (const volatile void *)({address});
__device__ auto gpuperf_types_of = gpuperf_types::Described<decltype({address})>::table();
"""
# What is in an unnamed namespace has the name of the compiled file in its own: a part that its length begins.
_UNNAMED = re.compile(r"(\d+)_(?:GLOBAL__N|INTERNAL)_")


def without_file(symbol: str) -> str:
    """Return a name in the machine code without what depends on the file's name."""
    while part := _UNNAMED.search(symbol):
        symbol = symbol[: part.start()] + symbol[part.end(1) + int(part[1]) :]
    return symbol


def instantiation(signature: Signature) -> str:
    """Return the code that makes a template's instantiation: the host uses it."""
    return f'\n#line 1 "{PLACE}"\nvoid *gpuperf_used = (void *)({address_of(signature.name)});\n'


class Names:
    """A kernel file's ``cubin``, and its kernels and variables by the expressions that name them there.

    The cubin has a template's instantiation if asked for; ``how`` says how or as what it was compiled.
    ``around`` is entered while the compiler runs. Raises KernelError with the compiler's first error.
    """

    def __init__(
        self,
        path: Path,
        options: Sequence[str],
        capability: tuple[int, int],
        around: Callable[[], AbstractContextManager[None]],
        instance: Signature | None = None,
    ) -> None:
        self._file = path, options, capability, around
        self.cubin, self.how = self._compiled(instance)
        self._symbols: dict[str, str] = {}
        self._probed: dict[str, tuple[bytes, str]] = {}
        if instance:
            self._symbols[instance.name] = self._known[0].get(instance.symbol, instance.symbol)

    def _compiled(self, instance: Signature | None) -> tuple[bytes, str]:
        cubin, cached = compile_cubin(*self._file, instantiation(instance) if instance else "")
        return cubin, f"as {cached}"

    @cached_property
    def _known(self) -> tuple[dict[str, str], ...]:
        """Return the cubin's kernels and its variables, by names that do not depend on the file's."""
        return tuple({without_file(name): name for name in names} for names in symbols(self.cubin))

    def symbol(self, name: str) -> str:
        """Return a kernel's name in the machine code."""
        return self._symbols.get(name, name)

    def signature(self, name: str) -> Signature:
        """Raise Unresolved if the expression names no kernel."""
        probe, found = self.probed(name)
        if found not in symbols(probe)[0]:
            raise Unresolved("that is no kernel")
        symbol, table = without_file(found), contents(probe, "gpuperf_types_of")[0]
        self._symbols[name] = self._known[0].get(symbol, symbol)
        return Signature(name, symbol, rows_of(table), symbol not in self._known[0])

    def variable(self, name: str) -> Variable | None:
        """Return None if no kernel uses it; raises Unresolved if the expression names no variable."""
        probe, found = self.probed(name)
        if found not in symbols(probe)[1]:
            raise Unresolved("that is no variable")
        symbol, table = self._known[1].get(without_file(found)), contents(probe, "gpuperf_types_of")[0]
        return variable_of(name, symbol, rows_of(table)) if symbol else None

    def probed(self, name: str) -> tuple[bytes, str]:
        """Return a cubin that tells the types of what an expression names, and its name in there."""
        if name not in self._probed:
            code = _PROBE.format(header=HEADER, place=PLACE, address=address_of(name))
            cubin, _ = compile_cubin(*self._file, code)
            self._probed[name] = cubin, contents(cubin, "gpuperf_address")[1]
        return self._probed[name]
