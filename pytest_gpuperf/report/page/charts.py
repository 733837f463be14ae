"""Draw a metric's samples and runs, LoadGen's latencies, shares and trends as plain SVG."""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape
from typing import NamedTuple

from pytest_gpuperf.constants import PERCENTILES
from pytest_gpuperf.figures import quantity
from pytest_gpuperf.report.results import Figure, MetricResult, Percentile

_WIDTH, _LEFT, _RIGHT = 720, 196, 16
_STORED = 12
"""Runs of a baseline that are drawn, the newest."""


class _Row(NamedTuple):
    label: str
    series: int
    points: Sequence[float]
    ticks: Sequence[float] = ()


class _Axis:
    """Maps values to a stretch of the picture, with room at both ends."""

    def __init__(self, values: Sequence[float], start: float, end: float) -> None:
        low, high = min(values), max(values)
        room = 0.06 * (high - low) or 0.05 * abs(high) or 1.0
        self._low, self._high, self._start, self._end = low - room, high + room, start, end

    def __call__(self, value: float) -> float:
        share = (value - self._low) / (self._high - self._low)
        return round(self._start + min(max(share, 0.0), 1.0) * (self._end - self._start), 1)

    def marks(self) -> list[float]:
        """Return two to five round values: steps of 1, 2 or 5 and zeros."""
        power = 10.0 ** math.floor(math.log10(self._high - self._low))
        steps = (power * each for each in (1, 0.5, 0.2, 0.1))
        step = next(step for step in steps if len(self._every(step)) >= 3 or step < power / 9)
        return self._every(step)[:: 2 if len(self._every(step)) > 5 else 1]

    def _every(self, step: float) -> list[float]:
        first, last = math.ceil(self._low / step), math.floor(self._high / step)
        return [number * step for number in range(first, last + 1)]

    def spread(self) -> list[float]:
        return [self._low + (self._high - self._low) * part for part in (0.1, 0.5, 0.9)]


def _svg(height: float, label: str, parts: Sequence[str]) -> str:
    return (
        f'<svg viewBox="0 0 {_WIDTH} {height:g}" role="img" aria-label="{escape(label)}">'
        f"{''.join(parts)}</svg>"
    )


def _numbers(values: Sequence[Figure]) -> list[float]:
    return [value for value in values if value is not None and math.isfinite(value)]


# --------------------------------------------------------------------------- samples and runs


def runs(metric: MetricResult) -> str:
    """Draw today's samples and processes above the baseline's runs; "" where there are none, or one value."""
    rows = _rows(metric) if metric.kind == "noisy" or metric.here or metric.there else []
    values = [value for row in rows for value in (*row.points, *row.ticks)]
    if not values:
        return ""
    base, unit = metric.baseline, metric.unit
    allowed = _allowed(metric)
    axis = _Axis([*values, *_numbers([base]), *(allowed or ())], _LEFT, _WIDTH - _RIGHT)
    bottom = 26 * len(rows) + 14
    parts = []
    if allowed:
        low, high = (axis(value) for value in allowed)
        parts.append(
            f'<rect class="band" x="{low}" y="4" width="{max(high - low, 1):g}" height="{bottom - 8}"/>'
        )
    if base is not None:
        parts.append(f'<line class="base" x1="{axis(base)}" x2="{axis(base)}" y1="4" y2="{bottom - 4}"/>')
    for number, row in enumerate(rows):
        parts += _drawn(row, 26 * number + 18, axis)
    parts += _interval(metric, axis, 18)
    parts.append(f'<line class="axis" x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{bottom}" y2="{bottom}"/>')
    for mark in axis.marks():
        text, place = quantity(mark, unit), f'x="{axis(mark)}" y="{bottom + 17}"'
        parts.append(f'<text class="small" text-anchor="middle" {place}>{escape(text)}</text>')
    told = f"now {quantity(metric.value, unit)}"
    if base is not None:
        told += f", baseline {quantity(base, unit)}"
    label = f"{metric.name}: {told}; {', '.join(f'{row.label} {len(row.points)}' for row in rows)}"
    return _svg(bottom + 24, label, parts)


def _rows(metric: MetricResult) -> list[_Row]:
    found = []
    if metric.samples:
        kept = _numbers(metric.samples.kept)
        found.append(_Row("this run's samples", 0, _numbers([_middle(kept)]), kept))
    if here := _numbers(metric.here):
        found.append(_Row("measured again", 0, here))
    if there := _numbers(metric.there):
        found.append(_Row("the other code", 1, there))
    for number, run in enumerate(metric.stored[-_STORED:], max(1, len(metric.stored) - _STORED + 1)):
        label = f"baseline {number}, {run.date[:10] or 'no date'}{' (left out)' if run.left_out else ''}"
        found.append(_Row(label, 2, _numbers([run.value]), _numbers(run.samples)))
    return found


def _middle(ordered: Sequence[float]) -> float | None:
    return ordered[len(ordered) // 2] if ordered else None


def _allowed(metric: MetricResult) -> tuple[float, float] | None:
    """Return how far a figure may be from its baseline, on both sides."""
    if metric.baseline is None or not metric.tolerance:
        return None
    one, other = metric.baseline / (1 + metric.tolerance), metric.baseline * (1 + metric.tolerance)
    return min(one, other), max(one, other)


def _drawn(row: _Row, y: float, axis: _Axis) -> list[str]:
    parts = [f'<text class="small" x="0" y="{y + 4}">{escape(row.label)}</text>']
    style = f"s{row.series}"
    if len(row.ticks) > 1:
        ends = axis(min(row.ticks)), axis(max(row.ticks))
        parts.append(f'<line class="{style} span" x1="{ends[0]}" x2="{ends[1]}" y1="{y}" y2="{y}"/>')
    path = "".join(f"M{axis(tick)} {y - 6}v12" for tick in row.ticks)
    parts += [f'<path class="{style} tick" d="{path}"/>'] if path else []
    parts += [f'<circle class="{style}" cx="{axis(point)}" cy="{y}" r="4.5"/>' for point in row.points]
    return parts


def _interval(metric: MetricResult, axis: _Axis, y: float) -> list[str]:
    if metric.interval is None or metric.baseline is None:
        return []
    ends = _numbers(metric.interval)
    if len(ends) < 2:
        return []
    low, high = (axis(metric.baseline * (1 + end)) for end in ends)
    return [
        f'<path class="s0 curve" d="M{low} {y - 9}v-4H{high}v4"><title>interval of the change</title></path>'
    ]


# --------------------------------------------------------------------------- shares, latencies, trends


def share(label: str, fraction: float) -> str:
    """Draw a share of the most there is as a bar; beyond it the bar is full."""
    width = max(0.0, min(fraction, 1.0)) * (_WIDTH - _LEFT - 90)
    text = f"{100 * fraction:.0f} %"
    parts = [
        f'<text class="small" x="0" y="17">{escape(label)}</text>',
        f'<rect class="band" x="{_LEFT}" y="5" width="{_WIDTH - _LEFT - 90}" height="16"/>',
        f'<rect class="s0 bar" x="{_LEFT}" y="5" width="{width:.1f}" height="16"/>',
        f'<text x="{_WIDTH - 80}" y="18">{text}</text>',
    ]
    return _svg(26, f"{label}: {text}", parts)


def latencies(phases: Sequence[tuple[str, dict[str, Percentile]]]) -> str:
    """Draw the latency of phases by percentile, in logs of both; hollow points have too few queries."""
    values = [p.seconds for _, found in phases for p in found.values() if p.seconds and p.seconds > 0]
    if not values:
        return ""
    height = 240
    up = _Axis([math.log(value) for value in values], height, 10)
    along = _Axis([-math.log10(1 - share) for share in PERCENTILES.values()], 90, _WIDTH - _RIGHT)
    parts = []
    for name, fraction in PERCENTILES.items():
        x = along(-math.log10(1 - fraction))
        parts.append(f'<line class="axis" x1="{x}" x2="{x}" y1="6" y2="{height}"/>')
        text = name.replace("_", ".")
        parts.append(f'<text class="small" text-anchor="middle" x="{x}" y="{height + 18}">{text}</text>')
    for mark in up.spread():
        text = quantity(math.exp(mark), "s", 3)
        parts.append(f'<text class="small" x="0" y="{up(mark) + 4}">{text}</text>')
    for number, (label, found) in enumerate(phases):
        style, dashes = f"s{number % 4}", ("", "7 4", "2 3", "10 3 2 3")[number % 4]
        points = [
            (along(-math.log10(1 - PERCENTILES[name])), up(math.log(p.seconds)), p.enough)
            for name, p in found.items()
            if name in PERCENTILES and p.seconds and p.seconds > 0
        ]
        path = " ".join(f"{x} {y}" for x, y, _ in points)
        parts.append(f'<polyline class="{style} curve" stroke-dasharray="{dashes}" points="{path}"/>')
        for x, y, enough in points:
            few = "" if enough else " few"
            parts.append(f'<circle class="{style}{few}" cx="{x}" cy="{y}" r="4.5" stroke-width="2"/>')
        y = height + 42 + 22 * number
        parts.append(f'<path class="{style} curve" stroke-dasharray="{dashes}" d="M90 {y}h40"/>')
        parts.append(f'<text x="140" y="{y + 4}">{escape(label)}</text>')
    label = "latency by percentile of " + ", ".join(label for label, _ in phases)
    return _svg(height + 40 + 22 * len(phases), label, parts)


def trend(metric: MetricResult, dates: Sequence[str], values: Sequence[float]) -> str:
    """Draw the figures of earlier runs and, last, of this one, with today's tolerance around the baseline."""
    allowed = _allowed(metric)
    up = _Axis([*values, *(allowed or ())], 96, 8)
    along = _Axis([0.0, float(len(values) - 1)], _LEFT, _WIDTH - _RIGHT)
    parts = []
    if allowed:
        high, low = up(allowed[1]), up(allowed[0])
        width, tall = _WIDTH - _RIGHT - _LEFT, max(low - high, 1)
        parts.append(f'<rect class="band" x="{_LEFT}" y="{high}" width="{width}" height="{tall:g}"/>')
    points = [(along(number), up(value)) for number, value in enumerate(values)]
    path = " ".join(f"{x} {y}" for x, y in points)
    parts.append(f'<polyline class="s0 curve" points="{path}"/>')
    parts += [f'<circle class="s0" cx="{x}" cy="{y}" r="3"/>' for x, y in points]
    for mark in dict.fromkeys((max(values), min(values))):
        parts.append(
            f'<text class="small" x="0" y="{up(mark) + 4}">{escape(quantity(mark, metric.unit))}</text>'
        )
    parts.append(f'<text class="small" x="{_LEFT}" y="116">{escape(dates[0][:10])}</text>')
    parts.append(f'<text class="small" text-anchor="end" x="{_WIDTH - _RIGHT}" y="116">this run</text>')
    ends = f"{quantity(values[0], metric.unit)} on {dates[0][:10]} to {quantity(values[-1], metric.unit)}"
    return _svg(122, f"{metric.name} in {len(values)} runs: {ends}", parts)
