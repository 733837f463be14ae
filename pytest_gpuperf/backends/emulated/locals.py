"""Have kernels tell the runtime which of their own variables are declared without a value.

The runtime then sees every access to them, and stops a thread that reads what it has not written. That costs
time and changes the code, so counters are taken without it, and g++ says first which variables need it: each
is given a value that g++ knows nothing of, and where its optimiser finds no use of that value, all paths
write the variable before they read it. What remains is looked at while it runs.
"""

from __future__ import annotations

import os
import re
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence, Set
from contextlib import suppress
from dataclasses import dataclass
from functools import partial

from pytest_gpuperf.backends.emulated.bounds import FLAGS, checked_indices
from pytest_gpuperf.backends.emulated.calls import Made, built_in
from pytest_gpuperf.backends.emulated.preprocessed import Code
from pytest_gpuperf.backends.functions import Function, closing, enclosing
from pytest_gpuperf.backends.signature import Unresolved
from pytest_gpuperf.errors import KernelError

# Of a build with watched variables: no load may be moved out of a loop or before a condition. What every path
# computes may be, which is most of what that gains.
_FLAGS = ("-fno-tree-loop-im", "-fno-tree-cselim", "-ftree-pre", "-fcode-hoisting")
# A call that is still there, as its name is mangled.
_USED = re.compile(r"gpuperf7unknownILi(\d+)E")
_STATEMENT = re.compile(r"[;{}](?=([^;{}]*);)")
_BEFORE = re.compile(
    r"(?:\s*#[^\n]*\n)*\s*(?:(?:__attribute__\s*\(\((?:[^()]|\([^()]*\))*\)\)|alignas\s*\([^()]*\))\s*)*",
    re.S,
)
_TYPE = re.compile(
    r"(?:(?:const|volatile)\s+)*"
    r"(?:(?:unsigned|signed|long|short)\b(?:\s+(?:unsigned|signed|long|short|int|char|double)\b)*"
    r"|(?:(?:typename|struct|class|union|enum)\s+)?[\w:]+(?:\s*<[^()=;]*>)?)"
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
_VARIABLE = re.compile(r"(?<![\w.&>:])[A-Za-z_]\w*\b(?!\s*(?:[\w.\[(:]|->))")
_LEFT = " __attribute__((cleanup(gpuperf_left)))"


Make = Callable[[bytes, Sequence[str]], Made]
Optimised = Callable[..., tuple[str, str] | None]


def watched(make: Make, optimised: Optimised, code: Code, behind: str, flags: Sequence[str]) -> str:
    """Return what ``make`` makes of the code with its local variables watched, and of ``behind``.

    Where that fails, the code is made as it is, and then says itself what is wrong with it. ``optimised``
    returns the assembly and the account of a text, under more flags, None where it does not compile.
    """
    before = code.insertions()
    checked_indices(code, behind, lambda text: optimised(text, *FLAGS))
    with suppress(KernelError, Unresolved):
        return _watched(make, optimised, code, behind, flags)
    code.restore(before)
    return _watched(make, optimised, code, behind, flags)


def _watched(make: Make, optimised: Optimised, code: Code, behind: str, flags: Sequence[str]) -> str:
    found = list(_declared(code))
    if found:
        asks = [(local.after, f" gpuperf::unset<{n}>({local.name});") for n, local in enumerate(found)]
        if made_best := optimised(code.compiled(asks) + behind):
            used = {int(number) for number in _USED.findall(made_best[0])}
            found = [local for number, local in enumerate(found) if number in used]
    structures = True
    while found:
        names = {local.name for local in found}
        made_of = partial(_telling, make, code, behind, [*flags, *_FLAGS], found, structures)
        try:
            made = built_in(made_of, code, names)
        except (KernelError, Unresolved):
            break
        # A structure that a call still writes would seem never to be written.
        lost = {call.own for call in made.unseen if call.stores and (not call.own or call.own in names)}
        if not lost or not structures:
            return made.assembly
        structures = "" not in lost
        found = [local for local in found if local.name not in lost]
    return built_in(lambda: make(os.fsencode(code.compiled() + behind), flags), code).assembly


def _telling(
    make: Make,
    code: Code,
    behind: str,
    flags: Sequence[str],
    found: Sequence[_Local],
    structures: bool,
) -> Made:
    """Return what is made of the code that tells of each variable where it is declared and left."""
    declared = f"gpuperf::declared<{str(structures).lower()}>"
    tells = [(local.after, f' {declared}({local.name}, "{local.name}");') for local in found]
    shuffled = sorted({place for local in found for place in local.shuffled})
    handed = [each for begin, end in shuffled for each in ((begin, "gpuperf::handed("), (end, ")"))]
    told = code.compiled([*((local.end, _LEFT) for local in found), *tells, *handed])
    return make(os.fsencode(told + behind), flags)


@dataclass(frozen=True, slots=True)
class _Local:
    """A local variable without a value: where its declarator and its declaration end, and shuffles get it."""

    name: str
    end: int
    after: int
    shuffled: Set[tuple[int, int]]


def _declared(code: Code) -> Iterator[_Local]:
    for function in code.functions(members=True):
        at, finish, exchanged = function.body, function.end, _exchanged(code.code, function)
        while match := _STATEMENT.search(code.code, at, finish):
            at, end = match.end(), match.end(1)
            before = _BEFORE.match(code.code, at)
            start = before.end() if before else at
            declared = list(
                _declarators(code.code, start, end, match[0] == "}" and _of_class(code.code, at - 1))
            )
            if declared and not _in_class(code.code, at, function.body):
                yield from (_Local(name, stop, end + 1, exchanged[name]) for name, stop in declared)


def _exchanged(code: str, function: Function) -> defaultdict[str, set[tuple[int, int]]]:
    """Return where each variable is handed to a shuffle: by every lane, of which few may have written it."""
    found = defaultdict[str, set[tuple[int, int]]](set)
    for call in _SHUFFLE.finditer(code, function.body, function.end):
        for name in _VARIABLE.finditer(code, call.end(), closing(code, call.end() - 1)):
            found[name[0]].add(name.span())
    return found


def _declarators(code: str, begin: int, end: int, of_class: bool) -> Iterator[tuple[str, int]]:
    """Yield the names that a declaration gives no value, and where their declarators end."""
    text = code[begin:end]
    kind = _TYPE.match(text)
    at = 0 if of_class else kind.end() if kind else len(text)
    if _OTHER.search(text) or at == len(text) or not (of_class or re.match(r"[\s*]", text[at:])):
        return
    found = list[tuple[str, int]]()
    while at < len(text):
        match = _DECLARATOR.match(text, at)
        if not match:
            return
        stop = match.end(2) if match[2] else match.end(1)
        if not match[3]:
            found.append((match[1], begin + len(text[:stop].rstrip())))
        at = match.end()
    yield from found


def _of_class(code: str, at: int) -> bool:
    """Say whether a closing brace ends a class whose variables are declared behind it."""
    opening = enclosing(code, at)
    head = re.split("[;{}]", code[:opening][-1000:])[-1] if opening is not None else ""
    return bool(_CLASS.match(head)) and not _OTHER.search(head) and not re.search(r"\benum\b", head)


def _in_class(code: str, at: int, body: int) -> bool:
    """Say whether the innermost braces around an offset, up to a function's body, are a class's."""
    opening = enclosing(code, at, least=body)
    return opening is not None and bool(_CLASS.match(re.split("[;{}]", code[body:opening])[-1]))
