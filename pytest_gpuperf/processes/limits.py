"""Keep what is done for a test, but not by it, out of the test's own limit of pytest-timeout."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import pytest

from pytest_gpuperf.marker import isolates, takes_numbers
from pytest_gpuperf.options import Options

_PLUGIN = "gpuperf-limits"
_LEAST = 0.1  # seconds that are left of a limit that is about to be over


class _Timer(NamedTuple):
    item: pytest.Item
    settings: Any
    end: float


class _Left(float):
    """The seconds left of a limit, which messages call by its whole length."""

    whole: float

    def __str__(self) -> str:
        return str(self.whole)


class TimeLimits:
    """A plugin that knows the timer of the running test; it sets none for a test that runs elsewhere.

    Such a test has its timer in its own process: here it would end the session instead of the test.
    """

    def __init__(self, options: Options) -> None:
        self._options = options
        self.timer: _Timer | None = None

    @pytest.hookimpl(tryfirst=True, optionalhook=True)
    def pytest_timeout_set_timer(self, item: pytest.Item, settings: Any) -> bool | None:
        if self._runs_elsewhere(item):
            return True
        self.timer = _Timer(item, settings, time.monotonic() + settings.timeout)
        return None

    @pytest.hookimpl(tryfirst=True, optionalhook=True)
    def pytest_timeout_cancel_timer(self) -> None:
        self.timer = None

    def _runs_elsewhere(self, item: pytest.Item) -> bool:
        if self._options.child is not None:
            return False
        return isolates(item) or (self._options.against is not None and takes_numbers(item))


def limit_time(config: pytest.Config, options: Options) -> None:
    """Register what ``paused`` needs to know."""
    config.pluginmanager.register(TimeLimits(options), _PLUGIN)


@contextmanager
def paused(config: pytest.Config) -> Iterator[None]:
    """Stop the clock of the running test's limit, if it has one: what it now waits for is not its own."""
    limits: TimeLimits | None = config.pluginmanager.get_plugin(_PLUGIN)
    timer = limits.timer if limits else None
    if timer is None:
        yield
        return
    left = _Left(max(timer.end - time.monotonic(), _LEAST))
    left.whole = getattr(timer.settings.timeout, "whole", timer.settings.timeout)
    hooks = config.pluginmanager.hook
    hooks.pytest_timeout_cancel_timer(item=timer.item)
    try:
        yield
    finally:
        hooks.pytest_timeout_set_timer(item=timer.item, settings=timer.settings._replace(timeout=left))
