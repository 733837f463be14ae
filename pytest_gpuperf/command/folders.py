"""Find the baselines that a subcommand is about."""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from pytest_gpuperf.errors import GpuperfError


def declare_baselines(parser: argparse.ArgumentParser) -> None:
    """Declare the option that names the folder."""
    parser.add_argument(
        "--baselines",
        metavar="DIR",
        help="the baselines' folder (default: the ini key gpuperf_baselines, or baselines/, here or above)",
    )


def baselines(given: str | None, must_exist: bool = True) -> tuple[Path, Path]:
    """Return the baselines' folder, and the one that the names of suites in it are relative to.

    Raises GpuperfError where there is none, if it ``must_exist``: a revision may have it all the same.
    """
    here = Path.cwd()
    if given is not None:
        folder = Path(os.path.abspath(given))
        if must_exist and not folder.is_dir():
            raise GpuperfError(f"--baselines={given}: there is no such folder")
        return folder, folder.parent
    from pytest_gpuperf.ini import ini_above
    from pytest_gpuperf.options import owner_of

    ini = ini_above(here)
    name = ini.get("gpuperf_baselines", "baselines") if ini else "baselines"
    owner = owner_of(here, name, ini.folder if ini else here, ini.folder if ini else here)
    if must_exist and not (owner / name).is_dir():
        raise GpuperfError(
            f"{owner / name}: there is no such folder; record baselines with pytest --gpuperf "
            "--gpuperf-update, or name their folder with --baselines"
        )
    return owner / name, owner


def is_of(name: str, test: str) -> bool:
    """Return whether a stored test is ``test``, a parameter of it or a test of that class; "" is any."""
    return not test or name == test or name.startswith((f"{test}[", f"{test}::"))


def suite_and_test(given: str, owner: Path) -> tuple[str, str]:
    """Return a suite file as it is stored and the test's name in it; ``given`` is from the current folder."""
    file, _, test = given.partition("::")
    path = Path(os.path.abspath(file))
    if path.suffix != ".py":
        raise GpuperfError(f"{given!r} is no test: give FILE.py or FILE.py::TEST, as pytest prints it")
    if not path.is_relative_to(owner):
        raise GpuperfError(f"{given!r} lies outside {owner}, the folder that holds the baselines")
    return path.relative_to(owner).as_posix(), test
