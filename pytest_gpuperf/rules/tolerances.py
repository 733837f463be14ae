"""Tolerances of a project, a device or a metric: lines of ``[POOL:] METRIC = VALUE``."""

from __future__ import annotations

import argparse
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

from pytest_gpuperf.figures import slug
from pytest_gpuperf.measurement import Metric

_VALUE = re.compile(r"(?P<number>\d+(?:\.\d*)?|\.\d+)\s*(?P<percent>%?)")
_FORM = 'write "METRIC = 3 %" or "POOL: METRIC = 3 %"'


@dataclass(frozen=True, slots=True)
class Tolerance:
    """One line: globs of the pool's folder and of the metric's or its instrument's name, and a fraction."""

    pool: str
    metric: str
    value: float

    def __str__(self) -> str:
        where = "" if self.pool == "*" and ":" not in self.metric else f"{self.pool}: "
        return f"{where}{self.metric} = {100 * self.value:.10g} %"

    def covers(self, metric: Metric, pool: str) -> bool:
        named = matches(self.metric, metric.name) or matches(self.metric, metric.instrument)
        return named and (matches(self.pool, pool) or matches(self.pool, slug(pool)))


def limit_of(metric: Metric, baseline: float, tolerance: float) -> float:
    """Return the worst figure within a tolerance: a slowdown of a noisy metric, a share of an exact one."""
    if metric.kind == "noisy" and metric.better == "higher":
        return baseline / (1 + tolerance)
    allowed = tolerance * abs(baseline)
    return baseline + allowed if metric.better == "lower" else baseline - allowed


def parse(line: str) -> Tolerance:
    """Read one line; raises argparse.ArgumentTypeError with one sentence."""
    names, equals, text = line.rpartition("=")
    pool, _, metric = names.partition(":") if ":" in names else ("*", "", names)
    if not equals or not pool.strip() or not metric.strip():
        raise argparse.ArgumentTypeError(f"{line!r} is not a valid tolerance; {_FORM}")
    found = _VALUE.fullmatch(text.strip())
    value = float(found["number"]) / (100 if found["percent"] else 1) if found else -1.0
    if not 0 <= value < 1:
        raise argparse.ArgumentTypeError(
            f"{line!r}: {text.strip()!r} is not a tolerance from 0 up to 100 %; {_FORM}, "
            "or a fraction like 0.03"
        )
    return Tolerance(pool.strip(), metric.strip(), value)


@dataclass(frozen=True, slots=True)
class Tolerances:
    """The tolerances of one test: the command line's, the marker's and the ini file's."""

    command: Sequence[Tolerance] = ()
    marker: float | None = None
    ini: Sequence[Tolerance] = ()

    def of(self, metric: Metric, pool: str) -> float:
        """Return the tolerance of ``metric`` in ``pool``, a fraction.

        The command line wins over the marker, the marker over the ini file, and all over the instrument's
        own; of several lines that cover a metric the last one counts.
        """
        stated = self.stated(metric, pool)
        return default_tolerance(metric) if stated is None else stated

    def stated(self, metric: Metric, pool: str) -> float | None:
        """Return what ``of`` does, or None if nobody states a tolerance."""
        found = [line.value for line in self.command if line.covers(metric, pool)][-1:]
        found += [] if self.marker is None else [self.marker]
        found += [line.value for line in self.ini if line.covers(metric, pool)][-1:]
        return found[0] if found else None


def default_tolerance(metric: Metric) -> float:
    """Return the tolerance of the metric's instrument; exact metrics have none."""
    return 0.0 if metric.kind == "exact" else metric.constants.tolerance


@cache
def matches(pattern: str, name: str) -> bool:
    """Return whether the glob ``pattern`` describes ``name``: ``*`` is any text, ``?`` one character.

    Square brackets are themselves, as in ``test_resnet50[Offline]``.
    """
    first, *others = ("".join("." if c == "?" else re.escape(c) for c in part) for part in pattern.split("*"))
    # Each part is looked for once, where it first stands: else ten stars try every way there is.
    between = "".join(f"(?>.*?{part})" for part in others[:-1])
    last = f".*{others[-1]}" if others else ""
    return re.fullmatch(first + between + last, name, re.DOTALL) is not None
