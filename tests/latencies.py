"""A project whose test records what it is told: a replica can so differ from the screen."""

from __future__ import annotations

import json
from typing import Any

import pytest

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


INI = "[pytest]\ngpuperf_judge_host_times = true\n"


class HostProject:
    """A user's project that judges host times, in pytester's folder."""

    def __init__(self, pytester: pytest.Pytester, suite: str = SUITE, ini: str = INI) -> None:
        self.pytester, self.path = pytester, pytester.path
        pytester.makeini(ini)
        pytester.makepyfile(test_suite=suite)
        pytester.mkdir("baselines")

    def tell(self, latencies: str) -> None:
        """Tells the next processes their latencies, separated by blanks."""
        (self.path / "latency.txt").write_text(latencies)
        (self.path / "count.txt").unlink(missing_ok=True)

    def judge(self, *flags: str) -> pytest.RunResult:
        return self.pytester.runpytest_subprocess("--gpuperf", *flags)

    @property
    def processes(self) -> int:
        """How many have asked since they were told."""
        return int((self.path / "count.txt").read_text())

    @property
    def stored(self) -> dict[str, Any]:
        (file,) = (self.path / "baselines").rglob("*.json")
        return json.loads(file.read_text())
