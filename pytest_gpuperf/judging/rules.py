"""The gate's rules as a project sets them: tolerances, confirmations, time, and what is kept."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest

from pytest_gpuperf.judging.tolerances import Tolerance, choose, parse
from pytest_gpuperf.measurement import Metric

MIN_KEPT = 3
"""Runs that a baseline can never be held below: a red needs as many (estimate.MIN_RUNS)."""


@dataclass(frozen=True, slots=True)
class Rules:
    """What the flags and the ini file say, checked.

    ``max_runs``: runs that a baseline keeps. ``max_confirm``: tests that are confirmed each by itself.
    ``budget``: seconds that the whole run may measure, None without a bound. ``quarantine``: the file
    that was named, "" for the one in the baselines' folder.
    """

    command_tolerances: tuple[Tolerance, ...]
    tolerances: tuple[Tolerance, ...]
    max_runs: int
    max_confirm: int
    budget: float | None
    quarantine: str

    def tolerance(self, marker: float | None, metric: Metric, pool: str) -> float | None:
        return choose(self.command_tolerances, marker, self.tolerances, metric, pool)


def add_rules(parser: pytest.Parser) -> None:
    add = parser.getgroup("gpuperf").addoption
    add(
        "--gpuperf-tolerance",
        metavar="RULE",
        action="append",
        type=parse,
        help='"[POOL:] METRIC = 3 %%": the smallest change worth a red, before marker and ini; repeatable.',
    )
    add(
        "--gpuperf-max-confirm",
        metavar="N",
        type=whole(1, 10_000),
        help="Tests that replicas confirm one by one; the next set measures all that are left (default: 5).",
    )
    add(
        "--gpuperf-budget",
        metavar="MINUTES",
        type=minutes,
        help="Bound the run's measuring; what does not fit is unmeasured, the most valuable comes first.",
    )
    parser.addini("gpuperf_tolerances", 'Lines of "[POOL:] METRIC = 3 %".', type="linelist", default=[])
    parser.addini("gpuperf_max_confirm", "Default of --gpuperf-max-confirm.", default="5")
    parser.addini("gpuperf_max_runs", "Runs that a baseline keeps; an append drops the oldest.", default="20")
    parser.addini("gpuperf_quarantine", "The quarantine file; empty: quarantine.toml among the baselines.")


def read_rules(config: pytest.Config) -> Rules:
    """The checked rules; raises pytest.UsageError with one sentence for a value out of range."""
    option = config.option

    def ini(key: str, convert: Any) -> Any:
        value = config.getini(key)
        try:
            return tuple(map(convert, value)) if isinstance(value, list) else convert(value)
        except argparse.ArgumentTypeError as error:
            raise pytest.UsageError(f"{config.inipath}: {key}: {error}") from None

    max_runs = ini("gpuperf_max_runs", whole(MIN_KEPT, 1000))
    if option.gpuperf_update and option.gpuperf_runs > max_runs:
        raise pytest.UsageError(
            f"--gpuperf-runs={option.gpuperf_runs} is more than the {max_runs} runs that a baseline keeps; "
            "record fewer, or raise the ini key gpuperf_max_runs"
        )
    if option.gpuperf_budget and not option.gpuperf:
        raise pytest.UsageError("--gpuperf-budget bounds what is measured, so it needs --gpuperf beside it")
    others = [flag for flag in ("update", "calibrate", "against") if getattr(option, f"gpuperf_{flag}", None)]
    if option.gpuperf_budget and others:
        raise pytest.UsageError(
            "--gpuperf-budget bounds a run that judges against baselines; "
            f"leave it out beside --gpuperf-{others[0]}"
        )
    return Rules(
        command_tolerances=tuple(option.gpuperf_tolerance or ()),
        tolerances=ini("gpuperf_tolerances", parse),
        max_runs=max_runs,
        max_confirm=option.gpuperf_max_confirm or ini("gpuperf_max_confirm", whole(1, 10_000)),
        budget=option.gpuperf_budget,
        quarantine=config.getini("gpuperf_quarantine"),
    )


def whole(low: int, high: int) -> Any:
    def convert(text: str) -> int:
        if not text.isdecimal() or not low <= int(text) <= high:
            raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from {low} to {high}")
        return int(text)

    return convert


def above_zero(what: str) -> Callable[[str], float]:
    """The argument type of a finite number above 0; ``what`` names it in the error, such as "seconds"."""

    def convert(text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            value = -1.0
        if not 0 < value < float("inf"):
            raise argparse.ArgumentTypeError(f"{text!r} is not a number of {what} above 0")
        return value

    return convert


def minutes(text: str) -> float:
    """Seconds of a bound given in minutes."""
    return 60 * above_zero("minutes")(text)
