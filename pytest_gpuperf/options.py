"""Flags, ini keys and marker arguments: the command line wins over the marker, the marker over the ini."""

from __future__ import annotations

import argparse
import datetime
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import pytest

from pytest_gpuperf.backends import BACKENDS, Choice
from pytest_gpuperf.judging.rules import Rules, above_zero, add_rules, read_rules, whole
from pytest_gpuperf.processes.revisions import RevisionOptions, add_revision_options, read_revisions

UpdateMode = Literal["replace", "append", "new"]
STRICTNESS = ("auto", "on", "off")
_SECONDS = above_zero("seconds")


@dataclass(frozen=True, slots=True)
class Options:
    """What the person asked of this session, checked.

    ``active``: ``--gpuperf`` was given, so numbers are taken and judged. ``child`` is the file
    descriptor of the parent's pipe in a child process, else None. Times are in seconds.
    """

    active: bool
    backend: Choice
    strict: bool
    update: UpdateMode | None
    runs: int
    calibrate: int | Path | None
    pool: str | None
    baselines: str
    kernels: str
    judge_host_times: bool
    lock_timeout: float
    child_timeout: float
    cooldown: float
    child: int | None
    rules: Rules
    revisions: RevisionOptions

    @property
    def only_records(self) -> bool:
        """Whether this run's figures are kept, or tried on each other, and not judged."""
        return self.update is not None or self.calibrate is not None


def add_options(parser: pytest.Parser) -> None:
    group = parser.getgroup("gpuperf", "GPU performance regression testing")
    add = group.addoption
    add(
        "--gpuperf",
        action="store_true",
        help="Measure, judge against the baselines, and fail what regressed.",
    )
    add(
        "--gpuperf-backend",
        metavar="NAME",
        type=_one_of(BACKENDS),
        help="Where kernels run: auto (a CUDA device if there is one), cuda or emulated.",
    )
    add(
        "--gpuperf-update",
        nargs="?",
        const="replace",
        metavar="append|new",
        type=_update_mode,
        help="Record baselines instead of judging: replace those of the selected tests, append runs to "
        "them, or write only new ones. Write the paths before it.",
    )
    add(
        "--gpuperf-runs",
        metavar="N",
        type=whole(1, 100),
        default=5,
        help="Fresh processes that --gpuperf-update records (default: 5).",
    )
    add(
        "--gpuperf-calibrate",
        metavar="N|FILE",
        type=_count_or_file,
        help="Measure the false-red rate and the power of the verdict on N fresh processes of identical "
        "code, or on the runs that an earlier calibration recorded in FILE.",
    )
    add(
        "--gpuperf-strict",
        metavar="auto|on|off",
        type=_one_of(STRICTNESS),
        help="Also fail what could not be judged; auto is on where CI or BUILD_NUMBER is set.",
    )
    add("--gpuperf-pool", metavar="NAME", help="The set of like runners whose baselines count.")
    add("--gpuperf-baselines", metavar="DIR", help="Folder of the baselines (default: the ini key's).")
    add(
        "--gpuperf-lock-timeout",
        metavar="SECONDS",
        type=_SECONDS,
        help="How long to wait for another session that uses the device (default: 600).",
    )
    add("--gpuperf-model-dir", metavar="DIR", help="MLPerf's resnet50_v1.onnx (default: MODEL_DIR).")
    add("--gpuperf-data-dir", metavar="DIR", help="ImageNet with val_map.txt (default: DATA_DIR).")
    add_rules(parser)
    add_revision_options(parser)
    add("--gpuperf-child", type=int, help=argparse.SUPPRESS)
    for name, default, text in (
        ("gpuperf_backend", "auto", "Default of --gpuperf-backend."),
        ("gpuperf_strict", "auto", "Default of --gpuperf-strict."),
        ("gpuperf_pool", "", "Default of --gpuperf-pool; empty: the GPU's name."),
        ("gpuperf_baselines", "baselines", "Folder of the baselines, beside or above the suites."),
        ("gpuperf_kernels", "kernels", "Folder of the .cu files, beside or above the suites."),
        ("gpuperf_lock_timeout", "600", "Default of --gpuperf-lock-timeout, seconds."),
        ("gpuperf_child_timeout", "600", "A child process silent for so many seconds is ended."),
        ("gpuperf_cooldown", "10", "Seconds to wait before measuring again what was measured while unfit."),
    ):
        parser.addini(name, text, default=default)
    parser.addini(
        "gpuperf_judge_host_times",
        "Judge host times without a GPU too: for a machine that runs nothing else.",
        type="bool",
        default=False,
    )


def read_options(config: pytest.Config) -> Options:
    """The checked options; raises pytest.UsageError with one sentence for a value out of range."""
    option = config.option
    strict = option.gpuperf_strict or _ini(config, "gpuperf_strict", _one_of(STRICTNESS))
    if strict == "auto":
        strict = "on" if os.environ.get("CI") or os.environ.get("BUILD_NUMBER") else "off"
    lock_timeout = option.gpuperf_lock_timeout
    if lock_timeout is None:
        lock_timeout = _ini(config, "gpuperf_lock_timeout", _SECONDS)
    options = Options(
        active=option.gpuperf,
        backend=option.gpuperf_backend or _ini(config, "gpuperf_backend", _one_of(BACKENDS)),
        strict=strict == "on",
        update=option.gpuperf_update,
        runs=option.gpuperf_runs,
        calibrate=option.gpuperf_calibrate,
        pool=option.gpuperf_pool or config.getini("gpuperf_pool") or None,
        baselines=option.gpuperf_baselines or config.getini("gpuperf_baselines"),
        kernels=config.getini("gpuperf_kernels"),
        judge_host_times=config.getini("gpuperf_judge_host_times"),
        lock_timeout=lock_timeout,
        child_timeout=_ini(config, "gpuperf_child_timeout", _SECONDS),
        cooldown=_ini(config, "gpuperf_cooldown", _SECONDS),
        child=option.gpuperf_child,
        rules=read_rules(config),
        revisions=read_revisions(config),
    )
    if options.update and not options.active:
        raise pytest.UsageError("--gpuperf-update records measurements, so it needs --gpuperf beside it")
    if isinstance(options.calibrate, int) and not options.active:
        raise pytest.UsageError("--gpuperf-calibrate=N measures, so it needs --gpuperf beside it")
    if options.calibrate and options.update:
        raise pytest.UsageError("--gpuperf-calibrate and --gpuperf-update record different things; give one")
    return options


def owner_of(start: Path, folder: str, fallback: Path) -> Path:
    """The nearest folder at or above ``start`` that holds ``folder``, else ``fallback``.

    Baselines and kernels belong to the project they lie in, however pytest was started.
    """
    if Path(folder).is_absolute():
        return fallback
    for parent in (start, *start.parents):
        if (parent / folder).is_dir():
            return parent
    return fallback


@dataclass(frozen=True, slots=True)
class TestOptions:
    """The arguments of ``@pytest.mark.gpuperf(...)``, keyword-only.

    ``tolerance``: the smallest change worth a red, a fraction (0.02 is 2 %). ``version``: part of the
    contract; change it when the test asks another question. ``l2``: "hot" or "cold". ``seconds`` of
    device time to sample, at most; ``warmup`` seconds before it. ``isolated``: run the whole test in a
    process of its own. ``expected``: why the test may regress, and ``until`` which day ("2026-12-31").
    """

    __test__ = False

    tolerance: float | None = None
    version: str | int | None = None
    l2: str = "hot"
    seconds: float = 0.5
    warmup: float = 0.2
    isolated: bool = False
    expected: str | None = None
    until: str | None = None

    def versioned(self, contract: Mapping[str, Any]) -> dict[str, Any]:
        """Return the contract with the test's version, if it states one."""
        return {**contract, **({} if self.version is None else {"version": self.version})}


def _is_day(value: Any) -> bool:
    try:
        return isinstance(value, str) and datetime.date.fromisoformat(value).isoformat() == value
    except ValueError:
        return False


_CHECKS: dict[str, tuple[Callable[[Any], bool], str]] = {
    "tolerance": (lambda v: _number(v) and 0 <= v < 1, "a fraction from 0 up to 1, such as 0.02 for 2 %"),
    "version": (lambda v: isinstance(v, (str, int)) and not isinstance(v, bool), "a string or an integer"),
    "l2": (lambda v: v in ("hot", "cold"), '"hot" or "cold"'),
    "seconds": (lambda v: _number(v) and 0 < v <= 600, "seconds above 0, at most 600"),
    "warmup": (lambda v: _number(v) and 0 <= v <= 600, "seconds from 0 to 600"),
    "isolated": (lambda v: isinstance(v, bool), "True or False"),
    "expected": (lambda v: isinstance(v, str) and bool(v.strip()), "the reason, in words"),
    "until": (_is_day, 'a day such as "2026-12-31"'),
}


def test_options(item: pytest.Item) -> TestOptions:
    """The marker's arguments for a test, the closest marker winning; raises pytest.UsageError."""
    found: dict[str, Any] = {}
    for mark in item.iter_markers("gpuperf"):
        where = f"{item.nodeid}: @pytest.mark.gpuperf"
        if mark.args:
            raise pytest.UsageError(f"{where} takes keyword arguments only (got {mark.args[0]!r})")
        for name, value in mark.kwargs.items():
            if name not in _CHECKS:
                raise pytest.UsageError(f"{where} has no argument {name!r}; it takes {', '.join(_CHECKS)}")
            check, wanted = _CHECKS[name]
            if not check(value):
                raise pytest.UsageError(f"{where}: {name}={value!r} is out of range; give {wanted}")
            found.setdefault(name, value)
    if ("expected" in found) != ("until" in found):
        raise pytest.UsageError(
            f"{item.nodeid}: @pytest.mark.gpuperf: expected= and until= go together: "
            "why a regression is expected, and the last day on which it is"
        )
    return TestOptions(**found)


test_options.__test__ = False  # type: ignore[attr-defined]


def _number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and value == value


def _ini(config: pytest.Config, key: str, convert: Callable[[str], Any]) -> Any:
    try:
        return convert(config.getini(key))
    except argparse.ArgumentTypeError as error:
        raise pytest.UsageError(f"{config.inipath}: {key}: {error}") from None


def _one_of(choices: tuple[str, ...]) -> Callable[[str], str]:
    def convert(text: str) -> str:
        if text not in choices:
            raise argparse.ArgumentTypeError(f"{text!r} is not one of {', '.join(choices)}")
        return text

    return convert


def _update_mode(text: str) -> str:
    if text not in ("replace", "append", "new"):
        raise argparse.ArgumentTypeError(
            f"{text!r} is neither append nor new; write the paths before --gpuperf-update"
        )
    return text


def _count_or_file(text: str) -> int | Path:
    return int(text) if text.isdecimal() else Path(text)
