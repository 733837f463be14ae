"""What the CUDA driver says: whether a device is there, which, and how it is set up."""

import os
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path
from types import SimpleNamespace

import pytest
from gpuproject import BINDINGS

from pytest_gpuperf.backends import select
from pytest_gpuperf.backends.cuda import driver as cuda_driver
from pytest_gpuperf.errors import GpuperfError, Unavailable

needs_compiler = pytest.mark.skipif(not shutil.which("gcc"), reason="needs gcc")


def with_driver(tmp_path: Path, body: str, code: str) -> subprocess.CompletedProcess:
    """Runs Python with a libcuda.so.1 made of ``body``, as a machine with that driver would."""
    library = tmp_path / "libcuda.so.1"
    subprocess.run(
        ["gcc", "-shared", "-fPIC", "-x", "c", "-", "-o", library], input=body, text=True, check=True
    )
    return subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)],
        env={**os.environ, "LD_LIBRARY_PATH": str(tmp_path), "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
    )


DRIVER = """
int cuInit(unsigned flags) { return %d; }
int cuDeviceGetCount(int *count) { *count = %d; return 0; }
int cuGetErrorName(int error, const char **name) { *name = "CUDA_ERROR_SYSTEM_DRIVER_MISMATCH"; return 0; }
int cuDeviceGet(int *device, int index) { *device = index; return 0; }
int cuDeviceGetUuid_v2(unsigned char *uuid, int device) {
    for (int i = 0; i < 16; i++) uuid[i] = 16 * device + i;
    return 0;
}
int cuDriverGetVersion(int *version) { *version = 13020; return 0; }
"""
COUNT = "from pytest_gpuperf.backends.cuda.driver import device_count; print(device_count())"


@needs_compiler
@pytest.mark.parametrize(("result", "count", "printed"), [(0, 2, "2"), (100, 9, "0"), (34, 9, "0")])
def test_devices_are_counted_by_the_driver(tmp_path, result, count, printed):
    done = with_driver(tmp_path, DRIVER % (result, count), COUNT)
    assert (done.stdout.strip(), done.stderr) == (printed, "")


@needs_compiler
def test_a_broken_driver_is_not_a_machine_without_a_gpu(tmp_path):
    done = with_driver(tmp_path, DRIVER % (803, 1), COUNT)
    assert "Unavailable: The CUDA driver does not start: CUDA_ERROR_SYSTEM_DRIVER_MISMATCH" in done.stderr


@needs_compiler
def test_auto_with_a_device_but_no_pycuda_is_never_emulated(tmp_path):
    code = """
        import sys
        sys.modules["pycuda"] = sys.modules["cuda"] = None  # as if they were not installed
        from pytest_gpuperf.backends import select
        try:
            print(select("auto").name)
        except Exception as error:
            print(type(error).__name__, error)
    """
    done = with_driver(tmp_path, DRIVER % (0, 1), code)
    assert done.stdout.startswith("Unavailable There is a CUDA device but PyCUDA cannot be imported")
    assert 'pip install "pytest-gpuperf[cuda]", or "pytest-gpuperf[cuda-core]"' in done.stdout


@needs_compiler
def test_a_units_uuid_is_written_as_nvidia_smi_does(tmp_path):
    code = "from pytest_gpuperf.backends.cuda.driver import device_uuid; print(device_uuid(1))"
    done = with_driver(tmp_path, DRIVER % (0, 2), code)
    assert done.stdout.strip() == "GPU-10111213-1415-1617-1819-1a1b1c1d1e1f"


@needs_compiler
def test_the_newest_cuda_is_the_drivers(tmp_path):
    code = "from pytest_gpuperf.backends.cuda.driver import cuda_version; print(cuda_version())"
    assert with_driver(tmp_path, DRIVER % (0, 1), code).stdout.strip() == "(13, 2)"


@pytest.mark.parametrize("choice", BINDINGS)
def test_asking_for_cuda_without_a_device_says_what_to_do(choice):
    if cuda_driver.device_count():
        pytest.skip("there is a device here")
    with pytest.raises(Unavailable, match=r"no CUDA device here.*install the NVIDIA driver, or choose"):
        select(choice)


def test_an_unknown_backend_lists_the_known():
    with pytest.raises(
        GpuperfError, match='no backend \'opencl\'; choose "auto", "cuda", "cuda-core" or "emulated"'
    ):
        select("opencl")


def test_what_nvml_does_not_tell_is_left_out():
    assert cuda_driver.settings("GPU-00000000-0000-0000-0000-000000000000") == {}


class Nvml:
    """As much of pynvml as a place asks for: a GPU whose power limit was changed, and a MIG slice of it."""

    class NVMLError(Exception):
        pass

    def __init__(self, **refused):
        self.opened, self.refused = 0, refused

    def nvmlInit(self):
        self.opened += 1

    def nvmlShutdown(self):
        pass

    def nvmlDeviceGetHandleByUUID(self, unit):
        return {"GPU-1": "whole", "MIG-1": "slice"}[unit]

    def nvmlDeviceGetDeviceHandleFromMigDeviceHandle(self, handle):
        return {"slice": "whole"}[handle]

    def nvmlDeviceGetAttributes_v2(self, handle):
        return {"slice": SimpleNamespace(gpuInstanceSliceCount=3, memorySizeMB=40448)}[handle]

    def nvmlDeviceGetEccMode(self, handle):
        return {"whole": [1, 1]}[handle]

    def nvmlDeviceGetPowerManagementLimit(self, handle):
        if self.refused:
            raise self.NVMLError
        return {"whole": 500_000}[handle]

    def nvmlDeviceGetPowerManagementDefaultLimit(self, handle):
        return {"whole": 700_000}[handle]


def test_a_units_set_up_is_asked_in_one_go(monkeypatch):
    nvml = Nvml()
    monkeypatch.setitem(sys.modules, "pynvml", nvml)
    gpu = {"ecc": True, "power_limit_w": 500.0, "power_limit_default_w": 700.0}
    assert cuda_driver.settings("GPU-1") == gpu
    assert nvml.opened == 1
    assert cuda_driver.settings("MIG-1") == {"mig": "3g.40gb", **gpu}
    monkeypatch.setitem(sys.modules, "pynvml", Nvml(limit=True))
    assert cuda_driver.settings("GPU-1") == {"ecc": True}


def test_nothing_heavy_is_imported():
    code = "import sys, pytest_gpuperf.backends.cuda.device, pytest_gpuperf.backends.gpu\n"
    code += "print([name for name in ('pycuda', 'pynvml', 'scipy', 'platformdirs') if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.strip() == "[]"
