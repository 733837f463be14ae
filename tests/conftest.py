"""Fixtures of the plugin's own tests."""

from __future__ import annotations

import compileall
import importlib
import os
import pkgutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from gpuproject import BINDINGS, opened

import pytest_gpuperf
from pytest_gpuperf.backends.cuda.driver import device_count
from pytest_gpuperf.errors import Unavailable

if TYPE_CHECKING:
    from pytest_gpuperf.backends.emulated.device import EmulatedBackend
    from pytest_gpuperf.backends.gpu import Gpu

pytest_plugins = ["pytester"]

# Pytester forgets what its runs in this process were the first to import: another import would make its
# classes a second time, and tests would patch modules that nobody uses.
for module in pkgutil.walk_packages(pytest_gpuperf.__path__, "pytest_gpuperf."):
    with suppress(ImportError):  # of a binding to CUDA that is not installed
        importlib.import_module(module.name)

# No test's outcome depends on where it runs: variables of CI and of the user's own settings.
OUTSIDE = (
    "CI",
    "BUILD_NUMBER",
    "GITHUB_ACTIONS",
    "GITHUB_OUTPUT",
    "GITHUB_STEP_SUMMARY",
    "GITHUB_WORKSPACE",
    "PYTEST_ADDOPTS",
    "MODEL_DIR",
    "DATA_DIR",
)


def pytest_configure(config: pytest.Config) -> None:
    # A shell's background job ignores SIGINT, and so would the processes that tests start and interrupt.
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    # Before any fixture copies the environment, those of a whole session among them.
    for name in OUTSIDE:
        os.environ.pop(name, None)
    # A file that a test writes twice within a second must not be read from the bytecode of the first.
    os.environ["PYTHONDONTWRITEBYTECODE"] = "1"
    if not hasattr(config, "workerinput"):
        make_bytecode()


def make_bytecode() -> None:
    """Compile this plugin, and what pytest rewrites of installed ones, once for the processes to come."""
    compileall.compile_dir(Path(pytest_gpuperf.__file__).parent, quiet=2)
    command = [sys.executable, "-m", "pytest", "-p", "hypothesis", "--help"]
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    subprocess.run(command, cwd=os.path.sep, env=environment, capture_output=True, check=False)


def pytest_runtest_setup(item: pytest.Item) -> None:
    if item.get_closest_marker("gpu") and not device_count():
        pytest.skip("needs a CUDA device, and there is none here")


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch, tmp_path_factory):
    """Keep compiled code and locks to this run."""
    if not device_count():  # on a GPU machine, tests in several processes must see each other's locks
        monkeypatch.setenv("PYTEST_GPUPERF_LOCK_DIR", str(tmp_path_factory.getbasetemp() / "locks"))


@pytest.fixture
def give_away(monkeypatch: pytest.MonkeyPatch) -> Callable[[Path], None]:
    """Make a path another user's, or, without the right to, this process another user's."""

    def give(path: Path) -> None:
        if os.getuid() == 0:
            os.chown(path, 4711, -1)
        else:
            other = os.getuid() + 1
            monkeypatch.setattr("os.getuid", lambda: other)

    return give


def _run_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of this run, which all workers share."""
    folder = tmp_path_factory.getbasetemp()
    return folder.parent if "PYTEST_XDIST_WORKER" in os.environ else folder


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache of the test's own, which is made with its first file."""
    monkeypatch.setenv("PYTEST_GPUPERF_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture(scope="module")
def kernel_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Compiled kernels go into a folder of this run, which its modules share."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTEST_GPUPERF_CACHE", str(_run_folder(tmp_path_factory) / "kernels"))
        yield


@pytest.fixture(scope="module")
def backend(kernel_cache: None, request: pytest.FixtureRequest) -> EmulatedBackend:
    """An emulated GPU of two threads, with a module's own SECONDS; skips where there is no compiler."""
    from pytest_gpuperf.backends.emulated.device import EmulatedBackend

    try:
        return EmulatedBackend(threads=2, seconds=getattr(request.module, "SECONDS", 60.0))
    except Unavailable as reason:
        pytest.skip(str(reason))


@pytest.fixture(scope="module", params=BINDINGS)
def gpu(request: pytest.FixtureRequest) -> Iterator[Gpu]:
    """A real GPU through each of its bindings."""
    device = opened(request.param)
    yield device
    device.close()


BARE = {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", "PYTEST_PLUGINS": "pytest_gpuperf.plugin"}


@pytest.fixture(scope="session")
def bare_environment() -> dict[str, str]:
    """For processes that load this plugin and no other: most of their start is other plugins'."""
    return {**os.environ, **BARE}


@pytest.fixture
def bare(monkeypatch: pytest.MonkeyPatch) -> None:
    """Processes started from here load this plugin and no other."""
    for name, value in BARE.items():
        monkeypatch.setenv(name, value)


@pytest.fixture
def pytester(
    pytester: pytest.Pytester,
    bare: None,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path_factory: pytest.TempPathFactory,
) -> pytest.Pytester:
    """Start sessions that load this plugin and what the test names, whatever else is installed.

    Their home is the test's own, and so would be a cache there: each kernel would be compiled in every test.
    """
    if "PYTEST_GPUPERF_CACHE" not in os.environ:
        monkeypatch.setenv("PYTEST_GPUPERF_CACHE", str(_run_folder(tmp_path_factory) / "kernels"))
    return pytester


@pytest.fixture
def project(pytester: pytest.Pytester, request: pytest.FixtureRequest) -> Any:
    """The module's own ``Project`` in pytester's folder."""
    return request.module.Project(pytester)
