"""Which of the two bindings to CUDA is installed and taken; the baselines of the other are other software."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from types import SimpleNamespace

import pytest

from pytest_gpuperf.backends import uses_cuda_core
from pytest_gpuperf.constants import INSTRUMENTS
from pytest_gpuperf.rules.differences import environment_differences, other_software


@pytest.mark.parametrize(
    ("choice", "pycuda", "core", "taken"),
    [
        ("auto", True, True, False),
        ("auto", False, True, True),
        ("auto", False, False, False),
        ("cuda", False, True, False),
        ("cuda-core", True, False, True),
    ],
)
def test_auto_takes_cuda_core_where_there_is_no_pycuda(choice, pycuda, core, taken, monkeypatch):
    def find_spec(name):
        if name == "cuda.core" and not core:
            raise ModuleNotFoundError("No module named 'cuda'")
        return object() if name == "cuda.core" or pycuda else None

    monkeypatch.setattr("importlib.util.find_spec", find_spec)
    assert uses_cuda_core(choice) is taken


@pytest.mark.parametrize(
    ("gpu", "compiler", "extras"),
    [("", True, "suites,mlperf,cpu"), ("/x", True, "suites,mlperf,cuda"), ("/x", False, "suites,cuda-core")],
)
def test_make_installs_what_the_machine_can_use(gpu, compiler, extras, tmp_path):
    """PyCUDA is built where there is a g++ to build it with; models run where what they need is installed."""
    make = shutil.which("make") or pytest.skip("there is no make here")
    if compiler:
        (tmp_path / "g++").touch(0o755)
    asked = [make, "-n", "suites", f"GPU={gpu}", f"VENV={tmp_path / 'venv'}"]
    root = Path(__file__).parent.parent
    said = subprocess.run(
        asked, cwd=root, env={"PATH": str(tmp_path)}, capture_output=True, text=True, check=True
    ).stdout
    assert f"-e '.[{extras}]'" in said
    assert ("install-pycuda.sh" in said) is ("cuda" in extras.split(","))
    assert ("--ignore=suites/test_resnet50.py" in said) is ("mlperf" not in extras.split(","))


@pytest.mark.parametrize("code", ["k-1", None], ids=["a kernel", "a callable"])
def test_the_other_bindings_baselines_are_other_software(code):
    """Older runs name no binding; the compiler tells."""
    old = {"compiler": "nvcc 13.0.88", "driver": "580.65.06", "cuda_pycuda": "13.0.0"}
    new = {
        "compiler": "NVRTC 13.0.88",
        "driver": "580.65.06",
        "cuda_bindings": "13.3.1",
        "binding": "cuda.core",
    }
    measured = SimpleNamespace(metric=SimpleNamespace(constants=INSTRUMENTS["device_time"]), code=code)
    for environment in (old, {**old, "binding": "PyCUDA"}):
        assert other_software(measured, [SimpleNamespace(environment=environment)], new)
    assert not other_software(measured, [SimpleNamespace(environment=new)], new)
    assert "compiler nvcc 13.0.88 -> NVRTC 13.0.88" in environment_differences([old], new)
