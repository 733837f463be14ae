"""Leave a gap around every variable of a kernel file, so that an overrun of one meets no other.

Calls of memcpy and its like are sent to where the hooks see them, and the name of a dynamic shared array is
bound to the launch's own.
"""

from __future__ import annotations

import re

from pytest_gpuperf.backends.emulated.faults import GAP

_DATA = r"\t\.(?:zero|byte|value|long|quad|octa|string|ascii|float|double)\b[^\n]*\n"
_VARIABLE = re.compile(rf"(\t\.size\t((?!\.Lubsan)\S+), \d+\n)(\2:\n(?:{_DATA})+)")
_COMMON = re.compile(r"(?:\t\.local\t\S+\n)?\t\.comm\t(\S+?),(\d+),(\d+)\n")
_THROUGH_POINTERS = re.compile(r"\b(memcpy|memmove|memset|(?:sincos|modf|frexp|remquo)f?)@PLT")
_BUILT_IN = {"threadIdx", "blockIdx", "blockDim", "gridDim"}
_CONSTRUCTED_AT = 232448  # from the dynamic shared memory on (simt/memory.cpp)
# What g++ asks before it runs the constructors of shared variables, which CUDA does not run.
_CONSTRUCTED = re.compile(r"\b(?:_ZGV[\w.$]+|__tls_guard)(?=@(?:tlsld|tlsgd|dtpoff|gottpoff|tpoff)\b)")


def adapted(assembly: str) -> str:
    """Return the assembly with gaps, with such calls seen, and with its dynamic shared arrays bound."""
    assembly = _VARIABLE.sub(rf"\1\t.zero\t{GAP}\n\3\t.zero\t{GAP}\n", assembly)
    assembly = _COMMON.sub(
        rf"\t.pushsection .bss\n\t.balign\t\3\n\t.type\t\1, @object\n\t.size\t\1, \2\n"
        rf"\t.zero\t{GAP}\n\1:\n\t.zero\t\2+{GAP}\n\t.popsection\n",
        assembly,
    )
    assembly = _THROUGH_POINTERS.sub(r"gpuperf_\1@PLT", assembly)
    assembly, guards = _CONSTRUCTED.subn("gpuperf_constructed", assembly)
    if guards:
        assembly += f"\t.set\tgpuperf_constructed, gpuperf_dynamic_shared+{_CONSTRUCTED_AT}\n"
    wanted = set(re.findall(r"([\w.$]+)@tlsgd", assembly)) - _BUILT_IN - {"gpuperf_constructed"}
    defined = set(re.findall(r"^([\w.$]+):", assembly, re.MULTILINE))
    aliases = "".join(f"\t.set\t{name}, gpuperf_dynamic_shared\n" for name in sorted(wanted - defined))
    return assembly + aliases
