"""Run kernels of public repositories on the emulator, hold them to NumPy, and look for bugs planted in them.

    python docs/studies/public_kernels.py FOLDER

FOLDER holds checkouts, each in a folder "owner+name", at the commits that docs/studies/README.md has. The
kernels are public_cases.py's; their files are read there and copied to a temporary folder for a bug.
"""

from __future__ import annotations

import argparse
import re
import shutil
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from public_bugs import Bug, Case
from public_cases import cases

from pytest_gpuperf.backends.emulated.device import EmulatedBackend
from pytest_gpuperf.backends.kernels import Kernels
from pytest_gpuperf.errors import GpuperfError


def launch(case: Case, path: Path, root: Path) -> str:
    """Return what is wrong: what the emulator says, or that NumPy disagrees; "" if nothing is."""
    device = EmulatedBackend(threads=2, seconds=20)
    try:
        given = [device.to_device(a) if isinstance(a, np.ndarray) else a for a in case.arguments]
        options = (option if option.startswith("-") else str(root / option) for option in case.options)
        file = Kernels(path.parent, device)[(path.name, *options)]
        file[case.kernel][case.grid, case.block, case.shared](*given)
        for number, expected in case.wants.items():
            found = given[number].get()
            if not np.allclose(found.ravel(), expected.ravel(), rtol=1e-4, atol=1e-4):
                return f"argument {number} is not NumPy's"
        return ""
    except GpuperfError as error:
        return str(error)
    finally:
        device.close()


def planted(path: Path, bug: Bug, folder: Path) -> Path:
    """Return a copy of a file, with those beside it, that has the bug."""
    shutil.copytree(path.parent, folder, dirs_exist_ok=True)
    lines = path.read_text(errors="surrogateescape").split("\n")
    changed = re.sub(bug.old, bug.new, lines[bug.line - 1], count=1)
    if changed == lines[bug.line - 1]:
        raise SystemExit(f"{path}:{bug.line} has no {bug.old}: another commit?")
    lines[bug.line - 1] = changed
    copy = folder / path.name
    copy.write_text("\n".join(lines), errors="surrogateescape")
    return copy


def judged(bug: Bug, said: str) -> str:
    if not said:
        return "missed"
    if "NumPy" in said:
        return "only the result"
    lines = {int(n) for n in re.findall(r"(?:cuh?:|in line )(\d+)", said)}
    return "found" if bug.says in said and lines & set(bug.at) else "elsewhere"


def results(root: Path) -> Iterator[tuple[Case, Bug | None, str]]:
    for case in cases():
        path = root / case.file
        yield case, None, launch(case, path, root)
        for bug in case.bugs:
            with tempfile.TemporaryDirectory() as folder:
                yield case, bug, launch(case, planted(path, bug, Path(folder)), root)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path, help="of the checkouts")
    counts: Counter[tuple[str, str]] = Counter()
    for case, bug, said in results(parser.parse_args().folder):
        verdict = judged(bug, said) if bug else "right" if not said else "false alarm or wrong"
        counts[bug.kind if bug else "as it is", verdict] += 1
        expected = verdict in ("right", "found")
        where = f"{case.file.rpartition('/')[2]} {case.kernel}"
        where += f", line {bug.line}, {bug.kind}" if bug else ""
        print(f"{verdict}: {where}" + ("" if expected else f"\n    {said}"), flush=True)
    print("\n| | | |\n|---|---|---|")
    for (kind, verdict), number in sorted(counts.items()):
        print(f"| {kind} | {verdict} | {number} |")


if __name__ == "__main__":
    main()
