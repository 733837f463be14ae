"""The device lock."""

import json
import os
import signal
import subprocess
import sys
import tempfile
import textwrap
import threading
import time

import pytest

from pytest_gpuperf.errors import GpuperfError, NotFit
from pytest_gpuperf.machine import lock as lock_module
from pytest_gpuperf.machine.lock import DeviceLock, holder, lock_folder, lock_path

HOLDER = """
import sys, time
from pytest_gpuperf.machine.lock import DeviceLock
lock = DeviceLock(sys.argv[1], timeout=10)
lock.acquire()
print("held", flush=True)
sys.stdin.read()
lock.release()
"""


ANOTHER_USER = """
import getpass, os, pwd  # while this user may read them
from pytest_gpuperf.machine.lock import DeviceLock, holder, lock_path
os.setgroups([]); os.setgid(65534); os.setuid(65534)
with DeviceLock("GPU-1", timeout=0):
    print(holder(lock_path("GPU-1")))
"""


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("PYTEST_GPUPERF_LOCK_DIR", str(tmp_path / "locks"))
    return tmp_path / "locks"


@pytest.fixture
def other_process():
    """A process that holds GPU-1 until its standard input closes or it is killed."""
    command = [sys.executable, "-c", textwrap.dedent(HOLDER), "GPU-1"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "held\n"
        yield process
        process.kill()


def test_another_process_waits_until_it_is_released(other_process):
    lock = DeviceLock("GPU-1", timeout=20)
    threading.Timer(0.3, other_process.stdin.close).start()
    start = time.monotonic()
    with lock:
        assert lock.held
        assert time.monotonic() - start >= 0.25
    assert not lock.held


def test_devices_have_locks_of_their_own(other_process):
    with DeviceLock("GPU-2", timeout=0) as lock:
        assert lock.held
    with pytest.raises(NotFit):
        DeviceLock("GPU-1", timeout=0).acquire()


def test_says_who_holds_it_when_it_was_not_got_in_time(other_process):
    with pytest.raises(NotFit) as caught:
        DeviceLock("GPU-1", timeout=0.2).acquire()
    message = str(caught.value)
    assert "GPU-1 was not free within 0.2 s" in message
    assert f"process {other_process.pid} of " in message
    assert f"on {os.uname().nodename} since 2" in message
    assert message.endswith("--gpuperf-lock-timeout")


def test_says_once_whom_it_waits_for_after_a_second(other_process):
    lines = []
    threading.Timer(1.6, other_process.stdin.close).start()
    with DeviceLock("GPU-1", timeout=20, on_wait=lines.append):
        pass
    assert len(lines) == 1
    assert lines[0].startswith(f"waiting for device GPU-1, held by process {other_process.pid} of ")


def test_says_nothing_when_there_is_no_wait():
    lines = []
    with DeviceLock("GPU-1", timeout=0, on_wait=lines.append):
        pass
    assert lines == []


def test_a_killed_holder_leaves_nothing_locked(other_process):
    other_process.send_signal(signal.SIGKILL)
    other_process.wait()
    with DeviceLock("GPU-1", timeout=0) as lock:
        assert lock.held


def test_is_reentrant():
    lock = DeviceLock("GPU-1", timeout=0)
    with lock:
        with lock:
            pass
        assert lock.held
        with pytest.raises(NotFit):  # flock tells two openings of a file apart in one process, too
            DeviceLock("GPU-1", timeout=0).acquire()
    assert not lock.held
    lock.release()
    with DeviceLock("GPU-1", timeout=0):
        pass


def test_a_lock_that_was_not_got_can_be_tried_again(other_process):
    lock = DeviceLock("GPU-1", timeout=0)
    with pytest.raises(NotFit):
        lock.acquire()
    assert not lock.held
    other_process.kill()
    other_process.wait()
    with lock:
        assert lock.held


def test_the_folder_and_its_files_are_open_to_every_user(folder):
    mask = os.umask(0o077)
    try:
        with DeviceLock("GPU-1", timeout=0):
            modes = {path.name: path.stat().st_mode & 0o7777 for path in folder.iterdir()}
    finally:
        os.umask(mask)
    assert folder.stat().st_mode & 0o7777 == 0o1777
    assert modes == {"GPU-1.lock": 0o666, f"GPU-1.{os.getuid()}.holder": 0o644}


@pytest.fixture
def host_folder(tmp_path, monkeypatch):
    """A stand-in for /tmp, with no folder chosen."""
    monkeypatch.delenv("PYTEST_GPUPERF_LOCK_DIR")
    monkeypatch.setenv("TMPDIR", str(tmp_path / "mine"))
    monkeypatch.setattr("pytest_gpuperf.machine.lock._HOST", tmp_path)
    return tmp_path


def test_by_default_the_lock_is_in_the_hosts_temporary_folder(host_folder):
    """Not in TMPDIR, which users have of their own, nor in a folder that anybody may make before root."""
    host_folder.chmod(0o1777)
    assert lock_folder() == host_folder
    with DeviceLock("GPU-1", timeout=0):
        assert (host_folder / "pytest-gpuperf-GPU-1.lock").is_file()


@pytest.mark.parametrize("mode", [0o777, 0o770])
def test_a_temporary_folder_without_the_sticky_bit_is_refused(host_folder, mode):
    host_folder.chmod(mode)
    with pytest.raises(GpuperfError, match=r"lets other users replace its files .* set PYTEST_GPUPERF_LOCK"):
        DeviceLock("GPU-1", timeout=0)


def test_a_temporary_folder_of_another_user_is_refused(host_folder, give_away):
    host_folder.chmod(0o1777)
    give_away(host_folder)
    with pytest.raises(GpuperfError, match=r"lets other users replace its files \(it is not root's"):
        DeviceLock("GPU-1", timeout=0)


# ---- what another user may have put there ----


@pytest.fixture
def victim(tmp_path):
    """A file that must stay as it is."""
    path = tmp_path / "precious"
    path.write_text("keep")
    path.chmod(0o600)
    yield path
    assert (path.read_text(), path.stat().st_mode & 0o777) == ("keep", 0o600)


@pytest.mark.parametrize("link", [os.symlink, os.link])
def test_a_link_in_the_locks_place_is_not_followed(folder, victim, link):
    folder.mkdir()
    link(victim, folder / "GPU-1.lock")
    if link is os.symlink:
        with pytest.raises(GpuperfError, match=r"GPU-1\.lock, .* cannot be used \(Too many levels of sym"):
            DeviceLock("GPU-1", timeout=0).acquire()
    else:
        with DeviceLock("GPU-1", timeout=0):
            pass


@pytest.mark.parametrize("made", [os.symlink, os.link, lambda _, path: os.mkfifo(path)])
def test_a_link_or_fifo_in_the_holders_place_is_left_alone(folder, victim, made):
    folder.mkdir()
    made(victim, folder / f"GPU-1.{os.getuid()}.holder")
    with DeviceLock("GPU-1", timeout=0):
        assert holder(folder / "GPU-1.lock") == "a process that did not leave its name"


def test_a_lock_file_is_never_written(folder):
    folder.mkdir()
    (folder / "GPU-1.lock").write_text("keep")
    with DeviceLock("GPU-1", timeout=0):
        pass
    assert (folder / "GPU-1.lock").read_text() == "keep"


def test_a_fifo_in_the_locks_place_is_one_sentence(folder):
    folder.mkdir()
    os.mkfifo(folder / "GPU-1.lock")
    with pytest.raises(GpuperfError, match=r"cannot be used \(Not a regular file\): set PYTEST_"):
        DeviceLock("GPU-1", timeout=0).acquire()


def test_another_users_holder_file_is_not_written(folder, give_away):
    folder.mkdir()
    theirs = folder / f"GPU-1.{os.getuid()}.holder"
    theirs.write_text("keep")
    give_away(theirs)
    with DeviceLock("GPU-1", timeout=0):
        pass
    assert theirs.read_text() == "keep"


def test_a_killed_users_name_is_told_as_the_last_holder(folder):
    with DeviceLock("GPU-1", timeout=0):
        killed = folder / "GPU-1.4711.holder"
        killed.write_text((folder / f"GPU-1.{os.getuid()}.holder").read_text().replace('"pid": ', '"pid": 9'))
        os.utime(killed, (1, 1))
        assert f"process {os.getpid()} of" in holder(folder / "GPU-1.lock")


def test_another_users_text_drives_no_terminal(folder):
    folder.mkdir()
    said = dict.fromkeys(("pid", "user", "host", "since"), "x")
    said["command"] = "\n::error::no\x1b[31m" + 2000 * "a"
    (folder / "GPU-1.4711.holder").write_text(json.dumps(said))
    name = holder(folder / "GPU-1.lock")
    assert name.startswith("process x of x on x since x: ?::error::no?[31maaa")
    assert len(name) == 1000


def test_a_lock_file_that_was_removed_meanwhile_locks_nothing(folder, monkeypatch):
    """As by what cleans up /tmp, between opening and locking: the next process would make a new file."""
    opened = lock_module._opened
    seen = []

    def removed(path):
        descriptor = opened(path)
        if not seen:
            path.unlink()
        seen.append(path)
        return descriptor

    monkeypatch.setattr(lock_module, "_opened", removed)
    with DeviceLock("GPU-1", timeout=1), pytest.raises(NotFit):
        DeviceLock("GPU-1", timeout=0).acquire()
    assert len(seen) == 3


@pytest.mark.skipif(os.getuid() != 0, reason="needs root to become another user")
def test_a_lock_file_that_one_may_only_read_can_be_locked(monkeypatch):
    with tempfile.TemporaryDirectory(dir="/tmp") as folder:  # others may not enter pytest's
        monkeypatch.setenv("PYTEST_GPUPERF_LOCK_DIR", folder)
        os.chmod(folder, 0o1777)
        with DeviceLock("GPU-1", timeout=0):
            os.chmod(lock_path("GPU-1"), 0o644)
        said = subprocess.run([sys.executable, "-c", ANOTHER_USER], capture_output=True, text=True)
        assert f"on {os.uname().nodename} since 2" in said.stdout, said.stderr


def test_leaves_the_mode_of_a_folder_that_was_there(folder):
    folder.mkdir(mode=0o750)
    assert lock_folder() == folder
    assert folder.stat().st_mode & 0o7777 == 0o750


def test_a_uuid_cannot_name_a_file_elsewhere(folder):
    with DeviceLock("../GPU/1", timeout=0):
        assert (folder / ".._GPU_1.lock").exists()


def test_a_released_lock_no_longer_names_its_holder(folder):
    with DeviceLock("GPU-1", timeout=0):
        assert f"process {os.getpid()} of" in holder(folder / "GPU-1.lock")
    assert holder(folder / "GPU-1.lock") == "a process that did not leave its name"


@pytest.mark.parametrize("text", ["", "{", "[]", '{"pid": 1}', "\0"])
def test_an_unreadable_holder_is_no_error(folder, text):
    folder.mkdir()
    (folder / "GPU-1.4711.holder").write_text(text)
    assert holder(folder / "GPU-1.lock") == "a process that did not leave its name"


def test_a_file_in_the_folders_place_is_one_sentence(folder):
    folder.write_text("")
    with pytest.raises(GpuperfError, match=r"locks, the folder of the device locks, is a file: set PYTEST_"):
        DeviceLock("GPU-1", timeout=0).acquire()


def test_a_folder_that_cannot_be_made_is_one_sentence(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("PYTEST_GPUPERF_LOCK_DIR", str(tmp_path / "file" / "locks"))
    with pytest.raises(GpuperfError, match=r"cannot be made \(Not a directory\): set PYTEST_"):
        DeviceLock("GPU-1", timeout=0).acquire()


@pytest.mark.skipif(os.getuid() == 0, reason="root may write everywhere")
def test_a_folder_that_cannot_be_written_is_one_sentence(folder):
    folder.mkdir(mode=0o555)
    with pytest.raises(GpuperfError, match=r"the lock of device GPU-1, cannot be used \(Permission"):
        DeviceLock("GPU-1", timeout=0).acquire()


def test_a_lock_file_that_cannot_be_opened_is_one_sentence(folder):
    (folder / "GPU-1.lock").mkdir(parents=True)
    lock = DeviceLock("GPU-1", timeout=0)
    with pytest.raises(GpuperfError, match=r"GPU-1\.lock, .* cannot be used \(Is a directory\): set"):
        lock.acquire()
    assert not lock.held
