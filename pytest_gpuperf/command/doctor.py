"""Check what this machine needs to measure: driver, compilers, counters, LoadGen, the GPU's state, baselines.

Each line is ok, warn or missing, with what to do. Exit code 1 where something is missing that every test of
kernels here needs: on a machine without a GPU that is what the emulator needs; and where a baseline file of
this device cannot be read.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import textwrap
from collections.abc import Callable
from dataclasses import asdict

from pytest_gpuperf.backends import BACKENDS
from pytest_gpuperf.command.finding import Finding
from pytest_gpuperf.command.folders import declare_baselines
from pytest_gpuperf.errors import BaselineError, GpuperfError


def declare(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--backend",
        choices=BACKENDS,
        default="auto",
        help="for which device (default: auto, a GPU where there is one, else the emulator)",
    )
    parser.add_argument("--json", action="store_true", help="print the lines as JSON")
    declare_baselines(parser)


def run(given: argparse.Namespace) -> int:
    """Look at everything and print it."""
    from pytest_gpuperf.command.checks import checks

    found = [_looked(name, check, needed) for name, check, needed in checks(given.backend, given.baselines)]
    if given.json:
        print(json.dumps([asdict(finding) for finding in found], indent=2))
    else:
        width = max(len(finding.name) for finding in found)
        for finding in found:
            _print(f"{finding.state:<7}  {finding.name:<{width}}  ", finding.says)
            if finding.do:
                _print(" " * (width + 11), f"-> {finding.do}")
        missing = [finding.needed for finding in found if finding.state == "missing"]
        if missing and not any(missing):
            print("What is missing is not needed to test kernels here.")
    return int(any(finding.state == "missing" and finding.needed for finding in found))


def _print(before: str, text: str) -> None:
    """Print a cell, within the width of a terminal if it is one: a log is searched, and not read."""
    room = shutil.get_terminal_size().columns - len(before) if sys.stdout.isatty() else 10_000
    lines = textwrap.wrap(text, max(room, 20), break_long_words=False, break_on_hyphens=False) or [""]
    for number, line in enumerate(lines):
        print(" " * len(before) if number else before, line, sep="")


def _looked(name: str, check: Callable[[], Finding], needed: bool) -> Finding:
    """Run one check; what it raises is what is missing, in a sentence with what to do at its end."""
    try:
        return check()
    except GpuperfError as error:
        text = str(error)
        cut = text.rfind(": pip ") if ": pip " in text else text.rfind("; ")
        says, do = (text[:cut], text[cut + 2 :]) if cut > 0 else (text, "")
        return Finding(name, "missing", says, do.rstrip("."), needed or isinstance(error, BaselineError))
