"""Name the test that runs to a profiler that listens, by NVTX: Nsight Systems and Nsight Compute show it."""

from __future__ import annotations

import os

_LISTENS = "NVTX_INJECTION64_PATH"
"""Set by a profiler that listens in this process; without it NVTX's calls would do nothing."""
_open = 0


def begin(name: str) -> str:
    """Begin the range of a test; return what is missing for it, "" if nothing is."""
    global _open
    if not os.environ.get(_LISTENS):
        return ""
    try:
        import nvtx
    except ImportError:
        return (
            "A profiler listens, and could show which test runs: pip install nvtx (in pytest-gpuperf[cuda])"
        )
    nvtx.push_range(name)
    _open += 1
    return ""


def end() -> None:
    """End the range of a test, if one was begun."""
    global _open
    if _open:
        import nvtx

        nvtx.pop_range()
        _open -= 1
