"""Hash the machine code of one kernel of a cubin: all that its launch runs or reads, and nothing else.

A cubin is an ELF file (the format: `man 5 elf`; NVIDIA's sections: "CUDA Binary Utilities"). A kernel has
sections of its own, which end in its name: its code with the device functions that it calls, its registers
and launch bounds, shared memory, parameters and constants. What belongs to no kernel (constants, global
variables, anything that is not known here) counts for every kernel of the file, since the code names it by
address alone. Left out are other kernels' sections, names, debugging information and the compiler's notes.
"""

from __future__ import annotations

import hashlib
import re
import struct
from collections.abc import Iterator, Mapping
from functools import cached_property
from typing import Any, NamedTuple

_EXECUTABLE, _NOBITS, _OBJECT, _FUNCTION, _ENTRY = 2, 8, 1, 2, 0x10
_RELOCATIONS = {4: "<QQq", 9: "<QQ", 0x70000082: "<QQq"}  # the last is NVIDIA's, from Blackwell on
_NAMES = (".shstrtab", ".strtab", ".symtab", ".nv.merc.symtab")
_DEBUG = (".debug", ".nv_debug", ".rel.debug", ".rela.debug", ".rel.nv_debug", ".rela.nv_debug")
_NOT_RUN = (*_DEBUG, *(f".nv.merc{name}" for name in _DEBUG), ".note.")
_OWN = re.compile(
    r"(?:\.nv\.merc|\.nv\.capmerc)?(?:\.rela?)?\.(?:text|nv\.info|nv\.shared|nv\.local|nv\.constant\d+)\.(.+)"
)
# Attributes in .nv.info that begin with the index of a symbol, which other kernels move: registers, frame and
# stack of a function, and where a kernel's parameters are.
_OF_SYMBOL = {0x2F, 0x11, 0x12, 0x23, 0x0A}
_EXTERNALS = 0x0F  # a list of symbols


class _Section(NamedTuple):
    name: str
    type: int
    flags: int
    data: bytes
    size: int
    link: int
    info: int
    alignment: int


class _Symbol(NamedTuple):
    name: str
    type: int
    other: int
    section: int
    value: int
    size: int


class _Unknown(Exception):
    """What a kernel uses cannot be told."""


def kernel_hash(cubin: bytes, kernel: str) -> str:
    """Return the hash of a kernel's machine code, of the whole file where what it uses cannot be told."""
    try:
        told = _Cubin(cubin).told(kernel)
    except (_Unknown, struct.error, IndexError, UnicodeDecodeError):
        told = [cubin]
    return hashlib.sha256(repr(told).encode()).hexdigest()[:16]


def only_kernel_hash(cubin: bytes) -> str:
    """Return the hash of the machine code of a file's only kernel, of the whole file if it has several."""
    try:
        kernels = list(_Cubin(cubin).kernels)
    except (_Unknown, struct.error, IndexError, UnicodeDecodeError):
        kernels = []
    return kernel_hash(cubin, kernels[0]) if len(kernels) == 1 else file_hash(cubin)


def symbols(cubin: bytes) -> tuple[list[str], list[str]]:
    """Return the names of a cubin's kernels and of its variables."""
    made = _Cubin(cubin)
    return list(made.kernels), [s.name for s in made.symbols() if s.type == _OBJECT and s.section]


def contents(cubin: bytes, variable: str) -> tuple[bytes, str]:
    """Return a variable's initial bytes, and the name of what its first 8 bytes will be the address of."""
    return _Cubin(cubin).contents(variable)


def file_hash(cubin: bytes) -> str:
    """Return the hash of a whole file's bytes."""
    return hashlib.sha256(cubin).hexdigest()[:16]


class _Cubin:
    """An executable cubin; raises _Unknown or struct.error for anything else."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        if data[:6] != b"\x7fELF\x02\x01":
            raise _Unknown
        self._type, _, _, _, _, self._at, flags, *counts = struct.unpack_from("<HHIQQQI6H", data, 16)
        self._count, names = counts[4], counts[5]
        self._architecture = flags & 0xFFFFFF  # the highest byte tells of debugging information
        if self._type != _EXECUTABLE:
            raise _Unknown  # what is still to be linked
        headers = [struct.unpack_from("<IIQQQQIIQQ", data, self._at + 64 * i) for i in range(self._count)]
        strings = self._bytes(headers[names])
        self._sections = [self._section(header, strings) for header in headers]

    def told(self, kernel: str) -> list[Any]:
        """Return all that a kernel runs or reads, in an order that other kernels do not change."""
        own = self.kernels.get(kernel)
        if own is None:
            raise _Unknown
        found = []
        for section in self._sections:
            if section.name and section.name not in _NAMES and not section.name.startswith(_NOT_RUN):
                owner = self._owner(section.name)
                if owner in (None, kernel):
                    found.append(self._contents(section, kernel))
        return [self._data[6:9], self._architecture, *sorted(found, key=repr)]

    # ----------------------------------------------------------------------- the file's parts

    def _bytes(self, header: tuple[int, ...]) -> bytes:
        data = b"" if header[1] == _NOBITS else self._data[header[4] : header[4] + header[5]]
        if header[1] != _NOBITS and len(data) < header[5]:
            raise _Unknown  # cut short
        return data

    def _section(self, header: tuple[int, ...], strings: bytes) -> _Section:
        name, kind, flags, _, _, size, link, info, alignment, _ = header
        return _Section(_text(strings, name), kind, flags, self._bytes(header), size, link, info, alignment)

    @cached_property
    def kernels(self) -> Mapping[str, int]:
        """Return the kernels' names with the sections of their code."""
        entries = (s for s in self.symbols() if s.type == _FUNCTION and s.other & _ENTRY)
        return {symbol.name: symbol.section for symbol in entries}

    def symbols(self) -> list[_Symbol]:
        tables = [i for i, section in enumerate(self._sections) if section.name == ".symtab"]
        return [symbol for table in tables for symbol in self._symbols(table)]

    def contents(self, variable: str) -> tuple[bytes, str]:
        symbol = next(s for s in self.symbols() if s.name == variable)
        section, named = self._sections[symbol.section], ""
        for other in self._sections:
            if other.type in _RELOCATIONS and other.info == symbol.section:
                for offset, info, *_ in struct.iter_unpack(_RELOCATIONS[other.type], other.data):
                    if offset == symbol.value:
                        named = self._symbols(other.link)[info >> 32].name
        data = section.data or bytes(section.size)  # zeros take no room in the file
        return data[symbol.value : symbol.value + symbol.size], named

    def _symbols(self, table: int) -> list[_Symbol]:
        if table not in self._tables:
            section = self._sections[table]
            strings = self._sections[section.link].data
            self._tables[table] = [
                _Symbol(_text(strings, name), info & 15, other, index, value, size)
                for name, info, other, index, value, size in struct.iter_unpack("<IBBHQQ", section.data)
            ]
        return self._tables[table]

    @cached_property
    def _tables(self) -> dict[int, list[_Symbol]]:
        return {}

    def _owner(self, name: str) -> str | None:
        """Return the kernel that a section or a symbol's section belongs to, None for all of them."""
        own = _OWN.fullmatch(name)
        return own[1] if own and own[1] in self.kernels else None

    # ----------------------------------------------------------------------- what a section says

    def _contents(self, section: _Section, kernel: str) -> tuple[Any, ...]:
        name = self._role(section.name, kernel)
        if section.type in _RELOCATIONS:
            return name, sorted(self._relocations(section, kernel))
        if name in (".nv.info", ".nv.merc.nv.info", ".nv.info.*", ".nv.merc.nv.info.*"):
            return name, sorted(self._attributes(section, kernel))
        if name == ".nv.callgraph":
            return name, sorted(self._calls(section, kernel))
        # registers are in the info's highest byte, in what compilers before CUDA 13 write
        return (
            name,
            section.type,
            section.flags,
            section.info >> 24,
            section.alignment,
            section.size,
            section.data,
        )

    def _role(self, name: str, kernel: str) -> str:
        return name.removesuffix(kernel) + "*" if self._owner(name) == kernel else name

    def _symbol(self, section: _Section, index: int, kernel: str) -> tuple[Any, ...] | None:
        """Say what a symbol is without its name, None if it is another kernel's."""
        symbol = self._symbols(section.link)[index]
        if symbol.section == 0:
            return "outside", symbol.name
        if symbol.section >= len(self._sections):  # absolute, or common to files
            return "special", symbol.section, symbol.value
        where = self._sections[symbol.section].name
        if self._owner(where) not in (None, kernel):
            return None
        return self._role(where, kernel), symbol.type, symbol.value

    def _used(self, section: _Section, index: int, kernel: str) -> tuple[Any, ...]:
        found = self._symbol(section, index, kernel)
        if found is None:
            raise _Unknown  # a kernel that launches another
        return found

    def _relocations(self, section: _Section, kernel: str) -> Iterator[tuple[Any, ...]]:
        for offset, info, *addend in struct.iter_unpack(_RELOCATIONS[section.type], section.data):
            yield offset, info & 0xFFFFFFFF, *addend, self._used(section, info >> 32, kernel)

    def _attributes(self, section: _Section, kernel: str) -> Iterator[tuple[Any, ...]]:
        at, data = 0, section.data
        own = section.name != self._role(section.name, kernel)
        while at < len(data):
            form, attribute, value = struct.unpack_from("<BBH", data, at)
            payload = data[at + 4 : at + 4 + value] if form == 4 else b""
            at += 4 + len(payload)
            if form == 4 and len(payload) < value:
                raise _Unknown
            if form != 4:
                yield attribute, form, value
            elif attribute in _OF_SYMBOL and value >= 4:
                symbol = self._symbol(section, struct.unpack_from("<I", payload)[0], kernel)
                if symbol is not None:
                    yield attribute, form, payload[4:], symbol
                elif own:
                    raise _Unknown
            elif attribute == _EXTERNALS:
                externals = [self._used(section, i, kernel) for (i,) in struct.iter_unpack("<I", payload)]
                yield attribute, form, externals
            else:
                yield attribute, form, payload

    def _calls(self, section: _Section, kernel: str) -> Iterator[tuple[Any, ...]]:
        """Yield who calls whom, and what else is told of functions in the lists that a pair with 0 begins."""
        which = 0
        for caller, other in struct.iter_unpack("<II", section.data):
            if caller == 0:
                which = other
            elif (symbol := self._symbol(section, caller, kernel)) is not None:
                called = self._used(section, other, kernel) if which == 0xFFFFFFFF else other
                yield which, symbol, called


def _text(strings: bytes, at: int) -> str:
    return strings[at : strings.index(b"\0", at)].decode()
