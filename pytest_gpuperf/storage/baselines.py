"""Baseline files: where they are, reading and writing them.

``<folder>/<pool>/<suite file without .py>.json``, one file per pool and suite file. A file is checked
whole when it is read, once a process, and replaced in one step or not at all. format.py has its text.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, suppress
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Literal

from pytest_gpuperf.errors import BaselineError
from pytest_gpuperf.figures import slug
from pytest_gpuperf.files import find_json, list_folder, read_file, writing
from pytest_gpuperf.measurement import Baseline, TestKey
from pytest_gpuperf.rules.creep import followed
from pytest_gpuperf.rules.differences import changes, question_changes
from pytest_gpuperf.rules.lacking import held_to_compiler
from pytest_gpuperf.rules.verdict import EXACT_SLACK
from pytest_gpuperf.storage.documents import explained

if TYPE_CHECKING:
    from pytest_gpuperf.storage.format import BaselineFile

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
        with explained(self.folder, "read"):
            return sorted({path.name for path in list_folder(self.folder) if any(self._json_files(path))})

    def _json_files(self, folder: Path) -> Iterator[Path]:
        return find_json(folder, self.folder) if folder.is_dir() else iter(())

    def suites(self, pool: str) -> list[str]:
        """Return the suite files that have a baseline file in ``pool``, sorted."""
        folder = self.folder / slug(pool)
        with explained(folder, "read"):
            files = [path.relative_to(folder) for path in self._json_files(folder)]
        return sorted(path.with_suffix(".py").as_posix() for path in files)

    def all_of(self, pool: str) -> Iterator[tuple[TestKey, str, Baseline]]:
        """Yield every baseline of ``pool`` with its test and metric, one file after the other."""
        for suite in self.suites(pool):
            for test, metrics in self.load(pool, suite).items():
                for name, baseline in metrics.items():
                    yield TestKey(suite, test), name, baseline

    def load(self, pool: str, suite: str) -> Entries:
        """Return the stored baselines of a suite file; empty if there is no file. ``pool`` may be its slug.

        A file is read once a process. Raises BaselineError, one sentence with the file, the place in it and
        the remedy.
        """
        key = slug(pool), suite
        if key not in self._loaded:
            try:
                self._loaded[key] = self._load(pool, suite)
            except BaselineError as error:
                self._loaded[key] = error
        found = self._loaded[key]
        if isinstance(found, BaselineError):
            raise found
        return found

    def _load(self, pool: str, suite: str) -> Entries:
        from pytest_gpuperf.storage.entries import baselines_of

        file = self._file(pool, suite)
        return baselines_of(file) if file else {}

    def _file(self, pool: str, suite: str) -> BaselineFile | None:
        path = self.path(pool, suite)
        data = self.read(path)
        if data is None:
            return None
        file = self._parsed(data, path)
        if not _is_of(file.pool, pool) or PurePosixPath(file.suite) != PurePosixPath(suite):
            raise BaselineError(
                f"{path}: holds the baselines of {file.suite} in pool {file.pool!r}, not those of {suite} "
                f"in {pool!r}: move it where it belongs, or name the pool with --gpuperf-pool"
            )
        return file

    def _parsed(self, data: bytes, path: Path) -> BaselineFile:
        from pytest_gpuperf.storage import format

        return format.parse(data, str(path))

    def due(self, pool: str, suite: str) -> Entries:
        """Return the stored baselines that a full run must measure: all of them."""
        return self.load(pool, suite)

    def read(self, path: Path) -> bytes | None:
        """Return the text of a baseline file, None if there is no such file."""
        with explained(path, "read"):
            try:
                return read_file(path, self.folder)
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
        path = self.path(pool, suite)
        with explained(path, "written"), writing(path, self.folder) as write:
            # Read now: what another process has written since this one first read it must not be lost.
            stored = self._load(pool, suite)
            merged = _merge(stored, updates, mode, path, keep)
            self._loaded.pop((slug(pool), suite), None)
            self._pools = None
            if not merged:
                path.unlink(missing_ok=True)
                return None
            nothing_new = mode == "new" and merged == stored
            if not nothing_new and (text := _rendered(pool, suite, merged, path)) != self.read(path):
                write(text)
        return path

    def check_move(self, pool: str, suite: str, other: str, names: Mapping[str, str]) -> None:
        """Raise BaselineError where ``move`` would replace other baselines than the same ones."""
        before = self._load(pool, suite)
        there = self._load(pool, other)
        for old, new in names.items():
            stays = new in there and not (suite == other and new in names)
            if stays and there[new] != before.get(old):
                raise BaselineError(
                    f"{self.path(pool, other)}: {new} has baselines already, and those of {old} would "
                    "replace them: drop one of the two with --gpuperf-update=prune first"
                )

    def move(self, pool: str, suite: str, other: str, names: Mapping[str, str]) -> None:
        """Give stored tests of a suite file other ``names``, in the file of the suite ``other``.

        All that is stored of them goes along. Both files are locked meanwhile, and the new one is written
        first: who is cut off between loses nothing, and may call again. Raises BaselineError as
        ``check_move`` does, and then changes nothing.
        """
        path, target = self.path(pool, suite), self.path(pool, other)
        with explained(target, "written"), ExitStack() as writers:
            # In one order for all, or two that rename would wait for each other.
            write = {
                each: writers.enter_context(writing(each, self.folder)) for each in sorted({path, target})
            }
            file, stored = self._file(pool, suite), self._load(pool, suite)
            self.check_move(pool, suite, other, names)
            moved = {names[test]: stored[test] for test in names if test in stored}
            if file is None or not moved:
                return
            self._loaded.clear()
            self._pools = None
            rest = {test: metrics for test, metrics in stored.items() if test not in names}
            there = rest if other == suite else self._load(pool, other)
            write[target](_rendered(file.pool, other, {**there, **moved}, target))
            if other != suite and rest:
                write[path](_rendered(file.pool, suite, rest, path))
            elif other != suite:
                path.unlink()


def _is_of(named: str, pool: str) -> bool:
    """Return whether the pool that a file names is ``pool``, which may be its slug."""
    with suppress(BaselineError):  # a name that can be no folder's
        return slug(named) == slug(pool)
    return False


def _rendered(pool: str, suite: str, entries: Entries, path: Path) -> bytes:
    """Return a file's text; raises BaselineError for what could not be read back: it must replace nothing."""
    from pytest_gpuperf.storage import format
    from pytest_gpuperf.storage.entries import file_of

    try:
        text = format.render(file_of(pool, suite, entries)).encode()
    except (TypeError, ValueError) as error:
        raise BaselineError(f"{path}: {error}; nothing was written") from None
    format.parse(text, str(path), "nothing was written, mend what the test records")
    return text


def _merge(stored: Entries, updates: Entries, mode: Mode, path: Path, keep: int | None) -> Entries:
    merged = {test: dict(metrics) for test, metrics in stored.items()}
    for test, metrics in updates.items():
        if mode == "replace":
            old = stored.get(test, {})
            merged[test] = {
                name: _replaced(old[name], new) if name in old else new for name, new in metrics.items()
            }
            continue
        kept = merged.setdefault(test, {})
        for name, baseline in metrics.items():
            if name not in kept:
                kept[name] = baseline
            elif mode == "append":
                both = _appended(kept[name], baseline, f"{path}: {test}, {name}")
                some = slice(-keep, None) if keep else slice(None)
                both = replace(both, runs=both.runs[some], left_out=both.left_out[some])
                kept[name] = followed(kept[name], both)
    return {test: metrics for test, metrics in merged.items() if metrics}


def _replaced(old: Baseline, new: Baseline) -> Baseline:
    """Return the new baseline, or the old one where an exact figure is what it was: no line of it moves."""
    held = held_to_compiler(old, new.runs[-1].environment)
    same = (old.metric, old.contract, old.place) == (new.metric, new.contract, new.place)
    alike = all(run.value == new.value and run.code == new.runs[-1].code for run in old.runs)
    stays = new.metric.kind == "exact" and same and alike and held and held.runs
    return old if stays else followed(old, new)


def _appended(old: Baseline, new: Baseline, where: str) -> Baseline:
    changed = question_changes(old.metric, old.contract, new.metric, new.contract)
    if changed := changed + changes(old.place, new.place):
        raise BaselineError(
            f"{where}: runs of another measurement cannot be appended ({'; '.join(changed)}): "
            "replace the baseline with plain --gpuperf-update"
        )
    held = held_to_compiler(old, new.runs[-1].environment)
    if old.metric.kind == "exact" and held and not all(_is_same(run.value, new.value) for run in held.runs):
        raise BaselineError(
            f"{where}: it is exact, and no unit may give another value, so {new.value:g} cannot be "
            f"appended to {held.value:g}: replace the baseline with plain --gpuperf-update"
        )
    return replace(new, runs=old.runs + new.runs, left_out=old.left_out + new.left_out)


def _is_same(one: float, other: float) -> bool:
    return math.isclose(one, other, rel_tol=EXACT_SLACK, abs_tol=0.0)
