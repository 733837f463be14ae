"""Where a history lies: a folder, or a URL of any protocol that fsspec has."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Protocol

from pytest_gpuperf.files import list_folder, read_file, replace_file

ENDING = ".jsonl"


class Place(Protocol):
    def names(self) -> list[str]:
        """Return the names of the runs' files."""

    def contents(self, names: Sequence[str]) -> Iterable[bytes]:
        """Yield the content of files, without those that cannot be read."""

    def write(self, name: str, data: bytes) -> None:
        """Write a new file in one step."""


class _Folder:
    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def names(self) -> list[str]:
        above = next(path for path in (self._folder, *self._folder.parents) if path.exists())
        if not above.is_dir():
            raise NotADirectoryError
        return [path.name for path in list_folder(self._folder) if path.suffix == ENDING]

    def contents(self, names: Sequence[str]) -> Iterable[bytes]:
        for name in names:
            with suppress(OSError):
                yield read_file(self._folder / name, self._folder)

    def write(self, name: str, data: bytes) -> None:
        replace_file(self._folder / name, data)


class _Remote:
    """A place that fsspec reaches: most put a file there whole, or not at all."""

    def __init__(self, url: str) -> None:
        from fsspec.core import url_to_fs

        self._files, self._path = url_to_fs(url)

    def names(self) -> list[str]:
        try:
            found = self._files.ls(self._path, detail=False, refresh=True)
        except FileNotFoundError:
            return []  # the first run makes it
        if [name.rstrip("/") for name in found] == [self._path.rstrip("/")]:
            raise NotADirectoryError
        return [name.rpartition("/")[2] for name in found if name.endswith(ENDING)]

    def contents(self, names: Sequence[str]) -> Iterable[bytes]:
        paths = [f"{self._path}/{name}" for name in names]
        found: dict[str, bytes] = self._files.cat(paths, on_error="omit") if paths else {}
        return found.values()

    def write(self, name: str, data: bytes) -> None:
        with suppress(OSError):
            self._files.makedirs(self._path, exist_ok=True)  # a store of objects has no folders
        self._files.pipe_file(f"{self._path}/{name}", data)


def at(place: str) -> Place:
    """Return the place that a folder's path or a URL names."""
    return _Remote(place) if "://" in place else _Folder(Path(place))
