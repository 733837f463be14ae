"""Quantiles of Student's t and of its noncentral form, by the standard library alone.

SciPy has them too, but importing it takes longer than the rest of a session that judges a test or two.
"""

from __future__ import annotations

import math
from functools import lru_cache
from statistics import NormalDist

_NORMAL = NormalDist()
_ENOUGH = 1e-7
"""A Newton step after which the next one would be no more than a rounding error."""
_POINTS = 1000


@lru_cache(maxsize=4096)
def quantile(freedom: float, probability: float) -> float:
    """Return what Student's t with ``freedom`` degrees of it stays below with ``probability`` > 0.5."""
    z, tail = _NORMAL.inv_cdf(probability), 1 - probability
    t = z + (z**3 + z) / (4 * freedom) + (5 * z**5 + 16 * z**3 + 3 * z) / (96 * freedom**2)
    if freedom > 1e5:  # the next term is nothing here, and the difference below would be rounded
        return t
    half = freedom / 2
    scale = math.lgamma(half + 0.5) - math.lgamma(half) - 0.5 * math.log(math.pi)
    for _ in range(50):
        x = freedom / (freedom + t * t)
        front = math.exp(scale + half * math.log(x) + 0.5 * math.log1p(-x))
        beyond = 0.5 * front / half * _fraction(half, x)
        step = math.log(beyond / tail) * beyond / front  # in log t, where a tail is nearly a line
        t *= math.exp(step)
        if abs(step) < _ENOUGH:
            break
    return t


def _fraction(a: float, x: float) -> float:
    """Return a B_x(a, 1/2) / (x^a (1 - x)^(1/2)), a continued fraction (DLMF 8.17.22), by Lentz's method."""
    c, d = 1.0, 1 / (1 - (a + 0.5) * x / (a + 1))
    found, m = d, 0
    while abs(c * d - 1) > 1e-15:
        m += 1
        for term in (
            m * (0.5 - m) / ((a + 2 * m - 1) * (a + 2 * m)),
            -(a + m) * (a + 0.5 + m) / ((a + 2 * m) * (a + 2 * m + 1)),
        ):
            d, c = 1 / (1 + term * x * d), 1 + term * x / c
            found *= c * d
    return found


@lru_cache(maxsize=256)
def noncentrality(freedom: int, probability: float, t: float) -> float:
    """Return the noncentrality with which noncentral t stays below ``t`` with ``probability``.

    Over the chi distribution of the spread, t's is a normal one: its integral by the trapezoidal rule in the
    logarithm of the spread, where both ends vanish, and Newton's method on the scale of normal quantiles.
    """
    half, wanted = freedom / 2, _NORMAL.inv_cdf(probability)
    high = math.sqrt(37 / freedom)
    low = -high - 37 / freedom
    scale = math.log(2 * (high - low) / _POINTS) + half * math.log(half) - math.lgamma(half)
    spreads = [math.exp(low + (high - low) * i / _POINTS) for i in range(_POINTS + 1)]
    weights = [math.exp(scale + freedom * math.log(u) - half * u * u) for u in spreads]
    shift = t - wanted * math.sqrt(1 + t * t / (2 * freedom))
    for _ in range(50):
        at = [t * u - shift for u in spreads]
        below = math.fsum(w * _NORMAL.cdf(z) for w, z in zip(weights, at, strict=True))
        slope = math.fsum(w * _NORMAL.pdf(z) for w, z in zip(weights, at, strict=True))
        found = _NORMAL.inv_cdf(below)
        step = (found - wanted) * _NORMAL.pdf(found) / slope
        shift += step
        if abs(step) < _ENOUGH:
            break
    return shift
