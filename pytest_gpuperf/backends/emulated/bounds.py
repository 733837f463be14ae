"""Have kernels check the indices of their own arrays that g++ cannot show to be inside.

An array of a thread's own has no gap around it, as other variables have, so an overrun would go unseen. g++'s
``-fsanitize=bounds`` tells which indices its optimiser leaves to be checked. Those of a function's own arrays
are given a check in the text, so that no other array's index costs anything.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Collection, Iterator
from typing import NamedTuple

from pytest_gpuperf.backends.emulated.preprocessed import Code, unescaped
from pytest_gpuperf.backends.functions import closing, enclosing

FLAGS = ("-fsanitize=bounds",)
ACCOUNT = "-fdump-tree-gimple="  # that of what each function declares

_DECLARATION = (
    r"[;{{}}]\s*(?!(?:static|extern|thread_local|return|else|goto|using|typedef)\b)"
    r"[\w:]+(?:\s*<[^()=;]*>)?[\s*](?:[^;{{}}()=]|=[^;{{}}(),]*,)*?\b{0}\s*\["
)
_DECLARES = re.compile(_DECLARATION.format(r"\w+"))
_MEMBER = re.compile(r"\b(?:struct|class|union)\b[^;{}()]*\{[^}]*\w\s*\[")
_CHECK = re.compile(
    r"^\.Lubsan_data\d+:\n\t\.quad\t(\.LC\d+)\n\t\.long\t(\d+)\n\t\.long\t(\d+)\n", re.MULTILINE
)
_FILE = re.compile(r'^(\.LC\d+):\n\t\.string\t"(.*)"$', re.MULTILINE)
_SHARED = re.compile(r"\b(?:thread_local|static|extern)\b[^;{}=]*?\b(\w+)\s*\[")
_MARKER = re.compile(r'# (\d+) "((?:[^"\\]|\\.)*)"')
_LOCAL = re.compile(r"^\s+(static )?[^;=()]*[\w>] (\w+)(\[[^;]*\])?;$", re.MULTILINE)


class _Place(NamedTuple):
    """A bracket around an index in the text: its file and line, its number there, and what ends with it."""

    file: str
    line: int
    number: int
    tail: str


_TAIL = 12


def checked_indices(code: Code, behind: str, optimised: Callable[[str], tuple[str, str] | None]) -> None:
    """Insert a check into the code at each index of an own array that may be outside.

    ``optimised`` returns a text's assembly under FLAGS and the ACCOUNT of it, None where it does not compile.
    """
    if not (_DECLARES.search(code.code) or _MEMBER.search(code.code)):
        return
    text = code.compiled() + behind
    if not (made := optimised(text)):
        return
    assembly, account = made
    own = {name + bool(array) * "[" for static, name, array in _LOCAL.findall(account) if not static}
    opened = {opening for place in _places(assembly, text) for opening in _openings(code, place)}
    bodies = list(code.functions(members=True))
    for opening in sorted(opened):
        body = next((code.code[f.body : f.end] for f in bodies if f.body <= opening < f.end), "")
        own_here = own - {name + "[" for name in _SHARED.findall(body)}
        for offset, inserted in _check(code.code, opening, own_here):
            code.insert(offset, inserted)


def _places(assembly: str, text: str) -> Iterator[_Place]:
    """Yield the indices that are left to be checked."""
    files = {label: unescaped(name) for label, name in _FILE.findall(assembly)}
    wanted: dict[tuple[str, int], set[int]] = defaultdict(set)
    for label, line, column in _CHECK.findall(assembly):
        wanted[files.get(label, ""), int(line)].add(int(column))
    file, number = "", 0
    for line in text.split("\n"):
        if marker := _MARKER.match(line):
            file, number = unescaped(marker[2]), int(marker[1])
            continue
        for column in wanted.get((file, number), ()):
            if line[column - 1 : column] in ("[", "]"):
                brackets = len(re.findall(r"[][]", line[:column]))
                yield _Place(file, number, brackets, line[:column][-_TAIL:])
        number += 1


def _openings(code: Code, place: _Place) -> Iterator[int]:
    """Yield the offsets in the code at which such an index may open."""
    for begin, end in code.lines(place.file, place.line):
        brackets = [match.start() for match in re.finditer(r"[][]", code.user[begin:end])]
        at = begin + brackets[place.number - 1] if place.number <= len(brackets) else end
        # A macro of a system header breaks the line, and each part has its brackets.
        if code.user[begin : at + 1].endswith(place.tail):
            yield at if code.code[at] == "[" else enclosing(code.code, at, "[]") or 0


def _check(code: str, opening: int, own: Collection[str]) -> Iterator[tuple[int, str]]:
    """Yield what is inserted where for the index that opens there, if it is an own array's."""
    if not (root := _root(code, opening)):
        return
    name, array, before = root[0], code[root.start() : opening], code[: root.start()].rstrip()
    key = name + "[" if code[root.end() : opening + 1].lstrip().startswith("[") else name
    flat = re.search(r"\[\s*0\s*\]\s*$", array)  # a[0][i], with i through all of a
    if flat or key not in own or before.endswith(("->", "::")):
        return
    array = " ".join(array.split())
    behind = " + 1" if re.search(r"(?<!&)&$", before) else ""  # its address alone
    yield opening + 1, "gpuperf::within(("
    yield closing(code, opening), f'), sizeof({array}) / sizeof(({array})[0]){behind}, "{array}")'


def _root(code: str, at: int) -> re.Match[str] | None:
    """Return the name with which the expression begins that ends at an offset: a of ``a[i].b``."""
    while True:
        end = len(code[:at].rstrip())
        if code[end - 1 : end] == "]":
            at = enclosing(code, end - 1, "[]") or 0
            continue
        begin = end - len(re.split(r"\W", code[max(0, end - 200) : end])[-1])
        name = re.compile(r"[A-Za-z_]\w*").match(code, begin, end)
        before = code[:begin].rstrip()
        if not name or not before.endswith("."):
            return name
        at = len(before) - 1
