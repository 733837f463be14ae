"""LoadGen on a machine without a GPU, judged by --gpuperf-against: false reds, interval widths, and power.

    python docs/studies/noisy_cpu.py --times 10 --out noisy_cpu.jsonl            # HEAD against itself
    python docs/studies/noisy_cpu.py --times 3 --blocks 3 4 9 3 --out slower.jsonl  # three more blocks
    python docs/studies/noisy_cpu.py --table noisy_cpu.jsonl slower.jsonl

Each time is a whole session in a git repository of its own. With --blocks the working revision's
ResNet-50 has so many residual blocks in its four stages; (3, 4, 6, 3) is the model itself. Results are
one JSON line a metric and are added to the file.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
import xml.etree.ElementTree as ElementTree
from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path
from statistics import median

SUITE = """
import pytest

@pytest.mark.parametrize("scenario", ["SingleStream", "Offline"])
def test_performance(loadgen, resnet50, scenario):
    loadgen(resnet50, scenario, seconds=2.5)
"""
CONFTEST = """
from dataclasses import replace
from pathlib import Path

import pytest
from pytest_gpuperf.mlperf import models, resnet50 as recipe

BLOCKS = {blocks}

@pytest.fixture
def resnet50(request):
    model = models.resolve(request.param)
    if BLOCKS == recipe.BLOCKS:
        return model
    path = Path({cache!r}) / ("-".join(map(str, BLOCKS)) + ".onnx")
    if not path.exists():
        head = models.digits_head()
        built = recipe.build(models.SEED, (head.weight, head.bias), BLOCKS)
        path.write_bytes(built.SerializeToString())
    return replace(model, path=path)
"""
RESNET50 = (3, 4, 6, 3)


def repository(folder: Path, blocks: tuple[int, ...]) -> None:
    """A git repository whose first commit has the model itself, and whose HEAD has ``blocks``."""

    def commit(chosen: tuple[int, ...], message: str) -> None:
        (folder / "conftest.py").write_text(CONFTEST.format(blocks=chosen, cache=str(folder.parent)))
        author = ["-c", "user.name=study", "-c", "user.email=study@localhost"]
        for words in (["add", "-A"], [*author, "commit", "-q", "--allow-empty", "-m", message]):
            subprocess.run(["git", *words], cwd=folder, check=True)

    folder.mkdir()
    subprocess.run(["git", "init", "-q"], cwd=folder, check=True)
    (folder / "pytest.ini").write_text("[pytest]\n")
    (folder / "test_model.py").write_text(SUITE)
    (folder / ".gitignore").write_text(".gpuperf/\n__pycache__/\n")
    commit(RESNET50, "the model itself")
    commit(blocks, "what is compared with it")


def session(folder: Path) -> list[dict[str, str]]:
    """One session against the first commit: the properties of every judged metric."""
    report = folder.parent / "report.xml"
    report.unlink(missing_ok=True)
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", f"--junitxml={report}"]
    command += ["--gpuperf", "--gpuperf-backend=emulated", "--gpuperf-against=HEAD~1"]
    done = subprocess.run(command, cwd=folder, env=os.environ, capture_output=True, text=True, check=False)
    print(done.stdout[-2500:], flush=True)
    found = []
    for case in ElementTree.parse(report).iter("testcase"):
        values = {p.get("name", ""): p.get("value", "") for p in case.iter("property")}
        found.append({"test": case.get("name", ""), "exit": str(done.returncode), **values})
    return found


def table(files: Iterable[Path]) -> str:
    """Markdown: of each file and metric the reds, the change and the interval's half width."""
    lines = [
        "| file | test | metric | sessions | verdicts | change | interval, half width |",
        "|---" * 7 + "|",
    ]
    for file in files:
        found: dict[tuple[str, str], list[str]] = defaultdict(list)
        for line in file.read_text().splitlines():
            test = json.loads(line)
            for key, text in test.items():
                if key.startswith("gpuperf."):
                    found[test["test"], key.removeprefix("gpuperf.")].append(text)
        for (test_name, metric), texts in sorted(found.items()):
            lines.append(f"| {file.stem} | {test_name} | {metric} | {len(texts)} | {_row(texts)} |")
    return "\n".join(lines)


def _row(texts: Sequence[str]) -> str:
    """Of "equal 25.61 ms -2.67 % [-6.10 %, +0.90 %]" and its like."""
    outcomes = [re.match(r"\D+?(?= \d|$)", text).group() for text in texts]  # type: ignore[union-attr]
    verdicts = ", ".join(f"{outcomes.count(each)} {each}" for each in sorted(set(outcomes)))
    intervals = [re.search(r"(\S+) % \[(\S+) %, (\S+) %\]", text) for text in texts]
    numbers = [tuple(map(float, found.groups())) for found in intervals if found]
    if not numbers:
        return f"{verdicts} | - | -"
    changes = sorted(change for change, _, _ in numbers)
    widths = sorted((high - low) / 2 for _, low, high in numbers)
    return (
        f"{verdicts} | {changes[0]:+.1f} to {changes[-1]:+.1f} % | "
        f"{widths[0]:.1f} to {widths[-1]:.1f} %, median {median(widths):.1f} %"
    )


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--times", type=int, default=10)
    parser.add_argument("--blocks", type=int, nargs=4, default=list(RESNET50))
    parser.add_argument("--out", type=Path)
    parser.add_argument("--table", type=Path, nargs="+", default=[])
    asked = parser.parse_args(arguments)
    if asked.table:
        print(table(asked.table))
        return
    if asked.out is None:
        parser.error("give --out, a file to add to, or --table")
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary) / "project"
        repository(folder, tuple(asked.blocks))
        for _ in range(asked.times):
            rows = session(folder)
            with asked.out.open("a") as kept:
                kept.writelines(json.dumps(row) + "\n" for row in rows)


if __name__ == "__main__":
    main()
