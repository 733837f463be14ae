"""What a long session keeps: memory, descriptors and threads over many tests and child processes.

    python docs/studies/soak.py                         # 2,000 tests, then 200 child processes
    python docs/studies/soak.py --tests 200 --children 10

A project of its own, on the emulated backend: each test has arrays, launches, counts and records, each
``isolated`` one is a child process. The session looks at itself as each test ends.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

KERNEL = """
extern "C" __global__ void twice(const float *src, float *dst, int n)
{
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < n)
        dst[i] = 2 * src[i];
}
"""
SUITE = """
import pytest

def measure(gpu, kernels, gpuperf, counters, seed):
    src, dst = gpu.random(65536, seed=seed), gpu.empty(65536)
    twice = kernels["twice.cu"].twice[256, 256]
    twice(src, dst, 65536)
    assert (dst.get() == 2 * src.get()).all()
    counters(twice, src, dst, 65536)
    gpuperf.record("answer", 42.0, "things", better="higher")

@pytest.mark.parametrize("seed", range({tests}))
def test_here(gpu, kernels, gpuperf, counters, seed):
    measure(gpu, kernels, gpuperf, counters, seed)

@pytest.mark.gpuperf(isolated=True)
@pytest.mark.parametrize("seed", range({children}))
def test_in_a_child(gpu, kernels, gpuperf, counters, seed):
    measure(gpu, kernels, gpuperf, counters, seed)
"""
CONFTEST = """
import gc, json, os
from pathlib import Path

SEEN = Path({seen!r})
SESSION = {session!r}

def pytest_configure(config):
    os.environ.setdefault(SESSION, str(os.getpid()))

def pytest_runtest_logfinish(nodeid):
    if os.environ[SESSION] != str(os.getpid()):
        return  # a child
    gc.collect()
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    kept = dict(
        test=nodeid.partition("::")[2].partition("[")[0],
        memory=pages * os.sysconf("SC_PAGE_SIZE"),
        descriptors=len(os.listdir("/proc/self/fd")),
        threads=len(os.listdir("/proc/self/task")),
        children=len(Path("/proc/self/task", str(os.getpid()), "children").read_text().split()),
    )
    with SEEN.open("a") as file:
        file.write(json.dumps(kept) + chr(10))
"""


class Kept(NamedTuple):
    """What the session held as a test ended; ``memory`` is resident, in bytes."""

    test: str
    memory: int
    descriptors: int
    threads: int
    children: int


def soak(folder: Path, tests: int, children: int) -> list[Kept]:
    """Run the project in ``folder``; raises RuntimeError with the run's last lines if a test fails."""
    seen = folder / "seen.jsonl"
    (folder / "kernels").mkdir()
    (folder / "kernels" / "twice.cu").write_text(KERNEL)
    (folder / "test_soak.py").write_text(SUITE.format(tests=tests, children=children))
    (folder / "conftest.py").write_text(CONFTEST.format(seen=str(seen), session="SOAK_SESSION"))
    (folder / "pytest.ini").write_text("[pytest]\ngpuperf_backend = emulated\n")
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "--gpuperf",
        "--gpuperf-strict=off",
        "-p",
        "no:cacheprovider",
    ]
    loaded = {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", "PYTEST_PLUGINS": "pytest_gpuperf.plugin"}
    done = subprocess.run(command, cwd=folder, env=os.environ | loaded, capture_output=True, text=True)
    if done.returncode or f"{tests + children} passed" not in done.stdout:
        raise RuntimeError(done.stdout[-3000:] + done.stderr[-3000:])
    return [Kept(**json.loads(line)) for line in seen.read_text().splitlines()]


def table(kept: list[Kept]) -> str:
    """Show what was held after a tenth, a half and all of each kind of test."""
    lines = ["| after | memory, MiB | descriptors | threads | child processes |", "|---|---|---|---|---|"]
    for test, name in (("test_here", "tests"), ("test_in_a_child", "child processes")):
        of_kind = [row for row in kept if row.test == test]
        for count in (len(of_kind) // 10, len(of_kind) // 2, len(of_kind)):
            row = of_kind[count - 1]
            held = (f"{row.memory / 2**20:.1f}", row.descriptors, row.threads, row.children)
            lines.append(f"| {count:,} {name} | " + " | ".join(map(str, held)) + " |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--tests", type=int, default=2000)
    parser.add_argument("--children", type=int, default=200)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        print(table(soak(Path(folder), arguments.tests, arguments.children)))


if __name__ == "__main__":
    main()
