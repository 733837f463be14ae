"""Wake the plugin up: a session without a GPU test, or a flag of ours, does without nearly all of it."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from pytest_gpuperf.session import GpuperfSession

WAKE = pytest.StashKey[Callable[[], object]]()
SESSION = pytest.StashKey["GpuperfSession"]()


def session_of(config: pytest.Config) -> GpuperfSession:
    """Return what this process knows of its device, baselines and results."""
    if SESSION not in config.stash:
        config.stash[WAKE]()
    return config.stash[SESSION]
