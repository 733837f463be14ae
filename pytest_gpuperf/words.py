"""Take a command line's words as argparse does: which are options with their values, and which paths."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import pytest


class Given(NamedTuple):
    """An option as it was given, by the names it has, or a path, which has none."""

    names: Sequence[str]
    words: Sequence[str]


def actions(config: pytest.Config) -> Mapping[str, Any]:
    """Return argparse's actions by option, those of plugins and conftest files among them."""
    parser: Any = config._parser
    # pytest made the parser anew for every use, up to version 9.
    built = parser.optparser if hasattr(parser, "optparser") else parser._getparser()
    found: Mapping[str, Any] = built._option_string_actions
    return found


def split(known: Mapping[str, Any], words: Sequence[str]) -> Iterator[Given]:
    """Yield each option of ``words`` with its values, and each path; ``known`` are argparse's ``actions``."""
    left = list(words)
    while left:
        word = left.pop(0)
        name, assigned, _ = word.partition("=")
        if word == "--":
            yield from (Given((), (path,)) for path in left)
            return
        if not _is_option(known, word):
            yield Given((), (word,))
        elif word in known:
            action = known[word]
            values = [left.pop(0) for _ in range(_count(known, action.nargs, left))]
            # In one word, since who does not know the option would take its value for a path.
            joined = len(values) == 1 and action.nargs is None and word.startswith("--")
            yield Given(action.option_strings, [f"{word}={values[0]}"] if joined else [word, *values])
        elif assigned and name in known:
            yield Given(known[name].option_strings, [word])
        elif word[:2] in known and not word.startswith("--"):
            action = known[word[:2]]
            if action.nargs == 0:  # "-xv" is "-x -v"
                left.insert(0, f"-{word[2:]}")
                word = word[:2]
            yield Given(action.option_strings, [word])
        else:
            yield Given((name,), [word])


def _is_option(known: Mapping[str, Any], word: str) -> bool:
    if not word.startswith("-") or word == "-":
        return False
    is_known = word in known or word.partition("=")[0] in known or word[:2] in known
    return is_known or not (" " in word or word[1:].replace(".", "", 1).isdigit())


def _count(known: Mapping[str, Any], nargs: Any, left: Sequence[str]) -> int:
    """Return how many of the words that are left an option of ``nargs`` takes."""
    if nargs is None or isinstance(nargs, int):
        return min(1 if nargs is None else nargs, len(left))
    options = (number for number, word in enumerate(left) if _is_option(known, word))
    free = next(options, len(left))
    return min(free, 1) if nargs == "?" else free
