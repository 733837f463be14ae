"""GPU performance regression tests for pytest: a red test means a real regression."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pytest

__version__ = "0.1.0"
__all__ = ["__version__", "on_gpu"]


def on_gpu(config: pytest.Config) -> bool:
    """Return whether this session runs on a GPU: for a conftest that chooses parameters or sizes."""
    from pytest_gpuperf.waking import session_of

    return session_of(config).expects_device()
