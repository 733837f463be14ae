"""Give the stored runs of a GPU's pool this version's hashes, where it is certain what they measured.

    python tools/rehash.py POOL CAPABILITY      such as: nvidia-h100-80gb-hbm3 9.0

Older versions hashed the whole file's machine code, and nothing of counters. Each commit that the runs name
is checked out, and its tests are planned there with the nvcc of this machine. A run whose stored hash comes
out again to the bit gets the kernel's own hash of the same machine code; a run of counters, which has none,
gets it where its commit had no changes and its compiler was this one. Everything else stays as it is.
"""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import tempfile
from collections import Counter
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from pytest_gpuperf.backends import kernels
from pytest_gpuperf.backends.cuda.compile import compiler_version
from pytest_gpuperf.measurement import Baseline, Run
from pytest_gpuperf.modes import plan
from pytest_gpuperf.rules.lacking import launch_of
from pytest_gpuperf.session import recorder_of
from pytest_gpuperf.storage import entries, format

ROOT = Path(__file__).parents[1]
BASELINES = ROOT / "baselines"
Found = dict[str, dict[str, list[str]]]
"""A launch's hashes by test and metric; of counters the metric is the launch's name and "counters"."""


# --------------------------------------------------------------------------- within a commit's plan


class Hashes:
    """A pytest plugin: the hashes of each launch that a plan comes to, today's first."""

    def __init__(self, capability: tuple[int, int]) -> None:
        self.found: Found = {}
        self._older: dict[str, list[str]] = {}
        made = kernels.Launch.work_hash
        older, capability_ = self._older, capability

        def work_hash(launch: kernels.Launch, *arguments: Any) -> str | None:
            new = made(launch, *arguments)
            if new is not None:
                whole = launch.file.program.code_hash(None)
                older[new] = _older_hashes(str(whole), launch, arguments)
            return new

        kernels.Launch.work_hash = work_hash  # type: ignore[method-assign]
        place = {"backend": "cuda", "gpu": "planned"}
        plan.target_of = lambda *_: plan.Target("planned", capability_, place)  # type: ignore[arg-type]

    @pytest.hookimpl(trylast=True)
    def pytest_runtest_teardown(self, item: pytest.Item) -> None:
        reached = recorder_of(item).unchanged.values()
        made = [m for m in reached if m.code]
        self.found[item.nodeid] = {m.metric.name: [str(m.code), *self._older[str(m.code)]] for m in made}


def _older_hashes(code: str, launch: kernels.Launch, arguments: Any) -> list[str]:
    """Hash a launch's work as older versions did: by the whole file's code, at first without inputs."""
    scalars = [a.item() if hasattr(a, "item") else a for a in arguments if not getattr(a, "shape", ())]
    arrays = [a for a in arguments if getattr(a, "shape", ())]
    contents = [getattr(a, "contents", None) for a in arrays]
    places = [[id(a) for a in arrays].index(id(a)) for a in arrays]
    shape = launch.geometry
    told = (code, launch.name, shape.grid, shape.block, shape.shared, scalars)
    first, later = (
        hashlib.sha256(repr(each).encode()).hexdigest()[:16] for each in (told, (*told, contents, places))
    )
    return [first, later + ("?" if None in contents else "")]


def plan_here(pool: str, capability: str, output: str) -> None:
    """Plan the suites of the current folder, and write the hashes of their launches."""
    major, minor = capability.split(".")
    found = Hashes((int(major), int(minor)))
    arguments = [
        "suites",
        "--gpuperf-plan=/dev/null",
        f"--gpuperf-pool={pool}",
        "-q",
        "-p",
        "no:cacheprovider",
    ]
    pytest.main([*arguments, "--ignore=suites/test_resnet50.py"], plugins=[found])
    Path(output).write_text(json.dumps(found.found))


# --------------------------------------------------------------------------- all commits


def hashes_at(commit: str, pool: str, capability: str) -> Found:
    """Return what ``plan_here`` writes in a checkout of a commit."""
    with tempfile.TemporaryDirectory() as folder:
        checkout, output = Path(folder) / "checkout", Path(folder) / "hashes.json"
        git = ["git", "-C", str(ROOT), "worktree"]
        subprocess.run([*git, "add", "-q", "--detach", str(checkout), commit], check=True)
        try:
            command = [sys.executable, __file__, "--here", pool, capability, str(output)]
            environment = {**os.environ, "PYTHONPATH": str(ROOT), "GITHUB_OUTPUT": ""}
            subprocess.run(command, cwd=checkout, env=environment, check=True)
            found: Found = json.loads(output.read_text())
            return found
        finally:
            subprocess.run([*git, "remove", "--force", str(checkout)], check=True)


def rehashed(run: Run, hashes: list[str], compiler: str, capability: str) -> Run:
    """Return a run with the first of the ``hashes`` of its launch, or as it is where that is not certain."""
    same = run.code in hashes[1:] if run.code else run.environment.get("compiler") == compiler
    if not hashes or not same or run.environment.get("dirty") is not False:
        return run
    return replace(run, code=hashes[0], environment={**run.environment, "compute_capability": capability})


def main(pool: str, capability: str) -> None:
    """Rewrite the pool's files and say how many runs got another hash."""
    compiler = compiler_version()
    hashes = cache(lambda commit: hashes_at(commit, pool, capability))
    done = Counter[bool]()
    for path in sorted((BASELINES / pool).rglob("*.json")):
        file = format.parse(path.read_bytes(), str(path))
        stored = entries.baselines_of(file)
        new: dict[str, dict[str, Baseline]] = {test: dict(metrics) for test, metrics in stored.items()}
        for test, metrics in stored.items():
            for name, old in metrics.items():
                launch = launch_of(old.metric)
                runs = []
                for run in old.runs:
                    known = run.code or launch
                    at = hashes(str(run.environment.get("commit"))) if known else {}
                    of = at.get(f"{file.suite}::{test}", {})
                    found = of.get(name) or of.get(f"{launch} counters") or []
                    runs.append(rehashed(run, found, compiler, capability))
                    done[runs[-1] is not run] += 1
                new[test][name] = replace(old, runs=tuple(runs))
        if new != stored:
            path.write_text(format.render(entries.file_of(file.pool, file.suite, new)))
    print(f"{done[True]} runs got another hash, {done[False]} are as they were")


if __name__ == "__main__":
    plan_here(*sys.argv[2:]) if sys.argv[1] == "--here" else main(*sys.argv[1:])
