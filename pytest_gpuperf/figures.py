"""Check what a test says of its figures, numbers of any library, names and units, and write them in words."""

from __future__ import annotations

import math
import re
import unicodedata
from collections.abc import Sequence
from decimal import Decimal
from numbers import Real
from typing import Any, TypeGuard

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


def is_text(value: Any) -> TypeGuard[str]:
    """Return whether something can be printed in a line, as a name."""
    return isinstance(value, str) and bool(value.strip()) and value.isprintable()


def text(call: str, what: str, value: Any) -> str:
    """Return a name or a unit as plain text; raises GpuperfError for what could not be printed in a line."""
    if not is_text(value):
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
_THOUSANDS = ((1e15, "P"), (1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"), (1.0, ""))
_BASE = frozenset({"B", "B/s", "FLOP", "FLOP/s", "Hz", "J", "W", "bit", "bit/s"})
# What a prefix would be put before a second time, or that is no word: "GB/s", "ms/token", "1/s", "%".
_SCALED = re.compile(r"[fpnuµμmkMGTPE]i?(s|B|b|bits?|bps|Hz|J|W|V|A|FLOPS?|FLOP/s|OPS)\b.*|[^A-Za-z].*|.")


def quantity(value: float | None, unit: str, digits: int = 4) -> str:
    """Format a value with its unit, to four significant digits: 193.5 µs, 20 GB, 15.27 k samples/s, 4."""
    if value is None:
        return "-"
    if unit == "s":
        scale, prefix = next((p for p in _PREFIXES if abs(value) >= p[0]), _PREFIXES[-1])
        return f"{_digits(value / scale, digits)} {prefix}s"
    if unit == "1":
        return _digits(value, digits)
    scale, prefix = _THOUSANDS[-1]
    if unit in _BASE or not _SCALED.fullmatch(unit):
        scale, prefix = next((p for p in _THOUSANDS if abs(value) >= p[0]), _THOUSANDS[-1])
    if not prefix:
        return f"{_digits(value, digits)} {unit}"
    return f"{_trimmed(_digits(value / scale, digits))} {prefix}{'' if unit in _BASE else ' '}{unit}"


def told_apart(values: Sequence[float], unit: str) -> list[str]:
    """Format values in one unit with as many digits as it takes that different ones look different."""
    for digits in range(4, 18):
        found = [quantity(value, unit, digits) for value in values]
        shown = {(_trimmed(number), unit) for number, _, unit in (text.rpartition(" ") for text in found)}
        if len(shown) == len(set(values)):
            break
    return found


def percent(fraction: float | None, of: float | None = None) -> str:
    """Format a signed change: +8.31 %, or x32 from twice as much on, unless it is one ``of`` less than 0."""
    if fraction is None:
        return "-"
    if (of or 0.0) >= 0 and 0.99995 <= fraction < math.inf:
        return f"x{_trimmed(_digits(1 + fraction, 3))}"
    return f"{100 * fraction:+.2f} %"


def _trimmed(number: str) -> str:
    return number.rstrip("0").rstrip(".") if "." in number else number


def _digits(value: float, digits: int) -> str:
    """Write a number with so many significant digits, but a whole one below a million with all of them."""
    if abs(value) >= 1e15:  # a float holds no more digits
        return f"{value:.{digits}g}"
    if value == int(value) and abs(value) < 1e6:
        return f"{value:,.0f}".replace(",", " ") if abs(value) >= 1e4 else f"{value:.0f}"
    if abs(value) >= 1000:
        decimals = max(0, digits - len(str(int(abs(value)))))
        return f"{value:,.{decimals}f}".replace(",", " ")
    return f"{value:#.{digits}g}".rstrip(".")
