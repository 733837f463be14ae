"""Numbers and names as people read them."""

from __future__ import annotations

_PREFIXES = ((1.0, ""), (1e-3, "m"), (1e-6, "µ"), (1e-9, "n"))


def quantity(value: float | None, unit: str, digits: int = 4) -> str:
    """A value with its unit, to four significant digits: 193.5 µs, 15 270 samples/s, 4."""
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


def percent(fraction: float | None, digits: int = 2) -> str:
    """A signed change: +8.31 %."""
    if fraction is None:
        return "-"
    return f"{100 * fraction:+.{digits}f} %"


def elide(text: str, width: int) -> str:
    """The text within ``width`` columns; the middle goes, since names differ at their ends."""
    if len(text) <= width:
        return text
    head = (width - 1) // 2
    return f"{text[:head]}…{text[len(text) - (width - 1 - head) :]}"
