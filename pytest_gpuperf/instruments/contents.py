"""Keep what a test's arrays hold while a kernel that may write them is launched again and again."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any

from pytest_gpuperf.backends.base import Backend
from pytest_gpuperf.errors import GpuperfError, KernelError
from pytest_gpuperf.instruments.callables import is_kernel

LONGER = (
    3  # times the median that a launch on the test's own contents may take, since the L2 may not hold them
)
SLACK = 10e-6  # seconds more: the median may be a batch's, and one launch has what events cost in it


@contextmanager
def kept(launch: Any, args: Sequence[Any], device: Backend) -> Iterator[Callable[[], bool]]:
    """Keep what is in the arrays that a kernel may write; give what puts it back, and says whether any was.

    Only of arrays of ours, and where there is room for copies.
    """
    parameters = launch.declaration.parameters if is_kernel(launch) else ()
    written = {
        id(array): array
        for parameter, array in zip(parameters, args, strict=False)
        if parameter.pointer and not parameter.const and device.owns_memory(array)
    }
    copies: list[tuple[Any, Any]] = []
    if written and 2 * sum(array.nbytes for array in written.values()) <= device.free_memory():
        copies = [(array, device.empty(array.shape, array.dtype)) for array in written.values()]
    for array, copy in copies:
        device.copy(copy, array)

    def restore() -> bool:
        for array, copy in copies:
            device.copy(array, copy)
        return bool(copies)

    try:
        yield restore
    finally:
        for _, copy in copies:
            with suppress(GpuperfError):  # of a kernel that broke the context, which says so itself
                device.free(copy)


def hold_to_contents(once: Callable[[], float], restore: Callable[[], bool], timed: float, name: str) -> None:
    """Launch a kernel on the contents that the test gave it; raises KernelError if it was ``timed`` on less.

    One that works in place may have little to do on what it has made: a sort of what is sorted. ``once``
    launches it and returns the seconds, NaN for unknown.
    """
    for again in (True, True, False):  # one launch may meet another process's
        taken = once()
        if not taken > LONGER * timed + SLACK:
            return
        if again:
            restore()
    raise KernelError(
        f"{name} takes {taken * 1e6:,.1f} us on what the test put into its arrays, and {timed * 1e6:,.1f} us "
        "on what it has made of them, which were timed: it works in place and has less to do then. Time a "
        "callable that puts its input back and launches it."
    )
