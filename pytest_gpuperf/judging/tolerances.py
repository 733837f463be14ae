"""Tolerances of a project, of a device and of a metric: ``[POOL:] METRIC = VALUE``, a line each."""

from __future__ import annotations

import argparse
import re
from collections.abc import Sequence
from dataclasses import dataclass

from pytest_gpuperf.judging.patterns import matches
from pytest_gpuperf.measurement import Metric

_VALUE = re.compile(r"(?P<number>\d+(?:\.\d*)?|\.\d+)\s*(?P<percent>%?)")
_FORM = 'write "METRIC = 3 %" or "POOL: METRIC = 3 %"'


@dataclass(frozen=True, slots=True)
class Tolerance:
    """One line: globs of the pool's folder and of the metric's or its instrument's name, and a fraction."""

    pool: str
    metric: str
    value: float

    def covers(self, metric: Metric, pool: str) -> bool:
        from pytest_gpuperf.storage.baselines import slug

        named = matches(self.metric, metric.name) or matches(self.metric, metric.instrument)
        return named and (matches(self.pool, pool) or matches(self.pool, slug(pool)))


def parse(line: str) -> Tolerance:
    """The tolerance that ``line`` states; raises argparse.ArgumentTypeError with one sentence."""
    names, equals, text = line.rpartition("=")
    pool, _, metric = names.partition(":") if ":" in names else ("*", "", names)
    if not equals or not pool.strip() or not metric.strip():
        raise argparse.ArgumentTypeError(f"{line!r} is no tolerance; {_FORM}")
    found = _VALUE.fullmatch(text.strip())
    value = float(found["number"]) / (100 if found["percent"] else 1) if found else -1.0
    if not 0 <= value < 1:
        raise argparse.ArgumentTypeError(
            f"{line!r}: {text.strip()!r} is no tolerance from 0 up to 100 %; {_FORM}, or a fraction like 0.03"
        )
    return Tolerance(pool.strip(), metric.strip(), value)


def choose(
    command: Sequence[Tolerance],
    marker: float | None,
    ini: Sequence[Tolerance],
    metric: Metric,
    pool: str,
) -> float | None:
    """The tolerance of ``metric`` in ``pool``; None where nobody states one, so that the instrument's counts.

    The command line wins over the marker, the marker over the ini file; of several lines that cover a
    metric the last one counts.
    """
    stated = [line.value for line in command if line.covers(metric, pool)][-1:]
    stated += [marker] if marker is not None else []
    stated += [line.value for line in ini if line.covers(metric, pool)][-1:]
    return stated[0] if stated else None
