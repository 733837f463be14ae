"""Lock a device for one process at a time, by a file named after the device's UUID.

The kernel holds the lock (flock), so a killed process leaves nothing locked. The folder must be one that
every user and every container of the host sees: containers that each have their own /tmp do not see each
other's locks, so mount one host folder into all of them and name it in PYTEST_GPUPERF_LOCK_DIR.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import socket
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from filelock import FileLock, Timeout

from pytest_gpuperf.errors import GpuperfError, NotFit

VARIABLE = "PYTEST_GPUPERF_LOCK_DIR"
_REMEDY = f"set {VARIABLE} to a folder that every user of the device can write"
_PATIENCE = 1.0  # seconds of waiting that nobody needs to hear of


def lock_folder() -> Path:
    """Return the folder of the locks: PYTEST_GPUPERF_LOCK_DIR, else ``<temporary>/pytest-gpuperf-locks``.

    Make it if it is missing, open to every user, with the sticky bit so that none removes another's file.
    Raises GpuperfError if that cannot be done.
    """
    chosen = os.environ.get(VARIABLE)
    folder = Path(chosen) if chosen else Path(tempfile.gettempdir()) / "pytest-gpuperf-locks"
    try:
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
        self._path = lock_folder() / (re.sub(r"[^\w.-]", "_", uuid) + ".lock")
        # One lock for all threads of the process: pytest's timeout plugins run tests in other threads.
        self._lock = FileLock(self._path, mode=0o666, thread_local=False)

    @property
    def held(self) -> bool:
        return self._depth > 0

    def acquire(self) -> None:
        """Take the lock.

        Raises NotFit after ``timeout``, naming the holder, GpuperfError if the folder does not let us.
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
            _write_holder(self._path, "")  # while it is ours: once released, it is the next holder's
            self._lock.release()

    def __enter__(self) -> DeviceLock:
        self.acquire()
        return self

    def __exit__(self, *raised: object) -> None:
        self.release()

    def _wait(self) -> None:
        start = time.monotonic()
        with suppress(Timeout):
            self._lock.acquire(timeout=min(_PATIENCE, self.timeout))
            return
        if self.timeout > _PATIENCE:
            self._on_wait(f"waiting for device {self.uuid}, held by {holder(self._path)}")
            with suppress(Timeout):
                self._lock.acquire(timeout=max(0.0, self.timeout - (time.monotonic() - start)))
                return
        raise NotFit(
            f"the device {self.uuid} was not free within {self.timeout:g} s: it is held by "
            f"{holder(self._path)}; run again later or elsewhere, or wait longer with --gpuperf-lock-timeout"
        )


def holder(path: Path) -> str:
    """Name the holder of the lock file ``path``, as far as the holder could write it down."""
    try:
        found = json.loads(path.with_suffix(".holder").read_text(encoding="utf-8"))
        return "process {pid} of {user} on {host} since {since}: {command}".format(**found)
    except (OSError, ValueError, KeyError, TypeError):
        return "a process that did not leave its name"


def _ourselves() -> str:
    who = {"pid": os.getpid(), "host": socket.gethostname(), "user": _user()}
    what = {"since": time.strftime("%Y-%m-%d %H:%M:%S%z"), "command": shlex.join(sys.argv)[:500]}
    return json.dumps(who | what)


def _write_holder(lock: Path, text: str) -> None:
    """Write the file that names the holder. Only the lock's holder calls this, so nobody else is writing."""
    path = lock.with_suffix(".holder")
    # A name for others to read, not worth a failure. In a sticky folder, Linux refuses O_CREAT on a file that
    # is another user's (fs.protected_regular), so an existing one is opened without it.
    with suppress(OSError):
        try:
            descriptor = os.open(path, os.O_WRONLY | os.O_NOFOLLOW)
        except FileNotFoundError:
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW, 0o666)
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            with suppress(OSError):  # only its owner may, and the owner did
                os.fchmod(descriptor, 0o666)
            file.truncate(0)
            file.write(text)


def _user() -> str:
    import getpass

    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container's user id without a name
        return f"user {os.getuid()}"
