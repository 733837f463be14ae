"""Write the commands that a person may paste into a shell: to see a verdict again, and to record."""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest

from pytest_gpuperf.flags import flag_of
from pytest_gpuperf.processes.options import of_the_project
from pytest_gpuperf.rules.case import BLOCKS

# What is measured, where, and which files it belongs to; the rest of the flags judges.
_MEASURING = ("backend", "pool", "baselines", "model_dir", "data_dir")


def location(item: pytest.Item) -> str:
    """Return a test's node id from the folder in which pytest was started."""
    return located(item.config, item.path, item.nodeid)


def located(config: pytest.Config, path: Path, nodeid: str) -> str:
    """Return the node id of a test of the file ``path`` from the folder in which pytest was started."""
    return f"{os.path.relpath(path, config.invocation_params.dir)}::{nodeid.partition('::')[2]}"


def measuring(config: pytest.Config, *targets: str) -> str:
    """Return the command that measures ``targets`` as this session does; --gpuperf-update may follow it."""
    flags = [*_given(config, _MEASURING), *_project(config), *of_the_project(config)]
    return shlex.join(["pytest", *targets, "--gpuperf", *flags])


def targets(config: pytest.Config) -> list[str]:
    """Return what this session was asked to run; nothing where pytest chose by itself."""
    return config.args if config.args_source is pytest.Config.ArgsSource.ARGS else []


def judging(config: pytest.Config) -> str:
    """Return the flags, each after a space, by which this session judges what it measures."""
    option = config.option
    flags = [f"--gpuperf-tolerance={line}" for line in option.gpuperf_tolerance or ()]
    flags += _given(config, ("acquit", "baselines_from", "against"))
    if option.gpuperf_blocks not in (None, BLOCKS):
        flags.append(f"--gpuperf-blocks={option.gpuperf_blocks}")
    flags += ["--gpuperf-accept"] if option.gpuperf_accept else []
    flags += ["--runxfail"] if config.getoption("runxfail", False) else []
    return "".join(f" {shlex.quote(flag)}" for flag in flags)


def _given(config: pytest.Config, names: tuple[str, ...]) -> Iterator[str]:
    for name in names:
        if value := getattr(config.option, f"gpuperf_{name}"):
            yield f"{flag_of(name)}={value}"


def _project(config: pytest.Config) -> Iterator[str]:
    """Yield the options that say which project this is, and how its ini file is overridden."""
    option = config.option
    if option.inifilename:
        yield from ("-c", str(option.inifilename))
    if option.rootdir:
        yield f"--rootdir={option.rootdir}"
    for override in option.override_ini or ():
        yield from ("-o", override)
