"""Read g++'s own account of a file: its functions, what they declare and their statements."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import NamedTuple

# The flag that has g++ write the account; its lines tell the place as the assembly's .loc do.
FLAG = "-fdump-tree-optimized-lineno-raw="

_FUNCTION = re.compile(r"^;; Function .* \((\S+), funcdef_no=")
_HEAD = re.compile(r"^\S.* \((.*)\)$")
_PARAMETER = re.compile(r"([^,]*?)(\w+)(?:, |$)")
_DECLARED = re.compile(r"^  (?!static )(.*?)([\w.]+|<retval>)(?:\[[^;]*\])*;$")


class Statement(NamedTuple):
    """One statement, its function's symbol, and the types of that function's parameters and own variables."""

    function: str
    types: Mapping[str, str]
    text: str


def statements(account: str) -> Iterator[Statement]:
    """Yield the statements in their order; arrays have the types of their elements."""
    function, types = "", dict[str, str]()
    for line in account.splitlines():
        if match := _FUNCTION.match(line):
            function, types = match[1], {}
        elif match := _HEAD.match(line):
            types.update((name, kind) for kind, name in _PARAMETER.findall(match[1]))
        elif match := _DECLARED.match(line):
            types[match[2]] = match[1]
        else:
            yield Statement(function, types, line)
