"""``results.json`` as the reference's ``main.py`` writes it, with figures that mean what they say."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pytest_gpuperf.constants import PERCENTILES
from pytest_gpuperf.errors import GpuperfError
from pytest_gpuperf.files import reason, replace_file

NOTE = (
    "took is the whole phase from the first issue to the last completion, and qps is queries a second over "
    "it (Offline: samples, since it has one query). main.py counts took from the last time that images were "
    "loaded, so that its qps of an accuracy phase is too high (59 times on ImageNet), counts batches in "
    "Offline, and interpolates its percentiles: here they are LoadGen's. An accuracy phase has no times here."
)


def entry(result: Any) -> dict[str, Any]:
    """Return the entry of a phase: of performance, or of accuracy with classes or a score."""
    if hasattr(result, "latency"):
        offline = result.scenario == "Offline"
        count = result.samples if offline else result.queries
        return {
            "took": result.duration,
            "mean": result.latency.mean,
            "percentiles": {f"{100 * x:.1f}": float(result.latency[name]) for name, x in PERCENTILES.items()},
            "qps": result.samples_per_second if offline else result.qps,
            "count": count,
            "good_items": 0,
            "total_items": 0,
        }
    if hasattr(result, "score"):
        return {"score": result.score, "count": result.total, "total_items": result.total}
    good = {"good_items": result.correct, "total_items": result.total}
    return {"accuracy": 100 * result.accuracy, "count": result.total, **good}


def folder_of(root: Path, output: Any) -> Path | None:
    """Return the folder that results.json is to be in, made if need be; raises GpuperfError for another."""
    if output is None:
        return None
    if not isinstance(output, str | Path):
        raise GpuperfError(f"loadgen: output={output!r}; give the folder that results.json is to be in")
    folder = root / output
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except (OSError, ValueError) as error:  # a null byte is a ValueError
        raise GpuperfError(f"loadgen: output: {folder} is no folder: {reason(error)}") from None
    return folder


def require_own(folder: Path, phase: str) -> Path:
    """Return the path of ``results.json``; raises GpuperfError if there is one of another ``phase``."""
    path = folder / "results.json"
    try:
        other = json.loads(path.read_bytes()).get("phase", phase)
    except (OSError, ValueError, AttributeError):  # none, or of another program
        return path
    if other != phase:
        raise GpuperfError(
            f"loadgen: output: {path} is that of {other}: give each phase a folder of its own, or remove it"
        )
    return path


def write(folder: Path, result: Any, arguments: Mapping[str, Any], phase: str) -> Path:
    """Write ``results.json`` of a phase in the folder; raises GpuperfError if that cannot be."""
    about = result.environment
    found = {
        "phase": phase,
        "runtime": about.get("provider", ""),
        "version": about.get("onnxruntime", ""),
        "args": {name: value for name, value in arguments.items() if value is not None},
        "note": NOTE,
        f"TestScenario.{result.contract['scenario']}": entry(result),
    }
    path = require_own(folder, phase)  # another process may have been faster
    try:
        replace_file(path, json.dumps(found, indent=2, default=str).encode() + b"\n")
    except OSError as error:
        raise GpuperfError(f"loadgen: {path} cannot be written: {error.strerror}") from None
    return path
