"""Lock a device for one process at a time, by a file named after the device's UUID.

The kernel holds the lock (flock), so a killed process leaves nothing locked. The folder must be one that
every user and every container of the host sees: containers that each have their own /tmp do not see each
other's locks, so mount one host folder into all of them and name it in PYTEST_GPUPERF_LOCK_DIR.

Any user may have put anything there before: a lock is opened without following a link and never written
to, and a process writes its name into a file of its own user only.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import re
import shlex
import socket
import stat
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from pytest_gpuperf.errors import GpuperfError, NotFree

VARIABLE = "PYTEST_GPUPERF_LOCK_DIR"
_REMEDY = f"set {VARIABLE} to a folder that every user of the device can write"
_PATIENCE = 1.0  # seconds of waiting that nobody needs to hear of


_HOST = Path("/tmp")  # not TMPDIR, which may be another one for each user
_INTERVAL = 0.05  # seconds between two tries
_WARILY = os.O_NOFOLLOW | os.O_NONBLOCK  # a FIFO would wait for its other end


def lock_folder() -> Path:
    """Return the folder of the locks: PYTEST_GPUPERF_LOCK_DIR, else the host's /tmp.

    Make a chosen one if it is missing, open to every user, with the sticky bit so that none removes another's
    file. Raises GpuperfError if that cannot be done, or if other users could replace the files of /tmp.
    """
    chosen = os.environ.get(VARIABLE)
    folder = Path(chosen) if chosen else _HOST
    try:
        if not chosen:
            return _checked(folder)
        folder.mkdir(parents=True)
        folder.chmod(0o1777)  # mkdir's own mode is cut by the umask
    except FileExistsError:
        if not folder.is_dir():
            raise GpuperfError(f"{folder}, the folder of the device locks, is a file: {_REMEDY}") from None
    except OSError as error:
        raise GpuperfError(
            f"{folder}, the folder of the device locks, cannot be made ({error.strerror}): {_REMEDY}"
        ) from None
    return folder


def _checked(folder: Path) -> Path:
    about = folder.stat()
    open_to_all = about.st_mode & (stat.S_IWGRP | stat.S_IWOTH) and not about.st_mode & stat.S_ISVTX
    if about.st_uid not in (0, os.getuid()) or open_to_all:
        raise GpuperfError(
            f"{folder}, the folder of the device locks, lets other users replace its files (it is not "
            f"root's, or lacks the sticky bit): {_REMEDY}"
        )
    return folder


def lock_path(uuid: str) -> Path:
    """Return the lock file of a device; in a folder that is not ours alone its name says whose it is."""
    ours = "" if os.environ.get(VARIABLE) else "pytest-gpuperf-"
    return lock_folder() / (ours + re.sub(r"[^\w.-]", "_", uuid) + ".lock")


class DeviceLock:
    """The lock of device ``uuid`` for this process. Reentrant: released once as often as it was acquired.

    ``timeout`` is how long acquire() waits, in seconds. ``on_wait`` is called once per wait that lasts longer
    than a second, with a line that says who holds the device. Raises GpuperfError as lock_folder() does.
    """

    def __init__(self, uuid: str, timeout: float, on_wait: Callable[[str], None] = lambda line: None) -> None:
        self.uuid = uuid
        self.timeout = timeout
        self._on_wait = on_wait
        self._depth = 0
        self._path = lock_path(uuid)
        self._descriptor = -1

    @property
    def held(self) -> bool:
        return self._depth > 0

    def acquire(self) -> None:
        """Take the lock.

        Raises NotFree after ``timeout``, naming the holder, GpuperfError if the folder does not let us.
        """
        if self._depth == 0:
            try:
                self._wait()
            except OSError as error:
                raise GpuperfError(
                    f"{self._path}, the lock of device {self.uuid}, cannot be used "
                    f"({error.strerror}): {_REMEDY}"
                ) from None
            _write_holder(self._path, _ourselves())
        self._depth += 1

    def release(self) -> None:
        """Give the lock back once called as often as acquire(); do nothing if it is not held."""
        if self._depth == 0:
            return
        self._depth -= 1
        if self._depth == 0:
            _write_holder(self._path, "")
            fcntl.flock(self._descriptor, fcntl.LOCK_UN)  # a forked child may have it open, too
            os.close(self._descriptor)

    def __enter__(self) -> DeviceLock:
        self.acquire()
        return self

    def __exit__(self, *raised: object) -> None:
        self.release()

    def _wait(self) -> None:
        start = time.monotonic()
        if self._taken_until(start + min(_PATIENCE, self.timeout)):
            return
        if self.timeout > _PATIENCE:
            self._on_wait(f"waiting for device {self.uuid}, held by {holder(self._path)}")
            if self._taken_until(start + self.timeout):
                return
        raise NotFree(
            f"the device {self.uuid} was not free within {self.timeout:g} s: it is held by "
            f"{holder(self._path)}; run again later or elsewhere, or wait longer with --gpuperf-lock-timeout"
        )

    def _taken_until(self, deadline: float) -> bool:
        while (descriptor := _locked(self._path)) is None:
            if time.monotonic() >= deadline:
                return False
            time.sleep(_INTERVAL)
        self._descriptor = descriptor
        return True


def _locked(path: Path) -> int | None:
    """Open and lock a file; None if somebody else holds it. Raises OSError."""
    descriptor = _opened(path)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        # What cleans up /tmp may have removed it since it was opened: nobody else would meet this lock.
        with suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(descriptor), path.lstat()):
                return descriptor
    except BlockingIOError:
        pass
    except BaseException:
        os.close(descriptor)
        raise
    os.close(descriptor)
    return None


def _opened(path: Path) -> int:
    """Open a lock file, or make it for every user; no link is followed and no content changed."""
    try:
        descriptor = os.open(path, _WARILY | os.O_RDWR)
    except PermissionError:  # another user's, made under another umask; to be locked it need not be written
        descriptor = os.open(path, _WARILY | os.O_RDONLY)
    except FileNotFoundError:
        try:
            descriptor = os.open(path, _WARILY | os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o666)
        except FileExistsError:
            return _opened(path)
        os.fchmod(descriptor, 0o666)  # open's own mode is cut by the umask
    return _regular(descriptor)


def _regular(descriptor: int) -> int:
    """Return the descriptor of a regular file; close any other and raise OSError."""
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError(errno.EINVAL, "Not a regular file")
    return descriptor


def holder(path: Path) -> str:
    """Name the holder of the lock file ``path``, as far as the holder could write it down."""
    for text in _names(path):
        with suppress(ValueError, KeyError, TypeError):
            said = "process {pid} of {user} on {host} since {since}: {command}".format(**json.loads(text))
            # Another user wrote it: it must not start a line of its own or drive the terminal.
            return "".join(letter if letter.isprintable() else "?" for letter in said[:_LONGEST_NAME])
    return "a process that did not leave its name"


_LONGEST_NAME = 1000


def _names(lock: Path) -> list[bytes]:
    """Return what the users wrote who held the lock, the last one first; killed holders leave theirs."""
    found = []
    with suppress(OSError):
        for path in lock.parent.glob(f"{lock.stem}.*.holder"):
            with suppress(OSError), open(_regular(os.open(path, _WARILY | os.O_RDONLY)), "rb") as file:
                found.append((os.fstat(file.fileno()).st_mtime_ns, file.read(8 * _LONGEST_NAME)))
    return [text for _, text in sorted(found, reverse=True)]


def _ourselves() -> str:
    who = {"pid": os.getpid(), "host": socket.gethostname(), "user": _user()}
    what = {"since": time.strftime("%Y-%m-%d %H:%M:%S%z"), "command": shlex.join(sys.argv)[:500]}
    return json.dumps(who | what)


def _write_holder(lock: Path, text: str) -> None:
    """Write this user's file that names the holder. Only the lock's holder calls this."""
    path = lock.with_suffix(f".{os.getuid()}.holder")
    # A name for others to read, not worth a failure.
    with suppress(OSError):
        with suppress(FileExistsError):
            os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644))
        with open(_regular(os.open(path, _WARILY | os.O_WRONLY)), "wb") as file:
            about = os.fstat(file.fileno())
            if about.st_uid == os.getuid() and about.st_nlink == 1:
                os.fchmod(file.fileno(), 0o644)
                file.truncate(0)
                file.write(text.encode())


def _user() -> str:
    import getpass

    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container's user id without a name
        return f"user {os.getuid()}"
