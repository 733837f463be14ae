"""Files replaced in one step or not at all, and the cache of what takes long to make."""

from __future__ import annotations

import hashlib
import os
import secrets
import stat
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from pytest_gpuperf.errors import Unavailable

LOCAL_FOLDER = ".gpuperf"
"""What a run leaves behind in a project's root folder, kept out of version control."""


def replace_file(path: Path, data: bytes) -> None:
    """Replace ``path`` in one step, through a file beside it, with the old file's permissions.

    Make its folder where there is none. Raises OSError, and has then changed nothing.
    """
    target = Path(os.path.realpath(path))
    beside = target.with_name(f".{target.name}.{secrets.token_hex(4)}.tmp")
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        with beside.open("xb") as file:
            with suppress(FileNotFoundError):
                os.fchmod(file.fileno(), stat.S_IMODE(target.stat().st_mode))
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        beside.replace(target)
    except BaseException:
        beside.unlink(missing_ok=True)
        raise


def local_folder(root: Path) -> Path:
    """Make and return the folder in ``root`` for what a run leaves behind; raises OSError."""
    folder = root / LOCAL_FOLDER
    folder.mkdir(parents=True, exist_ok=True)
    ignore = folder / ".gitignore"
    if not ignore.exists():
        ignore.write_text("*\n")
    return folder


# --------------------------------------------------------------------------- the cache


_CACHE = "PYTEST_GPUPERF_CACHE"
_SHARED = "PYTEST_GPUPERF_CACHE_SHARED"


def cache_folder() -> Path:
    """Return $PYTEST_GPUPERF_CACHE, or the user's cache folder."""
    chosen = os.environ.get(_CACHE)
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
    from filelock import FileLock

    shared = os.environ.get(_SHARED) == "1"
    path = cache_folder() / name
    digest = path.with_name(f"{path.name}.sha256")
    try:
        for folder in (cache_folder(), path.parent):
            folder.mkdir(0o777 if shared else 0o700, parents=True, exist_ok=True)
            if not shared:
                _refuse_other_writers(folder)
        if _intact(path, digest):
            return path
        with FileLock(path.with_name(f"{path.name}.lock"), mode=0o666 if shared else 0o600):
            if _intact(path, digest):
                return path
            content = make()
            digest.unlink(missing_ok=True)
            replace_file(path, content)
            replace_file(digest, hashlib.sha256(content).hexdigest().encode())
    except OSError as error:
        raise Unavailable(
            f"The cache {path.parent} cannot be written ({error.strerror}); "
            f"point {_CACHE} at a folder that can."
        ) from error
    return path


def _refuse_other_writers(folder: Path) -> None:
    """Raise Unavailable if somebody but this user and root could put a file there: what is in it is run."""
    about = folder.stat()
    trusting = f"or set {_SHARED}=1 if you trust all who can write there with what your tests run"
    if about.st_uid not in (os.getuid(), 0):
        raise Unavailable(
            f"The cache {folder} belongs to another user (id {about.st_uid}), who could put other code "
            f"there; point {_CACHE} at a folder of your own, {trusting}."
        )
    if about.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise Unavailable(
            f"The cache {folder} can be written by other users (mode {stat.S_IMODE(about.st_mode):04o}), who "
            f"could put other code there; `chmod go-w` it, {trusting}."
        )


def sha256(path: Path) -> str:
    """Return the SHA-256 of a file's content, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _intact(path: Path, digest: Path) -> bool:
    try:
        return digest.read_bytes() == sha256(path).encode()
    except OSError:
        return False
