"""Find the most memory of a device that a call has at once."""

from __future__ import annotations

import gc
from collections.abc import Callable
from typing import Any

from pytest_gpuperf.backends.base import Backend
from pytest_gpuperf.backends.libraries import most_in_use


def peak_memory(device: Backend, work: Callable[[], Any], between: Callable[[], Any]) -> int:
    """Call ``work`` twice; return the most bytes that the second call had at once, beyond those before it.

    The first call leaves what is made once, and lets caches grow: torch's and CuPy's allocators say what they
    gave out, and what is allocated beside them is the device's to tell. The two peaks are added, which is too
    much where they do not come together. ``between`` is called before the second call. Raises Unavailable
    where the device does not tell.
    """
    work()
    device.synchronize()
    between()
    gc.collect()  # what the first call left in cycles would be freed in the second
    with most_in_use() as given_out:
        allocated = device.peak_memory(work)
        return allocated + given_out()
