"""The built wheel, outside the checkout: it carries all that a user's own project needs."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).parent.parent
SUITE = """
    import numpy as np

    def test_double(gpu, kernels, gpuperf, counters):
        src, dst = gpu.random(1024, seed=1), gpu.empty(1024)
        double = kernels["double.cu"].twice[4, 256]
        gpuperf(double, src, dst, 1024, bytes=2 * src.nbytes)
        assert np.array_equal(dst.get(), 2 * src.get())
        assert counters(double, src, dst, 1024).modelled
"""
KERNEL = """
#include <cuda_runtime.h>

extern "C" __global__ void twice(const float *src, float *dst, int n)
{
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < n)
        dst[i] = 2 * src[i];
}
"""


@pytest.fixture(scope="module")
def python(tmp_path_factory) -> Path:
    """The interpreter of an environment with the wheel; what it depends on is lent by ours."""
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"  # a copy, since setuptools builds beside the sources
    skipped = shutil.ignore_patterns(
        ".*", "baselines", "suites", "tests", "*.egg-info", "__pycache__", "build"
    )
    shutil.copytree(CHECKOUT, source, ignore=skipped)
    build = [
        sys.executable,
        "-m",
        "pip",
        "wheel",
        "-q",
        "--no-deps",
        "--no-build-isolation",
        "-w",
        folder,
        source,
    ]
    subprocess.run(build, check=True)
    (wheel,) = folder.glob("*.whl")
    venv.create(folder / "env", with_pip=False)
    interpreter = folder / "env" / "bin" / "python"
    site = Path(
        subprocess.check_output(
            [interpreter, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"], text=True
        ).strip()
    )
    pip = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--target", site, wheel]
    subprocess.run(pip, check=True)
    # A path file, and not PYTHONPATH: the wheel comes first, and our own editable install is not followed.
    (site / "lent.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return interpreter


@pytest.fixture
def project(tmp_path: Path) -> Path:
    import textwrap

    for name in ("kernels", "suites", "baselines"):
        (tmp_path / name).mkdir()
    (tmp_path / "kernels" / "double.cu").write_text(KERNEL)
    (tmp_path / "suites" / "test_double.py").write_text(textwrap.dedent(SUITE))
    return tmp_path


def run(python: Path, project: Path, *flags: str) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    command = [python, "-P", "-m", "pytest", "-p", "no:cacheprovider", "suites", *flags]
    return subprocess.run(
        command, cwd=project, env=environment, capture_output=True, text=True, timeout=300, check=False
    )


def test_the_wheel_is_what_runs(python: Path):
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    where = subprocess.check_output(
        [python, "-P", "-c", "import pytest_gpuperf as p; print(p.__file__)"], text=True, env=environment
    )
    assert str(CHECKOUT) not in where


def test_a_users_project_records_and_gates(python: Path, project: Path):
    emulated = ("--gpuperf", "--gpuperf-backend=emulated")
    recorded = run(python, project, *emulated, "--gpuperf-update")
    assert recorded.returncode == 0, recorded.stdout + recorded.stderr
    assert list((project / "baselines").rglob("*.json"))
    green = run(python, project, *emulated, "--gpuperf-strict=on")
    assert green.returncode == 0, green.stdout + green.stderr
    kernel = project / "kernels" / "double.cu"
    kernel.write_text(KERNEL.replace("2 * src[i]", "src[i] + src[(i / 32 * 32 + 32 * i) % n] * 0 + src[i]"))
    red = run(python, project, *emulated)
    assert red.returncode == 1, red.stdout + red.stderr
    assert "regressed: twice global_load.sectors_per_request" in red.stdout


def test_the_wheels_command_starts_a_suite(python: Path, tmp_path: Path):
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    site = subprocess.check_output(
        [python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"], text=True
    )
    command = [python, "-P", Path(site.strip()) / "bin" / "gpuperf", "init"]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    written = {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file()}
    assert written == {
        ".gitignore",
        "kernels/scale.cu",
        "suites/test_scale.py",
        ".github/workflows/gpuperf.yml",
    }
