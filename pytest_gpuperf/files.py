"""Files read within bounds and replaced in one step or not at all."""

from __future__ import annotations

import errno
import fcntl
import os
import re
import stat
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from itertools import count
from pathlib import Path

from pytest_gpuperf.errors import GpuperfError

LOCAL_FOLDER = ".gpuperf"
"""What a run leaves behind in a project's root folder, kept out of version control."""
LARGEST = 32 << 20
"""Bytes that a file of a project may have, if nothing else is said: a hundred times the largest baseline."""
PACKAGE = Path(__file__).parent
_STANDARD_LIBRARY = Path(os.__file__).parent
_PATIENCE, _PAUSE = 60.0, 0.01  # seconds that a writer waits for others, and between two looks


def read_file(path: Path, folder: Path | None = None, limit: int = LARGEST) -> bytes:
    """Return the content of a regular file of at most ``limit`` bytes, and inside ``folder`` if one is given.

    Raises OSError for anything else, without having waited for it or read from it: what git carries may be
    a link to a device or to somebody's keys, and a FIFO would hold a runner for ever.
    """
    # O_NONBLOCK: opening a FIFO would wait for its other end.
    descriptor = os.open(_inside(path, folder), os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        mode = os.fstat(descriptor).st_mode
        if stat.S_ISDIR(mode):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
        if not stat.S_ISREG(mode):
            raise OSError(errno.EINVAL, "Not a regular file")
        with open(descriptor, "rb", closefd=False) as file:
            data = file.read(limit + 1)
    finally:
        os.close(descriptor)
    if len(data) > limit:
        raise OSError(errno.EFBIG, f"Larger than {limit >> 10} KiB")
    return data


def list_folder(folder: Path) -> list[Path]:
    """Return what a folder holds, sorted; nothing if there is no such folder. Raises OSError."""
    try:
        return sorted(folder.iterdir())
    except FileNotFoundError:
        return []


def find_json(folder: Path, root: Path) -> Iterator[Path]:
    """Yield the JSON files of a folder inside ``root``, and of the folders in it; raises OSError.

    Links to other folders are not followed.
    """

    def fail(error: OSError) -> None:
        raise error

    _inside(folder, root)
    for parent, _, names in os.walk(folder, onerror=fail):
        yield from (Path(parent, name) for name in names if name.endswith(".json"))


def is_installed(path: Path) -> bool:
    """Return whether a file is an environment's, which may lie in a checkout and is none of its own."""
    return path.is_relative_to(sys.prefix) or "site-packages" in path.parts


def is_users(path: Path) -> bool:
    """Return whether a file of a traceback is a user's: not this package's, nor any library's."""
    if PACKAGE in path.parents or not {"site-packages", "dist-packages"}.isdisjoint(path.parts):
        return False
    return _STANDARD_LIBRARY not in path.parents


def reason(error: Exception) -> str:
    """Return why a file could not be read or written: in the system's words if it has any."""
    return getattr(error, "strerror", None) or str(error)


def why_not_written(path: Path) -> str:
    """Return why a file cannot be made or replaced, "" if nothing is known against it."""
    if path.exists() and not path.is_file():
        return "it is no regular file"
    above = next(parent for parent in path.parents if os.path.lexists(parent))
    if not above.is_dir():
        return f"{above} is no folder"
    return "" if os.access(above, os.W_OK | os.X_OK) else f"{above} may not be written"


_HEAD = 256


def why_not_replaced(path: Path, beginning: bytes) -> str:
    """Return why a file cannot be written or made, "" if nothing is known against it.

    What does not have a report's ``beginning`` is somebody's: a suite whose path came after the flag, too.
    """
    if reason := why_not_written(path):
        return reason
    with suppress(OSError), path.open("rb") as file:  # what cannot be read may be written all the same
        if (head := file.read(_HEAD)) and beginning not in head:
            return "it is there, and is no such report"
    return ""


def check_output(flag: str, what: str, path: Path, beginning: bytes, meant_else: bool = False) -> None:
    """Raise GpuperfError where the file of a ``flag`` cannot be written.

    A suite's path that came after the flag looks like it; ``meant_else``: so may this one.
    """
    is_test = "::" in path.name or path.suffix == ".py"
    if meant_else or is_test or path.is_dir() or not path.parent.is_dir():
        raise GpuperfError(
            f"{flag} is no file that a {what} can be written to: write the paths of suites before the flag, "
            "or name a file in a folder that exists"
        )
    check_replaced(flag, path, beginning)


def check_replaced(flag: str, path: Path, beginning: bytes) -> None:
    """Raise GpuperfError where the file of a ``flag`` cannot be written, or holds no such report."""
    if reason := why_not_replaced(path, beginning):
        raise GpuperfError(f"{flag}: cannot be written ({reason}): name another file")


def replace_file(path: Path, data: bytes, folder: Path | None = None) -> None:
    """Replace ``path`` in one step, as ``writing`` does; raises OSError, and has then changed nothing."""
    with writing(path, folder) as write:
        write(data)


@contextmanager
def writing(path: Path, folder: Path | None = None) -> Iterator[Callable[[bytes], None]]:
    """Hold ``path`` against other writers, and yield what replaces it in one step, with the old permissions.

    Links are followed, but not out of ``folder`` if one is given. Missing folders are made; they go again if
    nothing is written. Raises OSError where that cannot be done, or others hold it too long.

    The file beside it that becomes the new one is also the lock: whoever holds it alone may write. The kernel
    frees the lock of a killed writer, and the next one uses the file that it left.
    """
    target = _inside(path, folder)
    beside = target.with_name(f".{target.name}.tmp")
    made = [parent for parent in target.parents if not os.path.exists(parent)]
    done = False

    def write(data: bytes) -> None:
        nonlocal done
        with suppress(FileNotFoundError):
            os.fchmod(descriptor, stat.S_IMODE(target.stat().st_mode))
        with open(descriptor, "wb", closefd=False) as file:
            file.truncate(0)
            file.write(data)
            file.flush()
            os.fsync(descriptor)
        beside.replace(target)
        done = True

    descriptor = _locked(beside)
    try:
        yield write
    finally:
        if not done:
            beside.unlink(missing_ok=True)
            with suppress(OSError):  # not empty: another writer's
                for parent in made:
                    parent.rmdir()
        _sweep(target)
        os.close(descriptor)


def _inside(path: Path, folder: Path | None) -> Path:
    """Return where the links of ``path`` lead; raises OSError where that is out of ``folder``."""
    target = Path(os.path.realpath(path))
    if folder is not None and not target.is_relative_to(os.path.realpath(folder)):
        raise OSError(errno.ELOOP, f"A link leads out of {folder}")
    return target


def _locked(path: Path) -> int:
    """Open the file ``path``, made with its folder where there is none, and lock it; raises OSError."""
    end = time.monotonic() + _PATIENCE
    while time.monotonic() < end:
        path.parent.mkdir(parents=True, exist_ok=True)
        with suppress(FileNotFoundError), ExitStack() as closing:  # its folder was taken away as empty
            try:
                descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NONBLOCK | os.O_NOFOLLOW, 0o666)
            except OSError as error:
                if error.errno != errno.ELOOP:
                    raise
                path.unlink()  # a link in its place leads who knows where
                continue
            closing.callback(os.close, descriptor)
            status = os.fstat(descriptor)
            if not stat.S_ISREG(status.st_mode) or status.st_nlink > 1:
                path.unlink()
                continue
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                time.sleep(_PAUSE)
                continue
            # Its last holder may have made it the new file, or taken it away, before we had the lock.
            if os.path.samestat(status, path.lstat()):
                closing.pop_all()
                return descriptor
    raise OSError(errno.ETIMEDOUT, f"Another process has been writing it for {_PATIENCE:g} s")


def _sweep(target: Path) -> None:
    """Remove what killed writers of older versions left beside a file."""
    pattern = re.compile(re.escape(f".{target.name}.") + "[0-9a-f]{8}.tmp")
    with suppress(OSError):
        for name in os.listdir(target.parent):
            if pattern.fullmatch(name):
                (target.parent / name).unlink(missing_ok=True)


@contextmanager
def own_folder(folder: Path) -> Iterator[Path]:
    """Make ``folder`` and hold it, or one numbered after it where another process does; raises OSError."""
    from filelock import FileLock, Timeout

    for number in count(1):
        mine = folder if number == 1 else folder.with_name(f"{folder.name}-{number}")
        mine.mkdir(parents=True, exist_ok=True)
        lock = FileLock(mine / ".lock", timeout=0)
        try:
            lock.acquire()
        except Timeout:
            continue
        try:
            yield mine
        finally:
            lock.release()
        return


def local_folder(root: Path) -> Path:
    """Make and return the folder in ``root`` for what a run leaves behind; raises GpuperfError."""
    folder = root / LOCAL_FOLDER
    try:
        _inside(folder, root)
        folder.mkdir(parents=True, exist_ok=True)
        with suppress(FileExistsError), (folder / ".gitignore").open("x") as file:
            file.write("*\n")
    except OSError as error:
        raise GpuperfError(
            f"{folder}: cannot be made, and a run keeps its logs there ({error.strerror}): "
            "let pytest's root folder be written"
        ) from None
    return folder
