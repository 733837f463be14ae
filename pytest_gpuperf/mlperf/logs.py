"""LoadGen's logs of one phase: the detail log, the trace and the accuracy log."""

from __future__ import annotations

import hashlib
import json
import math
import os
import re
import shutil
import socket
import tempfile
from array import array
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pytest_gpuperf.cache import cache_folder
from pytest_gpuperf.errors import GpuperfError
from pytest_gpuperf.figures import number, short
from pytest_gpuperf.files import reason

DETAIL = "mlperf_log_detail.txt"
TRACE = "mlperf_log_trace.json"
ACCURACY = "mlperf_log_accuracy.json"
FIRST = "loadgen_version"  # the key that each phase begins with


# Ids of tests that make folders of their own, and the most characters of such a name; a file's has 255 bytes.
_PLAIN = re.compile(r"[\w./-]+::[\w:.-]+(\[[\w.=-]*\])?", re.ASCII)
_LONGEST = 120


def folder_name(test: str) -> str:
    """Return a name for the folder of a test's logs: its id, with a digest if others could have the same."""
    name = re.sub(r"[^\w.=-]+", "_", test, flags=re.ASCII)
    if _PLAIN.fullmatch(test) and len(name) <= _LONGEST:
        return name
    return f"{name[:_LONGEST]}-{hashlib.sha256(test.encode(errors='replace')).hexdigest()[:8]}"


@dataclass(frozen=True, slots=True)
class Detail:
    """The detail log: the last value of each key, and the text of every line marked as an error."""

    path: Path
    values: dict[str, Any]
    errors: tuple[str, ...]

    @property
    def valid(self) -> bool:
        return self.values.get("result_validity") == "VALID"

    @property
    def num_errors(self) -> int:
        counted = self.number("num_errors")
        return len(self.errors) if counted is None else int(counted)

    def number(self, key: str) -> float | None:
        """Return the number of a key, None if it has none; raises GpuperfError if it is something else."""
        value = self.values.get(key)
        found = number(value)
        if value is not None and (found is None or not math.isfinite(found)):
            raise GpuperfError(f"{self.path}: {key} is {short(value)}, which is no number")
        return found

    @property
    def reason(self) -> str:
        """Return LoadGen's own words for INVALID or for its errors; it has others for its early stopping."""
        reason = str(self.values.get("result_invalid_reason") or "")
        if not reason and not self.valid:
            reason = str(self.values.get("early_stopping_result") or "")
        return " ".join([*reason.split(), *self.errors])


def read_detail(folder: Path) -> Detail:
    """Read the detail log; raises GpuperfError if it is not one phase's, from its beginning to its end."""
    path = folder / DETAIL
    lines = _lines(path)
    values: dict[str, Any] = {}
    errors = []
    for line in lines:
        _, marker, text = line.partition(":::MLLOG ")
        if not marker:
            continue
        try:
            entry = json.loads(text)
            again = entry["key"] == FIRST and FIRST in values
            values[entry["key"]] = entry["value"]
            failed = (entry.get("metadata") or {}).get("is_error")
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise GpuperfError(
                f"{path} has a line that is no MLLOG entry: {text[:120]} (is the disk full?)"
            ) from error
        if again:
            raise GpuperfError(
                f"{path} has the logs of several phases, one after the other: give each a folder of its own"
            )
        if failed:
            errors.append(str(entry["value"]))
    if "power_end" not in values:  # the last entry that both modes write
        raise GpuperfError(
            f"{path} stops before LoadGen's last lines: the phase did not end, or the disk is full"
        )
    return Detail(path, values, tuple(errors))


def _lines(path: Path) -> list[str]:
    try:
        text = path.read_text(encoding="utf-8", errors="replace")
    except FileNotFoundError as error:
        raise GpuperfError(f"there is no {path}: LoadGen ran nothing, or this is not its folder") from error
    except (OSError, ValueError) as error:  # a path with a null byte is a ValueError
        raise GpuperfError(f"{path} cannot be read: {reason(error)}") from error
    if text and ":::MLLOG " not in text:
        raise GpuperfError(
            f"{path} has no :::MLLOG line: it is no detail log, or of a LoadGen of 2020 or before, which "
            "wrote it in another form"
        )
    return text.split("\n")


@dataclass(frozen=True, slots=True)
class Trace:
    """Seconds from scheduled to complete of each query, in the order issued, and of the whole phase.

    ``pauses`` are the seconds by which a stream's queries began later after the one before than half of them.
    """

    latencies: np.ndarray
    duration: float
    samples: int
    pauses: float = 0.0


# The trace is not JSON (LoadGen doubles the quotes around some keys), so it is read line by line.
_SAMPLE = re.compile(
    r'"name":"Sample","cat":"default","ph":"b",.*?"ts":([\d.]+),"args":\{"sample_seq":\d+,"query_seq":(\d+),'
    r'"sample_idx":\d+,"issue_start_ns":\d+,"complete_ns":(\d+)'
)


@contextmanager
def tracing(folder: Path, keep: bool = False) -> Iterator[None]:
    """Let LoadGen write its trace for ``folder`` into the cache, as long as the block lasts.

    It is some 300 bytes a sample. It is removed, also what a killed process left, unless it is to be kept.
    Raises GpuperfError if the cache cannot be written, or ``folder`` where it is to be kept.
    """
    link, traces = folder / TRACE, cache_folder() / "traces"
    mine = f"{socket.gethostname()}-{os.getpid()}"
    try:
        traces.mkdir(0o700, parents=True, exist_ok=True)
        _sweep(traces)
        with tempfile.NamedTemporaryFile("wb", dir=traces, prefix=f"{mine}-", suffix=".json") as file:
            folder.mkdir(parents=True, exist_ok=True)
            link.unlink(missing_ok=True)
            link.symlink_to(file.name)
            try:
                yield
            finally:
                link.unlink(missing_ok=True)
                if keep:
                    _copy(Path(file.name), link)
    except OSError as error:
        raise GpuperfError(
            f"LoadGen's trace cannot be kept in {traces} ({error.strerror}); "
            "point PYTEST_GPUPERF_CACHE at a folder that can be written"
        ) from error


def _copy(trace: Path, target: Path) -> None:
    try:
        shutil.copyfile(trace, target)
    except OSError as error:
        target.unlink(missing_ok=True)  # a part of it
        raise GpuperfError(
            f"LoadGen's trace, {trace.stat().st_size:,} bytes, cannot be kept in {target.parent} "
            f"({error.strerror}): make room, or leave out keep_trace="
        ) from error


def _sweep(traces: Path) -> None:
    """Remove the traces of this host's processes that are no more."""
    for path in traces.glob(f"{socket.gethostname()}-*.json"):
        with suppress(ValueError, OSError):
            try:
                os.kill(int(path.stem.rsplit("-", 2)[-2]), 0)
            except ProcessLookupError:
                path.unlink(missing_ok=True)


def read_trace(folder: Path) -> Trace:
    """Read the trace; raises GpuperfError if it holds no sample. A query ends with its last sample."""
    path = folder / TRACE
    starts, numbers, lasted = array("d"), array("q"), array("d")
    try:
        with path.open(encoding="utf-8", errors="replace") as lines:
            for match in filter(None, map(_SAMPLE.search, lines)):
                start, number, complete = match.groups()
                starts.append(float(start))
                numbers.append(int(number))
                lasted.append(float(complete))
    except OSError as error:
        raise GpuperfError(f"LoadGen wrote no {path} ({error.strerror})") from error
    if not starts:
        raise GpuperfError(f"{path} holds no sample: this LoadGen writes its trace in another form")
    start, query = np.frombuffer(starts) * 1e-6, np.frombuffer(numbers, np.int64)
    complete = np.frombuffer(lasted) * 1e-9
    latencies = np.zeros(query.max() + 1)
    np.maximum.at(latencies, query, complete)
    return Trace(
        latencies, float((start + complete).max() - start.min()), len(query), _pauses(query, start, complete)
    )


def _pauses(query: np.ndarray, start: np.ndarray, complete: np.ndarray) -> float:
    begins, ends = np.full(query.max() + 1, np.inf), np.zeros(query.max() + 1)
    np.minimum.at(begins, query, start)
    np.maximum.at(ends, query, start + complete)
    gaps = begins[1:] - ends[:-1]
    return float(np.maximum(gaps - np.median(gaps), 0).sum()) if len(gaps) else 0.0


def read_accuracy(folder: Path, count: int) -> np.ndarray:
    """Return the logged class of each of ``count`` samples, int64 [count].

    MultiStream pads with samples that it logs again; the first answer counts. Raises GpuperfError if one is
    missing or the log is damaged.
    """
    classes = np.full(count, -1, np.int64)
    seen = np.zeros(count, bool)
    for index, found in _answers(folder, count):
        if not seen[index]:
            classes[index], seen[index] = found, True
    if not seen.all():
        missing = np.flatnonzero(~seen)
        raise GpuperfError(f"{folder / ACCURACY} lacks {len(missing)} of {count} samples, first {missing[0]}")
    return classes


def read_sampled(folder: Path, count: int) -> tuple[list[int], np.ndarray]:
    """Return the samples that a performance phase logged, and their classes, int64, one for each.

    Raises GpuperfError if the log is damaged.
    """
    answers = list(_answers(folder, count))
    return [index for index, _ in answers], np.array([found for _, found in answers], np.int64)


def _answers(folder: Path, count: int) -> Iterator[tuple[int, int]]:
    """Yield each logged sample and its class; raises GpuperfError unless it is one of ``count``."""
    path = folder / ACCURACY
    try:
        entries = json.loads(path.read_text(encoding="utf-8"))
        answers = [(int(entry["qsl_idx"]), bytes.fromhex(entry["data"])) for entry in entries]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise GpuperfError(f"{path} is no accuracy log of LoadGen: {error}") from error
    for index, data in answers:
        if not 0 <= index < count or len(data) != 8:
            raise GpuperfError(
                f"{path}: sample {index} with {len(data)} bytes is not one of {count} with 8 each"
            )
        yield index, int.from_bytes(data, "little", signed=True)
