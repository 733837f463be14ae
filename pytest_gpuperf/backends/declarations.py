"""Read kernel declarations from CUDA C++ source; ``arguments.check`` holds a launch to them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import accumulate
from pathlib import Path

import numpy as np

from pytest_gpuperf.backends.functions import closing
from pytest_gpuperf.backends.signature import Row, Signature
from pytest_gpuperf.backends.sources import with_included, without_directives
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
    """A ``__global__`` function: its name, parameters and the line of its name, from 1.

    ``plain``: it is launched by that name alone, and all its types are the language's own. Of another one
    only the compiler knows the parameters: a template, one with C++ linkage or types of other names.
    ``template``: arguments that a template could have, such as "<float, N>"; "" for no template.
    """

    name: str
    parameters: tuple[Parameter, ...]
    line: int
    path: Path
    plain: bool = True
    template: str = ""

    @property
    def where(self) -> str:
        return f"{self.path.name}:{self.line}"

    def __str__(self) -> str:
        name = self.name.rpartition("(")[0] if self.name.endswith(")") else self.name
        return f"{name}({', '.join(map(str, self.parameters))})"


class Declarations(dict[str, Declaration]):
    """The kernels of one file that are launched by their names alone; ``others`` are those that are not."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.path = path
        self.others: list[Declaration] = []

    def declared(self, signature: Signature) -> Declaration:
        """Return the declaration of a kernel whose types a compiler knows, with the names in the source."""
        last = _last_name(signature.name)
        texts = [d for d in (*self.values(), *self.others) if _last_name(d.name) == last]
        text = next((d for d in texts if len(d.parameters) == len(signature.rows)), None)
        parameters = text.parameters if text else [None] * len(signature.rows)
        merged = tuple(
            _merged(parameter, row, number)
            for number, (parameter, row) in enumerate(zip(parameters, signature.rows, strict=True), 1)
        )
        path, line = signature.where or ((text.path, text.line) if text else (self.path, 0))
        return Declaration(signature.name, merged, line, path)

    def unknown(self, name: str, said: str = "") -> KernelError:
        """Return the error for a name that no kernel has: what to write instead, or which there are."""
        import difflib

        same = [d for d in self.others if _last_name(d.name) == _last_name(name)]
        asked = f'kernels["{self.path.name}"]["{{}}"]'.format
        if said:
            said = f" The compiler says: {said.rstrip('.?')}."
        if same and same[0].template:
            others = "other arguments" if name.endswith(">") else "its arguments"
            how = f"name {others}, as in {asked(same[0].name + same[0].template)}"
            return KernelError(f"{same[0].where}: {same[0].name} is a template; {how}.{said}")
        if len(same) > 1 and not name.endswith(")"):
            types = ", ".join(f"{p.type}{'*' * p.pointer}" for p in same[0].parameters)
            how = f"name one by its parameters, as in {asked(f'{same[0].name}({types})')}"
            return KernelError(f"{same[0].where}: {same[0].name} is declared more than once; {how}.{said}")
        known = sorted({*self, *(d.name for d in self.others)})
        close = [same[0].name] if same else difflib.get_close_matches(name, known, n=1)
        hint = f"; did you mean {close[0]}?" if close and close[0] != name else "."
        there = f"It declares {', '.join(known)}" if known else "It declares no __global__ function"
        return KernelError(f"{self.path.name} has no kernel {name!r}. {there}{hint}{said}")


def _last_name(name: str) -> str:
    """Return a name without scopes, template arguments and parameters."""
    return re.split("[<(]", name, maxsplit=1)[0].rpartition("::")[2].strip()


def _merged(text: Parameter | None, row: Row, number: int) -> Parameter:
    dtype = row.dtype
    if text and text.pointer == row.pointer:
        return replace(
            text, const=row.const or (text.const and not row.pointer), dtype=dtype, lanes=row.lanes
        )
    kind = {"v": "void", "V": "struct"}.get(row.kind) or (dtype.name if dtype else "number")
    lanes = f"x{row.lanes}" if row.lanes > 1 else ""
    name = text.name if text else f"argument{number}"
    return Parameter(name, f"{kind}{lanes}", row.pointer, row.const, dtype, row.lanes)


def read(path: Path) -> Declarations:
    """Read the kernels that a file declares, and the files that it includes from beside it.

    Raises KernelError if it cannot be read.
    """
    found = Declarations(path)
    for file, source in reversed(with_included(path)):
        more = parse(source, file)
        found |= more
        found.others += more.others
    return found


_NAME_OR_END = re.compile(r"(?P<name>\w+)\s*(?P<open>\()|(?P<end>[;{}])")
_ATTRIBUTES = {"__launch_bounds__", "__cluster_dims__", "__maxnreg__", "__block_size__", "__attribute__"}


def _signature(code: str, start: int) -> tuple[str, int, str, bool] | None:
    """Find the function declared at ``start``: name, offset, parameter text, and whether a body follows."""
    while match := _NAME_OR_END.search(code, start):
        if match["end"]:
            return None
        close = closing(code, match.start("open"))
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


def _arguments(code: str) -> str:
    """Return arguments for the template's parameters that ``code`` begins with, but its own: <float, N>."""
    while (shorter := re.sub(r"\([^()]*\)", "", code)) != code:  # a > in brackets compares
        code = shorter
    depths = accumulate((character == "<") - (character == ">") for character in code)
    end = next((offset for offset, depth in enumerate(depths) if depth < 0), len(code))
    asked = [text for text in _split(code[:end]) if text.strip() and not re.search(r"=|\.\.\.", text)]
    types = (re.match(r"\s*(typename|class)\b", text) for text in asked)
    found = ("float" if type_ else text.split()[-1] for type_, text in zip(types, asked, strict=True))
    return f"<{', '.join(found)}>"


def _canonical(words: list[str]) -> str:
    """Spell an integer type in one way: "long unsigned int" is "unsigned long"."""
    if not set(words) <= _INTEGER_WORDS:
        return " ".join(words)
    size = [word for word in words if word in ("long", "short", "char")]
    sign = [word for word in words if word == "unsigned" or (word == "signed" and "char" in size)]
    return " ".join([*sign, *(size or ["int"])])


def _parameter(text: str, number: int) -> Parameter:
    text, array = re.subn(r"\[[^\]]*\]", "", text.partition("=")[0])
    before_pointer = text.split("*")[0]
    stars = text.count("*") + array
    words = re.findall(r"[\w:]+(?:\s*<.*>)?", _QUALIFIERS.sub(" ", text).replace("*", " "))
    name = f"argument{number}"
    if len(words) > 1 and words[-1] not in _TYPE_WORDS:
        name = words.pop()
    kind = _canonical(words)
    dtype, lanes = _VECTORS.get(kind) or (_SCALARS.get(kind), 1)
    if stars > 1:  # a table of pointers: 64-bit addresses, of a kind that nobody here can check
        dtype, lanes, kind = None, 1, kind + "*" * (stars - 1)
    const = re.search(r"\bconst\b", before_pointer) is not None
    return Parameter(name, kind, stars > 0, const, np.dtype(dtype) if dtype else None, lanes)


def _known(parameter: Parameter) -> bool:
    """Say whether a parameter's type is the language's own, and no name that stands for another."""
    void = parameter.pointer and parameter.type in ("void", "void*")
    tables = parameter.pointer and parameter.type.rstrip("*") in (*_SCALARS, *_VECTORS, "void")
    return parameter.dtype is not None or void or tables


def parse(source: str, path: Path) -> Declarations:
    """Return the kernels that CUDA source declares, by name.

    The source is read as text, without a preprocessor: what a macro makes is not seen, and a branch that is
    off is. A compiler is asked for kernels that are not ``plain``, and for those that are not found here.
    """
    found = Declarations(path)
    code = without_directives(source)
    blocks = [
        (match.end() - 1, closing(code, match.end() - 1), match[1])
        for match in re.finditer(r'\b(?:extern\s*"C"|namespace\s+([\w:]+))\s*\{', code)
    ]
    for match in re.finditer(r"\b__global__\b", code):
        signature = _signature(code, match.end())
        if signature is None:
            continue
        name, offset, text, defined = signature
        line = code.count("\n", 0, offset) + 1
        # What is before it in the same declaration: extern "C", template<...>, attributes.
        prefix = re.split("[;{}]", code[: match.start()])[-1]
        around = [scope for begin, end, scope in blocks if begin < offset < end]
        c_linkage = re.search(r'\bextern\s*"C"', prefix) is not None or None in around
        parameters = tuple(_parameter(part.strip(), number) for number, part in enumerate(_split(text), 1))
        template = re.search(r"\btemplate\b\s*(?:<(.*))?", prefix, re.DOTALL)
        plain = c_linkage and not template and all(map(_known, parameters))
        scope = "" if c_linkage else "".join(f"{scope}::" for scope in around)
        example = _arguments(template[1] or "") if template else ""
        _add(found, Declaration(scope + name, parameters, line, path, plain, example), defined)
    return found


def _add(found: Declarations, new: Declaration, defined: bool) -> None:
    """Keep ``new``; a definition replaces its forward declaration.

    Which of two counts that differ, only a compiler knows.
    """
    old = found.get(new.name)
    for other in (*filter(None, [old]), *found.others):
        if other.name == new.name and _types(other) == _types(new):
            if defined and other.plain:
                found[new.name] = new
            elif defined:
                found.others[found.others.index(other)] = new
            return
    if new.plain and old is None and all(other.name != new.name for other in found.others):
        found[new.name] = new
        return
    found.others.append(replace(new, plain=False))
    if old:
        found.others.append(replace(found.pop(new.name), plain=False))


def _types(declaration: Declaration) -> list[tuple[str, bool]]:
    return [(parameter.type, parameter.pointer) for parameter in declaration.parameters]
