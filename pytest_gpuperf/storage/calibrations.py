"""Read and write a calibration: recorded runs, one JSON line each, and the result beside the baselines.

The result is ``<folder>/<pool>.calibration.json``, outside the pools' own folders, so that no suite's
baseline file can bear its name. Imports msgspec: load it only when a file is read or written.
"""

from __future__ import annotations

import json
import math
import os
from dataclasses import replace
from pathlib import Path

import msgspec

from pytest_gpuperf.constants import INSTRUMENTS
from pytest_gpuperf.errors import BaselineError
from pytest_gpuperf.figures import slug
from pytest_gpuperf.files import list_folder, read_file, replace_file
from pytest_gpuperf.rules.calibration import Calibration
from pytest_gpuperf.rules.trial import RecordedRun, RecordedTest
from pytest_gpuperf.storage.documents import LARGEST, SMALLEST, Malformed, converted, explained, read_object
from pytest_gpuperf.storage.entries import DIGITS
from pytest_gpuperf.storage.environments import check_environment

SCHEMA = 1
LONGEST = 256 << 20
"""Bytes that a file of recorded runs may have: some ten thousand runs."""
_ENDING = ".calibration.json"
_AGAIN = "calibrate again with --gpuperf-calibrate"
_AFTER_CONFLICT = f"take one side whole, or {_AGAIN}"


# --------------------------------------------------------------------------- runs


def append_run(path: Path, tests: RecordedRun) -> None:
    """Add a run to the file, made with its folder where there is none; on disk when this returns.

    Noisy samples keep six significant digits, in the order they were taken. Raises BaselineError.
    """
    kept = {name: msgspec.to_builtins(_rounded(test)) for name, test in tests.items()}
    line = json.dumps({"schema": SCHEMA, "tests": kept}, allow_nan=False)
    with explained(path, "written"):
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(path, "a", encoding="utf-8", opener=_not_a_link) as file:
            file.write(line + "\n")
            file.flush()
            os.fsync(file.fileno())


def read_runs(path: Path) -> list[RecordedRun]:
    """Return the runs of a file, or of several put together; raises BaselineError with line and remedy."""
    with explained(path, "read"):
        data = read_file(path, limit=LONGEST)
    return parse_runs(data, path)


def parse_runs(data: bytes, path: Path) -> list[RecordedRun]:
    """Return the runs in a file's content, as ``read_runs`` does; ``path`` is for the words of an error."""
    runs: list[RecordedRun] = []
    for number, line in enumerate(data.split(b"\n"), start=1):
        if not line.strip():
            continue
        try:
            runs.append(_run(line))
        except Malformed as bad:
            remedy = bad.remedy or "delete that line; the other runs stay good"
            raise BaselineError(f"{path}: run on line {number}: {bad}; {remedy}") from None
    return runs


def _not_a_link(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NOFOLLOW, 0o666)


def _rounded(test: RecordedTest) -> RecordedTest:
    kept = []
    for measured in test.record.measurements:
        samples = measured.samples
        if measured.metric.kind == "noisy":
            samples = tuple(float(f"{sample:.{DIGITS}g}") for sample in samples)
        kept.append(replace(measured, samples=samples, details={}))
    return replace(test, record=replace(test.record, measurements=tuple(kept)))


def _run(line: bytes) -> dict[str, RecordedTest]:
    document = read_object(line, "a run is", SCHEMA, _AFTER_CONFLICT)
    tests = converted(document.get("tests"), dict[str, RecordedTest], strict=False)
    for name, test in tests.items():
        check_environment(test.record.environment, f"{name}: environment")
        for measured in test.record.measurements:
            metric = measured.metric
            if metric.instrument not in INSTRUMENTS:
                raise Malformed(f"{name}: instrument {metric.instrument!r} is unknown here")
            if not measured.samples:
                raise Malformed(f"{name}: {metric.name} has no samples")
            if max(map(abs, measured.samples)) > LARGEST:
                raise Malformed(f"{name}: {metric.name} has a sample beyond {LARGEST:g}")
            if metric.kind == "noisy" and min(measured.samples) < SMALLEST:
                raise Malformed(f"{name}: {metric.name} has a sample that is not above zero")
    return tests


# --------------------------------------------------------------------------- the result


def result_path(folder: Path, pool: str) -> Path:
    """Return the file of ``pool``'s calibration in the folder of the baselines."""
    return folder / f"{slug(pool)}{_ENDING}"


def save_result(folder: Path, calibration: Calibration) -> Path:
    """Write a calibration in place of the pool's last one; raises BaselineError and then changes nothing."""
    path = result_path(folder, calibration.pool)
    document = {"schema": SCHEMA, **msgspec.to_builtins(calibration)}
    text = json.dumps(document, indent=2, allow_nan=False) + "\n"
    with explained(path, "written"):
        replace_file(path, text.encode(), folder)
    return path


def read_result(path: Path) -> Calibration:
    """Return a stored calibration; raises BaselineError, one sentence with the place and the remedy."""
    with explained(path, "read"):
        data = read_file(path, path.parent)
    try:
        return _result(data)
    except Malformed as bad:
        raise BaselineError(f"{path}: {bad}; {bad.remedy or _AGAIN}") from None


def results(folder: Path, pool: str) -> list[Path]:
    """Return the files of a baselines' folder's calibrations, or that of ``pool``; raises BaselineError."""
    with explained(folder, "read"):
        found = [path for path in list_folder(folder) if path.name.endswith(_ENDING)]
    return [path for path in found if not pool or path == result_path(folder, pool)]


def _result(data: bytes) -> Calibration:
    document = read_object(data, "a calibration is", SCHEMA, _AFTER_CONFLICT)
    calibration = converted(document, Calibration, strict=False)
    rates = [calibration.reds.runs, calibration.reds.draws]
    if any(not 0 <= rate.reds <= rate.trials or not rate.trials for rate in rates):
        raise Malformed("$.reds counts more failures than trials, or no trials")
    if not (math.isfinite(calibration.expected_reds) and calibration.expected_reds >= 0):
        raise Malformed(f"$.expected_reds is {calibration.expected_reds}, not a number of tests")
    return calibration
