"""What a test asks of LoadGen, checked as a whole before anything runs."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

from pytest_gpuperf.constants import PERCENTILES
from pytest_gpuperf.errors import GpuperfError
from pytest_gpuperf.figures import number, short
from pytest_gpuperf.mlperf import configuration
from pytest_gpuperf.mlperf.models import DTYPES
from pytest_gpuperf.mlperf.settings import PROFILES, SCENARIOS, Scenario
from pytest_gpuperf.mlperf.sut import MANY

MODES = ("performance", "accuracy")
QSLS = ("host", "device")
BACKENDS = ("cuda", "tensorrt", "cpu")
STALL = 60.0  # seconds without progress after which a phase is given up
LONGEST = 86_400.0  # seconds; LoadGen holds all queries of a phase in memory
FASTEST = 1e7  # queries a second; LoadGen takes a microsecond for one
# The most of what is made or computed before a phase begins.
_MOST: Mapping[str, int] = {
    **{"max_batchsize": MANY, "samples_per_query": MANY},
    **{"threads": 1024, "streams": 1024, "devices": 1024},
}
FILES = ("mlperf_conf", "user_conf", "audit_conf")  # what a later one says holds
# Keys of configuration files that are arguments, in the argument's unit.
_ARGUMENTS: Mapping[tuple[str, str], tuple[str, float]] = {
    **{(scenario, "min_duration"): ("seconds", 1e-3) for scenario in SCENARIOS},
    **{
        (scenario, "performance_sample_count_override"): ("performance_sample_count", 1)
        for scenario in SCENARIOS
    },
    ("MultiStream", "samples_per_query"): ("samples_per_query", 1),
    ("Server", "target_qps"): ("qps", 1),
    ("Server", "target_latency"): ("max_latency", 1e-3),
}
# What one mode alone has a use for.
_OF_A_MODE: Mapping[str, Sequence[str]] = {
    "performance": (
        *("profile", "seconds", "tails", "performance_sample_count", "qps", "max_latency", *FILES),
        "keep_trace",
    ),
    "accuracy": ("count",),
}
_OF_A_SCENARIO: Mapping[str, Sequence[str]] = {
    "keep_trace": ("SingleStream", "MultiStream", "Server"),  # Offline's is not written
    "qps": ("Server",),
    "max_latency": ("Server",),
    "max_wait": ("Server",),
    "max_batchsize": ("Server", "Offline"),
    "streams": ("Server", "Offline"),
    "devices": ("Server", "Offline"),
    "samples_per_query": ("MultiStream",),
}
AUDITS = ("TEST01", "TEST04")
_OF_AUDITS = (
    *("precision", "profile", "seconds", "stall", "qps", "max_latency", "max_wait", "max_batchsize"),
    *("samples_per_query", "performance_sample_count", "threads", "streams", "devices", "qsl", "backend"),
)


def require_audit(test: Any, options: Mapping[str, Any]) -> None:
    """Raise GpuperfError unless there is an audit of that name, and it has the options."""
    _choice("audit", test, AUDITS)
    if unknown := [name for name in options if name not in _OF_AUDITS]:
        raise GpuperfError(f"loadgen: an audit has no {', '.join(unknown)}=; it has {', '.join(_OF_AUDITS)}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """The arguments of a call of ``loadgen``; ``tails`` are names of percentiles, such as "p99"."""

    scenario: str
    mode: str
    precision: str
    profile: str = "short"
    seconds: float | None = None
    tails: tuple[str, ...] = ()
    count: int | None = None
    stall: float = STALL
    keep_trace: bool = False
    qps: float | None = None
    max_latency: float | None = None
    max_wait: float | None = None
    max_batchsize: int | None = None
    samples_per_query: int | None = None
    performance_sample_count: int | None = None
    threads: int | None = None
    streams: int | None = None
    devices: int | None = None
    qsl: str = "host"
    backend: str | None = None
    configured: Mapping[str, int | float] = field(default_factory=dict)

    @classmethod
    def of(cls, models: Sequence[str] = (), **given: Any) -> Request:
        """Check the arguments as they were given, None where they were not; raises GpuperfError.

        ``models`` are names of the model in configuration files. An argument wins over a file.
        """
        given["keep_trace"] = _flag("keep_trace", given.get("keep_trace")) or None
        mode = _choice("mode", given.get("mode"), MODES)
        for other, names in _OF_A_MODE.items():
            for name in names:
                if other != mode and given.get(name) is not None:
                    raise GpuperfError(f'loadgen: {name}= is for mode="{other}", and this one is "{mode}"')
        scenario = _choice("scenario", given.get("scenario"), SCENARIOS)
        configured = _configured(models, scenario, given)
        for name, scenarios in _OF_A_SCENARIO.items():
            if given.get(name) is not None and scenario not in scenarios:
                *others, last = scenarios
                known = f"{', '.join(others)} and {last}" if others else last
                raise GpuperfError(f"loadgen: {name}= is for {known}, not for {scenario}")
        return cls(
            scenario=scenario,
            mode=mode,
            precision=_choice("precision", given.get("precision"), DTYPES),
            keep_trace=bool(given["keep_trace"]),
            configured=configured,
            **{n: check(n, given[n]) for n, check in _CHECKS.items() if given.get(n) is not None},
        )

    def traffic(self) -> Scenario:
        """Return the scenario with what was asked of it."""
        names = ("qps", "max_latency", "max_wait", "samples_per_query")
        given = {name: value for name in names if (value := getattr(self, name)) is not None}
        return replace(Scenario.of(self.scenario), **given)


def _configured(models: Sequence[str], scenario: str, given: dict[str, Any]) -> dict[str, int | float]:
    """Take what files say into the arguments that were not given; returns what else they say."""
    said: dict[str, int | float] = {}
    where: dict[str, str] = {}
    for name in FILES:
        if given.get(name) is not None:
            found = configuration.read(given[name]).of(models, scenario)
            said |= found
            where |= {key: f"{given[name]}: {key} = {value}" for key, value in found.items()}
    for key in list(said):
        if (scenario, key) in _ARGUMENTS:
            name, unit = _ARGUMENTS[scenario, key]
            value = said.pop(key) * unit
            if given.get(name) is None:
                given[name] = _said(where[key], name, value)
    return {key: value for key, value in said.items() if key not in configuration.PASSED_OVER}


def _said(where: str, name: str, value: float) -> float:
    """Return what a file says for an argument; raises GpuperfError naming the line if it cannot be meant."""
    try:
        _CHECKS[name](name, value)
    except GpuperfError as error:
        raise GpuperfError(f"{where}, so {str(error).removeprefix('loadgen: ')}") from None
    return value


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


def _wait(name: str, given: Any) -> float:
    return 0.0 if number(given) == 0 else _seconds(name, given)


def _rate(name: str, given: Any) -> float:
    found = number(given)
    if found is None or not 0 < found <= FASTEST:
        raise GpuperfError(f"loadgen: {name}={short(given)}; give a number above 0 and up to {FASTEST:,.0f}")
    return found


def _flag(name: str, given: Any) -> bool:
    if not isinstance(given, bool | None):
        raise GpuperfError(f"loadgen: {name}={short(given)}; give True or False")
    return bool(given)


def _count(name: str, given: Any) -> int:
    found, most = number(given), _MOST.get(name, 1 << 53)
    if found is None or not 1 <= found <= most or found != int(found):
        bound = f"of 1 to {most:,}" if name in _MOST else "of at least 1"
        raise GpuperfError(f"loadgen: {name}={short(given)}; give a whole number {bound}")
    return int(found)


def _tails(name: str, given: Any) -> tuple[str, ...]:
    names = (given,) if isinstance(given, str) else given
    if not isinstance(names, Sequence):
        raise GpuperfError(f'loadgen: {name}={short(given)}; give names such as ("p99", "p99.9")')
    for tail in names:
        if not isinstance(tail, str) or tail.replace(".", "_") not in PERCENTILES:
            known = ", ".join(each.replace("_", ".") for each in PERCENTILES)
            raise GpuperfError(f"loadgen: there is no tail {_quoted(tail)}; the percentiles are {known}")
    return tuple(dict.fromkeys(names))


def _quoted(given: Any) -> str:
    return f'"{short(given)[1:-1]}"' if isinstance(given, str) else short(given)


# In the order in which they are checked.
_CHECKS: Mapping[str, Callable[[str, Any], Any]] = {
    "profile": partial(_choice, choices=PROFILES),
    "seconds": _seconds,
    "tails": _tails,
    "count": _count,
    "stall": _seconds,
    "qps": _rate,
    "max_latency": _seconds,
    "max_wait": _wait,
    **dict.fromkeys(("max_batchsize", "samples_per_query", "performance_sample_count"), _count),
    **dict.fromkeys(("threads", "streams", "devices"), _count),
    "qsl": partial(_choice, choices=QSLS),
    "backend": partial(_choice, choices=BACKENDS),
}
