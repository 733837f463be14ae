"""What a timing is, and how one is asked for."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from statistics import median
from typing import Any, Protocol


class Elsewhere(Protocol):
    """The same launch, as often as wanted, each time on arrays in another place."""

    def another(self) -> AbstractContextManager[Callable[[], Any]]: ...


class Settings(Protocol):
    """What a test may ask for: ``l2`` "hot" or "cold", ``seconds`` of device time to sample at most, and
    ``warmup`` seconds before it."""

    @property
    def l2(self) -> str: ...
    @property
    def seconds(self) -> float: ...
    @property
    def warmup(self) -> float: ...


@dataclass(frozen=True, slots=True)
class Options:
    """The default ``Settings``."""

    l2: str = "hot"
    seconds: float = 0.5
    warmup: float = 0.2


@dataclass(frozen=True, slots=True)
class Timing:
    """Samples in seconds per launch, and how they were taken.

    Where a kernel's arrays were moved a sample is the median of some launches at one place, else one launch
    (or batch). ``details``: "batch" launches a sample, "moved" (each sample is of another place), "gated"
    (the stream was held), "host-bound" with the reason where it could not be, "precision" (relative half
    width of the median's 95 % interval); or {"emulated": True}.
    """

    samples: tuple[float, ...]
    details: Mapping[str, Any] = field(default_factory=dict)

    @property
    def median(self) -> float:
        """Seconds; NaN where nothing was timed."""
        return median(self.samples) if self.samples else math.nan
