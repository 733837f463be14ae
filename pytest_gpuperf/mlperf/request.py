"""What a test asks of LoadGen, checked as a whole before anything runs."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pytest_gpuperf.errors import GpuperfError
from pytest_gpuperf.figures import number, short
from pytest_gpuperf.mlperf.models import DTYPES
from pytest_gpuperf.mlperf.result import FRACTIONS
from pytest_gpuperf.mlperf.settings import PROFILES, SCENARIOS

MODES = ("performance", "accuracy")
STALL = 60.0  # seconds without progress after which a phase is given up
LONGEST = 86_400.0  # seconds; LoadGen holds all queries of a phase in memory
# What one mode alone has a use for.
_OF_A_MODE: Mapping[str, Sequence[str]] = {
    "performance": ("profile", "seconds", "tails"),
    "accuracy": ("count",),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """The arguments of a call of ``loadgen``; ``tails`` are names of percentiles, such as "p99"."""

    scenario: str
    mode: str
    precision: str
    profile: str
    seconds: float | None
    tails: tuple[str, ...]
    count: int | None
    stall: float
    keep_trace: bool

    @classmethod
    def of(cls, **given: Any) -> Request:
        """Check the arguments as they were given, None for those that were not; raises GpuperfError."""
        mode = _choice("mode", given["mode"], MODES)
        for other, names in _OF_A_MODE.items():
            for name in names:
                if other != mode and given[name] is not None:
                    raise GpuperfError(f'loadgen: {name}= is for mode="{other}", and this one is "{mode}"')
        return cls(
            scenario=_choice("scenario", given["scenario"], SCENARIOS),
            mode=mode,
            precision=_choice("precision", given["precision"], DTYPES),
            profile=_choice("profile", "short" if given["profile"] is None else given["profile"], PROFILES),
            seconds=None if given["seconds"] is None else _seconds("seconds", given["seconds"]),
            tails=_tails(given["tails"]),
            count=_count("count", given["count"]),
            stall=STALL if given["stall"] is None else _seconds("stall", given["stall"]),
            keep_trace=bool(given["keep_trace"]),
        )


def _choice(name: str, given: Any, choices: Sequence[str] | Mapping[str, Any]) -> str:
    if not isinstance(given, str) or given not in choices:
        *others, last = choices
        which = next((each for each in choices if each.lower() == str(given).lower()), None)
        hint = f'did you mean "{which}"?' if which else f"use {', '.join(others)} or {last}"
        raise GpuperfError(f"loadgen: there is no {name} {_quoted(given)}; {hint}")
    return given


def _seconds(name: str, given: Any) -> float:
    found = number(given)
    if found is None or not math.isfinite(found) or not 0 < found <= LONGEST:
        raise GpuperfError(
            f"loadgen: {name}={short(given)}; give a number of seconds above 0 and up to {LONGEST:,.0f}"
        )
    return found


def _count(name: str, given: Any) -> int | None:
    if given is None:
        return None
    found = number(given)
    if found is None or not math.isfinite(found) or found != int(found) or found < 1:
        raise GpuperfError(f"loadgen: {name}={short(given)}; give a whole number of at least 1")
    return int(found)


def _tails(given: Any) -> tuple[str, ...]:
    names = (given,) if isinstance(given, str) else () if given is None else given
    if not isinstance(names, Sequence):
        raise GpuperfError(f'loadgen: tails={short(given)}; give names such as ("p99", "p99.9")')
    for name in names:
        if not isinstance(name, str) or name.replace(".", "_") not in FRACTIONS:
            known = ", ".join(each.replace("_", ".") for each in FRACTIONS)
            raise GpuperfError(f"loadgen: there is no tail {_quoted(name)}; the percentiles are {known}")
    return tuple(dict.fromkeys(names))


def _quoted(given: Any) -> str:
    return f'"{short(given)[1:-1]}"' if isinstance(given, str) else short(given)
