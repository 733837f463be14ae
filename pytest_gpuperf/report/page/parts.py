"""What the page's sections share: which metrics are drawn, and a verdict's colour."""

from __future__ import annotations

from pytest_gpuperf.report.results import MetricResult, TestResult

Each = tuple[TestResult, MetricResult]
MOST_CHARTS = 500
"""Metrics whose samples and runs are drawn, what failed first: more would not open on a phone."""
_GOOD = {"equal", "improved", "unchanged"}
_BAD = {"regressed", "environment moved"}


def colour(metric: MetricResult) -> str:
    if metric.excuse or metric.outcome in ("shown", "no baseline"):
        return "soft"
    return "bad" if metric.outcome in _BAD else "good" if metric.outcome in _GOOD else "warn"
