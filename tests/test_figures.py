"""What a test may say of its own figures: which numbers are numbers, and which units have a clock in them."""

from __future__ import annotations

from decimal import Decimal
from fractions import Fraction

import numpy as np
import pytest

from pytest_gpuperf.figures import is_rate, is_time_or_rate, number, numbers, short

TIMES = [
    *("s", "ms", "us", "µs", "μs", "ns", "ps", "min", "h", "seconds", "msec", "Hours", "cycles", "MS"),
    *("ns/op", "s/iter", "ms/token", "cycles/byte", "ms per frame", "core-hours"),
]
RATES = [
    *("tokens/s", "GB/s", "1/s", "s^-1", "s-1", "s⁻¹", "tokens_per_second", "MB/sec", "Mbit/s", "% / s"),
    *("Hz", "kHz", "GHz", "FPS", "qps", "IOPS", "Gbps", "GFLOPS", "TFLOP/s", "MOPS", "items per minute"),
]
NEITHER = [
    *("1", "%", "B", "GB", "MiB", "J", "W", "°C", "tokens", "samples", "steps", "x", "dB", "bits"),
    *("sectors/request", "B/token", "error(s)", "int32s", "1/B"),
]


@pytest.mark.parametrize("unit", [*TIMES, *RATES])
def test_a_unit_with_a_clock_in_it_is_a_time_or_a_rate(unit: str):
    assert is_time_or_rate(unit)
    assert is_rate(unit) == (unit in RATES)


@pytest.mark.parametrize("unit", NEITHER)
def test_any_other_unit_is_neither(unit: str):
    assert not is_time_or_rate(unit)
    assert not is_rate(unit)


@pytest.mark.parametrize("value", [2, 2.0, np.float32(2), np.int8(2), np.array(2), Fraction(2), Decimal(2)])
def test_numbers_of_every_library(value):
    assert number(value) == 2.0
    assert type(number(value)) is float


@pytest.mark.parametrize("value", [True, np.bool_(True), "2", b"2", None, 2j, [2], np.ma.masked])
def test_what_is_no_number(value):
    assert number(value) is None


@pytest.mark.parametrize("value", [10**400, Decimal("sNaN")])
def test_what_no_float_can_hold_is_not_finite(value):
    assert not np.isfinite(number(value))


def test_several_numbers_lie_flat():
    for value in ([1, 2], (1.0, np.float32(2)), range(1, 3), np.array([1, 2]), np.array([1, 2], "f2")):
        assert numbers("f()", value) == (1.0, 2.0)


def test_a_large_array_is_shown_within_a_line():
    assert len(short(np.zeros((9, 99)))) == 60
    assert "\n" not in short(np.zeros((9, 9)))
