"""A project on a GPU, run as its owner would: what its suites say and which of its tests are red."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from importlib.metadata import entry_points
from pathlib import Path

import pytest


def run(project: Path, *arguments: str) -> tuple[int, str]:
    """The exit code and the output of ``pytest ARGUMENTS --gpuperf`` in the project."""
    installed = any(point.name == "gpuperf" for point in entry_points(group="pytest11"))
    loaded = [] if installed else ["-p", "pytest_gpuperf.plugin"]
    command = [sys.executable, "-m", "pytest", *loaded, "-p", "no:cacheprovider", "-q"]
    command += [*arguments, "--gpuperf", "--gpuperf-backend=cuda"]
    done = subprocess.run(command, cwd=project, env=os.environ, capture_output=True, text=True, check=False)
    print(done.stdout[-6000:])  # what the machine said, for whoever runs this by hand
    return done.returncode, done.stdout + done.stderr


def red(output: str) -> set[str]:
    return set(re.findall(r"^FAILED \S+::(\S+)", output, re.MULTILINE))


def require_loadgen() -> None:
    """Skips where LoadGen, or an ONNX Runtime that has CUDA, is not installed."""
    for module in ("mlperf_loadgen", "onnx", "onnxruntime"):
        pytest.importorskip(module, reason=f"LoadGen on a GPU needs {module}")
    import onnxruntime

    from pytest_gpuperf.mlperf import cuda_runtime

    if cuda_runtime.PROVIDER not in onnxruntime.get_available_providers():
        pytest.skip("this onnxruntime was built for the CPU")
