"""Watch what a callable runs on the device, before its samples and after, and refuse what they cannot see.

A callable may do less once it was called a few times, enqueue on a stream that the events do not wait for, or
leave its work to a thread that comes later; its samples then time something else. So some calls are watched
around the samples, since recording inside them would change short ones: all that runs has to lie between two
marks on the timed stream, to be the same before and after, and to take no longer than the samples say.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from time import sleep
from typing import Any

from pytest_gpuperf.backends.timer import Timer, Work
from pytest_gpuperf.errors import KernelError, Unavailable
from pytest_gpuperf.instruments.stopwatch import HOLD_FIRST, HOLD_MOST

CALLS = 2  # watched at a time
LINGER = (
    0.03  # seconds in which work that a call left to a thread is waited for; samples take some 10 times it
)
SLACK = 5_000  # ns by which records of works in order may overlap
LONGER = (
    1.5  # times the median that a watched call may take, and SLACK; recording costs a short one some of it
)
FEWER = 3  # times as long that a watched call may take before the samples, and SLACK
RAMP = 0.1  # seconds that the device is kept busy before it is first watched, since idle clocks are low
PROBES = 16  # calls in a row that tell whether a callable that has no records enqueues anything
NOTHING = 5e-6  # seconds


class Watch:
    """Calls of ``enqueue``, named ``name``, around its samples by ``timer``; raises KernelError."""

    def __init__(self, timer: Timer, enqueue: Callable[[], Any], name: str) -> None:
        self._timer = timer
        self._enqueue = enqueue
        self._name = name
        self._hold = HOLD_FIRST
        self._before: Sequence[Work] = ()
        self._unseen = ""

    def before(self) -> None:
        """Look at calls before the samples, after two that may compile, tune or allocate."""
        timer = self._timer
        self._enqueue()
        timer.synchronize()
        start = timer.now()
        self._enqueue()
        self._hold = min(HOLD_MOST, max(HOLD_FIRST, 2 * CALLS * (timer.now() - start)))
        timer.synchronize()
        timer.hold(RAMP)
        timer.synchronize()
        self._before = self._look(0.0)
        if not self._unseen and not self._before:
            if not self._enqueues():
                raise KernelError(
                    f"{self._name} enqueues nothing on the device from its second call on; time a callable "
                    "that does its work each time it is called."
                )
            self._unseen = "CUPTI has no record of its work"

    def after(self, seconds: float) -> Mapping[str, Any]:
        """Look at calls after samples of ``seconds`` each; return a call's works, or why none is known."""
        works = () if self._unseen else self._look(LINGER)
        if self._unseen:
            return {"unwatched": self._unseen}
        self._compare(works)
        first, last = _busy(self._before) / CALLS, _busy(works) / CALLS
        if first > FEWER * last + SLACK:
            raise KernelError(
                f"{self._name} keeps the device busy for {first / 1e3:,.1f} us a call before the samples, "
                f"and for {last / 1e3:,.1f} us after them, with the same kernels: it does less once it was "
                "called a few times. Time a callable that does its work each time it is called."
            )
        busy = min(first, last)
        if busy > LONGER * seconds * 1e9 + SLACK:
            raise KernelError(
                f"{self._name} keeps the device busy for {busy / 1e3:,.1f} us a call when it is watched, and "
                f"{seconds * 1e6:,.1f} us were timed: it does less in the calls that are timed."
            )
        return {"works": len(works) / CALLS}

    def held_by(self, works: int) -> Mapping[str, Any]:
        """Hold a call's works to those of its graph, 0 for unknown; return them, or why none is known."""
        ran = len(self._before) / CALLS
        if works and ran > works:
            raise KernelError(
                f"{self._name} runs {ran:g} kernels and copies when it is called, and its graph holds "
                f"{works}: the others are enqueued where gpu.stream's capture does not see them."
            )
        return {"unwatched": self._unseen} if self._unseen else {"works": ran}

    def _look(self, linger: float) -> Sequence[Work]:
        """Return what the calls run, in order, once that lies between marks; none if it cannot be seen."""
        timer = self._timer
        try:
            with timer.watched() as works:
                timer.synchronize()
                sleep(linger)
                timer.hold(self._hold)
                for _ in range(CALLS):
                    self._enqueue()
                timer.hold(0.0)
                timer.synchronize()
                sleep(linger)
                timer.synchronize()
        except Unavailable as error:
            self._unseen = str(error)
            return ()
        marks = [work for work in works if work.held]
        if len(marks) != 2 or not all(work.end for work in works):
            timeless = sum(not work.end for work in works)
            self._unseen = f"CUPTI recorded {len(marks)} of 2 marks, and {timeless} works without their times"
            return ()
        return [self._between(work, *marks) for work in works if not work.held]

    def _between(self, work: Work, opened: Work, closed: Work) -> Work:
        """Return the work; raises KernelError unless it waits for the timed stream and that one for it."""
        if work.end < opened.start or work.start > closed.start + SLACK:
            raise KernelError(
                f"{self._name} has work ({_short(work)}) that begins when its calls are over and the events "
                "after them have happened: the time does not include it. Enqueue all of it before returning."
            )
        if work.start < opened.end - SLACK or work.end > closed.start + SLACK:
            raise KernelError(
                f"{self._name} runs {_short(work)} on a stream that is not in order with the timed one: the "
                "time does not include it. Enqueue it on gpu.stream or on the default stream, or let each of "
                "the two streams wait for the other, by events."
            )
        return work

    def _compare(self, after: Sequence[Work]) -> None:
        first, last = (Counter(work.what for work in works) for works in (self._before, after))
        if first == last:
            return
        gone, new = (first - last), (last - first)
        example = next(iter(gone or new)).partition("[")[0][:60]
        raise KernelError(
            f"{self._name} does not do the same in each call: {first.total() / CALLS:g} kernels and copies a "
            f"call before the samples, {last.total() / CALLS:g} after them "
            f"({example}{' is gone' if gone else ' is new'}). "
            "Time a callable that does its work each time it is called."
        )

    def _enqueues(self) -> bool:
        """Say by the clock whether calls enqueue anything, such as a graph whose kernels are not recorded."""
        taken = []
        for calls in (0, PROBES):
            start, end = self._timer.event(), self._timer.event()
            self._timer.hold(self._hold)
            self._timer.record(start)
            for _ in range(calls):
                self._enqueue()
            self._timer.record(end)
            self._timer.synchronize()
            taken.append(self._timer.seconds(start, end))
        return taken[1] > taken[0] + NOTHING


def _busy(works: Sequence[Work]) -> int:
    """Return the ns in which any of the works ran; they are in the order of their starts."""
    busy = until = 0
    for work in works:
        busy += max(0, work.end - max(work.start, until))
        until = max(until, work.end)
    return busy


def _short(work: Work) -> str:
    name, _, geometry = work.what.partition("[")
    return name[:60] if geometry else work.what
