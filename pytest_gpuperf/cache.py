"""The cache of what is slow to make: models, compiled kernels, images."""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from pytest_gpuperf.errors import Unavailable
from pytest_gpuperf.files import replace_file

if TYPE_CHECKING:
    from filelock import BaseFileLock

CACHE = "PYTEST_GPUPERF_CACHE"
_SHARED = "PYTEST_GPUPERF_CACHE_SHARED"
_verified: dict[Path, str] = {}
"""The SHA-256 of each file that ``cached`` found intact in this process."""


def cache_folder() -> Path:
    """Return $PYTEST_GPUPERF_CACHE, or the user's cache folder."""
    chosen = os.environ.get(CACHE)
    if chosen:
        return Path(chosen).absolute()
    import platformdirs

    return platformdirs.user_cache_path("pytest-gpuperf")


def cached(name: str, make: Callable[[], bytes]) -> Path:
    """Return the file ``name`` of the cache, such as "models/a.onnx", made by ``make`` if it is missing.

    One process makes it while others wait. A file whose SHA-256 is no longer the one stored beside it is
    made again. Raises Unavailable if the cache cannot be written or is open to other users, and whatever
    ``make`` raises.
    """
    path = cached_folder(os.path.dirname(name)) / os.path.basename(name)
    digest = path.with_name(f"{path.name}.sha256")
    try:
        if _intact(path, digest):
            return path
        with lock_beside(path):
            if _intact(path, digest):
                return path
            content = make()
            digest.unlink(missing_ok=True)
            replace_file(path, content)
            replace_file(digest, hashlib.sha256(content).hexdigest().encode())
    except OSError as error:
        raise _unwritable(path.parent, error) from error
    return path


def lock_beside(path: Path) -> BaseFileLock:
    """Return the lock of a file or folder of the cache: one process makes it while others wait."""
    from filelock import FileLock

    return FileLock(path.with_name(f"{path.name}.lock"), mode=0o666 if cache_is_shared() else 0o600)


def cache_is_shared() -> bool:
    """Say whether other users may write into the cache."""
    return os.environ.get(_SHARED) == "1"


def cached_folder(name: str) -> Path:
    """Return the folder ``name`` of the cache, made if it is missing; raises as ``cached`` does."""
    shared, path = cache_is_shared(), cache_folder() / name
    try:
        for folder in (cache_folder(), path):
            folder.mkdir(0o777 if shared else 0o700, parents=True, exist_ok=True)
            if not shared:
                _refuse_other_writers(folder)
    except OSError as error:
        raise _unwritable(path, error) from error
    return path


def _unwritable(folder: Path, error: OSError) -> Unavailable:
    return Unavailable(
        f"The cache {folder} cannot be written ({error.strerror}); point {CACHE} at a folder that can."
    )


def _refuse_other_writers(folder: Path) -> None:
    """Raise Unavailable if somebody but this user and root could put a file there: what is in it is run."""
    about = folder.stat()
    trusting = f"or set {_SHARED}=1 if you trust all who can write there with what your tests run"
    if about.st_uid not in (os.getuid(), 0):
        raise Unavailable(
            f"The cache {folder} belongs to another user (id {about.st_uid}), who could put other code "
            f"there; point {CACHE} at a folder of your own, {trusting}."
        )
    if about.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise Unavailable(
            f"The cache {folder} can be written by other users (mode {stat.S_IMODE(about.st_mode):04o}), who "
            f"could put other code there; `chmod go-w` it, {trusting}."
        )


def sha256(path: Path) -> str:
    """Return the SHA-256 of a file's content, in hexadecimal; not read again if ``cached`` returned it."""
    return _verified.get(path) or _read_sha256(path)


def _read_sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _intact(path: Path, digest: Path) -> bool:
    _verified.pop(path, None)
    try:
        found = _read_sha256(path)
        if digest.read_bytes() != found.encode():
            return False
    except OSError:
        return False
    _verified[path] = found
    return True
