"""What ``gpuperf doctor`` looks at, one function a line."""

from __future__ import annotations

import datetime
import os
from functools import partial
from typing import Any

from pytest_gpuperf.backends import expects_device, select, uses_cuda_core
from pytest_gpuperf.command.finding import Checks, Finding
from pytest_gpuperf.command.folders import baselines
from pytest_gpuperf.errors import GpuperfError, Unavailable
from pytest_gpuperf.text import counted

_OLD = datetime.timedelta(days=180)
_HEADERS = "pip install nvidia-cuda-runtime nvidia-cuda-cccl"
_RUNNABLE = "sudo modprobe nvidia NVreg_RestrictProfilingToAdminUsers=0, or give the container CAP_PERFMON"


def checks(backend: str, folder: str | None) -> Checks:
    """Yield a name, its check, and whether kernels here need it."""
    try:
        on_gpu = expects_device(backend)
    except Unavailable:
        on_gpu = True  # there is one, and the first line says what is wrong with it
    yield "driver", partial(_driver, on_gpu), on_gpu
    if on_gpu:
        core = uses_cuda_core(backend)
        yield ("cuda.core", _cuda_core, True) if core else ("PyCUDA", _pycuda, True)
        yield ("NVRTC", _nvrtc, True) if core else ("nvcc", _nvcc, True)
        yield "counters", partial(_counters, backend), False
        yield "GPU state", _gpu_state, False
    if not (on_gpu and core):
        yield "host compiler", partial(_host_compiler, on_gpu), not on_gpu
    yield "cache", _cache, True
    yield "device lock", _locks, True
    yield "ONNX Runtime", partial(_onnxruntime, on_gpu), False
    yield "LoadGen", _loadgen, False
    yield "git", _git, False
    yield "baselines", partial(_baselines, folder, backend if on_gpu else "emulated"), False


def _driver(on_gpu: bool) -> Finding:
    from pytest_gpuperf.backends.cuda import driver

    try:
        version = ".".join(map(str, driver.cuda_version()))
        units = [driver.device_uuid(index) for index in range(driver.device_count())]
    except Unavailable as error:
        if on_gpu:
            raise
        return Finding(
            "driver", "warn", f"{str(error).partition(';')[0]}; kernels are emulated, and "
            "their times judge nothing", "on a machine with an NVIDIA GPU: install its driver",
        )  # fmt: skip
    if not units:
        return Finding(
            "driver", "warn", "the driver shows no device", "see CUDA_VISIBLE_DEVICES and nvidia-smi"
        )
    return Finding(
        "driver", "ok", f"{driver.kernel_driver() or 'loaded'}, CUDA {version}, {', '.join(units)}"
    )


def _pycuda() -> Finding:
    try:
        import pycuda
    except ImportError as error:
        raise Unavailable(
            f"PyCUDA cannot be imported ({error}); build it with tools/install-pycuda.sh of the sources, or "
            "pip install pycuda with nvcc and g++ on PATH; or take cuda-core, which needs no compiler"
        ) from None
    return Finding("PyCUDA", "ok", pycuda.VERSION_TEXT)


def _cuda_core() -> Finding:
    try:
        from cuda import core
    except (ImportError, RuntimeError) as error:
        raise Unavailable(
            f'cuda.core cannot be imported ({error}); pip install "pytest-gpuperf[cuda-core]"'
        ) from None
    return Finding("cuda.core", "ok", core.__version__)


def _nvrtc() -> Finding:
    from pytest_gpuperf.backends.cuda_core.headers import include_folders
    from pytest_gpuperf.backends.cuda_core.nvrtc import compiler_version, library

    library()
    folders = ", ".join(map(str, include_folders()))
    if not folders:
        return Finding("NVRTC", "warn", f"{compiler_version()}, without CUDA's headers", _HEADERS)
    return Finding("NVRTC", "ok", f"{compiler_version()}, headers in {folders}")


def _nvcc() -> Finding:
    from pytest_gpuperf.backends.cuda.compile import compiler_version, find_nvcc

    return Finding("nvcc", "ok", f"{compiler_version() or 'found, but does not run'}, {find_nvcc()}")


def _host_compiler(on_gpu: bool) -> Finding:
    from pytest_gpuperf.backends.emulated.compiler import find_compiler

    found = find_compiler(os.environ.get("CXX"))
    use = "for nvcc" if on_gpu else "for the emulator"
    return Finding("host compiler", "ok", f"{' '.join(found.command)} {found.version}, {use}")


def _counters(backend: str) -> Finding:
    """Count what nothing launches: only that tells whether the driver lets this user."""
    from pytest_gpuperf.backends.cuda import cupti

    cupti.library()
    from pytest_gpuperf.backends.cuda.metrics import METRICS

    device = select(backend)
    try:
        cupti.RangeProfiler(METRICS).count(lambda: None, device.synchronize)
    except Unavailable as error:
        return Finding("counters", "missing", str(error), _RUNNABLE)
    finally:
        device.close()
    return Finding("counters", "ok", "CUPTI counts in this process")


def _gpu_state(nvml: Any = None) -> Finding:
    """Look at clocks, throttling and other processes of each GPU through NVML."""
    try:
        nvml = nvml or __import__("pynvml")
        nvml.nvmlInit()
    except ImportError:
        raise Unavailable(
            "throttling and others on the GPU are not watched: pip install nvidia-ml-py"
        ) from None
    except Exception as error:  # NVMLError is known only once pynvml is
        raise Unavailable(f"NVML does not start ({error}); see what nvidia-smi says") from None
    try:
        said, do = [], ""
        for index in range(nvml.nvmlDeviceGetCount()):
            text, remedy = _one_gpu(nvml, nvml.nvmlDeviceGetHandleByIndex(index))
            said.append(f"{index}: {text}")
            do = do or remedy
        return Finding("GPU state", "warn" if do else "ok", "; ".join(said), do)
    finally:
        nvml.nvmlShutdown()


def _one_gpu(nvml: Any, device: Any) -> tuple[str, str]:
    from pytest_gpuperf.machine.nvml import UNFIT

    def ask(function: str, *arguments: Any) -> Any:
        try:
            return getattr(nvml, function)(device, *arguments)
        except Exception:  # not known to this GPU, or not told to this user
            return None

    clock, most = ask("nvmlDeviceGetClockInfo", 1), ask("nvmlDeviceGetMaxClockInfo", 1)
    parts, do = [f"SM clock {clock} of {most} MHz"] if clock is not None else [], ""
    reasons = ask("nvmlDeviceGetCurrentClocksEventReasons")
    if reasons is None:
        reasons = ask("nvmlDeviceGetCurrentClocksThrottleReasons") or 0
    if why := next((why for bit, why in UNFIT.items() if reasons & bit), ""):
        parts, do = [*parts, why], "cool it, or mend its power, before it judges"
    others = ask("nvmlDeviceGetComputeRunningProcesses") or []
    pids = [str(process.pid) for process in others if process.pid != os.getpid()]
    if pids:
        parts.append(f"{counted(len(pids), 'other process')} on it: {', '.join(pids[:5])}")
        do = do or "end them, or measure when they are done"
    if (used := ask("nvmlDeviceGetUtilizationRates")) is not None:
        parts.append(f"{used.gpu} % busy")
    return ", ".join(parts) or "NVML tells nothing", do


def _cache() -> Finding:
    from pytest_gpuperf.cache import cache_folder, cached

    cached("doctor/writable", lambda: b"")
    return Finding("cache", "ok", str(cache_folder()))


def _locks() -> Finding:
    from pytest_gpuperf.machine.lock import lock_folder

    folder = lock_folder()
    if not os.access(folder, os.W_OK):
        raise GpuperfError(f"{folder} cannot be written; set PYTEST_GPUPERF_LOCK_DIR to a folder that can")
    return Finding("device lock", "ok", str(folder))


def _onnxruntime(on_gpu: bool) -> Finding:
    try:
        import onnxruntime
    except ImportError:
        from pytest_gpuperf.mlperf.cuda_runtime import INSTALL

        remedy = INSTALL if on_gpu else "pip install onnxruntime"
        raise Unavailable(f"not installed; only models need it: {remedy}") from None
    providers = ", ".join(
        name.removesuffix("ExecutionProvider") for name in onnxruntime.get_available_providers()
    )
    if on_gpu:
        from pytest_gpuperf.mlperf.cuda_runtime import require

        require(onnxruntime)
    return Finding("ONNX Runtime", "ok", f"{onnxruntime.__version__}, providers {providers}")


def _loadgen() -> Finding:
    from importlib.metadata import PackageNotFoundError, version

    try:
        import mlperf_loadgen  # noqa: F401
    except ImportError as error:
        raise Unavailable(
            f"cannot be imported, and only loadgen needs it ({error}): "
            "pip install mlcommons-loadgen onnx opencv-python-headless"
        ) from None
    try:
        return Finding("LoadGen", "ok", version("mlcommons-loadgen"))
    except PackageNotFoundError:  # built by hand
        return Finding("LoadGen", "ok", "a build of its own")


def _git() -> Finding:
    from pathlib import Path

    from pytest_gpuperf.git import GitError, git, toplevel

    try:
        top = toplevel(Path.cwd())
    except GitError as error:
        if "not a git repository" not in str(error):
            raise
        raise GpuperfError(
            f"{Path.cwd()} is in no git repository, so no baseline can name its commit; git init, and commit"
        ) from None
    if git(top, "rev-parse", "--is-shallow-repository").strip() == "true":
        return Finding(
            "git", "warn", f"{top} is a shallow clone: old code and other revisions cannot be had",
            "git fetch --unshallow, or fetch-depth: 0 in the workflow",
        )  # fmt: skip
    return Finding("git", "ok", str(top))


def _baselines(given: str | None, backend: str) -> Finding:
    """Say which of the stored pools is this device's, and how old it is."""
    from pytest_gpuperf.figures import slug
    from pytest_gpuperf.storage.baselines import Store

    try:
        folder, _ = baselines(given)
    except GpuperfError as error:
        raise GpuperfError(
            f"{str(error).partition(';')[0]}; record with pytest --gpuperf --gpuperf-update"
        ) from None
    pool, unit = _here(backend)
    store = Store(folder)
    runs = [run.environment for _, _, each in store.all_of(pool) for run in each.runs]
    if not runs:
        there = ", ".join(store.pools()) or "none"
        return Finding(
            "baselines", "missing", f"{folder} has none of {slug(pool)} (but of: {there})",
            "pytest --gpuperf --gpuperf-update",
        )  # fmt: skip
    newest = max(str(environment.get("date", ""))[:10] for environment in runs)
    says = f"{slug(pool)}: newest of {newest}, {counted(len(store.suites(pool)), 'suite file')}"
    if unit and not any(environment.get("device_uuid") == unit for environment in runs):
        return Finding(
            "baselines", "warn", f"{says}; none of this unit", "pytest --gpuperf --gpuperf-update=append"
        )
    if newest < str(datetime.date.today() - _OLD):
        return Finding("baselines", "warn", f"{says}: half a year old", "pytest --gpuperf --gpuperf-update")
    return Finding("baselines", "ok", says)


def _here(backend: str) -> tuple[str, str]:
    """Return the pool of this machine's device, and its unit, "" for the emulator."""
    from pytest_gpuperf.backends import DEVICELESS, pool_name

    if backend in DEVICELESS:
        return pool_name({"backend": backend}), ""
    device = select(backend)
    try:
        return pool_name(device.place()), device.uuid
    finally:
        device.close()
