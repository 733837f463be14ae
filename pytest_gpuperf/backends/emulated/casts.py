"""Let casts from floating point to an integer clamp as a GPU's do.

What is no number gives 0 where a float is cast to 32 bits, and else the highest bit alone. The CPU's
conversion gives the smallest integer for everything that is out of range. That one result is looked at more
closely, and of a cast to an unsigned type (conversions.py) also a negative one and what exceeds 32 bits.
A GPU casts to 8 and 16 bits by way of 32. Flags are kept where an instruction behind still reads them.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from pytest_gpuperf.backends.emulated.conversions import Place

_CAST = re.compile(r"^\tcvtts([sd])2si([lq])\t(.+), %(\w+)$")
_READS_FLAGS = re.compile(r"\t(?:j(?!mp)|set|cmov|adc|sbb|rc[lr]|pushf)")
_SETS_FLAGS = re.compile(r"\t(?:add|sub|cmp|test|and|or|xor|neg|imul|u?comis|call|ret)")
_PASSED_OVER = re.compile(
    r"\t(?:mov|lea|cvt|cltq|pxor|(?:add|sub|mul|div|sqrt)[sp][sd]|\.loc|\.cfi)|\.LV|\.LB"
)
_BELOW = 128  # what a function may keep below the stack pointer


_FUNCTION = re.compile(r"^([A-Za-z_$][\w$.]*):")
_FILE = re.compile(r'^\t\.file (\d+) "(.*)"$')
_LOCATION = re.compile(r"^\t\.loc (\d+) (\d+) (\d+)")
_TABLE = {"least": 1 << 63, "most": (1 << 63) - 1, "word": (1 << 32) - 1}


def with_clamped_casts(assembly: str, unsigned: Mapping[Place, Sequence[str]]) -> str:
    """Return the assembly with every such cast followed by its check; ``unsigned`` is conversions.py's."""
    if "\tcvtts" not in assembly:
        return assembly
    lines = assembly.split("\n")
    kinds = _kinds(lines, unsigned)
    for number in sorted(kinds, reverse=True):
        cast = _CAST.match(lines[number])
        assert cast
        lines[number : number + 1] = _clamped(cast, number, kinds[number], _flags_are_read(lines, number + 1))
    table = [f".Lgpuperf_{name}:\n\t.quad\t{value}" for name, value in _TABLE.items()]
    return "\n".join([*lines, "\t.section\t.rodata", "\t.balign\t8", *table, ""])


def _kinds(lines: Sequence[str], unsigned: Mapping[Place, Sequence[str]]) -> dict[int, str]:
    """Return by line of the assembly to which unsigned type it casts, or ""."""
    function, place, files = "", ("", 0, 0), dict[str, str]()
    found: dict[tuple[Place, bool], list[int]] = {}
    for number, line in enumerate(lines):
        if match := _LOCATION.match(line):
            place = files.get(match[1], ""), int(match[2]), int(match[3])
        elif match := _FUNCTION.match(line):
            function = match[1]
        elif match := _FILE.match(line):
            files[match[1]] = match[2]
        elif match := _CAST.match(line):
            found.setdefault(((function, *place), match[2] == "q"), []).append(number)
    kinds = dict[int, str]()
    for (at, wide), numbers in found.items():
        those = [kind for kind in unsigned.get(at, ()) if not kind or wide == (kind in ("u32", "u64"))]
        if len(set(those)) == 1:
            those = those[:1] * len(numbers)
        # Where a template casts to several types in one place their order tells, if none takes two.
        kinds |= dict(zip(numbers, those if len(those) == len(numbers) else [""] * len(numbers), strict=True))
    return kinds


def _flags_are_read(lines: list[str], begin: int) -> bool:
    for line in lines[begin : begin + 40]:
        if _PASSED_OVER.match(line):
            continue
        return not _SETS_FLAGS.match(line) or bool(_READS_FLAGS.match(line))
    return True


def _clamped(cast: re.Match[str], number: int, unsigned: str, flags: bool) -> list[str]:
    kind, size, source, target = cast.groups()
    if not source.startswith("%xmm"):
        return _from_memory(kind, size, source, target, number, unsigned)
    narrow, wide = _names(target)
    end = f".Lgpuperf_cast_{number}"
    sign = [f"\tmovd\t{source}, %{narrow}", f"\tmovslq\t%{narrow}, %{wide}"]
    sign = [*(sign if kind == "s" else [f"\tmovq\t{source}, %{wide}"]), f"\tsarq\t$63, %{wide}"]
    is_number = [f"\tucomis{kind}\t{source}, {source}"]
    if size == "l" or unsigned == "u32":
        is_number.append(f"\tmovl\t${0 if kind == 's' else 1 << 31}, %{narrow}")
    is_number.append(f"\tjp\t{end}" + "p" * (unsigned == "u64"))
    if unsigned in ("u8", "u16", "u32"):
        usual = [f"\tcmpq\t.Lgpuperf_word(%rip), %{wide}", f"\tjbe\t{end}"]
        most = [f"\tnotq\t%{wide}", f"\tmovl\t%{narrow}, %{narrow}"]
        size = "q"
    elif size == "l":
        usual = [f"\tcmpl\t$-2147483648, %{narrow}", f"\tjne\t{end}"]
        most = [f"\txorl\t$2147483647, %{narrow}"]
    else:
        usual = [f"\tcmpq\t.Lgpuperf_least(%rip), %{wide}", f"\tjne\t{end}"]
        most = [f"\txorq\t.Lgpuperf_most(%rip), %{wide}"]
    positive = [f"\ttestq\t%{wide}, %{wide}", f"\tjns\t{end}p", f"\txorl\t%{narrow}, %{narrow}", f"{end}p:"]
    save = [f"\tleaq\t-{_BELOW}(%rsp), %rsp", "\tpushfq"] if flags else []
    restore = ["\tpopfq", f"\tleaq\t{_BELOW}(%rsp), %rsp"] if flags else []
    return [
        f"\tcvtts{kind}2si{size}\t{source}, %{wide if size == 'q' else narrow}", *save, *usual, *is_number,
        *sign, *most, f"{end}:", *(positive if unsigned == "u64" else []), *restore,
    ]  # fmt: skip


def _from_memory(kind: str, size: str, source: str, target: str, number: int, unsigned: str) -> list[str]:
    """Return the same for a number in memory, by a register that is given back."""
    space = _BELOW + 16
    if "(%rsp" in source:
        offset, _, rest = source.partition("(")
        source = f"{space + int(offset or 0)}({rest}"
    cast = _CAST.match(f"\tcvtts{kind}2si{size}\t%xmm15, %{target}")
    assert cast
    return [
        f"\tleaq\t-{space}(%rsp), %rsp", "\tmovups\t%xmm15, (%rsp)", f"\tmovs{kind}\t{source}, %xmm15",
        *_clamped(cast, number, unsigned, True), "\tmovups\t(%rsp), %xmm15", f"\tleaq\t{space}(%rsp), %rsp",
    ]  # fmt: skip


def _names(register: str) -> tuple[str, str]:
    """Return the names of a register's lower half and of the whole."""
    if register[1:].rstrip("d").isdigit():
        return register.rstrip("d") + "d", register.rstrip("d")
    return "e" + register[1:], "r" + register[1:]
