"""Check what a test says of its figures, numbers of any library, names and units, and write them in words."""

from __future__ import annotations

import math
import re
import unicodedata
from collections.abc import Sequence
from decimal import Decimal
from numbers import Real
from typing import Any

from pytest_gpuperf.errors import BaselineError, GpuperfError

_TIME = re.compile(
    r"[fpnuμm]?s|[mnuμ]?secs?|(milli|micro|nano|pico)?seconds?|min|mins|minutes?|h|hrs?|hours?|days?"
    r"|cycles?|clks?|clocks?|ticks?"
)
# A word that may count as well ("ops", "flops") is a rate: kind="exact" judges a count.
_RATE = re.compile(
    r"[kmgtpe]?(hz|hertz)|[kmgtpe]?i?(bps|bits?ps|bytesps)|[kmgtpezy]?(flops|iops|ops|ips|ups|lups|teps)"
    r"|[kmb]?(fps|qps|rps|tps|pps)|rpm"
)
_PER = re.compile(r"(/|\bper\b|\bs\^?-1\b)")
_TEXT = str | bytes | bytearray | memoryview


def is_time_or_rate(unit: str) -> bool:
    """Return whether a unit has a clock in it, so that a busy host moves figures in it.

    Times are s, ms, us, µs, ns, ps, min, h, their words (seconds, msec, hours, ...) and clock cycles. A unit
    counts where one of its words is a time (``tokens/s``, ``1/s``, ``s^-1``, ``ns/op``, ``items per second``)
    or names a rate: Hz, FPS, QPS, IOPS, FLOPS, Gbps and such, with their prefixes. Upper and lower case are
    one. Everything else (B, %, 1, J, W) is neither.
    """
    words = _words(_plain(unit))
    return any(_TIME.fullmatch(word) or _RATE.fullmatch(word) for word in words)


def is_rate(unit: str) -> bool:
    """Return whether a unit is plainly a rate, of which more is better: something a second, Hz, FPS, ..."""
    plain = _plain(unit)
    amount, per, time = [*_PER.split(plain, maxsplit=1), "", ""][:3]
    if per and not any(map(_TIME.fullmatch, _words(amount))):
        return per.startswith("s") or any(map(_TIME.fullmatch, _words(time)))
    return any(map(_RATE.fullmatch, _words(amount)))


def _plain(unit: str) -> str:
    """Return a unit in lower case, its typographic characters as plain ones and without "(s)"."""
    plain = unicodedata.normalize("NFKC", unit).lower().replace("\u2212", "-").replace("_", " ")
    return plain.replace("(s)", "")


def _words(plain: str) -> list[str]:
    return [word.lstrip("0123456789") for word in re.findall(r"[^\W_]+", plain)]


def number(value: Any) -> float | None:
    """Return a real number of any library as a float, None for anything else (text and booleans too).

    It is not finite where a float cannot hold it.
    """
    plain = value.tolist() if getattr(value, "ndim", None) == 0 and hasattr(value, "tolist") else value
    if isinstance(plain, bool) or not isinstance(plain, Real | Decimal):
        return None
    try:
        return float(plain)
    except (OverflowError, ValueError):  # too large, or a decimal that is no number
        return math.nan


def numbers(call: str, value: Any) -> tuple[float, ...]:
    """Return a number, or several in a flat sequence or array, as floats; raises GpuperfError."""
    is_text = isinstance(value, _TEXT)
    plain = value.tolist() if hasattr(value, "tolist") and not is_text else value
    several = list(plain) if isinstance(plain, Sequence) and not is_text else [plain]
    found = tuple(each for given in several if (each := number(given)) is not None)
    if len(found) < len(several):
        raise GpuperfError(f"{call}: give a number, or a flat sequence of numbers")
    return found


def text(call: str, what: str, value: Any) -> str:
    """Return a name or a unit as plain text; raises GpuperfError for what could not be printed in a line."""
    if not isinstance(value, str) or not value.strip() or not value.isprintable():
        example = '"1" for a ratio or a count' if what == "unit" else '"latency"'
        raise GpuperfError(
            f"{call}: {what}={short(value)}; a {what} is printable text in one line, such as {example}"
        )
    return str.__str__(value)  # NumPy's strings cannot travel between processes


def short(value: Any) -> str:
    """Show a value that was given within a line."""
    shown = " ".join(repr(value).split())
    return shown if len(shown) <= 60 else f"{shown[:59]}…"


# --------------------------------------------------------------------------- in words


def slug(pool: str) -> str:
    """Return the folder name of a pool: ``NVIDIA H100 80GB HBM3`` -> ``nvidia-h100-80gb-hbm3``.

    Raises BaselineError for a name that cannot be one folder's.
    """
    plain = unicodedata.normalize("NFKD", pool).encode("ascii", "ignore").decode().lower()
    found = re.sub(r"[^a-z0-9._]+", "-", plain).strip("-.")
    if "/" in pool or "\\" in pool or not found:
        raise BaselineError(
            f"pool {pool!r} cannot name a folder: give --gpuperf-pool letters or digits and no slash"
        )
    return found


_PREFIXES = ((1.0, ""), (1e-3, "m"), (1e-6, "µ"), (1e-9, "n"))


def quantity(value: float | None, unit: str, digits: int = 4) -> str:
    """Format a value with its unit, to four significant digits: 193.5 µs, 15 270 samples/s, 4."""
    if value is None:
        return "-"
    if unit == "s":
        scale, prefix = next((p for p in _PREFIXES if abs(value) >= p[0]), _PREFIXES[-1])
        return f"{_digits(value / scale, digits)} {prefix}s"
    number = _digits(value, digits)
    return number if unit == "1" else f"{number} {unit}"


def _digits(value: float, digits: int) -> str:
    if value == int(value) and abs(value) < 1e6:
        return f"{value:.0f}"
    if abs(value) >= 1000:
        return f"{value:,.0f}".replace(",", " ")
    return f"{value:#.{digits}g}".rstrip(".")
