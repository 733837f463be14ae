"""Shorten what a kernel does most: accesses to memory, reads of threadIdx and its like, and returns.

Every access has a number, by which the runtime finds what it knows of it (``Site`` of simt/accesses.hpp). A
load from an array that no thread of the launch writes is one of ``free_count`` elements from ``free_begin``
on, which is looked at before the call, or it is looked at more closely. The difference is rotated, so that a
misaligned address is far too large.
"""

from __future__ import annotations

import re

_CALL = re.compile(r"^\tcall\t__tsan_(read|write)(1|2|4|8|16)@PLT$", re.MULTILINE)
_SITE = 64  # bytes
_SITES = 1 << 14  # simt/accesses.hpp; accesses beyond stay as they are, which is slower
# The runtime is loaded before a kernel, so that its variables lie where the thread's own begin.
_INDEX = re.compile(
    r"^\tdata16\tleaq\t((?:thread|block)Idx|(?:block|grid)Dim)@tlsgd\(%rip\), %rdi\n"
    r"\t\.value\t0x6666\n\trex64\n\tcall\t__tls_get_addr@PLT$",
    re.MULTILINE,
)
# Shared variables are the library's thread_local ones, which lie at fixed distances from each other; where
# the dynamic one is on this OS thread, scheduler.cpp knows.
_SHARED = re.compile(r"^\tleaq\t\S+@tlsld\(%rip\), %rdi\n\tcall\t__tls_get_addr@PLT$", re.MULTILINE)
_ANCHOR = """\
\tmovq\tgpuperf_anchor@gottpoff(%rip), %rax
\tmovq\t%fs:(%rax), %rax
\tsubq\t$gpuperf_dynamic_shared@dtpoff, %rax"""
# Threads of a block take turns, so that who returns was seldom called last, which a CPU expects of a return.
_RETURN = re.compile(r"^\tret$", re.MULTILINE)


def shortened(assembly: str) -> str:
    """Return the assembly with every hook of a plain access called with its site."""
    number = -1

    def numbered(call: re.Match[str]) -> str:
        nonlocal number
        number += 1
        return _numbered(call[1], int(call[2]), number) if number < _SITES else call[0]

    assembly = _SHARED.sub(_ANCHOR, assembly)
    assembly = _RETURN.sub(r"\tpopq\t%rcx\n\tjmp\t*%rcx", _CALL.sub(numbered, assembly))
    return _INDEX.sub(r"\tmovq\t%fs:0, %rax\n\taddq\t\1@gottpoff(%rip), %rax", assembly)


def _numbered(kind: str, size: int, number: int) -> str:
    site, passed = number * _SITE, f".Lgpuperf_site_{number}"
    table = ["\tmovq\tgpuperf_sites@gottpoff(%rip), %rsi", "\tmovq\t%fs:(%rsi), %rsi"]
    call = [f"\taddq\t${site}, %rsi", f"\tcall\t*gpuperf_{kind}{size}@GOTPCREL(%rip)"]
    if kind == "write":
        return "\n".join([*table, *call])
    turn = [f"\trorq\t${size.bit_length() - 1}, %rax"] if size > 1 else []
    bounds = [f"\tmovq\t%rdi, %rax\n\tsubq\t{site}(%rsi), %rax", *turn, f"\tcmpq\t{site + 8}(%rsi), %rax"]
    return "\n".join([*table, *bounds, f"\tjb\t{passed}", *call, f"{passed}:"])
