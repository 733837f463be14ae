"""The two sides of ``gpuperf diff``, whatever they were read from, and how their figures differ."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pytest_gpuperf.figures import percent, quantity, told_apart
from pytest_gpuperf.git import of_commit
from pytest_gpuperf.measurement import Measurement, Metric, Run
from pytest_gpuperf.rules.differences import question_changes, surroundings_moved
from pytest_gpuperf.rules.estimate import MIN_RUNS, estimate
from pytest_gpuperf.storage.baselines import Store
from pytest_gpuperf.text import counted

Key = tuple[str, str, str]
"""Pool, test and metric."""


@dataclass(frozen=True, slots=True)
class Figure:
    """One metric of a side: its value, and the runs that it rests on."""

    metric: Metric
    contract: Mapping[str, Any]
    value: float
    runs: tuple[Run, ...]
    tolerance: float


@dataclass(frozen=True, slots=True)
class Side:
    """What is compared; ``environments`` are those of each pool's runs."""

    label: str
    figures: Mapping[Key, Figure]
    environments: Mapping[str, Sequence[Mapping[str, Any]]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Change:
    """How one metric differs: a ``word`` for it, the figures, and ``why`` they say no more."""

    word: str
    pool: str
    test: str
    metric: str
    figures: str
    why: str = ""


def of_store(store: Store, label: str) -> Side:
    """Return stored baselines as a side."""
    figures: dict[Key, Figure] = {}
    environments: dict[str, list[Mapping[str, Any]]] = defaultdict(list)
    for pool in store.pools():
        for test, name, each in store.all_of(pool):
            tolerance = each.metric.constants.tolerance
            figures[pool, str(test), name] = Figure(
                each.metric, each.contract, each.value, each.runs, tolerance
            )
            for run in each.runs:
                if run.environment not in environments[pool]:
                    environments[pool].append(run.environment)
    return Side(label, figures, environments)


def of_results(path: Path) -> Side:
    """Return what --gpuperf-json wrote as a side; raises GpuperfError."""
    from pytest_gpuperf.report.results import load

    document = load(path)
    figures: dict[Key, Figure] = {}
    environments: dict[str, list[Mapping[str, Any]]] = defaultdict(list)
    for machine in document.machines:
        environments[machine.pool].append(machine.environment)
    for test, each in document.metrics():
        where = document.machine(test)
        if where is None or each.value is None:
            continue
        metric = Metric(each.name, each.unit, each.better, each.kind, each.instrument)
        values = [value for value in each.here if value is not None and value > 0] or [each.value]
        runs = tuple(Run((value,), where.environment) for value in values)
        tolerance = metric.constants.tolerance if each.tolerance is None else each.tolerance
        key = where.pool, f"{test.suite}::{test.name}", each.name
        figures[key] = Figure(metric, each.contract, each.value, runs, tolerance)
    label = f"{path}, {document.date[:10]}{of_commit(document.commit, document.dirty)}"
    return Side(label, figures, environments)


def surroundings(old: Side, new: Side) -> dict[str, list[str]]:
    """Return what is set around the new side and around none of the old one's runs, by pool."""
    pools = sorted(old.environments.keys() & new.environments.keys())
    found = {pool: surroundings_moved(old.environments[pool], new.environments[pool]) for pool in pools}
    return {pool: lines for pool, lines in found.items() if lines}


def changes(old: Side, new: Side) -> Iterator[Change]:
    """Compare every metric of both sides."""
    for key in sorted(old.figures.keys() | new.figures.keys()):
        a, b = old.figures.get(key), new.figures.get(key)
        if a is not None and b is not None:
            yield _change(key, a, b)
        elif one := a or b:
            yield Change(f"only in {'A' if a else 'B'}", *key, _quantity(one))


def _change(key: Key, a: Figure, b: Figure) -> Change:
    if changed := question_changes(a.metric, a.contract, b.metric, b.contract):
        return Change("another question", *key, f"{_quantity(a)} -> {_quantity(b)}", "; ".join(changed))
    figures = " -> ".join(told_apart([a.value, b.value], b.metric.unit))
    if a.value == b.value:
        return Change("same", *key, _quantity(a))
    if a.value <= 0 or b.value <= 0:
        worse = (b.value > a.value) == (a.metric.better == "lower")
        return Change("worse" if worse else "better", *key, figures)
    share, loss = b.value / a.value - 1, a.metric.worse(a.value, b.value)
    if a.metric.constants.identity:
        return Change("worse", *key, figures, "it names what was found, so another one is wrong")
    figures += f"  {percent(share)}"
    if a.metric.kind == "shown":
        return Change("same", *key, figures, "only shown: the host's clock, or a model's")
    if abs(loss) <= math.log1p(b.tolerance):
        return Change("same", *key, figures)
    why = _why_unclear(a, b, loss)
    return Change("unclear" if why else "worse" if loss > 0 else "better", *key, figures, why)


def _why_unclear(a: Figure, b: Figure, loss: float) -> str:
    """Say why a change beyond the tolerance may be chance, "" if it is none."""
    if a.metric.kind == "exact":
        return ""
    if min(len(a.runs), len(b.runs)) < MIN_RUNS:
        return f"rests on {len(a.runs)} and {counted(len(b.runs), 'process')}: {MIN_RUNS} a side can tell"
    now = [Measurement(b.metric, b.contract, run.samples) for run in b.runs]
    half = estimate(now, a.runs, b.runs[-1].environment).half_width
    if abs(loss) > half:
        return ""
    return f"the runs vary by as much: ± {100 * math.expm1(half):.1f} %"


def _quantity(figure: Figure) -> str:
    return quantity(figure.value, figure.metric.unit)
