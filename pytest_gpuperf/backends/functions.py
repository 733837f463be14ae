"""Find the functions of CUDA C++ code, and tell those that only a host can call."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

_STRUCTURE = re.compile(r"[{}();]")
_ATTRIBUTE = re.compile(r"(?:__attribute__|alignas|__launch_bounds__|decltype|__align__)\s*$")
_SCOPE = re.compile(r'(?:inline\s+)?namespace\b\s*([\w:]*)[^()]*$|extern\s+"C"$')
_CLASS = re.compile(r"\b(?:struct|class|union)\b[^;{}()]*\{")
_ON_DEVICE = re.compile(r"\b(?:__global__|__device__|constexpr|consteval)\b")


@dataclass(frozen=True, slots=True)
class Function:
    """A function defined at namespace scope: its text from ``begin`` to ``end``, where its body opens."""

    begin: int
    body: int
    end: int
    scope: tuple[str, ...]


def functions(code: str) -> Iterator[Function]:
    """Yield the functions that are defined at namespace scope in code without comments and literals."""
    scopes, begin, at, parameters = list[str](), 0, 0, False
    while match := _STRUCTURE.search(code, at):
        at = match.end()
        if match[0] == "(":
            at = closing(code, match.start()) + 1
            parameters |= not _ATTRIBUTE.search(code, begin, match.start())
            continue
        if match[0] == "{":
            head = code[begin : match.start()].strip()
            if not parameters and (name := _SCOPE.match(head)):
                scopes.append(name[1] or "")
            else:
                at = closing(code, match.start()) + 1
                if not parameters or head.endswith("=") or re.search(r"=\s*\[", head):
                    continue  # a class or an initialiser, up to its semicolon
                yield Function(begin, match.start(), at, tuple(filter(None, scopes)))
        elif match[0] == "}" and scopes:
            scopes.pop()
        begin, parameters = at, False


def members(code: str) -> Iterator[Function]:
    """Yield the functions that are defined at namespace scope and in the classes there."""
    yield from _members(code, 0, len(code))


def _members(code: str, begin: int, end: int) -> Iterator[Function]:
    at = begin
    for found in functions(code[begin:end]):
        function = Function(begin + found.begin, begin + found.body, begin + found.end, found.scope)
        yield from _of_classes(code, at, function.begin)
        yield function
        at = function.end
    yield from _of_classes(code, at, end)


def _of_classes(code: str, begin: int, end: int) -> Iterator[Function]:
    while match := _CLASS.search(code, begin, end):
        begin = closing(code, match.end() - 1)
        yield from _members(code, match.end(), begin)


def of_host(code: str) -> Iterator[Function]:
    """Yield the functions that only a host can call: main, launches, allocations.

    One with a kernel inside is none, but two that a condition of the preprocessor chooses from.
    """
    for found in functions(code):
        if (
            not _ON_DEVICE.search(code, found.begin, found.body)
            and "__global__" not in code[found.body : found.end]
        ):
            yield found


def closing(code: str, opening: int) -> int:
    """Return the offset of the bracket that closes the one at ``opening``, or the end of the code."""
    pair = code[opening] + {"(": ")", "{": "}"}[code[opening]]
    depth = 0
    for match in re.compile(f"[{re.escape(pair)}]").finditer(code, opening):
        depth += 1 if match[0] == pair[0] else -1
        if depth == 0:
            return match.start()
    return len(code) - 1
