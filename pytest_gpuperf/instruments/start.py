"""Time what happens once: compiling a kernel file, and the first launch of what it was compiled to."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from tempfile import TemporaryDirectory
from typing import Any

from pytest_gpuperf.backends.arguments import check
from pytest_gpuperf.backends.base import Backend
from pytest_gpuperf.backends.kernels import KernelFile, Launch
from pytest_gpuperf.cache import CACHE

TIMES = 3
LONG = 5.0  # seconds of compiling, after which it is not done again


def first_launches(launch: Launch, args: Sequence[Any], device: Backend) -> list[float]:
    """Return the seconds from a launch until it is done, each time of a program that was just loaded."""
    launch.bind(*args)  # which notes what it may write
    checked, taken = check(launch.declaration, args, device), list[float]()
    for _ in range(TIMES):
        program = launch.file.loaded_anew(launch.name)
        device.synchronize()
        begin = time.perf_counter()
        program.prepare(launch.name, launch.geometry, checked)()
        device.synchronize()
        taken.append(time.perf_counter() - begin)
    return taken


def first_call(call: Callable[[], Any], device: Backend) -> float:
    """Return the seconds from a call until what it enqueued is done."""
    device.synchronize()
    begin = time.perf_counter()
    call()
    device.synchronize()
    return time.perf_counter() - begin


def compile_times(file: KernelFile, kernel: str | None, device: Backend) -> list[float]:
    """Return the seconds from a kernel file to a loaded program, each time with an empty cache.

    ``kernel`` is one that is launched: a template's instantiation is compiled with its file.
    """
    file.program_of(kernel or "")  # a file with a mistake says so before
    taken = list[float]()
    with _held(device):
        while len(taken) < TIMES and sum(taken) < LONG:
            with _empty_cache():
                begin = time.perf_counter()
                file.loaded_anew(kernel)
                taken.append(time.perf_counter() - begin)
    return taken


@contextmanager
def _held(device: Backend) -> Iterator[None]:
    """Keep the device while the compiler runs: to wait for it afterwards would be part of the time."""
    usual, device.compiling = device.compiling, nullcontext
    try:
        yield
    finally:
        device.compiling = usual


@contextmanager
def _empty_cache() -> Iterator[None]:
    usual = os.environ.get(CACHE)
    with TemporaryDirectory(prefix="gpuperf-") as folder:
        os.environ[CACHE] = folder
        try:
            yield
        finally:
            os.environ.pop(CACHE)
            os.environ.update({} if usual is None else {CACHE: usual})
