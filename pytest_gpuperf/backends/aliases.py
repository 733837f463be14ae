"""Find what typedef, using and #define call a type, without a compiler."""

from __future__ import annotations

import re

from pytest_gpuperf.backends.sources import blanked

_ALIAS = re.compile(
    r"\btypedef\s+(?P<old>[\w\s:]+?[\s*]+)(?P<new>\w+)\s*;|\busing\s+(?P<name>\w+)\s*=\s*(?P<type>[\w\s:*]+);"
    r"|^[ \t]*#[ \t]*define[ \t]+(?P<macro>\w+)[ \t]+(?P<body>[\w \t:*]+)$",
    re.MULTILINE,
)


def aliases_of(source: str) -> dict[str, str | None]:
    """Return what typedef, using and #define call a type; None where a name stands for several."""
    found: dict[str, str | None] = {}
    for match in _ALIAS.finditer(blanked(source)):
        name = match["new"] or match["name"] or match["macro"]
        kind = (match["old"] or match["type"] or match["body"]).strip()
        found[name] = kind if found.get(name, kind) == kind else None
    return found
