"""The environment stored with a run."""

import json
import subprocess
import sys
from datetime import UTC, datetime
from types import SimpleNamespace

import pytest

from pytest_gpuperf.backends.cuda import driver as cuda_driver
from pytest_gpuperf.backends.cuda.device import CudaBackend
from pytest_gpuperf.backends.cuda_core.device import CudaCoreBackend
from pytest_gpuperf.machine import environment

EMULATED = SimpleNamespace(
    name="emulated",
    device_name="emulated on a CPU",
    uuid="emulated",
    pci=None,
    compute_capability=None,
    compiler_version="",
    software=dict,
)


def git(folder, *arguments):
    identity = ["-c", "user.name=somebody", "-c", "user.email=somebody@example.org"]
    command = ["git", "-C", str(folder), *identity, *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


@pytest.fixture
def repository(tmp_path):
    git(tmp_path, "init", "-q")
    (tmp_path / "suite.py").write_text("old")
    git(tmp_path, "add", "suite.py")
    git(tmp_path, "commit", "-qm", "first")
    return tmp_path


@pytest.fixture(autouse=True)
def ask_git_afresh():
    environment._commit.cache_clear()
    yield
    environment._commit.cache_clear()


def test_names_the_commit_of_the_repository_around_the_folder(repository):
    (repository / "suites").mkdir()
    found = environment.describe(EMULATED, repository / "suites", "baselines")
    assert found["commit"] == git(repository, "rev-parse", "HEAD")
    assert found["dirty"] is False


def test_changed_tracked_files_are_dirty(repository):
    (repository / "suite.py").write_text("changed")
    assert environment.describe(EMULATED, repository, "baselines")["dirty"] is True


@pytest.mark.parametrize("folder", ["baselines", "gpu/baselines", "baselines/nvidia-h100"])
def test_changed_baselines_are_no_changed_code(repository, folder):
    file = repository / folder / "test_a.json"
    file.parent.mkdir(parents=True)
    file.write_text("{}")
    git(repository, "add", ".")
    git(repository, "commit", "-qm", "baselines")
    file.write_text('{"schema": 2}')
    (repository / "suites").mkdir()
    assert environment.describe(EMULATED, repository / "suites", "baselines")["dirty"] is False
    environment._commit.cache_clear()
    assert environment.describe(EMULATED, repository / "suites", "other")["dirty"] is True


def test_new_files_are_not_dirty(repository):
    (repository / "new.json").write_text("{}")
    assert environment.describe(EMULATED, repository, "baselines")["dirty"] is False


def test_git_is_asked_once_per_folder(repository, monkeypatch):
    first = environment.describe(EMULATED, repository, "baselines")
    monkeypatch.setenv("PATH", "")
    assert environment.describe(EMULATED, repository, "baselines")["commit"] == first["commit"]


def test_leaves_the_commit_out_where_there_is_none(tmp_path, monkeypatch):
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path))
    (tmp_path / "plain").mkdir()
    (tmp_path / "fresh").mkdir()
    git(tmp_path / "fresh", "init", "-q")
    for folder in ("plain", "fresh", "absent"):
        assert "commit" not in environment.describe(EMULATED, tmp_path / folder, "baselines"), folder


def test_leaves_the_commit_out_without_git(repository, monkeypatch):
    monkeypatch.setenv("PATH", str(repository / "nothing"))
    assert "commit" not in environment.describe(EMULATED, repository, "baselines")


def test_leaves_the_commit_out_when_git_hangs(repository, tmp_path, monkeypatch):
    slow = tmp_path / "git"
    slow.write_text("#!/bin/sh\nexec /bin/sleep 30\n")
    slow.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(environment, "_GIT_SECONDS", 0.1)
    assert "commit" not in environment.describe(EMULATED, repository, "baselines")


def test_all_tests_of_a_process_have_one_date(tmp_path, monkeypatch):
    first = environment.describe(EMULATED, tmp_path, "baselines")
    monkeypatch.setattr(environment, "datetime", None)  # whose clock went on
    assert environment.describe(EMULATED, tmp_path, "baselines") == first


def test_describes_the_machine_in_json(tmp_path):
    environment._date.cache_clear()
    before = datetime.now(UTC).replace(microsecond=0)
    found = environment.describe(EMULATED, tmp_path, "baselines")
    assert json.loads(json.dumps(found)) == found
    assert before <= datetime.fromisoformat(found["date"]) <= datetime.now(UTC)
    assert found["python"] == "{}.{}.{}".format(*sys.version_info)
    assert (found["backend"], found["device_name"], found["device_uuid"]) == (
        "emulated",
        "emulated on a CPU",
        "emulated",
    )
    assert found["cpu"]
    assert found["cores"] >= 1
    assert environment.host_place() == {"cpu": found["cpu"], "cores": found["cores"]}


def test_describes_a_host_without_a_device(tmp_path):
    found = environment.describe(None, tmp_path, "baselines")
    assert "device_name" not in found
    assert found["cpu"]


def test_stores_the_compiler_and_a_known_architecture(tmp_path):
    known = {"compiler_version": "g++ 12.2.0", "compute_capability": (9, 0)}
    backend = SimpleNamespace(**{**vars(EMULATED), **known})
    found = environment.describe(backend, tmp_path, "baselines")
    assert (found["compiler"], found["compute_capability"]) == ("g++ 12.2.0", "9.0")
    assert "compiler" not in environment.describe(EMULATED, tmp_path, "baselines")


def test_stores_the_versions_of_gpu_packages_only(tmp_path, monkeypatch):
    def install(name, version, folder="site"):
        info = tmp_path / folder / f"{name}-{version}.dist-info"
        info.mkdir(parents=True)
        fields = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"
        (info / "METADATA").write_text(fields + "\nVersion: 3, of its description\n")

    for name in ("onnxruntime-gpu", "nvidia_cudnn.cu13", "NumPy", "pycuda", "mlcommons_loadgen", "torch"):
        install(name, "1.2")
    for name in ("requests", "cudapoodle", "numpydoc", "torchlike"):
        install(name, "1.2")
    install("numpy", "0.9", folder="shadowed")
    (tmp_path / "site" / "half_removed-1.dist-info").mkdir()
    (tmp_path / "site" / "triton.egg-info").mkdir()  # of a checkout
    (tmp_path / "site" / "triton.egg-info" / "PKG-INFO").write_text("Name: triton\nVersion: 1.2\n")
    monkeypatch.setattr(sys, "path", [str(tmp_path / "site"), str(tmp_path / "shadowed")])
    assert environment.packages.__wrapped__() == dict.fromkeys(
        ["mlcommons-loadgen", "numpy", "nvidia-cudnn-cu13", "onnxruntime-gpu", "pycuda", "torch", "triton"],
        "1.2",
    )


def test_stores_the_versions_of_the_cuda_stack(tmp_path, monkeypatch):
    monkeypatch.setattr("pytest_gpuperf.backends.cuda.device.cuda_version", lambda: (13, 1))
    driver = SimpleNamespace(get_version=lambda: (12, 9, 0))
    for kind, binding, key in (
        (CudaBackend, "PyCUDA", "cuda_pycuda"),
        (CudaCoreBackend, "cuda.core", "cuda_bindings"),
    ):
        opened = SimpleNamespace(driver=driver, binding=kind.binding, cuda_of_binding=kind.cuda_of_binding)
        cuda = SimpleNamespace(
            **{**vars(EMULATED), "software": lambda opened=opened: CudaBackend.software(opened)}
        )
        found = environment.describe(cuda, tmp_path, "baselines")
        assert (found["binding"], found["cuda_driver"], found[key]) == (binding, "13.1", "12.9.0")
    assert "cuda_driver" not in environment.describe(EMULATED, tmp_path, "baselines")


@pytest.mark.parametrize(
    "line",
    [
        "NVRM version: NVIDIA UNIX x86_64 Kernel Module  580.65.06  Sun Jul 27 07:19:37 UTC 2025",
        "NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  580.65.06  Release Build  (root@host)",
    ],
)
def test_reads_the_driver_version(tmp_path, line):
    (tmp_path / "version").write_text(line + "\nGCC version:  gcc version 12.2.0 (Debian 12.2.0-14)\n")
    assert cuda_driver.kernel_driver(tmp_path / "version") == "580.65.06"
    assert cuda_driver.kernel_driver(tmp_path / "absent") is None


def test_counts_the_gpus_that_the_driver_has(tmp_path):
    assert environment._gpus(tmp_path / "absent") == 0
    for bus in ("0000:19:00.0", "0000:3b:00.0"):
        (tmp_path / bus).mkdir()
    assert environment._gpus(tmp_path) == 2
