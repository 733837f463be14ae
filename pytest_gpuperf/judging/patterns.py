"""Globs over the names that people write in configuration: of tests, metrics and pools."""

from __future__ import annotations

import re


def matches(pattern: str, name: str) -> bool:
    """Whether ``name`` is what ``pattern`` describes: ``*`` is any text, ``?`` one character.

    Square brackets are themselves, as in ``test_resnet50[Offline]``.
    """
    wild = {"*": ".*", "?": "."}
    expression = "".join(wild.get(character) or re.escape(character) for character in pattern)
    return re.fullmatch(expression, name, re.DOTALL) is not None
