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


def cache_folder() -> Path:
    """Return $PYTEST_GPUPERF_CACHE, or the user's cache folder."""
    chosen = os.environ.get("PYTEST_GPUPERF_CACHE")
    if chosen:
        return Path(chosen)
    import platformdirs

    return platformdirs.user_cache_path("pytest-gpuperf")


def cached(name: str, make: Callable[[], bytes]) -> Path:
    """Return the file ``name`` of the cache, such as "models/a.onnx", made by ``make`` if it is missing.

    One process makes it while others wait. A file whose SHA-256 is no longer the one stored beside it is
    made again. Raises Unavailable if the cache cannot be written, and whatever ``make`` raises.
    """
    from filelock import FileLock

    path = cache_folder() / name
    digest = path.with_name(f"{path.name}.sha256")
    if _intact(path, digest):
        return path
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(path.with_name(f"{path.name}.lock")):
            if _intact(path, digest):
                return path
            content = make()
            digest.unlink(missing_ok=True)
            replace_file(path, content)
            replace_file(digest, hashlib.sha256(content).hexdigest().encode())
    except OSError as error:
        raise Unavailable(
            f"The cache {path.parent} cannot be written ({error.strerror}); "
            "point PYTEST_GPUPERF_CACHE at a folder that can."
        ) from error
    return path


def sha256(path: Path) -> str:
    """Return the SHA-256 of a file's content, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _intact(path: Path, digest: Path) -> bool:
    try:
        return digest.read_text() == sha256(path)
    except OSError:
        return False
