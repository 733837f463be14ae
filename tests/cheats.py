"""What is said of callables that do less where they are timed, and such callables."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from pytest_gpuperf.instruments.stopwatch import Stopwatch

NOT_THE_SAME = "does not do the same in each call: 1 kernels and copies a call before the samples, "
NOT_IN_ORDER = "on a stream that is not in order with the timed one"
TOO_LATE = "begins when its calls are over"
NOTHING = "enqueues nothing on the device from its second call on"
LESS = "it does less in the calls that are timed"
FEWER = "with the same kernels: it does less once it was called a few times"


@pytest.fixture(name="sampling")
def sampled(monkeypatch):
    """Whether samples are being taken: what a callable that finds out about being watched would know."""
    now = SimpleNamespace(on=False)
    original = Stopwatch.measure

    def measured(stopwatch):
        now.on = True
        try:
            return original(stopwatch)
        finally:
            now.on = False

    monkeypatch.setattr(Stopwatch, "measure", measured)
    return now


def after(calls, first, then):
    """A callable that does ``first`` in so many calls, and ``then`` in the others."""
    made = iter(range(10**9))
    return lambda: first() if next(made) < calls else then()
