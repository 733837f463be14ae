"""Let stored baselines follow a test or a file that was renamed, in every pool.

OLD and NEW are node ids (suites/test_a.py::test_x, with or without a parameter's id) or files. A test's
parameters and a class's tests go along.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable
from pathlib import Path

from pytest_gpuperf.command.folders import baselines, declare_baselines, is_of, suite_and_test
from pytest_gpuperf.errors import GpuperfError
from pytest_gpuperf.text import counted


def declare(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("old", metavar="OLD", help="the name that the baselines have")
    parser.add_argument("new", metavar="NEW", help="the name that the test or file has now")
    declare_baselines(parser)


def run(given: argparse.Namespace) -> int:
    """Rename and say what was."""
    from pytest_gpuperf.storage.baselines import Store

    folder, owner = baselines(given.baselines)
    (suite, test), (other, name) = (suite_and_test(each, owner) for each in (given.old, given.new))
    if bool(test) != bool(name):
        raise GpuperfError(f"{given.old} and {given.new}: give two files, or two tests")
    if (suite, test) == (other, name):
        raise GpuperfError(f"{given.old} and {given.new} are one name")
    store, moved = Store(folder), {}
    for pool in store.pools():
        if names := _renamed(store.load(pool, suite), test, name):
            moved[pool] = names
    if not moved:
        raise GpuperfError(f"{folder} has no baselines of {given.old}; gpuperf show lists what it has")
    for pool, names in moved.items():  # all, before any is written
        store.check_move(pool, suite, other, names)
    for pool, names in moved.items():
        store.move(pool, suite, other, names)
        print(f"{pool}: {counted(len(names), 'test')}")
        for before, after in names.items():
            print(f"  {suite}::{before} -> {other}::{after}")
    _tell_quarantine(folder, suite, (before for names in moved.values() for before in names))
    return 0


def _renamed(stored: Iterable[str], test: str, name: str) -> dict[str, str]:
    """Return the new names of those stored tests that are ``test``, its parameters or its class's tests."""
    return {each: name + each[len(test) :] for each in stored if is_of(each, test)}


def _tell_quarantine(folder: Path, suite: str, tests: Iterable[str]) -> None:
    """Name the entries of the quarantine file that a person has to rename: its comments are theirs."""
    from pytest_gpuperf.rules.tolerances import matches
    from pytest_gpuperf.storage.project import QUARANTINE, read_quarantine

    path, names = folder / QUARANTINE, [f"{suite}::{test}" for test in tests]
    for entry in read_quarantine(path, folder, optional=True):
        if any(matches(entry.test, name) for name in names):
            print(f"{path}: an entry names {entry.test!r}; rename it there, too")
