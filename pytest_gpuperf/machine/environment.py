"""Describe what surrounds a run and may move a number: the commit, the machine, the installed versions.

None of it makes two measurements incomparable: the contract and the place do that. It is stored with each
run, and what differs is printed with a failure.
"""

from __future__ import annotations

import os
import platform
import re
from datetime import UTC, datetime
from functools import cache
from glob import escape
from pathlib import Path
from typing import Any

from pytest_gpuperf.backends.base import Backend
from pytest_gpuperf.git import GitError, git

# cuDNN, cuBLAS and their kind come as nvidia-*; a newer one moves a model's time with no commit of ours.
_GPU_PACKAGES = re.compile(
    r"(nvidia|cuda|onnxruntime|cupy|jax|tensorrt)(-.*)?"
    r"|jaxlib|mlcommons-loadgen|numba|numpy|pycuda|pytest-gpuperf|tensorflow|torch|torchvision|triton"
)
_FIELD = re.compile(r"^(Name|Version): *(.*\S)", re.MULTILINE)
_GIT_SECONDS = 5.0


def describe(backend: Backend | None, folder: Path, baselines: str) -> dict[str, Any]:
    """Return the environment of a run on ``backend``, with the commit of ``folder``'s repository.

    JSON throughout: ``date`` (UTC, ISO 8601, seconds), ``commit`` and ``dirty`` (tracked files differ from
    it, others than those in folders named ``baselines``: suites are recorded one after another),
    ``python``, ``platform``, ``cpu``, ``cores``, ``versions`` (of each GPU package, by name), and of a
    backend ``backend``, ``device_name``, ``device_uuid``, ``compute_capability`` ("9.0"), ``compiler``, its
    own ``software()``, and of a GPU ``gpus``, how many the driver has: on H100s a launch took 1.5 us longer
    in machines with two. What is not known is left out.
    """
    found: dict[str, Any] = {
        "date": _date(),
        **_commit(folder, baselines),
        "python": platform.python_version(),
        "platform": f"{platform.system()}-{platform.machine()}-{''.join(platform.libc_ver())}",
        **host_place(),
        "versions": packages(),
    }
    if backend is not None:
        found |= {"backend": backend.name, "device_name": backend.device_name, "device_uuid": backend.uuid}
        if backend.compute_capability:
            found["compute_capability"] = ".".join(map(str, backend.compute_capability))
        if compiler := backend.compiler_version:
            found["compiler"] = compiler
        found |= backend.software()
        if backend.pci and (gpus := _gpus()):
            found["gpus"] = gpus
    return found


@cache
def _date() -> str:
    """Return this process's date: all its tests have one environment and are stored as one run."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def host_place() -> dict[str, Any]:
    """Return the place of a number taken by the host's clock: ``cpu``, its model, and usable ``cores``."""
    return {"cpu": _cpu_model(), "cores": len(os.sched_getaffinity(0))}


@cache
def packages() -> dict[str, str]:
    """Return the versions of packages that can move a GPU's numbers, by normalised name (PEP 503)."""
    from importlib.metadata import distributions

    found: dict[str, str] = {}
    for distribution in distributions():
        # A half-removed package has neither file. To parse all of each as mail would cost every process more.
        text = distribution.read_text("METADATA") or distribution.read_text("PKG-INFO") or ""
        fields = dict(_FIELD.findall(text.partition("\n\n")[0]))
        name = re.sub(r"[-_.]+", "-", fields.get("Name", "")).lower()
        if "Version" in fields and _GPU_PACKAGES.fullmatch(name):
            found.setdefault(name, fields["Version"])  # the first on sys.path is the one imported
    return dict(sorted(found.items()))


@cache
def _commit(folder: Path, baselines: str) -> dict[str, Any]:
    """Return ``commit`` and ``dirty``, or nothing if there is no git, no repository or no commit yet.

    Ask once per process: it runs the code that it found, and git takes seconds in a large checkout.
    """
    # Untracked files do not count: a run leaves some behind.
    arguments = ("status", "--porcelain=v2", "--branch", "--untracked-files=no")
    code = (":(top)", f":(top,exclude,glob)**/{escape(baselines)}/**")
    try:
        status = git(folder, *arguments, "--", *code, timeout=_GIT_SECONDS)
    except GitError:
        return {}
    commit = re.search(r"^# branch\.oid ([0-9a-f]{40,64})$", status, re.MULTILINE)
    if commit is None:
        return {}
    return {"commit": commit[1], "dirty": any(not line.startswith("#") for line in status.splitlines())}


@cache
def _cpu_model() -> str:
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        text = ""
    model = re.search(r"^model name\s*:\s*(.+?)\s*$", text, re.MULTILINE)
    return model[1] if model else platform.processor() or platform.machine()


def _gpus(path: Path = Path("/proc/driver/nvidia/gpus")) -> int:
    """Count the GPUs of the driver, also those that CUDA_VISIBLE_DEVICES hides; 0 if it does not say."""
    try:
        return sum(1 for _ in path.iterdir())
    except OSError:
        return 0
