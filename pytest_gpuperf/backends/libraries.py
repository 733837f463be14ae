"""Ask torch and CuPy, where a test has loaded them, to use a stream, and how much memory they had in use."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any


@contextmanager
def on_stream(handle: int) -> Iterator[None]:
    """Make a stream the current one of torch and CuPy: their own default one cannot be captured."""
    torch, cupy = _torch(), sys.modules.get("cupy")
    with ExitStack() as stack:
        if torch is not None:
            stack.enter_context(torch.cuda.stream(torch.cuda.ExternalStream(handle)))
        if cupy is not None:
            with warnings.catch_warnings():  # CuPy 14 prefers another way to say it, which 13 does not have
                warnings.simplefilter("ignore", DeprecationWarning)
                stream = cupy.cuda.ExternalStream(handle)
            stack.enter_context(stream)
        yield


@contextmanager
def most_in_use() -> Iterator[Callable[[], int]]:
    """Give what tells the most bytes in use at once while the block runs, beyond those before, of both.

    In use in torch's caching allocator and in CuPy's memory pools. What either takes from the device itself,
    as torch does with another allocator, is not theirs to tell.
    """
    torch, cupy, pools = _torch(), sys.modules.get("cupy"), _Pools()
    if torch is not None and torch.cuda.get_allocator_backend() != "native":
        torch = None
    with ExitStack() as stack:
        before = 0
        if torch is not None:
            before = torch.cuda.memory_allocated()
            torch.cuda.reset_peak_memory_stats()
        if cupy is not None:
            stack.enter_context(_hook(cupy, pools))
        yield lambda: pools.most + (torch.cuda.max_memory_allocated() - before if torch else 0)


def _torch() -> Any:
    """Return torch if it has been used on a device, else None."""
    torch = sys.modules.get("torch")
    return torch if torch is not None and torch.cuda.is_initialized() else None


class _Pools:
    """What CuPy's pools have given out since now: ``most`` bytes at once, by the blocks' identities."""

    def __init__(self) -> None:
        self.most = self._now = 0
        self._blocks: dict[int, int] = {}

    def given(self, block: int, size: int) -> None:
        self._blocks[block] = size
        self._now += size
        self.most = max(self.most, self._now)

    def returned(self, block: int) -> None:
        self._now -= self._blocks.pop(block, 0)


def _hook(cupy: Any, pools: _Pools) -> Any:
    """Make a hook of CuPy's that tells ``pools``."""

    class Hook(cupy.cuda.MemoryHook):
        name = "gpuperf"

        def malloc_postprocess(self, **told: Any) -> None:
            pools.given(told["mem_ptr"], told["mem_size"])

        def free_preprocess(self, **told: Any) -> None:
            pools.returned(told["mem_ptr"])

    return Hook()
