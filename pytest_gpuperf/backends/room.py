"""Say what did not fit into memory: what was asked, and what was free; and what is no longer there."""

from __future__ import annotations

import math
import mmap
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from pytest_gpuperf.errors import GpuperfError

_SMALL = 64 << 20
"""Bytes below which nobody asks the system whether they are there: that takes longer than to have them."""
FREED = "the array's memory was given back when the test that made it had been measured; make another."
_CGROUP = Path("/sys/fs/cgroup")
_MEMINFO = Path("/proc/meminfo")


def nbytes(shape: Sequence[int], dtype: Any) -> int:
    """Return an array's size, also where no 64 bits hold it."""
    return math.prod(shape) * np.dtype(dtype).itemsize


def no_room(where: str, shape: Sequence[int], dtype: Any, free: int, total: int) -> GpuperfError:
    """Return the error of an array for which ``where`` has no room."""
    asked = nbytes(shape, dtype)
    return GpuperfError(
        f"{where} has no room for an array {np.dtype(dtype)}{list(shape)}: {gib(asked)} asked, "
        f"{gib(free)} free of {gib(total)}; make it smaller."
    )


def check_host(shape: Sequence[int], dtype: Any) -> None:
    """Raise GpuperfError for an array that this host's memory does not hold.

    Linux gives address space without memory, and ends the process that then writes to it.
    """
    if nbytes(shape, dtype) >= _SMALL:
        free, total = host_memory()
        if nbytes(shape, dtype) > free:
            raise no_room("this host", shape, dtype, free, total)


def host_memory() -> tuple[int, int]:
    """Return the bytes that this process can have, and those that there are, within its container's limit."""
    total = os.sysconf("SC_PHYS_PAGES") * mmap.PAGESIZE
    free = os.sysconf("SC_AVPHYS_PAGES") * mmap.PAGESIZE
    try:
        known = dict(line.split(":", 1) for line in _MEMINFO.read_text().splitlines())
        free = int(known["MemAvailable"].split()[0]) << 10
        limit, used = (int((_CGROUP / f"memory.{name}").read_text()) for name in ("max", "current"))
    except (OSError, ValueError, KeyError):  # no such limit, or not as version 2 of cgroups has it
        return free, total
    return max(0, min(free, limit - used)), min(total, limit)


def gib(count: int) -> str:
    """Write a number of bytes."""
    return f"{count / 2**30:,.2f} GiB"
