"""Write the times of a run in pytest-benchmark's format, so that its own tools compare them."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from statistics import quantiles
from typing import Any

from pytest_gpuperf.report.results import Document, MetricResult, Samples, TestResult


def render(document: Document) -> bytes:
    """Return the JSON: a benchmark for each metric in seconds that has samples.

    Quartiles are those of the samples that are kept, the rest of the statistics those of all.
    """
    first = next(iter(document.machines), None)
    around: Mapping[str, Any] = first.environment if first else {}
    about = {
        "machine_info": {
            "node": first.name if first else "",
            "machine": str(around.get("platform", "")),
            "python_version": str(around.get("python", "")),
            "cpu": {"brand_raw": str(around.get("cpu", "")), "count": around.get("cores")},
        },
        "commit_info": {"id": document.commit, "dirty": document.dirty},
        "datetime": document.date,
        "version": f"pytest-gpuperf {document.version}",
    }
    return json.dumps({**about, "benchmarks": list(_benchmarks(document))}, indent=1).encode() + b"\n"


def _benchmarks(document: Document) -> Iterator[dict[str, Any]]:
    for test, metric in document.metrics():
        taken = metric.samples
        if metric.unit == "s" and taken and taken.mean and taken.kept:
            yield _benchmark(test, metric, taken)


def _benchmark(test: TestResult, metric: MetricResult, taken: Samples) -> dict[str, Any]:
    # pytest-benchmark's own fixture names no metric, so that its files and these have one name for it
    name = test.name if metric.name == "benchmark" else f"{test.name} {metric.name}"
    return {
        "group": None,
        "name": name,
        "fullname": f"{test.suite}::{name}",
        "params": None,
        "param": None,
        "extra_info": {"metric": metric.name, "instrument": metric.instrument, "verdict": metric.label},
        "options": {},
        "stats": _stats(taken),
    }


def _stats(taken: Samples) -> dict[str, Any]:
    kept = [sample for sample in taken.kept if sample is not None]
    mean, sd = taken.mean or 0.0, taken.sd or 0.0
    q1, middle, q3 = quantiles(kept, method="inclusive") if len(kept) > 1 else kept * 3
    beyond = sum(abs(sample - mean) > sd for sample in kept)
    outliers = sum(not q1 - 1.5 * (q3 - q1) <= sample <= q3 + 1.5 * (q3 - q1) for sample in kept)
    return {
        "min": kept[0],
        "max": kept[-1],
        "mean": mean,
        "stddev": sd,
        "rounds": taken.count,
        "median": middle,
        "iqr": q3 - q1,
        "q1": q1,
        "q3": q3,
        "iqr_outliers": outliers,
        "stddev_outliers": beyond,
        "outliers": f"{beyond};{outliers}",
        "ld15iqr": min(sample for sample in kept if sample >= q1 - 1.5 * (q3 - q1)),
        "hd15iqr": max(sample for sample in kept if sample <= q3 + 1.5 * (q3 - q1)),
        "ops": 1 / mean,
        "total": mean * taken.count,
        "iterations": 1,
    }
