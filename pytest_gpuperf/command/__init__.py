"""The command ``gpuperf``: what a person asks beside the tests. One module a subcommand, each loaded late."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from importlib import import_module
from io import TextIOWrapper
from typing import Any, NoReturn

from pytest_gpuperf import __version__
from pytest_gpuperf.errors import GpuperfError
from pytest_gpuperf.text import inert

SUBCOMMANDS = {
    "doctor": "check what this machine needs to measure, and say what to do",
    "show": "list the stored baselines: pools, ages, units, runs",
    "diff": "compare two result files, or the baselines of two revisions",
    "rename": "let stored baselines follow a renamed test or file",
    "init": "write a first kernel, suite and workflow into a folder",
}
EXIT_USAGE = 2


class _Parser(argparse.ArgumentParser):
    """Says what is wrong in one sentence; argparse's own usage is for --help."""

    def error(self, message: str) -> NoReturn:
        self.exit(EXIT_USAGE, f"{self.prog}: {inert(message)} (see {self.prog} --help)\n")


def parser() -> argparse.ArgumentParser:
    """Return the parser of the whole command."""
    top = _Parser(prog="gpuperf", description="Baselines and machines of pytest-gpuperf, beside the tests.")
    top.add_argument("--version", action="version", version=f"pytest-gpuperf {__version__}")
    below = top.add_subparsers(dest="subcommand", metavar="COMMAND", required=True)
    for name, help in SUBCOMMANDS.items():
        module = import_module(f"{__name__}.{name}")
        each = below.add_parser(name, help=help, description=module.__doc__)
        module.declare(each)
        each.set_defaults(run=module.run)
    return top


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a subcommand and return its exit code: 2, with one sentence, for input that is wrong."""
    given: Any = parser().parse_args(arguments)
    for stream in (sys.stdout, sys.stderr):  # an old terminal's encoding may have no µ
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="replace")
    try:
        return int(given.run(given))
    except GpuperfError as error:
        print(f"gpuperf {given.subcommand}: {error}", file=sys.stderr)
        return EXIT_USAGE
    except BrokenPipeError:  # such as by `| head`; Python would complain once more at its end
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
