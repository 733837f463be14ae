"""Read kernel declarations from CUDA C++ source; ``arguments.check`` holds a launch to them."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pytest_gpuperf.backends.aliases import aliases_of
from pytest_gpuperf.backends.sources import blank, blanked, with_included
from pytest_gpuperf.errors import KernelError

# LP64: CUDA on Linux
_SIGNED = {"char": "int8", "short": "int16", "int": "int32", "long": "int64", "long long": "int64"}
_BASES = {**_SIGNED, **{f"unsigned {kind}": f"u{dtype}" for kind, dtype in _SIGNED.items()}}
_BASES |= {"float": "float32", "double": "float64"}
_SCALARS: dict[str, str] = _BASES | {
    **{f"{kind}{bits}_t": f"{kind}{bits}" for kind in ("int", "uint") for bits in (8, 16, 32, 64)},
    **{"size_t": "uint64", "ptrdiff_t": "int64", "intptr_t": "int64", "uintptr_t": "uint64"},
    **{"uint": "uint32", "ushort": "uint16", "ulong": "uint64"},
    **{"bool": "bool", "signed char": "int8", "half": "float16", "__half": "float16"},
    **{"cuComplex": "complex64", "cuFloatComplex": "complex64", "cuDoubleComplex": "complex128"},
}
# CUDA C++ Programming Guide, "Built-in Vector Types": "unsigned long long" is ulonglong1 to ulonglong4.
_VECTORS: dict[str, tuple[str, int]] = {
    f"{base.replace('unsigned ', 'u').replace(' ', '')}{lanes}": (dtype, lanes)
    for base, dtype in _BASES.items()
    for lanes in (1, 2, 3, 4)
} | {"half2": ("float16", 2), "__half2": ("float16", 2)}

_INTEGER_WORDS = {"unsigned", "signed", "long", "short", "int", "char"}
_TYPE_WORDS = _INTEGER_WORDS | {"float", "double", "bool", "void"}
_QUALIFIERS = re.compile(
    r"\b(?:(?:const|volatile|__restrict__|__restrict|__grid_constant__|struct|enum|class)\b|std\s*::)"
)


@dataclass(frozen=True, slots=True)
class Parameter:
    """One parameter of a kernel.

    ``type`` is the type without qualifiers and pointers ("unsigned int"); ``const`` says whether the
    value, or what a pointer points to, is const. ``dtype`` is None for a struct, an unknown type and
    void. A vector type has the dtype of its components and ``lanes`` of them: float4 is 4 x float32.
    """

    name: str
    type: str
    pointer: bool
    const: bool
    dtype: np.dtype | None
    lanes: int = 1

    def __str__(self) -> str:
        return f"{'const ' if self.const else ''}{self.type}{'*' if self.pointer else ''} {self.name}"


@dataclass(frozen=True, slots=True)
class Declaration:
    """An ``extern "C" __global__`` function: its name, parameters and the line of its name, from 1."""

    name: str
    parameters: tuple[Parameter, ...]
    line: int
    path: Path

    @property
    def where(self) -> str:
        return f"{self.path.name}:{self.line}"

    def __str__(self) -> str:
        return f"{self.name}({', '.join(map(str, self.parameters))})"


class Declarations(dict[str, Declaration]):
    """The launchable kernels of one file by name; ``rejected`` says why others are not launchable."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.path = path
        self.rejected: dict[str, str] = {}
        self.macro = ""  # where a macro makes kernels, which are not seen

    def find(self, name: str) -> Declaration:
        """Return the declaration of a kernel; raises KernelError with what to write or which there are."""
        if name in self:
            return self[name]
        if name in self.rejected:
            raise KernelError(self.rejected[name])
        import difflib

        known = sorted(self) or sorted(self.rejected)
        close = difflib.get_close_matches(name, known, n=1)
        hint = f"; did you mean {close[0]}?" if close else "."
        there = f"It declares {', '.join(known)}" if known else "It declares no __global__ function"
        if self.macro:
            hint += f" The macro in {self.macro} makes kernels, which are not seen: write {name} without it."
        raise KernelError(f"{self.path} has no kernel {name!r}. {there}{hint}")


_DIRECTIVE = re.compile(r"^[ \t]*#(?:\\\n|[^\n])*", re.MULTILINE)


def read(path: Path) -> Declarations:
    """Read the kernels that a file declares, and the files that it includes from beside it.

    Raises KernelError if it cannot be read.
    """
    found = Declarations(path)
    aliases: dict[str, str | None] = {}
    for file, source in reversed(with_included(path)):
        aliases |= aliases_of(source)
        more = parse(source, file, aliases)
        found |= more
        found.rejected |= more.rejected
        found.macro = more.macro or found.macro
    return found


def _closing(code: str, opening: int) -> int:
    """Return the offset of the bracket that closes the one at ``opening``, or the end of the source."""
    pair = {"(": ")", "{": "}"}[code[opening]]
    depth = 0
    for offset in range(opening, len(code)):
        if code[offset] == code[opening]:
            depth += 1
        elif code[offset] == pair:
            depth -= 1
            if depth == 0:
                return offset
    return len(code)


_NAME_OR_END = re.compile(r"(?P<name>\w+)\s*(?P<open>\()|(?P<end>[;{}])")
_ATTRIBUTES = {"__launch_bounds__", "__cluster_dims__", "__maxnreg__", "__block_size__", "__attribute__"}


def _signature(code: str, start: int) -> tuple[str, int, str, bool] | None:
    """Find the function declared at ``start``: name, offset, parameter text, and whether a body follows."""
    while match := _NAME_OR_END.search(code, start):
        if match["end"]:
            return None
        close = _closing(code, match.start("open"))
        if match["name"] not in _ATTRIBUTES:
            text = code[match.start("open") + 1 : close]
            return match["name"], match.start("name"), text, code[close + 1 :].lstrip().startswith("{")
        start = close + 1
    return None


def _split(text: str) -> Iterator[str]:
    """Yield the parameter texts: split at the commas outside template arguments and brackets."""
    if text.strip() in ("", "void"):
        return
    depth, begin = 0, 0
    for offset, character in enumerate(text):
        if character in "<([":
            depth += 1
        elif character in ">)]":
            depth -= 1
        elif character == "," and depth == 0:
            yield text[begin:offset]
            begin = offset + 1
    yield text[begin:]


def _canonical(words: list[str]) -> str:
    """Spell an integer type in one way: "long unsigned int" is "unsigned long"."""
    if not set(words) <= _INTEGER_WORDS:
        return " ".join(words)
    size = [word for word in words if word in ("long", "short", "char")]
    sign = [word for word in words if word == "unsigned" or (word == "signed" and "char" in size)]
    return " ".join([*sign, *(size or ["int"])])


def _resolved(kind: str, aliases: Mapping[str, str | None]) -> tuple[str, int]:
    """Return what a type's name stands for in the end, and how often as a pointer."""
    stars = 0
    for _ in range(8):  # an alias of an alias, and none of itself
        if kind in _VECTORS or kind in _SCALARS or not (meant := aliases.get(kind)):
            break
        stars += meant.count("*")
        kind = _canonical(re.findall(r"[\w:]+", _QUALIFIERS.sub(" ", meant)))
    return kind, stars


def _parameter(text: str, number: int, aliases: Mapping[str, str | None]) -> Parameter:
    text, array = re.subn(r"\[[^\]]*\]", "", text.partition("=")[0])
    before_pointer = text.split("*")[0]
    stars = text.count("*") + array
    words = re.findall(r"[\w:]+(?:\s*<.*>)?", _QUALIFIERS.sub(" ", text).replace("*", " "))
    name = f"argument{number}"
    if len(words) > 1 and words[-1] not in _TYPE_WORDS:
        name = words.pop()
    kind = _canonical(words)
    meant, more = _resolved(kind, aliases)
    stars += more
    dtype, lanes = _VECTORS.get(meant) or (_SCALARS.get(meant), 1)
    if stars > 1:  # a table of pointers: 64-bit addresses, of a kind that nobody here can check
        dtype, lanes, kind = None, 1, kind + "*" * (stars - 1)
    const = re.search(r"\bconst\b", before_pointer) is not None
    return Parameter(name, kind, stars > 0, const, np.dtype(dtype) if dtype else None, lanes)


def _advice(path: Path, line: int, name: str, template: bool, text: str) -> str:
    if template:
        return (
            f"{path.name}:{line}: {name} is a template, which has no name to launch by; add a one-line "
            f'wrapper, for example: extern "C" __global__ void {name}_f32(const float* src, float* dst, '
            f"int n) {{ {name}_body<float>(src, dst, n); }} and a __device__ {name}_body for the work."
        )
    parameters = " ".join(text.split())
    return (
        f'{path.name}:{line}: {name} is __global__ but not extern "C", so its name is mangled; '
        f'write: extern "C" __global__ void {name}({parameters})'
    )


_MACRO = re.compile(
    r"^[ \t]*#[ \t]*define[ \t]+(\w+)(\(?)((?:\\\n|[^\n])*\b__global__\b(?:\\\n|[^\n])*)$", re.MULTILINE
)


def _with_macros(source: str, found: Declarations) -> str:
    """Expand the macros without parameters that stand for a kernel's qualifiers, and note the others."""
    for match in _MACRO.finditer(source):
        if match[2]:
            found.macro = f"{found.path.name}:{source.count(chr(10), 0, match.start()) + 1}"
        else:
            body = match[3].replace("\\\n", " ").strip()
            source = re.sub(rf"(?<!define )\b{match[1]}\b", body.replace("\\", r"\\"), source)
    return source


def parse(source: str, path: Path, aliases: Mapping[str, str | None] | None = None) -> Declarations:
    """Return the kernels that CUDA source declares ``extern "C" __global__``, by name.

    The source is read as text, without a preprocessor: a kernel that a macro with parameters makes is not
    seen. ``aliases`` say what other names of types stand for, those of ``source`` unless given.
    Kernels that cannot be launched by name (C++ linkage, templates, two declarations that differ)
    are left out; ``Declarations.find`` says why when one is asked for.
    """
    # Without comments, literals and preprocessor lines; offsets and lines stay.
    found = Declarations(path)
    aliases = aliases_of(source) if aliases is None else aliases
    expanded = _with_macros(blanked(source, keep=lambda text: text == '"C"'), found)
    code = _DIRECTIVE.sub(blank, expanded)
    blocks = [
        (match.end() - 1, _closing(code, match.end() - 1))
        for match in re.finditer(r'\bextern\s*"C"\s*\{', code)
    ]
    for match in re.finditer(r"\b__global__\b", code):
        signature = _signature(code, match.end())
        if signature is None:
            continue
        name, offset, text, defined = signature
        line = code.count("\n", 0, offset) + 1
        # What is before it in the same declaration: extern "C", template<...>, attributes.
        prefix = re.split("[;{}]", code[: match.start()])[-1]
        c_linkage = re.search(r'\bextern\s*"C"', prefix) is not None or any(a < offset < b for a, b in blocks)
        template = re.search(r"\btemplate\b", prefix) is not None
        if template or not c_linkage:
            found.rejected.setdefault(name, _advice(path, line, name, template, text))
            continue
        parameters = tuple(
            _parameter(part.strip(), number, aliases) for number, part in enumerate(_split(text), 1)
        )
        _add(found, Declaration(name, parameters, line, path), defined)
    return found


def _add(found: Declarations, new: Declaration, defined: bool) -> None:
    """Keep ``new``; a definition replaces its forward declaration, one that differs makes both unusable."""
    old = found.get(new.name)
    if old is None or _types(old) == _types(new):
        if old is None or defined:
            found[new.name] = new
        return
    del found[new.name]
    found.rejected[new.name] = (
        f"{new.path.name}:{new.line}: {new.name} is declared with other parameters than on line {old.line}, "
        "and preprocessor conditions are not evaluated here; give the two different names."
    )


def _types(declaration: Declaration) -> list[tuple[str, bool]]:
    return [(parameter.type, parameter.pointer) for parameter in declaration.parameters]
