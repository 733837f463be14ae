"""Baseline files: where they are, reading and writing them.

``<folder>/<pool>/<suite file without .py>.json``, one file per pool and suite file. A file is checked
whole when it is read, once a process, and replaced in one step or not at all. format.py has its text.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import Literal

from pytest_gpuperf.errors import BaselineError
from pytest_gpuperf.files import replace_file
from pytest_gpuperf.measurement import Baseline, slug
from pytest_gpuperf.rules.differences import differences, question_changes
from pytest_gpuperf.storage.documents import explained

Mode = Literal["replace", "append", "new"]
Entries = Mapping[str, Mapping[str, Baseline]]
"""Baselines by test name and metric name."""


class Store:
    """The baseline files under ``folder``, which need not exist before the first save."""

    def __init__(self, folder: Path) -> None:
        self.folder = Path(folder)
        self._loaded: dict[tuple[str, str], Entries | BaselineError] = {}
        self._pools: list[str] | None = None

    def path(self, pool: str, suite: str) -> Path:
        """Return the file of ``suite``, a ``.py`` file's path from the folder that owns the baselines."""
        parts = PurePosixPath(suite)
        if parts.is_absolute() or ".." in parts.parts or "\0" in suite or parts.suffix != ".py":
            raise BaselineError(
                f"suite {suite!r} has no baseline file: it must be a .py file below the folder that holds "
                f"{self.folder.name}/"
            )
        return self.folder / slug(pool) / parts.with_suffix(".json")

    def pools(self) -> list[str]:
        """Return the folders of the pools there are, as ``slug`` names them, sorted."""
        if self._pools is None:
            self._pools = self._list_pools()
        return self._pools

    def _list_pools(self) -> list[str]:
        if not self.folder.exists():
            return []
        with explained(self.folder, "read"):
            return sorted(path.name for path in self.folder.iterdir() if any(path.rglob("*.json")))

    def suites(self, pool: str) -> list[str]:
        """Return the suite files that have a baseline file in ``pool``, sorted."""
        folder = self.folder / slug(pool)
        with explained(folder, "read"):
            files = [path.relative_to(folder) for path in folder.rglob("*.json")]
        return sorted(path.with_suffix(".py").as_posix() for path in files)

    def load(self, pool: str, suite: str) -> Entries:
        """Return the stored baselines of a suite file; empty if there is no file. ``pool`` may be its slug.

        A file is read once a process. Raises BaselineError, one sentence with the file, the place in it and
        the remedy.
        """
        return _once(self._loaded, (slug(pool), suite), lambda: self._load(pool, suite))

    def _load(self, pool: str, suite: str) -> Entries:
        from pytest_gpuperf.storage import format

        path = self.path(pool, suite)
        data = self.read(path)
        if data is None:
            return {}
        file = format.parse(data, str(path))
        if slug(file.pool) != slug(pool) or PurePosixPath(file.suite) != PurePosixPath(suite):
            raise BaselineError(
                f"{path}: holds the baselines of {file.suite} in pool {file.pool!r}, not those of {suite} "
                f"in {pool!r}: move it where it belongs, or name the pool with --gpuperf-pool"
            )
        return format.baselines_of(file)

    def due(self, pool: str, suite: str) -> Entries:
        """Return the stored baselines that a full run must measure: all of them."""
        return self.load(pool, suite)

    def read(self, path: Path) -> bytes | None:
        """Return the text of a baseline file, None if there is no such file."""
        with explained(path, "read"):
            try:
                return path.read_bytes()
            except FileNotFoundError:
                return None

    def save(
        self, pool: str, suite: str, updates: Entries, mode: Mode = "replace", keep: int | None = None
    ) -> Path | None:
        """Write ``updates`` and leave every other test of the file as it is.

        "replace" stores each given test with exactly the given metrics (none: the test's entry goes);
        "append" adds the given runs to the stored ones, which must measure the same in the same place, and
        of more than ``keep`` runs drops the oldest; "new" adds only the tests and metrics that are not
        there. Returns the file, or None if no entry is left and so no file. Raises BaselineError and then
        changes nothing.
        """
        from pytest_gpuperf.storage import format

        path = self.path(pool, suite)
        # Read now: what another process has written since this one first read it must not be lost.
        merged = _merge(self._load(pool, suite), updates, mode, path, keep)
        self._loaded.pop((slug(pool), suite), None)
        self._pools = None
        if not merged:
            with explained(path, "written"), suppress(FileNotFoundError):
                path.unlink()
            return None
        try:
            text = format.render(format.file_of(pool, suite, merged))
        except (TypeError, ValueError) as error:
            raise BaselineError(f"{path}: {error}; nothing was written") from None
        # What could not be read back must never replace what could.
        remedy = "nothing was written, mend what the test records"
        format.parse(text.encode(), str(path), remedy)
        with explained(path, "written"):
            replace_file(path, text.encode())
        return path


def _once(
    known: dict[tuple[str, str], Entries | BaselineError], key: tuple[str, str], load: Callable[[], Entries]
) -> Entries:
    """Return or raise what ``load`` returned or raised at the first call with ``key``."""
    if key not in known:
        try:
            known[key] = load()
        except BaselineError as error:
            known[key] = error
    found = known[key]
    if isinstance(found, BaselineError):
        raise found
    return found


def _merge(
    stored: Entries, updates: Entries, mode: Mode, path: Path, keep: int | None
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
