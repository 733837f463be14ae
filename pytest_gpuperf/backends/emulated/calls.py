"""Have structures that functions take and return by value read and written where the hooks see it.

The hooks pass over what a call itself reads and writes. g++'s account of a file tells such calls
(``f(in[i])``, ``out[i] = f()``), and the functions that they name are then built into their callers, as nvcc
does with nearly all: the structure is copied there.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Container, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import NamedTuple

from pytest_gpuperf.backends.emulated.account import Statement
from pytest_gpuperf.backends.emulated.preprocessed import Code
from pytest_gpuperf.backends.functions import closing
from pytest_gpuperf.errors import KernelError

_CALL = re.compile(r"^ *(?:\[[^]]*\] )?gimple_call <(.*)>")
_PLACE = re.compile(r"\[[^][]+:\d+:\d+[^][]*\] ")
_STRING = re.compile(r'"(?:[^"\\]|\\.)*"')
_OPERAND = re.compile(r"(?:[^][(){},]|\((?:[^()]|\([^()]*\))*\)|\[(?:[^][]|\[[^][]*\])*\]|\{[^{}]*\})+")
_VALUE = re.compile(r"&|-?[\d.]|[\w.]*_\d+(?:\(D\))?$|\{|0B|NULL|true$|false$|\(|<retval>")

_BUILT_IN = "inline __attribute__((always_inline)) "
_BEFORE = re.compile(
    r"(?:\s+|(?:public|private|protected)\s*:(?!:)|extern\s*\"C\""
    r"|template\s*<(?:[^<>]|<(?:[^<>]|<[^<>]*>)*>)*>)*"
)
_ATTRIBUTES = re.compile(
    r"__attribute__\s*\(\((?:[^()]|\([^()]*\))*\)\)|\b__\w+__\s*\((?:[^()]|\([^()]*\))*\)"
)
_CALLED = re.compile(r"(operator\s*(?:\(\s*\)|[^\w\s(]+)|\w+)\s*(?:<[^<>()]*>\s*)?\(")
_LAMBDA = re.compile(r"\[[^][]*\]\s*(?=[({])")


class Unseen(NamedTuple):
    """What a call reads or writes: the called function, and the variable's name if it is the caller's own."""

    callee: str
    own: str
    stores: bool


@dataclass(frozen=True, slots=True)
class Made:
    """A file's assembly, and what of its structures the hooks have not seen."""

    assembly: str
    unseen: frozenset[Unseen]


def unseen(account: Iterable[Statement]) -> Iterator[Unseen]:
    """Yield the structures that calls read and write themselves."""
    for _, types, text in account:
        if "gimple_call <" in text and (call := _CALL.match(text)):
            yield from _operands(_PLACE.sub("", _STRING.sub("0", call[1])), types)


def _operands(call: str, own: Container[str]) -> Iterator[Unseen]:
    callee, *operands = (each[0].strip() for each in _OPERAND.finditer(call))
    if callee.startswith(("__tsan", "__builtin")):
        return
    for number, operand in enumerate(operands):
        if not _VALUE.match(operand):
            base = re.split(r"\[|\.(?!\d)", operand)[0]
            yield Unseen(callee, base if base in own else "", number == 0)


def built_in(make: Callable[[], Made], code: Code, watched: Collection[str] = ()) -> Made:
    """Return what ``make`` makes of the code, with functions that pass structures built into their callers.

    Those are that pass them through a pointer, or in a variable that is ``watched``; one that calls itself
    stays.
    """
    made, seen = make(), set[str]()
    while names := {call.callee for call in made.unseen if not call.own or call.own in watched} - seen:
        seen |= names
        before = code.insertions()
        for offset, text in _attributes(code, names):
            code.insert(offset, text)
        if code.insertions() == before:
            break
        with suppress(KernelError):
            made = make()
            continue
        code.restore(before)
        break
    return made


def _attributes(code: Code, names: Collection[str]) -> Iterator[tuple[int, str]]:
    for function in code.functions(members=True):
        head = code.code[function.begin : function.body]
        plain = _ATTRIBUTES.sub(lambda match: " " * len(match[0]), head)
        called = _CALLED.search(plain)
        name = re.sub(r"\s", "", called[1]) if called else ""
        itself = re.search(rf"\b{re.escape(name)}\s*[<(]", code.code[function.body : function.end])
        if name in names and "always_inline" not in head and "__global__" not in head and not itself:
            for mark in re.finditer(r"\b__noinline__\b", head):
                code.erase(function.begin + mark.start(), function.begin + mark.end())
            before = _BEFORE.match(head)
            yield function.begin + (before.end() if before else 0), _BUILT_IN
        if "operator()" in names:
            yield from _lambdas(code.code, function.body, function.end)


def _lambdas(code: str, begin: int, end: int) -> Iterator[tuple[int, str]]:
    for match in _LAMBDA.finditer(code, begin, end):
        at, before = match.end(), code[begin : match.start()].rstrip()[-1:]
        if before.isalnum() or before in ("_", "]", ")"):
            continue  # an index
        if code[at] == "{":
            yield at, "() __attribute__((always_inline)) "
            continue
        at = closing(code, at) + 1
        qualifier = re.compile(r"\s*mutable\b").match(code, at)
        yield qualifier.end() if qualifier else at, " __attribute__((always_inline)) "
