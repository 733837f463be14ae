"""Read from g++'s own account of a file to which integer type each cast from floating point goes.

x86 has only instructions for signed integers, so the assembly does not tell ``unsigned`` from ``long long``.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from pytest_gpuperf.backends.emulated.account import Statement

_CAST = re.compile(
    r"^ *\[(.+):(\d+):(\d+)[^]]*\] gimple_assign <fix_trunc_expr, "
    r"(_\d+|\w+(?=_\d+)|\w+)\w*(?:\(D\))?, (\S+), "
)
_ALIAS = r"\btypedef\s+([\w: ]+?)\s+{0}\s*;|\busing\s+{0}\s*=\s*([\w: ]+?)\s*;"
_WIDTHS = {"char": "u8", "short": "u16", "long": "u64"}

Place = tuple[str, str, int, int]  # a function's symbol, file, line and column


def unsigned_casts(account: Iterable[Statement], code: str) -> dict[Place, list[str]]:
    """Return the types ("u8", "u32", "" for a signed one) that the casts of a place go to, in their order.

    ``code`` is the preprocessed text, whose aliases of types may be in the account. A number that a function
    casts to several types counts as cast to a signed one: g++ may use one instruction for two of them.
    """
    casts = []
    for function, types, text in account:
        if "fix_trunc_expr" in text and (match := _CAST.match(text)):
            place = function, match[1], int(match[2]), int(match[3])
            casts.append((place, match[5], _unsigned(types.get(match[4], ""), code)))
    uses: dict[tuple[str, str], set[str]] = {}
    for place, number, kind in casts:
        uses.setdefault((place[0], number), set()).add(kind)
    found: dict[Place, list[str]] = {}
    for place, number, kind in casts:
        found.setdefault(place, []).append(kind if len(uses[place[0], number]) == 1 else "")
    return found


def _unsigned(name: str, code: str) -> str:
    """Return "u8" to "u64" for the name of an unsigned type or of an alias of one, else ""."""
    for _ in range(8):
        words = re.sub(r"\w+\s*::\s*", "", name).split()
        if "unsigned" in words:
            return next((kind for word, kind in _WIDTHS.items() if word in words), "u32")
        alias = re.search(_ALIAS.format(re.escape(words[-1])), code) if words else None
        if not alias:
            return ""
        name = alias[1] or alias[2]
    return ""
