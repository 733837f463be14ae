"""The arguments of ``@pytest.mark.gpuperf(...)``."""

from __future__ import annotations

import datetime
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

FIXTURES_OF_NUMBERS = frozenset({"gpuperf", "benchmark", "loadgen"})
"""Fixtures that take numbers, also a host's, and need no device for them."""
FIXTURES_OF_DEVICE = frozenset({"gpu", "kernels", "counters"})


@dataclass(frozen=True, slots=True)
class TestOptions:
    """The marker's arguments for one test, keyword-only.

    ``tolerance``: the smallest change worth a failure, a fraction (0.02 is 2 %). ``version``: part of the
    contract; change it when the test measures something else. ``l2``: "hot" or "cold". ``seconds`` of
    device time to sample, at most; ``warmup`` seconds before it (0.2; after a phase 0). ``isolated``: run the
    whole test in a process of its own. ``expected``: why the test may regress, and ``until`` which day
    ("2026-12-31").
    ``backend``: "cuda" for a test that needs a real GPU, and is skipped without one.
    """

    __test__ = False

    tolerance: float | None = None
    version: str | int | None = None
    l2: str = "hot"
    seconds: float = 0.5
    warmup: float | None = None
    isolated: bool = False
    expected: str | None = None
    until: str | None = None
    backend: str | None = None

    @property
    def last_day(self) -> datetime.date | None:
        """Return the last day on which the test may regress, if it may."""
        return None if self.until is None else datetime.date.fromisoformat(self.until)

    def versioned(self, contract: Mapping[str, Any]) -> dict[str, Any]:
        """Return the contract with the test's version, if it states one."""
        return {**contract, **({} if self.version is None else {"version": self.version})}


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and value == value


def _is_day(value: Any) -> bool:
    try:
        return isinstance(value, str) and datetime.date.fromisoformat(value).isoformat() == value
    except ValueError:
        return False


def _is_device(value: Any) -> bool:
    from pytest_gpuperf.backends import DEVICES

    return value in DEVICES


_CHECKS: dict[str, tuple[Callable[[Any], bool], str]] = {
    "tolerance": (lambda v: _is_number(v) and 0 <= v < 1, "a fraction from 0 up to 1, such as 0.02 for 2 %"),
    "version": (lambda v: isinstance(v, (str, int)) and not isinstance(v, bool), "a string or an integer"),
    "l2": (lambda v: v in ("hot", "cold"), '"hot" or "cold"'),
    "seconds": (lambda v: _is_number(v) and 0 < v <= 600, "seconds above 0, at most 600"),
    "warmup": (lambda v: _is_number(v) and 0 <= v <= 600, "seconds from 0 to 600"),
    "isolated": (lambda v: isinstance(v, bool), "True or False"),
    "expected": (lambda v: isinstance(v, str) and bool(v.strip()), "the reason, in words"),
    "backend": (_is_device, '"cuda", for a test that needs a real GPU'),
    "until": (_is_day, 'a day such as "2026-12-31"'),
}


def _plain(value: Any) -> Any:
    """Return a value of NumPy's or of an enumeration as Python's own, which can travel between processes."""
    if isinstance(value, str):
        return str.__str__(value)
    kinds = (bool, int, float)
    return next((kind(value) for kind in kinds if isinstance(value, kind)), value)


def test_options(item: pytest.Item) -> TestOptions:
    """Return the marker's arguments for a test, the closest marker winning; raises pytest.UsageError."""
    found: dict[str, Any] = {}
    for mark in item.iter_markers("gpuperf"):
        where = f"{item.nodeid}: @pytest.mark.gpuperf"
        if mark.args:
            raise pytest.UsageError(f"{where} takes keyword arguments only (got {mark.args[0]!r})")
        for name, value in mark.kwargs.items():
            if name not in _CHECKS:
                raise pytest.UsageError(f"{where} has no argument {name!r}; it takes {', '.join(_CHECKS)}")
            check, wanted = _CHECKS[name]
            if not check(value):
                raise pytest.UsageError(f"{where}: {name}={value!r} is out of range; give {wanted}")
            found.setdefault(name, _plain(value))
    if ("expected" in found) != ("until" in found):
        raise pytest.UsageError(
            f"{item.nodeid}: @pytest.mark.gpuperf: expected= and until= go together: "
            "why a regression is expected, and the last day on which it is"
        )
    options = TestOptions(**found)
    if options.last_day is None:
        return options
    from pytest_gpuperf.rules.waivers import too_far

    if why := too_far(options.last_day, datetime.date.today()):
        raise pytest.UsageError(f"{item.nodeid}: @pytest.mark.gpuperf: until={options.until!r} {why}")
    return options


test_options.__test__ = False  # type: ignore[attr-defined]


def place_of(item: pytest.Item) -> tuple[Path, int]:
    """Return the file of a test and its first line there."""
    return item.path, (item.location[1] or 0) + 1


def fixtures_of(item: pytest.Item) -> frozenset[str]:
    """Return the names of the fixtures that a test asks for; none for an item that is not a function."""
    return frozenset(getattr(item, "fixturenames", ()))


def takes_numbers(item: pytest.Item) -> bool:
    """Return whether a test takes numbers, as far as its fixtures tell before it runs."""
    return bool(fixtures_of(item) & (FIXTURES_OF_NUMBERS | {"counters"}))


def isolates(item: pytest.Item) -> bool:
    """Return whether a test runs whole in a process of its own: a crash in LoadGen takes the process down."""
    return "loadgen" in fixtures_of(item) or test_options(item).isolated


def by_process(items: Iterable[pytest.Item]) -> list[list[pytest.Item]]:
    """Part tests by the process that each runs in: one for all, but for those that ask for their own."""
    batches: list[list[pytest.Item]] = [[]]
    for item in items:
        if isolates(item):
            batches.append([item])
        else:
            batches[0].append(item)
    return batches if batches[0] else batches[1:]
