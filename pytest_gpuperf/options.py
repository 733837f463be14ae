"""Every flag, ini key and marker argument: the command line wins over the marker, the marker over the ini."""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from pytest_gpuperf.backends import BACKENDS
from pytest_gpuperf.git import GitError, Revision, resolve
from pytest_gpuperf.ini import IniFile, check_addopts, ini_at
from pytest_gpuperf.rules.case import BLOCKS
from pytest_gpuperf.rules.estimate import MIN_RUNS
from pytest_gpuperf.rules.tolerances import Tolerance, parse
from pytest_gpuperf.values import above_zero, count_or_file, integer, one_of, update_mode


class Setting(NamedTuple):
    """``--gpuperf-NAME`` and the ini key ``gpuperf_name``.

    ``flag`` is the metavar, "" for no flag; ``ini`` the ini key's default, None for no ini key. ``more`` are
    further arguments of ``addoption``.
    """

    name: str
    flag: str
    ini: Any
    convert: Callable[[str], Any]
    help: str
    more: Mapping[str, Any] = {}


_SECONDS = above_zero("seconds")
SETTINGS = (
    Setting("backend", "NAME", "auto", one_of(*BACKENDS),
            "Where kernels run: auto (a CUDA device if there is one), cuda or emulated."),
    Setting("update", "append|new|prune", None, update_mode,
            "Record baselines instead of judging: replace those of the selected tests, append runs to them, "
            "write only new ones, or (prune) replace and drop those of tests that are gone. Write the paths "
            "before it.", {"nargs": "?", "const": "replace"}),
    Setting("plan", "FILE", None, str,
            "Measure nothing: compile for the GPU of --gpuperf-pool, say which tests do their baselines' own "
            "work, and write the others' node ids to FILE (gpuperf-plan.txt). Exit code 23 if there are any. "
            "Write the paths before it.", {"nargs": "?", "const": "gpuperf-plan.txt"}),
    Setting("runs", "N", None, integer(1, 100),
            "Fresh processes that --gpuperf-update records (default: 5).", {"default": 5}),
    Setting("calibrate", "N|FILE", None, count_or_file,
            "Measure the rate of false failures and the power of the verdict on N fresh processes of "
            "identical code, or on the runs that an earlier calibration recorded in FILE."),
    Setting("strict", "auto|on|off", "auto", one_of("auto", "on", "off"),
            "Also fail what could not be judged; auto is on where CI or BUILD_NUMBER is set."),
    Setting("pool", "NAME", "", str, "The set of like runners whose baselines count; empty: the GPU's name."),
    Setting("baselines", "DIR", "baselines", str, "Folder of the baselines, beside or above the suites."),
    Setting("kernels", "", "kernels", str, "Folder of the .cu files, beside or above the suites."),
    Setting("lock_timeout", "SECONDS", "600", _SECONDS,
            "How long to wait for another session that uses the device (default: 600)."),
    Setting("child_timeout", "", "600", _SECONDS,
            "Seconds without progress after which a child process is ended."),
    Setting("cooldown", "", "10", _SECONDS,
            "Seconds to wait before measuring again what was measured while unfit."),
    Setting("model_dir", "DIR", None, str, "MLPerf's resnet50_v1.onnx (default: MODEL_DIR)."),
    Setting("data_dir", "DIR", None, str, "ImageNet with val_map.txt (default: DATA_DIR)."),
    Setting("tolerance", "RULE", None, parse,
            'The smallest change worth a failure, "[POOL:] METRIC = 3 %%"; repeatable, wins over the marker.',
            {"action": "append"}),
    Setting("tolerances", "", [], parse, 'Lines of "[POOL:] METRIC = 3 %".'),
    Setting("max_confirm", "N", "5", integer(1, 10_000),
            "Tests that replicas confirm one by one; the next set measures all that are left (default: 5)."),
    Setting("budget", "MINUTES", None, above_zero("minutes", 60),
            "Bound the run's measuring; what does not fit is unmeasured, the most valuable comes first."),
    Setting("max_runs", "", "20", integer(MIN_RUNS, 1000),
            "Runs that a baseline keeps; an append drops the oldest."),
    Setting("require", "", [], one_of("counters"),
            "Capabilities whose lack is a fault of the set-up and not a skip: counters."),
    Setting("kernel_timeout", "", "60", above_zero("seconds"),
            "Seconds that a kernel may run before its test fails."),
    Setting("quarantine", "", "", str, "The quarantine file; empty: quarantine.toml among the baselines."),
    Setting("against", "REV", None, str,
            "Judge without stored baselines: processes of this checkout and of a git revision alternate."),
    Setting("blocks", "N", None, integer(2, 100),
            f"Blocks, of two processes a side, after which a comparison ends (default: {BLOCKS}).",
            {"default": BLOCKS}),
    Setting("baselines_from", "REV", None, str,
            "Judge by the baselines, quarantine, tolerances, strictness and waivers that a git revision has, "
            "so that a change cannot rewrite or waive its own."),
    Setting("markdown", "FILE", None, str,
            "Write the summary as Markdown, for a comment on a pull request."),
    Setting("acquit", "auto|off", "auto", one_of("auto", "off"),
            "Before a test is called regressed: run the baseline's own code here and now, in alternation "
            "(auto), or judge by the stored runs alone (off)."),
    Setting("json", "FILE", None, str, "Write the run's results as JSON, for programs."),
    Setting("html", "FILE", None, str, "Write the run's results as a page: one file, which loads nothing."),
    Setting("benchmark_json", "FILE", None, str,
            "Write the times of the run in pytest-benchmark's format, for pytest-benchmark compare."),
    Setting("history", "FOLDER|URL", None, str,
            "Add a JSON Lines file of this run's figures to a folder or, with the extra history, an "
            "fsspec URL; the page's trends and a failure's since are its."),
)  # fmt: skip
JUDGING = ("backend", "strict", "pool", "baselines", "tolerances", "quarantine", "acquit")
"""Settings whose ini keys decide what fails; gpuperf_judge_host_times does, too."""
REPORTS = ("json", "html", "benchmark_json", "history")
HOST_TIMES = "gpuperf_judge_host_times"
_MEASURED = {
    "update": "records what it measures",
    "calibrate": "records what it measures",
    "against": "compares with a revision",
    "accept": "judges by two sets of baselines",
}


def add_options(parser: pytest.Parser) -> None:
    """Declare every flag and ini key."""
    group = parser.getgroup("gpuperf", "GPU performance regression testing")
    group.addoption(
        "--gpuperf",
        action="store_true",
        help="Measure, judge against the baselines, and fail what regressed.",
    )
    for setting in SETTINGS:
        flag = f"--gpuperf-{setting.name.replace('_', '-')}"
        if setting.flag:
            group.addoption(
                flag, metavar=setting.flag, type=setting.convert, help=setting.help, **setting.more
            )
        if setting.ini is not None:
            help = f"Default of {flag}." if setting.flag else setting.help
            kind: Any = "linelist" if isinstance(setting.ini, list) else "string"
            parser.addini(f"gpuperf_{setting.name}", help, type=kind, default=setting.ini)
    group.addoption(
        "--gpuperf-accept",
        action="store_true",
        help="Beside --gpuperf-baselines-from: let this checkout's own baselines and waivers count, and list "
        "those that were needed. For a maintainer to set.",
    )
    group.addoption(
        "--gpuperf-skip-unchanged",
        action="store_true",
        help="Do not measure launches that are their baseline's own to the bit, on the baseline's software: "
        "they run once, for the test's correctness.",
    )
    parser.addini(
        HOST_TIMES,
        "Judge host times without a GPU too: for a machine that runs nothing else.",
        type="bool",
        default=False,
    )
    group.addoption("--gpuperf-child", type=int, help=argparse.SUPPRESS)


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """The flags and ini keys of a session, checked.

    ``active``: ``--gpuperf`` was given, so numbers are taken and judged. ``plan``: nothing is measured, and
    this file lists what has to be. ``child`` is the file descriptor of
    the parent's pipe in a child process, else None. Times are in seconds. ``tolerance`` are the command
    line's, ``tolerances`` the ini file's. ``against`` and ``baselines_from`` are resolved revisions;
    ``accept``: what judges is this checkout's all the same. ``skip_unchanged``: launches whose work is their
    baseline's own are not measured.
    """

    active: bool
    backend: str
    strict: bool
    update: str | None
    plan: str | None
    runs: int
    calibrate: int | Path | None
    pool: str
    baselines: str
    kernels: str
    judge_host_times: bool
    lock_timeout: float
    child_timeout: float
    cooldown: float
    model_dir: str | None
    data_dir: str | None
    child: int | None
    tolerance: tuple[Tolerance, ...]
    tolerances: tuple[Tolerance, ...]
    max_confirm: int
    budget: float | None
    max_runs: int
    quarantine: str
    kernel_timeout: float
    require: tuple[str, ...]
    against: Revision | None
    blocks: int
    baselines_from: Revision | None
    accept: bool
    acquit: bool
    markdown: str | None
    skip_unchanged: bool
    json: str | None
    html: str | None
    benchmark_json: str | None
    history: str | None

    @property
    def reports(self) -> tuple[str, ...]:
        """Return the reports that this run writes: addopts may ask for some, and not every run judges."""
        judges = self.active and self.child is None and not self.only_records
        return tuple(name for name in REPORTS if judges and getattr(self, name))

    @property
    def terms(self) -> Revision | None:
        """Return the revision whose baselines and waivers count; None: this checkout's."""
        return None if self.accept else self.baselines_from

    @property
    def only_records(self) -> bool:
        """Return whether this run's figures are stored, or tried on each other, and not judged."""
        return self.update is not None or self.calibrate is not None


def read_options(config: pytest.Config, accept: bool | None = None) -> Options:
    """Return the checked options; raises pytest.UsageError, one sentence for a value out of range.

    ``accept``: as if --gpuperf-accept were given, or were not.
    """
    given = {setting.name: _value(config, setting) for setting in SETTINGS}
    _check_together(config, given)
    accept = config.option.gpuperf_accept if accept is None else accept
    try:
        revisions = {
            name: None if given[name] is None else resolve(config.rootpath, given[name])
            for name in ("against", "baselines_from")
        }
        judging = None if accept else revisions["baselines_from"]
        file = ini_at(config, judging) if judging else None
    except GitError as error:
        raise pytest.UsageError(str(error)) from None
    if revisions["baselines_from"] and not _overridden(config, "addopts"):
        check_addopts(config, file, [*map(_flag, (*JUDGING, "tolerance", "baselines_from", "against"))])
    if file:
        given |= {s.name: _value(config, s, file) for s in SETTINGS if s.name in JUDGING}
    theirs = file is not None and not _overridden(config, HOST_TIMES)
    host_times = file.get(HOST_TIMES, False) if file and theirs else config.getini(HOST_TIMES)
    if given["quarantine"]:
        theirs = file is not None and not _overridden(config, "gpuperf_quarantine")
        own = config.inipath.parent if config.inipath else config.rootpath
        given["quarantine"] = str((file.folder if file and theirs else own) / given["quarantine"])
    in_ci = bool(os.environ.get("CI") or os.environ.get("BUILD_NUMBER"))
    changed = {
        "strict": in_ci if given["strict"] == "auto" else given["strict"] == "on",
        "acquit": given["acquit"] == "auto",
        "tolerance": tuple(given["tolerance"] or ()),
    }
    if given["history"] and "://" not in given["history"]:
        changed["history"] = str(config.invocation_params.dir / given["history"])
    return Options(
        active=config.option.gpuperf and given["plan"] is None,
        child=config.option.gpuperf_child,
        judge_host_times=host_times,
        accept=accept,
        skip_unchanged=config.option.gpuperf_skip_unchanged,
        **{**given, **changed, **revisions},
    )


def _value(config: pytest.Config, setting: Setting, file: IniFile | None = None) -> Any:
    """Return the flag's value if it was given, else the ini key's, of ``file`` if there is one."""
    found = getattr(config.option, f"gpuperf_{setting.name}") if setting.flag else None
    if found or setting.ini is None:
        return found
    key = f"gpuperf_{setting.name}"
    if file is None or _overridden(config, key):
        written, where = config.getini(key), f"{config.inipath}: " if config.inipath else ""
    else:
        written, where = file.get(key, setting.ini), f"{file.name}: "
    try:
        return tuple(map(setting.convert, written)) if isinstance(written, list) else setting.convert(written)
    except argparse.ArgumentTypeError as error:
        raise pytest.UsageError(f"{where}{key}: {error}") from None


def _overridden(config: pytest.Config, key: str) -> bool:
    """Return whether ``-o KEY=VALUE`` was given."""
    return any(given.partition("=")[0].strip() == key for given in config.option.override_ini or ())


def _check_together(config: pytest.Config, given: Mapping[str, Any]) -> None:
    """Raise pytest.UsageError for flags that do not go together."""
    active, update, calibrate = config.option.gpuperf, given["update"], given["calibrate"]
    if given["plan"] is not None:
        _check_planning(config, given)
    needing = {
        "update": "records measurements",
        "calibrate": "measures",
        "budget": "bounds what is measured",
        "against": "is about what is measured",
        "baselines_from": "is about what is measured",
        "markdown": "writes what was measured",
    }
    for name, does in needing.items():
        flag = _flag(name) + ("=N" if name == "calibrate" else "")
        planned = given["plan"] is not None and name == "baselines_from"
        if given[name] is not None and not (active or planned or isinstance(given[name], Path)):
            raise pytest.UsageError(f"{flag} {does}, so it needs --gpuperf beside it")
    if config.option.gpuperf_skip_unchanged:
        given = {**given, "accept": config.option.gpuperf_accept}
        _check_skipping(active, [name for name in _MEASURED if given[name]])
    for name in ("strict", "pool", "tolerance", "runs", "max_confirm", "blocks", "acquit", *REPORTS):
        reads = isinstance(calibrate, Path)  # and measures nothing
        reads = reads or (given["plan"] is not None and name in ("pool", "strict"))
        if _typed(config, name) and not (active or reads or config.option.gpuperf_child is not None):
            raise pytest.UsageError(
                f"{_flag(name)} is about what is measured, so it needs --gpuperf beside it"
            )
    for name in REPORTS if update or calibrate is not None else ():
        if _typed(config, name):
            recording = _flag("update" if update else "calibrate")
            raise pytest.UsageError(
                f"{_flag(name)} reports verdicts and {recording} records: leave one of them out"
            )
    if _typed(config, "runs") and active and not update and calibrate is None:
        raise pytest.UsageError(
            "--gpuperf-runs is how many runs are recorded: give --gpuperf-update or --gpuperf-calibrate, too"
        )
    if calibrate and update:
        raise pytest.UsageError("--gpuperf-calibrate and --gpuperf-update record different things; give one")
    if update and given["runs"] > given["max_runs"]:
        raise pytest.UsageError(
            f"--gpuperf-runs={given['runs']} is more than the {given['max_runs']} runs that a baseline "
            "keeps; record fewer, or raise the ini key gpuperf_max_runs"
        )
    others = [name for name in ("update", "calibrate", "against") if given[name]]
    if given["budget"] and others:
        raise pytest.UsageError(
            "--gpuperf-budget bounds a run that judges against baselines; "
            f"leave it out beside {_flag(others[0])}"
        )
    for name in ("against", "baselines_from"):
        if given[name] is not None and (update or calibrate is not None):
            recording = _flag("update" if update else "calibrate")
            raise pytest.UsageError(f"{_flag(name)} judges and {recording} records: leave one of them out")
    if given["against"] is not None and given["baselines_from"] is not None:
        raise pytest.UsageError(
            "--gpuperf-against needs no stored baselines: leave out --gpuperf-baselines-from"
        )
    if config.option.gpuperf_accept and given["baselines_from"] is None and given["against"] is None:
        raise pytest.UsageError(
            "--gpuperf-accept lets this checkout's baselines and waivers count instead of a revision's: "
            "give --gpuperf-baselines-from=REV or --gpuperf-against=REV beside it"
        )
    if given["against"] is not None and getattr(config.option, "tx", None):
        raise pytest.UsageError("--gpuperf-against measures in one process after the other; leave out -n")


def _check_planning(config: pytest.Config, given: Mapping[str, Any]) -> None:
    """Raise pytest.UsageError for what a run that measures nothing cannot do."""
    others = [_flag(name) for name in ("update", "calibrate", "against", "budget") if given[name]]
    others += ["--gpuperf-skip-unchanged"] if config.option.gpuperf_skip_unchanged else []
    if others:
        raise pytest.UsageError(f"--gpuperf-plan measures nothing: leave out {others[0]}")
    if getattr(config.option, "tx", None):
        raise pytest.UsageError("--gpuperf-plan plans in one process; leave out -n")


def _check_skipping(active: bool, others: list[str]) -> None:
    """Raise pytest.UsageError where --gpuperf-skip-unchanged has nothing to leave out, or must not."""
    if not active:
        raise pytest.UsageError(
            "--gpuperf-skip-unchanged is about what is measured, so it needs --gpuperf beside it"
        )
    if others:
        does = _MEASURED[others[0]]
        raise pytest.UsageError(
            f"--gpuperf-skip-unchanged measures less, and {_flag(others[0])} {does}: leave one of them out"
        )


def _typed(config: pytest.Config, name: str) -> bool:
    """Return whether a person gave the flag now; an ini file's addopts may have it for other runs."""
    return any(str(given).partition("=")[0] == _flag(name) for given in config.invocation_params.args)


def _flag(name: str) -> str:
    return f"--gpuperf-{name.replace('_', '-')}"


def owner_of(start: Path, folder: str, fallback: Path, root: Path) -> Path:
    """Return the nearest folder at or above ``start`` that holds ``folder``, else ``fallback``.

    Baselines and kernels belong to the project they lie in, however pytest was started. What lies above both
    pytest's ``root`` folder and the repository's top is not the project's; outside of both, what lies above
    ``start``.
    """
    above = (start, *start.parents)
    tops = [parent for parent in above if parent == root]
    tops += [parent for parent in above if os.path.lexists(parent / ".git")][:1]
    last = max(map(above.index, tops), default=0)
    holding = (parent for parent in above[: last + 1] if os.path.isdir(parent / folder))
    return fallback if Path(folder).is_absolute() else next(holding, fallback)
