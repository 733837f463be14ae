"""What the flags and ini keys of a session come to, checked."""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from pytest_gpuperf.flags import HOST_TIMES, JUDGING, REPORTS, SETTINGS, Setting, flag_of, host_times
from pytest_gpuperf.git import GitError, Revision, resolve
from pytest_gpuperf.ini import IniFile, check_addopts, check_testpaths, ini_at
from pytest_gpuperf.rules.case import BLOCKS
from pytest_gpuperf.rules.tolerances import Tolerance

NOT_MEASURING = {
    "plan": "plans in one process",
    "trace": "",
    "sanitize": "starts processes one after the other",
}
"""Flags of runs that measure nothing, and what those do that workers of xdist cannot."""
OF_TRACES = ("json", "html")
"""Reports that have traces."""
_OF_MEASURING = {
    "update": "records measurements",
    "calibrate": "measures",
    "budget": "bounds what is measured",
    "against": "is about what is measured",
    "baselines_from": "is about what is measured",
    "markdown": "writes what was measured",
}
_MEASURED = {
    "update": "records what it measures",
    "calibrate": "records what it measures",
    "against": "compares with a revision",
    "accept": "judges by two sets of baselines",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """The flags and ini keys of a session, checked.

    ``active``: ``--gpuperf`` was given, so numbers are taken and judged. With ``plan``, ``trace`` or
    ``sanitize`` nothing is measured: that file lists what has to be, or has the tests' traces; or these tools
    of compute-sanitizer watch the tests. ``child`` is the file descriptor of
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
    trace: str | None
    sanitize: tuple[str, ...] | None
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
        traces = self.trace is not None and self.child is None
        written = REPORTS if judges else OF_TRACES if traces else ()
        return tuple(name for name in written if getattr(self, name))

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
        others = ("tolerance", "baselines_from", "against", "plan", "trace", "sanitize")
        check_addopts(config, file, [*map(flag_of, (*JUDGING, *others))])
    if file and not _overridden(config, "testpaths"):
        check_testpaths(config, file)
    if file:
        given |= {s.name: _value(config, s, file) for s in SETTINGS if s.name in JUDGING}
    theirs = file is not None and not _overridden(config, HOST_TIMES)
    judge_host_times = file.get(HOST_TIMES, False) if file and theirs else host_times(config)
    if given["quarantine"]:
        theirs = file is not None and not _overridden(config, "gpuperf_quarantine")
        own = config.inipath.parent if config.inipath else config.rootpath
        given["quarantine"] = str((file.folder if file and theirs else own) / given["quarantine"])
    in_ci = bool(os.environ.get("CI") or os.environ.get("BUILD_NUMBER"))
    changed = {
        "strict": in_ci if given["strict"] == "auto" else given["strict"] == "on",
        "acquit": given["acquit"] == "auto",
        "blocks": given["blocks"] or BLOCKS,
        "tolerance": tuple(given["tolerance"] or ()),
    }
    if given["history"] and "://" not in given["history"]:
        changed["history"] = str(config.invocation_params.dir / given["history"])
    return Options(
        active=config.option.gpuperf and not any(given[name] is not None for name in NOT_MEASURING),
        child=config.option.gpuperf_child,
        judge_host_times=judge_host_times,
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
        each = "; one a line" if isinstance(written, list) else ""
        raise pytest.UsageError(f"{where}{key}: {error}{each}") from None


def _overridden(config: pytest.Config, key: str) -> bool:
    """Return whether ``-o KEY=VALUE`` was given."""
    return any(given.partition("=")[0].strip() == key for given in config.option.override_ini or ())


def _check_together(config: pytest.Config, given: Mapping[str, Any]) -> None:
    """Raise pytest.UsageError, one sentence for the first flags that do not go together."""
    for wrong in (_measures_nothing, _needs_measuring, _skips_too_much, _records, _judges):
        for said in wrong(config, given):
            raise pytest.UsageError(said)


def _measures_nothing(config: pytest.Config, given: Mapping[str, Any]) -> Iterator[str]:
    """Yield what a run that measures nothing cannot do."""
    for name in (name for name in NOT_MEASURING if given[name] is not None):
        names = ("update", "calibrate", "against", "budget", *NOT_MEASURING)
        others = [flag_of(other) for other in names if given[other] and other != name]
        others += ["--gpuperf-skip-unchanged"] if config.option.gpuperf_skip_unchanged else []
        written = OF_TRACES if name == "trace" else ()
        reports = (*REPORTS, "markdown")
        others += [flag_of(each) for each in reports if each not in written and _typed(config, each)]
        if others:
            yield f"{flag_of(name)} measures nothing: leave out {others[0]}"
        if getattr(config.option, "tx", None) and (does := NOT_MEASURING[name]):
            yield f"{flag_of(name)} {does}; leave out -n"


def _needs_measuring(config: pytest.Config, given: Mapping[str, Any]) -> Iterator[str]:
    """Yield what is about measuring in a run without --gpuperf."""
    active, needs = config.option.gpuperf, "is about what is measured, so it needs --gpuperf beside it"
    for name, does in _OF_MEASURING.items():
        flag = flag_of(name) + ("=N" if name == "calibrate" else "")
        planned = given["plan"] is not None and name == "baselines_from"
        if given[name] is not None and not (active or planned or isinstance(given[name], Path)):
            yield f"{flag} {does}, so it needs --gpuperf beside it"
    if config.option.gpuperf_skip_unchanged and not active:
        yield f"--gpuperf-skip-unchanged {needs}"
    for name in ("strict", "pool", "tolerance", "runs", "max_confirm", "blocks", "acquit", *REPORTS):
        reads = isinstance(given["calibrate"], Path)  # and measures nothing
        reads = reads or (given["plan"] is not None and name in ("pool", "strict"))
        reads = reads or (given["trace"] is not None and name in OF_TRACES)
        if _typed(config, name) and not (active or reads or config.option.gpuperf_child is not None):
            yield f"{flag_of(name)} {needs}"


def _skips_too_much(config: pytest.Config, given: Mapping[str, Any]) -> Iterator[str]:
    """Yield what needs the launches that --gpuperf-skip-unchanged leaves out."""
    asked = {**given, "accept": config.option.gpuperf_accept}
    for name, does in _MEASURED.items() if config.option.gpuperf_skip_unchanged else ():
        if asked[name]:
            yield (
                f"--gpuperf-skip-unchanged measures less, and {flag_of(name)} {does}: leave one of them out"
            )


def _records(config: pytest.Config, given: Mapping[str, Any]) -> Iterator[str]:
    """Yield what does not go with recording, or only with it."""
    update, calibrate = given["update"], given["calibrate"]
    recording = flag_of("update" if update else "calibrate") if update or calibrate is not None else ""
    for name in REPORTS if recording else ():
        if _typed(config, name):
            yield f"{flag_of(name)} reports verdicts and {recording} records: leave one of them out"
    if _typed(config, "runs") and config.option.gpuperf and not recording:
        yield (
            "--gpuperf-runs is how many runs are recorded: give --gpuperf-update or --gpuperf-calibrate, too"
        )
    if calibrate and update:
        yield "--gpuperf-calibrate and --gpuperf-update record different things; give one"
    if update and given["runs"] > given["max_runs"]:
        yield (
            f"--gpuperf-runs={given['runs']} is more than the {given['max_runs']} runs that a baseline "
            "keeps; record fewer, or raise the ini key gpuperf_max_runs"
        )
    others = [name for name in ("update", "calibrate", "against") if given[name]]
    if given["budget"] and others:
        yield (
            "--gpuperf-budget bounds a run that judges against baselines; "
            f"leave it out beside {flag_of(others[0])}"
        )
    for name in ("against", "baselines_from"):
        if given[name] is not None and recording:
            yield f"{flag_of(name)} judges and {recording} records: leave one of them out"


def _judges(config: pytest.Config, given: Mapping[str, Any]) -> Iterator[str]:
    """Yield what contradicts how this run is judged."""
    against, stored = given["against"] is not None, given["baselines_from"] is not None
    if against and stored:
        yield "--gpuperf-against needs no stored baselines: leave out --gpuperf-baselines-from"
    if config.option.gpuperf_accept and not (against or stored):
        yield (
            "--gpuperf-accept lets this checkout's baselines and waivers count instead of a revision's: "
            "give --gpuperf-baselines-from=REV or --gpuperf-against=REV beside it"
        )
    if against and getattr(config.option, "tx", None):
        yield "--gpuperf-against measures in one process after the other; leave out -n"


def _typed(config: pytest.Config, name: str) -> bool:
    """Return whether a person gave the flag now; an ini file's addopts may have it for other runs."""
    return any(str(given).partition("=")[0] == flag_of(name) for given in config.invocation_params.args)


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
