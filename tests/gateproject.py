"""Projects on which the gate is tried: one of a noisy latency, and one of an exact figure."""

from __future__ import annotations

import pytest
from latencies import HostProject
from once import run_once

WITHIN_NOISE = "1.000 1.000 1.002 0.999 1.001 1.000"  # the session's own process, then five runs


class Project(HostProject):
    def run(self, *flags: str, latencies: str = "1.0") -> pytest.RunResult:
        self.tell(latencies)
        return self.judge(*flags)

    def record(self, latencies: str = WITHIN_NOISE) -> pytest.RunResult:
        self.tell(latencies)
        result = run_once(self.pytester, "--gpuperf", "--gpuperf-update")
        assert result.ret == 0, result.stdout.str()
        return result


EXACT = "def test_count(gpuperf): gpuperf.record('sectors', {}, kind='exact')\n"


@pytest.fixture(name="exact")
def exact_project(pytester: pytest.Pytester) -> pytest.Pytester:
    """An exact metric whose baseline is 4."""
    (pytester.path / "baselines").mkdir()
    pytester.makeini("[pytest]\n")
    pytester.makepyfile(test_exact=EXACT.format("4.0"))
    assert run_once(pytester, "--gpuperf", "--gpuperf-update").ret == 0
    return pytester
