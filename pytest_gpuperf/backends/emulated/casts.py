"""Let casts from floating point to a signed integer clamp as a GPU's do: what is no number gives 0.

The CPU's conversion gives the smallest integer for everything that is out of range. That one result is looked
at more closely; flags are kept where an instruction behind still reads them.
"""

from __future__ import annotations

import re

_CAST = re.compile(r"^\tcvtts([sd])2si([lq])\t(.+), %(\w+)$")
_READS_FLAGS = re.compile(r"\t(?:j(?!mp)|set|cmov|adc|sbb|rc[lr]|pushf)")
_SETS_FLAGS = re.compile(r"\t(?:add|sub|cmp|test|and|or|xor|neg|imul|u?comis|call|ret)")
_PASSED_OVER = re.compile(
    r"\t(?:mov|lea|cvt|cltq|pxor|(?:add|sub|mul|div|sqrt)[sp][sd]|\.loc|\.cfi)|\.LV|\.LB"
)
_BELOW = 128  # what a function may keep below the stack pointer


def with_clamped_casts(assembly: str) -> str:
    """Return the assembly with every such cast followed by its check."""
    if "\tcvtts" not in assembly:
        return assembly
    lines = assembly.split("\n")
    for number in range(len(lines) - 1, -1, -1):
        if cast := _CAST.match(lines[number]):
            lines[number : number + 1] = _clamped(cast, number, _flags_are_read(lines, number + 1))
    table = ["\t.section\t.rodata", "\t.balign\t8", ".Lgpuperf_least:", "\t.quad\t0x8000000000000000"]
    return "\n".join([*lines, *table, ".Lgpuperf_most:", "\t.quad\t0x7fffffffffffffff", ""])


def _flags_are_read(lines: list[str], begin: int) -> bool:
    for line in lines[begin : begin + 40]:
        if _PASSED_OVER.match(line):
            continue
        return not _SETS_FLAGS.match(line) or bool(_READS_FLAGS.match(line))
    return True


def _clamped(cast: re.Match[str], number: int, flags: bool) -> list[str]:
    kind, size, source, target = cast.groups()
    if not source.startswith("%xmm"):
        return _from_memory(kind, size, source, target, number)
    narrow, wide = _names(target)
    end = f".Lgpuperf_cast_{number}"
    least = f"\tcmpl\t$-2147483648, %{narrow}" if size == "l" else f"\tcmpq\t.Lgpuperf_least(%rip), %{wide}"
    sign = [f"\tmovd\t{source}, %{narrow}", f"\tmovslq\t%{narrow}, %{wide}"]
    sign = [*(sign if kind == "s" else [f"\tmovq\t{source}, %{wide}"]), f"\tsarq\t$63, %{wide}"]
    most = f"\txorl\t$2147483647, %{narrow}" if size == "l" else f"\txorq\t.Lgpuperf_most(%rip), %{wide}"
    save = [f"\tleaq\t-{_BELOW}(%rsp), %rsp", "\tpushfq"] if flags else []
    restore = ["\tpopfq", f"\tleaq\t{_BELOW}(%rsp), %rsp"] if flags else []
    return [
        cast[0], *save, least, f"\tjne\t{end}", f"\tucomis{kind}\t{source}, {source}",
        f"\tmovl\t$0, %{narrow}",
        f"\tjp\t{end}", *sign, most, f"{end}:", *restore,
    ]  # fmt: skip


def _from_memory(kind: str, size: str, source: str, target: str, number: int) -> list[str]:
    """Return the same for a number in memory, by a register that is given back."""
    space = _BELOW + 16
    if "(%rsp" in source:
        offset, _, rest = source.partition("(")
        source = f"{space + int(offset or 0)}({rest}"
    cast = _CAST.match(f"\tcvtts{kind}2si{size}\t%xmm15, %{target}")
    assert cast
    return [
        f"\tleaq\t-{space}(%rsp), %rsp", "\tmovups\t%xmm15, (%rsp)", f"\tmovs{kind}\t{source}, %xmm15",
        *_clamped(cast, number, True), "\tmovups\t(%rsp), %xmm15", f"\tleaq\t{space}(%rsp), %rsp",
    ]  # fmt: skip


def _names(register: str) -> tuple[str, str]:
    """Return the names of a register's lower half and of the whole."""
    if register[1:].rstrip("d").isdigit():
        return register.rstrip("d") + "d", register.rstrip("d")
    return "e" + register[1:], "r" + register[1:]
