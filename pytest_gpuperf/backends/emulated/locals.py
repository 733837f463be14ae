"""Have kernels tell the runtime which of their own variables are declared without a value.

The runtime then sees every access to them, and stops a thread that reads what it has not written. That costs
time and changes the code, so counters are taken without it, and of variables that are no arrays only those
are watched of which g++ warns; whether they are read too early is then seen on the path that is executed.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from pytest_gpuperf.backends.emulated.preprocessed import Code
from pytest_gpuperf.backends.functions import Function, closing
from pytest_gpuperf.backends.signature import Unresolved
from pytest_gpuperf.errors import KernelError

# Of a build with watched variables: no load may be moved out of a loop or before a condition. What every path
# computes may be, which is most of what that gains.
_FLAGS = ("-fno-tree-loop-im", "-fno-tree-cselim", "-ftree-pre", "-fcode-hoisting")
# g++ warns before it puts a value in the place of one that was never given.
WARNINGS = ("-fno-tree-ccp", "-fno-tree-fre", "-Wuninitialized", "-Wmaybe-uninitialized")

# Where it is used, and where it was declared, which g++ says only if that is elsewhere.
_WARNED = re.compile(r"^(.+?):(\d+):\d+: \w+: .(\w+). (?:is used|may be used|was declared)", re.MULTILINE)
_STATEMENT = re.compile(r"[;{}](?=([^;{}]*);)")
_BEFORE = re.compile(
    r"(?:\s*#[^\n]*\n)*\s*(?:(?:__attribute__\s*\(\((?:[^()]|\([^()]*\))*\)\)|alignas\s*\([^()]*\))\s*)*",
    re.S,
)
_TYPE = re.compile(
    r"(?:(?:const|volatile)\s+)*"
    r"(?:(?:unsigned|signed|long|short)\b(?:\s+(?:unsigned|signed|long|short|int|char|double)\b)*"
    r"|(?:(?:typename|struct)\s+)?[\w:]+(?:\s*<[^()=;]*>)?)"
)
_DECLARATOR = re.compile(
    r"\s*(?:const\b|volatile\b|[*\s])*(\w+)\s*((?:\[[^][]*(?:\[[^][]*\][^][]*)*\]\s*)*)"
    r"(=(?:[^][,()]|\([^()]*\)|\[[^][]*\])*)?(?:,|$)"
)
_OTHER = re.compile(
    r"\b(?:static|extern|thread_local|constexpr|typedef|using|return|delete|new|throw|goto|else|case|default|namespace)\b"
)
_CLASS = re.compile(
    r"(?:\s*#[^\n]*\n)*\s*(?:(?:typedef|static|const|template\s*<[^{}]*>)\s*)*(?:struct|class|union|enum)\b"
)
_SHUFFLE = re.compile(r"\b(?:__)?shfl\w*\s*\(")
_LEFT = " __attribute__((cleanup(gpuperf_left)))"


def watched(
    make: Callable[[bytes, Sequence[str]], str],
    warn: Callable[[bytes], str],
    code: Code,
    behind: str,
    flags: Sequence[str],
) -> str:
    """Return what ``make`` makes of the code with its local variables watched, and of ``behind``.

    Where that fails, the code is made as it is, and then says itself what is wrong with it. ``warn`` returns
    what g++ says under WARNINGS.
    """
    plain = os.fsencode(code.compiled() + behind)
    declared = list(_declared(code))
    said = "" if all(local.array for local in declared) else warn(plain)
    places = {(Path(match[1]).name, int(match[2]), match[3]) for match in _WARNED.finditer(said)}
    found = [local for local in declared if local.array or _place(code, local) in places]
    for local in found:
        code.insert(local.end, _LEFT)
        code.insert(local.after, f' gpuperf::declared({local.name}, "{local.name}");')
    if found:
        with suppress(KernelError, Unresolved):
            return make(os.fsencode(code.compiled() + behind), [*flags, *_FLAGS])
    return make(plain, flags)


@dataclass(frozen=True, slots=True)
class _Local:
    """A local variable without a value: its name, and where its declarator and its declaration end."""

    name: str
    end: int
    after: int
    array: bool


def _place(code: Code, local: _Local) -> tuple[str, int, str]:
    file, line = code.where(local.end - 1)
    return file.name, line, local.name


def _declared(code: Code) -> Iterator[_Local]:
    for function in code.functions():
        at, exchanged = function.body, _exchanged(code.code, function)
        while match := _STATEMENT.search(code.code, at, function.end):
            at, end = match.end(), match.end(1)
            before = _BEFORE.match(code.code, at)
            declared = list(_declarators(code.code, before.end() if before else at, end))
            if declared and not _in_class(code.code, at, function.body):
                locals_ = (_Local(name, stop, end + 1, array) for name, stop, array in declared)
                yield from (local for local in locals_ if local.array or local.name not in exchanged)


def _exchanged(code: str, function: Function) -> set[str]:
    """Return the names in the arguments of shuffles, which every lane hands over and few may have written."""
    found = _SHUFFLE.finditer(code, function.body, function.end)
    return {
        name
        for call in found
        for name in re.findall(r"\w+", code[call.end() : closing(code, call.end() - 1)])
    }


def _declarators(code: str, begin: int, end: int) -> Iterator[tuple[str, int, bool]]:
    text = code[begin:end]
    kind = _TYPE.match(text)
    if not kind or _OTHER.search(text) or kind.end() == len(text):
        return
    at, found = kind.end(), list[tuple[str, int, bool]]()
    while at < len(text):
        match = _DECLARATOR.match(text, at)
        if not match or (at == kind.end() and not re.match(r"[\s*]", text[at:])):
            return
        stop = match.end(2) if match[2] else match.end(1)
        if not match[3]:
            found.append((match[1], begin + len(text[:stop].rstrip()), bool(match[2])))
        at = match.end()
    yield from found


def _in_class(code: str, at: int, body: int) -> bool:
    """Say whether the innermost braces around an offset, up to a function's body, are a class's."""
    depth = 0
    for offset in range(at - 1, body, -1):
        if code[offset] == "}":
            depth += 1
        elif code[offset] == "{":
            if not depth:
                return bool(_CLASS.match(re.split("[;{}]", code[body:offset])[-1]))
            depth -= 1
    return False
