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
