"""The built wheel, outside the checkout: it carries all that a user's own project needs."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
import venv
import zipfile
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


PIP = (sys.executable, "-m", "pip")
BUILD = ("-q", "--no-deps", "--no-build-isolation", "--no-index")


@pytest.fixture(scope="module")
def source(tmp_path_factory) -> Path:
    """A copy of the sources, since setuptools builds beside them."""
    folder = tmp_path_factory.mktemp("source") / "source"
    skipped = shutil.ignore_patterns(
        ".*", "baselines", "suites", "tests", "*.egg-info", "__pycache__", "build"
    )
    shutil.copytree(CHECKOUT, folder, ignore=skipped)
    return folder


@pytest.fixture(scope="module")
def wheel(source: Path, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("wheels")
    subprocess.run([*PIP, "wheel", *BUILD, "-w", folder, source], check=True)
    (found,) = folder.glob("*.whl")
    return found


@pytest.fixture(scope="module")
def python(wheel: Path, tmp_path_factory) -> Path:
    """The interpreter of an environment with the wheel; what it depends on is lent by ours."""
    folder = tmp_path_factory.mktemp("wheel")
    venv.create(folder / "env", with_pip=False)
    interpreter = folder / "env" / "bin" / "python"
    site = Path(
        subprocess.check_output(
            [interpreter, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"], text=True
        ).strip()
    )
    subprocess.run([*PIP, "install", "-q", "--no-deps", "--target", site, wheel], check=True)
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


def test_pip_installs_from_the_repository_what_the_wheel_has(wheel: Path, source: Path, tmp_path: Path):
    for command in (("init", "-q"), ("add", "-A"), ("commit", "-q", "-m", "all")):
        author = ("-c", "user.name=a", "-c", "user.email=a@b.c")
        subprocess.run(["git", *author, *command], cwd=source, check=True)
    commit = subprocess.check_output(["git", "rev-parse", "HEAD"], cwd=source, text=True).strip()
    there = f"git+file://{source}@{commit}"  # a name before it needs a URL with a host
    subprocess.run([*PIP, "install", *BUILD, "--target", tmp_path / "site", there], check=True)
    site = tmp_path / "site"
    files = {str(path.relative_to(site)) for path in site.rglob("*") if path.suffix != ".pyc"}
    with zipfile.ZipFile(wheel) as packed:
        assert {name for name in packed.namelist() if name.startswith("pytest_gpuperf/")} <= files
    assert (site / "bin" / "gpuperf").exists()


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
