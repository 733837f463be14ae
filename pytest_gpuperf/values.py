"""How the values of flags and ini keys are written."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

SANITIZERS = ("memcheck", "racecheck", "initcheck", "synccheck")
"""Tools of NVIDIA's compute-sanitizer."""


def one_of(*choices: str) -> Callable[[str], str]:
    """Return the argument type of a word from ``choices``."""

    def convert(text: str) -> str:
        if text not in choices:
            raise argparse.ArgumentTypeError(f"{text!r} is not one of {', '.join(choices)}")
        return text

    return convert


def integer(low: int, high: int) -> Callable[[str], int]:
    """Return the argument type of a whole number from ``low`` to ``high``."""

    def convert(text: str) -> int:
        if not text.isdecimal() or not low <= int(text) <= high:
            raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from {low} to {high}")
        return int(text)

    return convert


def above_zero(unit: str, factor: float = 1.0) -> Callable[[str], float]:
    """Return the argument type of a finite number of ``unit`` above 0, multiplied by ``factor``."""

    def convert(text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            value = -1.0
        if not 0 < value < float("inf"):
            raise argparse.ArgumentTypeError(f"{text!r} is not a number of {unit} above 0")
        return factor * value

    return convert


def update_mode(text: str) -> str:
    if text not in ("replace", "append", "new", "prune"):
        raise argparse.ArgumentTypeError(
            f"{text!r} is not one of append, new, prune; write the paths before --gpuperf-update"
        )
    return text


def sanitizers(text: str) -> tuple[str, ...]:
    tools = tuple(dict.fromkeys(word.strip() for word in text.split(",")))
    if unknown := [tool for tool in tools if tool not in SANITIZERS]:
        raise argparse.ArgumentTypeError(
            f"{unknown[0]!r} is not one of {', '.join(SANITIZERS)}; write the paths before --gpuperf-sanitize"
        )
    return tools


def count_or_file(text: str) -> int | Path:
    return int(text) if text.isdecimal() else Path(text)
