"""The cache of what takes long to make."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from pytest_gpuperf.errors import GpuperfError, Unavailable
from pytest_gpuperf.files import cached

REPOSITORY = Path(__file__).parent.parent


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("PYTEST_GPUPERF_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "models"


def test_a_cached_file_is_made_once(cache):
    made = []
    first = cached("models/a.bin", lambda: made.append(1) or b"abc")
    assert cached("models/a.bin", lambda: made.append(1) or b"xyz") == first == cache / "a.bin"
    assert (first.read_bytes(), len(made)) == (b"abc", 1)


def test_a_damaged_cached_file_is_made_anew(cache):
    path = cached("models/a.bin", lambda: b"abc")
    path.write_bytes(b"ab")
    assert cached("models/a.bin", lambda: b"abc").read_bytes() == b"abc"


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
    assert sorted(p.name for p in cache.iterdir()) == ["a.bin.lock"]


def test_an_unwritable_cache_names_the_folder_and_the_variable(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("PYTEST_GPUPERF_CACHE", str(tmp_path / "file"))
    with pytest.raises(
        Unavailable, match=r"The cache .*file/models cannot be written .*PYTEST_GPUPERF_CACHE"
    ):
        cached("models/a.bin", lambda: b"")


def test_two_processes_at_once_make_one_file(cache):
    code = (
        "import time; from pytest_gpuperf.files import cached\n"
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
def folder(request, cache, tmp_path):
    """The cache's folder, and one in it: what is in both is run."""
    cache.mkdir(0o700, parents=True)
    return tmp_path / "cache" / request.param


def test_the_cache_is_its_users_alone(cache):
    mask = os.umask(0)
    try:
        cached("models/a.bin", lambda: b"abc")
    finally:
        os.umask(mask)
    assert [path.stat().st_mode & 0o777 for path in (cache.parent, cache)] == [0o700, 0o700]


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


def test_a_folder_of_another_user_is_refused_even_with_what_is_in_it(folder, give_away):
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


def test_a_link_in_the_locks_place_does_not_reach_a_file_elsewhere(cache, tmp_path):
    cache.mkdir(0o700, parents=True)
    (tmp_path / "precious").write_text("keep")
    (cache / "a.bin.lock").symlink_to(tmp_path / "precious")
    with pytest.raises(Unavailable, match="cannot be written"):
        cached("models/a.bin", lambda: b"abc")
    assert (tmp_path / "precious").read_text() == "keep"


def test_a_relative_folder_is_the_same_for_a_compiler_that_runs_elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTEST_GPUPERF_CACHE", "cache")
    assert cached("models/a.bin", lambda: b"abc") == tmp_path / "cache" / "models" / "a.bin"
