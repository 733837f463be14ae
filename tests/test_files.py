"""Files are read within bounds and replaced by one writer at a time; the cache of what is slow to make."""

import hashlib
import json
import os
import random
import socket
import stat
import subprocess
import sys
import time
from pathlib import Path

import pytest

from pytest_gpuperf import cache as caching
from pytest_gpuperf.cache import cached
from pytest_gpuperf.errors import GpuperfError, Unavailable
from pytest_gpuperf.files import own_folder, read_file, replace_file, writing

REPOSITORY = Path(__file__).parent.parent


def test_a_cached_file_is_made_once(cache):
    made = []
    first = cached("models/a.bin", lambda: made.append(1) or b"abc")
    assert cached("models/a.bin", lambda: made.append(1) or b"xyz") == first == cache / "models" / "a.bin"
    assert (first.read_bytes(), len(made)) == (b"abc", 1)


def test_a_damaged_cached_file_is_made_anew(cache):
    path = cached("models/a.bin", lambda: b"abc")
    path.write_bytes(b"ab")
    assert cached("models/a.bin", lambda: b"abc").read_bytes() == b"abc"


def test_a_file_found_in_the_cache_is_hashed_once(cache, monkeypatch):
    def digest(content):
        return caching.sha256(cached("models/a.bin", lambda: content))

    read = []
    real = caching._read_sha256
    monkeypatch.setattr(caching, "_read_sha256", lambda path: read.append(path) or real(path))
    assert digest(b"abc") == hashlib.sha256(b"abc").hexdigest()
    del read[:]
    assert digest(b"abc") == hashlib.sha256(b"abc").hexdigest()
    assert len(read) == 1
    (cache / "models" / "a.bin").write_bytes(b"ab")
    assert digest(b"xyz") == hashlib.sha256(b"xyz").hexdigest()  # made anew


@pytest.mark.parametrize("content", [b"", b"\xff\xfe", bytes(64)])
def test_a_damaged_checksum_is_no_error(cache, content):
    path = cached("models/a.bin", lambda: b"abc")
    path.with_name("a.bin.sha256").write_bytes(content)
    assert cached("models/a.bin", lambda: b"xyz").read_bytes() == b"xyz"


def test_a_failed_making_leaves_nothing(cache):
    def fail():
        raise GpuperfError("no")

    with pytest.raises(GpuperfError):
        cached("models/a.bin", fail)
    assert sorted(p.name for p in (cache / "models").iterdir()) == ["a.bin.lock"]


def test_an_unwritable_cache_names_the_folder_and_the_variable(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("PYTEST_GPUPERF_CACHE", str(tmp_path / "file"))
    with pytest.raises(
        Unavailable, match=r"The cache .*file/models cannot be written .*PYTEST_GPUPERF_CACHE"
    ):
        cached("models/a.bin", lambda: b"")


def test_two_processes_at_once_make_one_file(cache):
    code = (
        "import time; from pytest_gpuperf.cache import cached\n"
        "def make():\n"
        "    print('made'); time.sleep(0.5); return b'abc'\n"
        "assert cached('models/a.bin', make).read_bytes() == b'abc'\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    children = [
        subprocess.Popen([sys.executable, "-c", code], env=environment, stdout=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    outputs = [child.communicate(timeout=30)[0] for child in children]
    assert [child.returncode for child in children] == [0, 0]
    assert sorted(outputs) == ["", "made\n"]


# ---- whose it is ----


@pytest.fixture(params=["", "models"])
def folder(request, cache):
    """The cache's folder, and one in it: what is in both is run."""
    (cache / "models").mkdir(0o700, parents=True)
    return cache / request.param


def test_the_cache_is_its_users_alone(cache):
    mask = os.umask(0)
    try:
        cached("models/a.bin", lambda: b"abc")
    finally:
        os.umask(mask)
    assert [path.stat().st_mode & 0o777 for path in (cache, cache / "models")] == [0o700, 0o700]


def test_without_a_choice_it_is_in_the_users_cache_home(monkeypatch, tmp_path):
    monkeypatch.delenv("PYTEST_GPUPERF_CACHE", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    path = cached("models/a.bin", lambda: b"abc")
    assert path == tmp_path / "pytest-gpuperf" / "models" / "a.bin"
    assert (tmp_path / "pytest-gpuperf").stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize("mode", [0o720, 0o702])
def test_a_folder_that_others_can_write_is_refused(folder, mode):
    folder.chmod(mode)
    with pytest.raises(Unavailable) as caught:
        cached("models/a.bin", lambda: b"abc")
    assert str(caught.value) == (
        f"The cache {folder} can be written by other users (mode 0{mode:o}), who could put other code there; "
        "`chmod go-w` it, or set PYTEST_GPUPERF_CACHE_SHARED=1 if you trust all who can write there with "
        "what your tests run."
    )


def test_another_users_folder_is_refused_with_its_contents(folder, give_away):
    cached("models/a.bin", lambda: b"abc")
    give_away(folder)
    with pytest.raises(Unavailable) as caught:
        cached("models/a.bin", lambda: b"abc")
    message = str(caught.value)
    assert message.startswith(f"The cache {folder} belongs to another user (id ")
    assert "point PYTEST_GPUPERF_CACHE at a folder of your own" in message


def test_a_shared_cache_is_used_where_it_is_asked_for(folder, give_away, monkeypatch):
    folder.chmod(0o777)
    give_away(folder)
    monkeypatch.setenv("PYTEST_GPUPERF_CACHE_SHARED", "1")
    path = cached("models/a.bin", lambda: b"abc")
    assert path.read_bytes() == b"abc"
    assert path.with_name("a.bin.lock").stat().st_mode & 0o777 == 0o666  # the others make files, too


def test_a_link_in_the_locks_place_is_not_followed(cache, tmp_path):
    (cache / "models").mkdir(0o700, parents=True)
    (tmp_path / "precious").write_text("keep")
    (cache / "models" / "a.bin.lock").symlink_to(tmp_path / "precious")
    with pytest.raises(Unavailable, match="cannot be written"):
        cached("models/a.bin", lambda: b"abc")
    assert (tmp_path / "precious").read_text() == "keep"


def test_a_relative_folder_holds_for_a_compiler_run_elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTEST_GPUPERF_CACHE", "cache")
    assert cached("models/a.bin", lambda: b"abc") == tmp_path / "cache" / "models" / "a.bin"


# Reading


def test_only_a_regular_file_of_bounded_size_is_read(tmp_path):
    plain, fifo, unix = tmp_path / "plain", tmp_path / "fifo", tmp_path / "socket"
    plain.write_bytes(b"abc")
    assert read_file(plain, tmp_path, 3) == b"abc"
    os.mkfifo(fifo)
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(unix))
        for path, words in [
            (fifo, "Not a regular file"),
            (Path("/dev/null"), "Not a regular file"),
            (unix, "No such device"),
            (tmp_path, "Is a directory"),
            (tmp_path / "gone", "No such file"),
        ]:
            with pytest.raises(OSError, match=words):
                read_file(path)
    with pytest.raises(OSError, match="Larger than 0 KiB"):
        read_file(plain, limit=2)


def test_a_link_is_followed_inside_the_folder_only(tmp_path):
    folder, outside = tmp_path / "folder", tmp_path / "outside"
    folder.mkdir()
    for path in (outside, folder / "real"):
        path.write_bytes(b"old")
    (folder / "in").symlink_to("real")
    (folder / "out").symlink_to(outside)
    (folder / "nowhere").symlink_to(tmp_path / "made")
    (tmp_path / "linked").symlink_to(folder)
    assert read_file(tmp_path / "linked" / "in", tmp_path / "linked") == b"old"
    replace_file(folder / "in", b"new", folder)
    assert (folder / "in").is_symlink()
    assert (folder / "real").read_bytes() == b"new"
    for name in ("out", "nowhere"):
        with pytest.raises(OSError, match="A link leads out of"):
            read_file(folder / name, folder)
        with pytest.raises(OSError, match="A link leads out of"):
            replace_file(folder / name, b"new", folder)
    assert outside.read_bytes() == b"old"
    assert not (tmp_path / "made").exists()


# One writer at a time

WRITER = """
import sys
from pathlib import Path
from pytest_gpuperf.measurement import Baseline, Metric, Run
from pytest_gpuperf.storage.baselines import Store
who, store, count = sys.argv[1], Store(Path(sys.argv[2])), int(sys.argv[3])
metric = Metric("x", "1", "lower", "exact", "counters")
for i in range(count):
    baseline = Baseline(metric, {}, {}, 0.0, (Run((1.0,), {}),))
    store.save("emulated", "suites/t.py", {f"{who}{i}": {"x": baseline}}, mode="new")
    print(f"{who}{i}", flush=True)
"""


def writer(who: str, folder: Path, count: int) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", WRITER, who, str(folder), str(count)]
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)


def entries(folder: Path) -> set[str]:
    return set(json.loads((folder / "emulated/suites/t.json").read_text())["entries"])


def test_two_updates_at_once_lose_and_leave_nothing(tmp_path):
    writers = [writer(who, tmp_path, 40) for who in "ab"]
    saved = {name for each in writers for name in each.communicate(timeout=60)[0].split()}
    assert len(saved) == 80
    assert entries(tmp_path) == saved
    assert os.listdir(tmp_path / "emulated/suites") == ["t.json"]


def test_the_next_writer_uses_up_what_a_killed_one_left(tmp_path):
    """A hundred kills at any point, forked since starting Python a hundred times takes minutes."""
    dice, saved = random.Random(1), set()
    for number in range(100):
        reading, writing_end = os.pipe()
        child = os.fork()
        if not child:
            _save_for_ever(tmp_path, f"t{number}.", writing_end)
        os.close(writing_end)
        time.sleep(dice.uniform(0.01, 0.06))
        os.kill(child, 9)
        os.waitpid(child, 0)
        with open(reading) as told:
            saved |= set(told.read().split())
    folder = tmp_path / "emulated/suites"
    assert len(saved) > 10  # else nothing was shown: how many depends on the machine
    assert saved <= entries(tmp_path)
    (folder / ".t.json.0123abcd.tmp").write_text("an older version's")
    writer("z", tmp_path, 1).communicate(timeout=30)
    assert saved | {"z0"} <= entries(tmp_path)
    assert os.listdir(folder) == ["t.json"]


def _save_for_ever(folder: Path, who: str, told: int) -> None:
    """A child's life: add a test and say so, then write a second one again and again."""
    from pytest_gpuperf.measurement import Baseline, Metric, Run
    from pytest_gpuperf.storage.baselines import Store

    try:
        store, metric = Store(folder), Metric("x", "1", "lower", "exact", "counters")
        baseline = Baseline(metric, {}, {}, 0.0, (Run((1.0,), {}),))
        for i in range(1_000_000):
            store.save("emulated", "suites/t.py", {f"{who}{min(i, 1)}": {"x": baseline}})
            os.write(told, f"{who}{min(i, 1)}\n".encode())
    finally:
        os._exit(0)


@pytest.mark.parametrize("kind", ["link", "fifo", "hard link", "file"])
def test_what_lies_where_the_new_file_is_made_is_not_written_to(tmp_path, kind):
    victim, beside = tmp_path / "victim", tmp_path / ".a.json.tmp"
    victim.write_text("precious")
    if kind == "link":
        beside.symlink_to(victim)
    elif kind == "fifo":
        os.mkfifo(beside)
    elif kind == "hard link":
        os.link(victim, beside)
    else:
        beside.write_text("longer than what is written now")
    replace_file(tmp_path / "a.json", b"new", tmp_path)
    assert (tmp_path / "a.json").read_text() == "new"
    assert stat.S_ISREG((tmp_path / "a.json").lstat().st_mode)
    assert victim.read_text() == "precious"
    assert sorted(os.listdir(tmp_path)) == ["a.json", "victim"]


def test_no_folder_without_a_write_and_a_long_wait_is_told(tmp_path, monkeypatch):
    path = tmp_path / "a" / "b" / "c.json"
    with writing(path):
        assert path.parent.is_dir()
        monkeypatch.setattr("pytest_gpuperf.files._PATIENCE", 0.05)
        with pytest.raises(OSError, match="Another process has been writing it"):
            replace_file(path, b"")
    assert not (tmp_path / "a").exists()


def test_who_comes_second_has_a_folder_of_its_own(tmp_path):
    wanted = tmp_path / "run"
    with own_folder(wanted) as first, own_folder(wanted) as second, own_folder(wanted) as third:
        assert (first, second.name, third.name) == (wanted, "run-2", "run-3")
    with own_folder(wanted) as again:  # what a killed process held is free too: the kernel's lock
        assert again == wanted
