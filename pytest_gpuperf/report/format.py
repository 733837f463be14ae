"""Changes and names as people read them."""

from __future__ import annotations


def percent(fraction: float | None, digits: int = 2) -> str:
    """Format a signed change: +8.31 %."""
    if fraction is None:
        return "-"
    return f"{100 * fraction:+.{digits}f} %"


def elide(text: str, width: int) -> str:
    """Shorten text to within ``width`` columns; the middle goes, since names differ at their ends."""
    if len(text) <= width:
        return text
    head = (width - 1) // 2
    return f"{text[:head]}…{text[len(text) - (width - 1 - head) :]}"
