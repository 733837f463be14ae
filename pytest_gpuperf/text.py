"""Words of messages: plurals, and text of others made safe to print, which a terminal and CI could obey."""

from __future__ import annotations

import re
import unicodedata

_ACTING = ("Cc", "Cs", "Zl", "Zp")
_TURNING = frozenset({"LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI"})
# GitHub reads "::name::" after any blanks and "##[name]" anywhere, Azure "##vso[", TeamCity "##teamcity[".
_COMMAND = re.compile(r"^(\s*):(?=:)|#(?=#\w*\[)", re.MULTILINE)


def printable(text: str) -> str:
    r"""Return text in one line that moves no cursor and can be encoded: a line feed becomes ``\n``.

    Half a surrogate pair, which JSON can carry, and marks that turn the direction of writing are escaped too.
    """
    if text.isprintable():
        return text
    return "".join(_escaped(character) if _acts(character) else character for character in text)


def counted(number: int, noun: str) -> str:
    """Return a number of things in words, such as "1 run", "2 runs" and "2 processes"."""
    plural = "es" if noun.endswith(("ch", "ss")) else "s"
    return f"{number} {noun}{'' if number == 1 else plural}"


def inert(text: str) -> str:
    """Return text, of several lines too, of which no CI system takes a line as a command of the workflow."""
    return _COMMAND.sub(lambda found: f"{found[0]} ", text)


def _acts(character: str) -> bool:
    kind, turn = unicodedata.category(character), unicodedata.bidirectional(character)
    return kind in _ACTING or turn in _TURNING


def _escaped(character: str) -> str:
    return character.encode("unicode_escape").decode("ascii")
