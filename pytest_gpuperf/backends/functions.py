"""Find the functions of CUDA C++ code, and tell those that only a host can call."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

_STRUCTURE = re.compile(r"[{}();]")
_ATTRIBUTE = re.compile(r"(?:__attribute__|alignas|__launch_bounds__|decltype|__align__)\s*$")
_SCOPE = re.compile(r'(?:inline\s+)?namespace\b\s*([\w:]*)[^()]*$|extern\s+"C"$')
_CLASS = re.compile(
    r"(?:(?:template\s*<.*>|typedef|static|const)\s*)*(?:class|struct|union)\b[^()=]*$", re.DOTALL
)
_LABEL = re.compile(r"\s*(?:(?:public|private|protected)\s*:\s*)+")
# Of a constructor, from the colon on.
_INITIALISER = re.compile(r"\s*(,[^{}();]*)?[{(]")
_INITIALISERS = re.compile(r"\)\s*(?:noexcept\s*)?:(?!:)[^;{}]*$")
# What makes a class one for the host.
_OF_THE_RUNTIME = re.compile(r"<<<|\bcu(?:da)?[A-Z]\w*\s*\(|\b(?:malloc|free|calloc)\s*\(|\bnew\b")
_ON_DEVICE = re.compile(r"\b(?:__global__|__device__|constexpr|consteval)\b")


@dataclass(frozen=True, slots=True)
class Function:
    """A function that is defined: its text from ``begin`` to ``end``, where its body opens.

    ``of_class`` is where the class opens that it is a member of, or -1.
    """

    begin: int
    body: int
    end: int
    scope: tuple[str, ...]
    of_class: int = -1


def functions(code: str, members: bool = False) -> Iterator[Function]:
    """Yield the functions that are defined at namespace scope in code without comments and literals.

    With ``members`` also those in classes there.
    """
    scopes, classes, begin, at, parameters = list[str](), list[int](), 0, 0, False
    while match := _STRUCTURE.search(code, at):
        at = match.end()
        if match[0] == "(":
            at = closing(code, match.start()) + 1
            parameters |= not _ATTRIBUTE.search(code, begin, match.start())
            continue
        if match[0] == "{":
            if classes and (label := _LABEL.match(code, begin)):
                begin = label.end()
            head = code[begin : match.start()].strip()
            if not parameters and (name := _SCOPE.match(head)):
                scopes.append(name[1] or "")
                classes.append(-1)
            elif members and not parameters and _CLASS.match(head):
                scopes.append("")
                outer = classes[-1] if classes else -1
                classes.append(match.start() if outer < 0 else outer)
            else:
                at = closing(code, match.start()) + 1
                if not parameters or head.endswith("=") or re.search(r"=\s*\[", head):
                    continue  # a class or an initialiser, up to its semicolon
                body, at = _behind_initialisers(code, head, match.start(), at)
                yield Function(begin, body, at, tuple(filter(None, scopes)), classes[-1] if classes else -1)
        elif match[0] == "}" and scopes:
            scopes.pop()
            classes.pop()
        begin, parameters = at, False


def _behind_initialisers(code: str, head: str, body: int, at: int) -> tuple[int, int]:
    """Return where a constructor's body opens and what follows it, where its head ended at an initialiser."""
    follows = bool(_INITIALISERS.search(head))
    while follows and (match := _INITIALISER.match(code, at)):
        body, follows = match.end() - 1, bool(match[1])
        at = closing(code, body) + 1
    return body, at


def of_host(code: str) -> Iterator[Function]:
    """Yield the functions that only a host can call: main, launches, allocations.

    One with a kernel inside is none, but two that a condition of the preprocessor chooses from. Of a
    class it is all such members, if one of them calls the CUDA runtime or the allocator.
    """
    members = dict[int, list[Function]]()
    for found in functions(code, members=True):
        text = code[found.body : found.end]
        if _ON_DEVICE.search(code, found.begin, found.body) or "__global__" in text:
            continue
        if found.of_class < 0:
            yield found
        else:
            members.setdefault(found.of_class, []).append(found)
    for those in members.values():
        if any(_OF_THE_RUNTIME.search(code, member.body, member.end) for member in those):
            yield from those


def closing(code: str, opening: int) -> int:
    """Return the offset of the bracket that closes the one at ``opening``, or the end of the code."""
    pair = code[opening] + {"(": ")", "{": "}", "[": "]"}[code[opening]]
    depth = 0
    for match in re.compile(f"[{re.escape(pair)}]").finditer(code, opening):
        depth += 1 if match[0] == pair[0] else -1
        if depth == 0:
            return match.start()
    return len(code) - 1


def enclosing(code: str, at: int, pair: str = "{}", least: int = 0) -> int | None:
    """Return the offset of the bracket that opens what is around an offset, None for one up to ``least``."""
    depth = 0
    for offset in range(at - 1, least, -1):
        if code[offset] == pair[1]:
            depth += 1
        elif code[offset] == pair[0]:
            if not depth:
                return offset
            depth -= 1
    return None
