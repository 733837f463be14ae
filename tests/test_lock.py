"""The device lock."""

import os
import signal
import subprocess
import sys
import textwrap
import threading
import time

import pytest

from pytest_gpuperf.errors import GpuperfError, NotFit
from pytest_gpuperf.machine.lock import DeviceLock, holder, lock_folder

HOLDER = """
import sys, time
from pytest_gpuperf.machine.lock import DeviceLock
lock = DeviceLock(sys.argv[1], timeout=10)
lock.acquire()
print("held", flush=True)
sys.stdin.read()
lock.release()
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
    with DeviceLock("GPU-2", timeout=0):
        pass


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
    with DeviceLock("GPU-1", timeout=0):
        pass


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
    assert modes == {"GPU-1.lock": 0o666, "GPU-1.holder": 0o666}


def test_the_default_folder_is_in_the_temporary_folder(tmp_path, monkeypatch):
    monkeypatch.delenv("PYTEST_GPUPERF_LOCK_DIR")
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    assert lock_folder() == tmp_path / "pytest-gpuperf-locks"


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
    (folder / "GPU-1.holder").write_text(text)
    assert holder(folder / "GPU-1.lock") == "a process that did not leave its name"


def test_a_holder_file_that_cannot_be_written_is_no_error(folder, tmp_path):
    folder.mkdir()
    (tmp_path / "precious").write_text("keep")
    (folder / "GPU-1.holder").symlink_to(tmp_path / "precious")
    with DeviceLock("GPU-1", timeout=0):
        pass
    assert (tmp_path / "precious").read_text() == "keep"


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
