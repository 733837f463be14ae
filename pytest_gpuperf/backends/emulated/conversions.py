"""Read from g++'s own account of a file to which integer type each cast from floating point goes.

x86 has only instructions for signed integers, so the assembly does not tell ``unsigned`` from ``long long``.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

# The flag that has g++ write the account; its lines tell the place as the assembly's .loc do.
FLAG = "-fdump-tree-optimized-lineno-raw="

_FUNCTION = re.compile(r"^;; Function .* \((\S+), funcdef_no=")
_TYPE = re.compile(r"^  ([\w:][\w: ]*?) (\w+);$")
_HEAD = re.compile(r"^\S.* \((.*)\)$")
_PARAMETER = re.compile(r"([\w:][\w: ]*?) (\w+)(?:, |$)")
_CAST = re.compile(
    r"^ *\[(.+):(\d+):(\d+)[^]]*\] gimple_assign <fix_trunc_expr, "
    r"(_\d+|\w+(?=_\d+)|\w+)\w*(?:\(D\))?, (\S+), "
)
_ALIAS = r"\btypedef\s+([\w: ]+?)\s+{0}\s*;|\busing\s+{0}\s*=\s*([\w: ]+?)\s*;"
_WIDTHS = {"char": "u8", "short": "u16", "long": "u64"}

Place = tuple[str, str, int, int]  # a function's symbol, file, line and column


def unsigned_casts(tree: str, code: str) -> dict[Place, list[str]]:
    """Return the types ("u8", "u32", "" for a signed one) that the casts of a place go to, in their order.

    ``code`` is the preprocessed text, whose aliases of types may be in the account. A number that a function
    casts to several types counts as cast to a signed one: g++ may use one instruction for two of them.
    """
    casts = []
    for function, types, line in _lines(tree) if "fix_trunc_expr" in tree else ():
        if match := _CAST.match(line):
            place = function, match[1], int(match[2]), int(match[3])
            casts.append((place, match[5], _unsigned(types.get(match[4], ""), code)))
    uses: dict[tuple[str, str], set[str]] = {}
    for place, number, kind in casts:
        uses.setdefault((place[0], number), set()).add(kind)
    found: dict[Place, list[str]] = {}
    for place, number, kind in casts:
        found.setdefault(place, []).append(kind if len(uses[place[0], number]) == 1 else "")
    return found


def _lines(tree: str) -> Iterator[tuple[str, dict[str, str], str]]:
    function, types = "", dict[str, str]()
    for line in tree.splitlines():
        if match := _FUNCTION.match(line):
            function, types = match[1], {}
        elif match := _HEAD.match(line):
            types |= {name: kind for kind, name in _PARAMETER.findall(match[1])}
        elif match := _TYPE.match(line):
            types[match[2]] = match[1]
        yield function, types, line


def _unsigned(name: str, code: str) -> str:
    """Return "u8" to "u64" for the name of an unsigned type or of an alias of one, else ""."""
    for _ in range(8):
        words = re.sub(r"\w+\s*::\s*", "", name).split()
        if "unsigned" in words:
            return next((kind for word, kind in _WIDTHS.items() if word in words), "u32")
        alias = re.search(_ALIAS.format(words[-1]), code) if words else None
        if not alias:
            return ""
        name = alias[1] or alias[2]
    return ""
