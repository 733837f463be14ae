"""How long does a suite of many benchmarks take to record, judge and report?

    python docs/studies/many_tests.py [--tests 10000] [--runs 5]

Each test records one number that varies by 0.5 % between processes, so that what is timed is pytest and this
plugin alone. Processor seconds are printed beside the wall's, since they say more on a shared machine.
"""

from __future__ import annotations

import argparse
import os
import resource
import subprocess
import sys
import tempfile
from pathlib import Path
from time import perf_counter

ROOT = Path(__file__).resolve().parents[2]
SUITE = """
import os, random
import pytest

random.seed(os.getpid())

@pytest.mark.parametrize("n", range({tests}))
def test_it(gpuperf, n):
    gpuperf.record("size", (1000 + n) * random.gauss(1, 0.005), "B", "lower")
"""
REPORTS = {
    "html": "page.html",
    "json": "run.json",
    "markdown": "summary.md",
    "history": "history",
    "benchmark-json": "benchmark.json",
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--tests", type=int, default=10_000)
    parser.add_argument("--runs", type=int, default=5)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "test_many.py").write_text(SUITE.format(tests=given.tests))
        steps = {
            "pytest alone": ["-p", "no:gpuperf"],
            "without --gpuperf": [],
            f"recorded, {given.runs} runs": ["--gpuperf", "--gpuperf-update", f"--gpuperf-runs={given.runs}"],
            "judged": ["--gpuperf"],
            "judged, with JUnit": ["--gpuperf", "--junitxml=junit.xml"],
            **{
                f"judged, with {flag}": ["--gpuperf", f"--gpuperf-{flag}={file}"]
                for flag, file in REPORTS.items()
            },
        }
        for step, flags in steps.items():
            wall, used = _timed(folder, flags, alone="no:gpuperf" in flags)
            print(f"{step:<32} {wall:6.1f} s  {used:6.1f} s of the processors", flush=True)
        for path in sorted(path for path in folder.rglob("*.*") if path.is_file() and ".py" not in path.name):
            print(f"{path.relative_to(folder)!s:<48} {path.stat().st_size / 1e6:6.1f} MB")


def _timed(folder: Path, flags: list[str], alone: bool) -> tuple[float, float]:
    """Run the suite; return the seconds that it took, and its processes' on the processors."""
    environment = {**os.environ, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", "PYTHONPATH": str(ROOT)}
    if not alone:
        environment["PYTEST_PLUGINS"] = "pytest_gpuperf.plugin"
    if alone:
        (folder / "conftest.py").write_text(
            "import pytest\nfrom types import SimpleNamespace\n"
            "@pytest.fixture\ndef gpuperf(): return SimpleNamespace(record=lambda *_: None)\n"
        )
    else:
        (folder / "conftest.py").unlink(missing_ok=True)
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *flags]
    begun, before = perf_counter(), resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    if done.returncode:
        raise SystemExit(done.stdout[-2000:] + done.stderr)
    return perf_counter() - begun, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


if __name__ == "__main__":
    main()
