"""The types of what rules read in a stored run's environment; the rest of it is only shown and compared."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

from msgspec import Meta, Struct

from pytest_gpuperf.storage.documents import LARGEST, SMALLEST, converted

Positive = Annotated[float, Meta(ge=SMALLEST, le=LARGEST)]


class Sentinels(Struct, frozen=True):
    """What kernels that never change took (machine/sentinels.py)."""

    bandwidth_s: Positive = 1.0
    compute_s: Positive = 1.0
    launch_s: Positive = 1.0
    sm_mhz: Positive | None = None
    code: str | None = None


class Environment(Struct, frozen=True):
    """What a run's environment must be where it says it."""

    date: str | None = None
    commit: str | None = None
    dirty: bool | None = None
    device_name: str | None = None
    device_uuid: str | None = None
    compiler: str | None = None
    compute_capability: Annotated[str, Meta(pattern=r"^\d{1,3}\.\d{1,2}$")] | None = None
    gpus: int | None = None
    sentinels: Sentinels = Sentinels()


def check_environment(environment: Mapping[str, Any], path: str) -> None:
    """Raise Malformed, with the place below ``path``, for a value of another type."""
    converted(environment, Environment, path)
