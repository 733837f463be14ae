"""A suite whose test records what it is told: a replica can so differ from the screen."""

from __future__ import annotations

from pathlib import Path

# Each process takes the next of the words in latency.txt, and the last one again and again.
LATENCY = """\
import pathlib
import pytest

HERE = pathlib.Path(__file__).parent

def latency():
    words = (HERE / "latency.txt").read_text().split()
    count = HERE / "count.txt"
    number = int(count.read_text()) if count.exists() else 0
    count.write_text(str(number + 1))
    return float(words[min(number, len(words) - 1)])

"""
SUITE = f'{LATENCY}def test_latency(gpuperf):\n    gpuperf.record("latency", latency(), "s")\n'


def tell(folder: Path, latencies: str) -> None:
    """Tells the next processes their latencies, separated by blanks."""
    (folder / "latency.txt").write_text(latencies)
    (folder / "count.txt").unlink(missing_ok=True)


def processes(folder: Path) -> int:
    """How many have asked since."""
    return int((folder / "count.txt").read_text())
