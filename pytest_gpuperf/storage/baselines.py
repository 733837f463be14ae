"""Baseline files: where they lie, reading and writing them.

``<folder>/<pool>/<suite file without .py>.json``, one file per pool and suite file. A file is checked
whole whenever it is read, and replaced in one step or not at all. baselines_format.py has its text.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
import unicodedata
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, Literal

from pytest_gpuperf.errors import BaselineError
from pytest_gpuperf.files import replace_file
from pytest_gpuperf.judging.differences import differences, question_changes
from pytest_gpuperf.measurement import Baseline, Metric, Run, TestKey
from pytest_gpuperf.storage.documents import explained

if TYPE_CHECKING:
    from pytest_gpuperf.storage.baselines_format import BaselineFile, EntryRecord

Mode = Literal["replace", "append", "new"]
Entries = Mapping[str, Mapping[str, Baseline]]
"""Baselines by test name and metric name."""

KEPT_SAMPLES = 25
"""Samples kept of a run: enough to see its shape, few enough for a line. Odd, so that the median is one."""
DIGITS = 6
"""Significant digits of a noisy sample: five would move a median by up to 5e-5, a tenth of what device
times vary by between processes (prior_sd 6e-4); six move it by 5e-6 at most."""


def slug(pool: str) -> str:
    """The folder of a pool: ``NVIDIA H100 80GB HBM3`` -> ``nvidia-h100-80gb-hbm3``.

    Raises BaselineError for a name that is no single folder's.
    """
    plain = unicodedata.normalize("NFKD", pool).encode("ascii", "ignore").decode().lower()
    found = re.sub(r"[^a-z0-9._]+", "-", plain).strip("-.")
    if "/" in pool or "\\" in pool or not found:
        raise BaselineError(
            f"pool {pool!r} cannot name a folder: give --gpuperf-pool letters or digits and no slash"
        )
    return found


class Store:
    """The baseline files under ``folder``, which need not exist before the first save."""

    def __init__(self, folder: Path) -> None:
        self.folder = Path(folder)

    def path(self, pool: str, suite: str) -> Path:
        """The file of ``suite``, the path of a ``.py`` file from the folder that owns the baselines."""
        parts = PurePosixPath(suite)
        if parts.is_absolute() or ".." in parts.parts or "\0" in suite or parts.suffix != ".py":
            raise BaselineError(
                f"suite {suite!r} has no baseline file: it must be a .py file below the folder that holds "
                f"{self.folder.name}/"
            )
        return self.folder / slug(pool) / parts.with_suffix(".json")

    def pools(self) -> list[str]:
        """The folders of the pools there are, as ``slug`` names them, sorted."""
        if not self.folder.exists():
            return []
        with explained(self.folder, "read"):
            return sorted(path.name for path in self.folder.iterdir() if any(path.rglob("*.json")))

    def suites(self, pool: str) -> list[str]:
        """The suite files that have a baseline file in ``pool``, sorted."""
        folder = self.folder / slug(pool)
        with explained(folder, "read"):
            files = [path.relative_to(folder) for path in folder.rglob("*.json")]
        return sorted(path.with_suffix(".py").as_posix() for path in files)

    def entries(self, pool: str) -> dict[TestKey, dict[str, Baseline]]:
        """Every stored test of ``pool``; raises BaselineError for the first file that cannot be read."""
        return {
            TestKey(suite, test): metrics
            for suite in self.suites(pool)
            for test, metrics in self.load(pool, suite).items()
        }

    def load(self, pool: str, suite: str) -> dict[str, dict[str, Baseline]]:
        """The stored baselines of a suite file; empty where there is no file. ``pool`` may be its slug.

        Raises BaselineError, one sentence with the file, the place in it and the remedy.
        """
        from pytest_gpuperf.storage import baselines_format

        path = self.path(pool, suite)
        data = self.read(path)
        if data is None:
            return {}
        file = baselines_format.parse(data, str(path))
        if slug(file.pool) != slug(pool) or PurePosixPath(file.suite) != PurePosixPath(suite):
            raise BaselineError(
                f"{path}: holds the baselines of {file.suite} in pool {file.pool!r}, not those of {suite} "
                f"in {pool!r}: move it where it belongs, or name the pool with --gpuperf-pool"
            )
        return _baselines(file)

    def due(self, pool: str, suite: str) -> dict[str, dict[str, Baseline]]:
        """Of the stored baselines those that a full run must measure: all that are stored."""
        return self.load(pool, suite)

    def read(self, path: Path) -> bytes | None:
        """The text of a baseline file, None where there is no such file."""
        with explained(path, "read"):
            try:
                return path.read_bytes()
            except FileNotFoundError:
                return None

    def save(
        self, pool: str, suite: str, updates: Entries, mode: Mode = "replace", keep: int | None = None
    ) -> Path | None:
        """Writes ``updates`` and leaves every other test of the file as it is.

        "replace" stores each given test with exactly the given metrics (none: the test's entry goes);
        "append" adds the given runs to the stored ones, which must answer the same question in the same
        place, and of more than ``keep`` runs drops the oldest; "new" adds only the tests and metrics that
        are not there. Returns the file, or None
        where no entry is left and so no file. Raises BaselineError and then changes nothing.
        """
        from pytest_gpuperf.storage import baselines_format

        path = self.path(pool, suite)
        merged = _merge(self.load(pool, suite), updates, mode, path, keep)
        if not merged:
            with explained(path, "written"), suppress(FileNotFoundError):
                path.unlink()
            return None
        try:
            text = baselines_format.render(_file(pool, suite, merged))
        except (TypeError, ValueError) as error:
            raise BaselineError(f"{path}: {error}; nothing was written") from None
        # What could not be read back must never replace what could.
        remedy = "nothing was written, mend what the test records"
        baselines_format.parse(text.encode(), str(path), remedy)
        with explained(path, "written"):
            replace_file(path, text.encode())
        return path


def _merge(
    stored: dict[str, dict[str, Baseline]], updates: Entries, mode: Mode, path: Path, keep: int | None
) -> dict[str, dict[str, Baseline]]:
    merged = {test: dict(metrics) for test, metrics in stored.items()}
    for test, metrics in updates.items():
        if mode == "replace":
            merged[test] = dict(metrics)
            continue
        kept = merged.setdefault(test, {})
        for name, baseline in metrics.items():
            if name not in kept:
                kept[name] = baseline
            elif mode == "append":
                both = _appended(kept[name], baseline, f"{path}: {test}, {name}")
                kept[name] = replace(both, runs=both.runs[-keep:] if keep else both.runs)
    return {test: metrics for test, metrics in merged.items() if metrics}


def _appended(old: Baseline, new: Baseline, where: str) -> Baseline:
    changed = question_changes(old.metric, old.contract, new.metric, new.contract)
    changed += [f"{key} {before} -> {after}" for key, before, after in differences(old.place, new.place)]
    if changed:
        raise BaselineError(
            f"{where}: runs of another measurement cannot be appended ({'; '.join(changed)}): "
            "replace the baseline with plain --gpuperf-update"
        )
    return replace(new, runs=old.runs + new.runs)


def _baselines(file: BaselineFile) -> dict[str, dict[str, Baseline]]:
    def convert(name: str, entry: EntryRecord) -> Baseline:
        of = entry.metric
        return Baseline(
            metric=Metric(name, of.unit, of.better, of.kind, of.instrument),
            contract=entry.contract,
            place=entry.place,
            prior_sd=entry.prior_sd,
            runs=tuple(Run(tuple(run.samples), file.environment(run.run), run.code) for run in entry.runs),
        )

    return {
        test: {name: convert(name, entry) for name, entry in metrics.items()}
        for test, metrics in file.entries.items()
    }


def _file(pool: str, suite: str, entries: Entries) -> BaselineFile:
    from pytest_gpuperf.storage.baselines_format import BaselineFile, EntryRecord, MetricRecord, RunRecord

    environments: dict[str, dict[str, Any]] = {}

    def convert(test: str, baseline: Baseline) -> EntryRecord:
        of = baseline.metric
        if of.kind == "shown":
            raise ValueError(f"{test}, {of.name} is only shown and has no baseline")
        _check_storable(baseline, f"{test}, {of.name}")
        runs = [
            RunRecord(_environment_id(run.environment, environments), _kept(of, run.samples), run.code)
            for run in baseline.runs
        ]
        metric = MetricRecord(of.unit, of.better, of.kind, of.instrument)
        return EntryRecord(metric, dict(baseline.contract), dict(baseline.place), baseline.prior_sd, runs)

    records = {
        test: {name: convert(test, baseline) for name, baseline in metrics.items()}
        for test, metrics in entries.items()
    }
    by_date = sorted(environments.items(), key=lambda item: (str(item[1].get("date", "")), item[0]))
    common = _shared([environment for _, environment in by_date])
    own = {
        run: {key: value for key, value in environment.items() if key not in common}
        for run, environment in by_date
    }
    return BaselineFile(1, pool, suite, own, records, common)


def _shared(environments: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """What several environments have alike: forty versions a run would hide what a review looks for."""
    first, *others = environments or [{}]
    if not others:
        return {}
    return {
        key: value
        for key, value in first.items()
        if all(key in other and other[key] == value for other in others)
    }


def _check_storable(baseline: Baseline, where: str) -> None:
    """Raises ValueError for what JSON, or the file's shape, would not give back as it was."""
    for key, value in (*baseline.contract.items(), *baseline.place.items()):
        if not isinstance(value, str | int | float | None):
            raise ValueError(f"{where}: {key} is {value!r}, not a string, number, boolean or None")
    figures = [*baseline.contract.values(), *baseline.place.values()]
    figures += [sample for run in baseline.runs for sample in run.samples]
    for value in figures:
        if isinstance(value, float) and not math.isfinite(value):
            raise ValueError(f"{where}: {value} is not a number that can be compared")


def _environment_id(environment: Mapping[str, Any], known: dict[str, dict[str, Any]]) -> str:
    """The id of an environment, from its content: equal ones share it and a rewrite does not change it."""
    text = json.dumps(environment, sort_keys=True, allow_nan=False)
    key = hashlib.sha256(text.encode()).hexdigest()[:12]
    known[key] = json.loads(text)
    return key


def _kept(metric: Metric, samples: tuple[float, ...]) -> list[float]:
    """The samples as stored: an exact value as it is; noisy ones ascending, thinned and rounded.

    Thinned to evenly spaced order statistics, the middle one the median itself.
    """
    if metric.kind == "exact":
        return [float(sample) for sample in samples]
    ordered = sorted(float(sample) for sample in samples)
    if (last := len(ordered) - 1) >= KEPT_SAMPLES:
        middle = (ordered[last // 2] + ordered[(last + 1) // 2]) / 2
        steps = KEPT_SAMPLES - 1
        ordered = [
            middle if 2 * i == steps else ordered[round(i * last / steps)] for i in range(KEPT_SAMPLES)
        ]
    return [float(f"{sample:.{DIGITS}g}") for sample in ordered]
