"""Git underneath: revisions resolved, worktrees made and removed, baselines read as a revision has them."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from gitproject import Repository

from pytest_gpuperf.errors import BaselineError
from pytest_gpuperf.git import GitError, Revision, git_bytes, modified, resolve, toplevel
from pytest_gpuperf.measurement import Baseline, Metric, Run
from pytest_gpuperf.processes.checkouts import Checkout, checkouts, worktree
from pytest_gpuperf.processes.reporter import borrowed

# Imported here, since pytester takes back what a test imports, and two copies of a class are not one.
from pytest_gpuperf.storage import format  # noqa: F401
from pytest_gpuperf.storage.baselines import Store
from pytest_gpuperf.storage.revisions import RevisionStore


@pytest.fixture
def repository(pytester: pytest.Pytester, tmp_path_factory, monkeypatch) -> Repository:
    temporary = tmp_path_factory.mktemp("temporary")
    monkeypatch.setattr("tempfile.tempdir", str(temporary))
    return Repository(pytester, {"code.txt": "old"})


def test_a_revision_is_shown_by_its_name_and_its_commit(repository: Repository):
    commit = repository.commit()
    repository.git("tag", "-a", "v1", "-m", "a tag")
    assert resolve(repository.path, "v1") == Revision("v1", commit)
    assert str(resolve(repository.path, "v1")) == f"v1 ({commit[:10]})"
    assert str(resolve(repository.path, commit[:12])) == commit[:10]


@pytest.mark.parametrize("name", ["nowhere", "HEAD:code.txt", "", "--all", "HEAD~99"])
def test_what_is_no_revision_is_said_to_be_none(repository: Repository, name: str):
    with pytest.raises(GitError, match=r"is not a valid revision of .*: name a branch, a tag or a commit"):
        resolve(repository.path, name)


def test_a_shallow_clone_is_told_to_fetch(repository: Repository, tmp_path: Path):
    first = repository.git("rev-parse", "HEAD").strip()
    repository.commit()
    clone = tmp_path / "clone"
    subprocess.run(["git", "clone", "-q", "--depth=1", f"file://{repository.path}", str(clone)], check=True)
    with pytest.raises(GitError, match="fetch it first: this clone is shallow"):
        resolve(clone, first)


def test_a_missing_git_is_one_sentence(repository: Repository, monkeypatch):
    monkeypatch.setenv("PATH", "/nonexistent")
    with pytest.raises(GitError, match=r"git cannot be started .*: install it"):
        toplevel(repository.path)


def test_modified_counts_what_is_tracked(repository: Repository):
    assert modified(repository.path) == 0
    repository.write("code.txt", "new")
    repository.write("other.txt", "untracked")
    assert modified(repository.path) == 1


def test_a_worktree_holds_the_revision_and_is_removed(repository: Repository):
    commit = repository.git("rev-parse", "HEAD").strip()
    repository.write("code.txt", "new")
    with worktree(repository.path, commit) as tree:
        assert (tree / "code.txt").read_text() == "old"
        assert tree.name == repository.path.name
        (tree / "left.txt").write_text("behind")
    assert not tree.parent.exists()
    assert repository.worktrees == 1
    assert (repository.path / "code.txt").read_text() == "new"


def test_a_worktree_is_removed_when_its_block_fails(repository: Repository):
    with pytest.raises(KeyboardInterrupt), worktree(repository.path, "HEAD") as tree:
        raise KeyboardInterrupt
    assert not tree.parent.exists()
    assert repository.worktrees == 1


def test_a_worktree_whose_files_are_gone_is_pruned(repository: Repository):
    with worktree(repository.path, "HEAD") as tree:
        shutil.rmtree(tree.parent)
    assert repository.worktrees == 1


def test_only_what_a_killed_process_left_is_removed(repository: Repository):
    script = f"""
import pathlib, sys, time
from pytest_gpuperf.processes.checkouts import worktree
with worktree(pathlib.Path({str(repository.path)!r}), "HEAD") as tree:
    print(tree, flush=True)
    time.sleep(60)
"""
    process = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True)
    left = Path(process.stdout.readline().strip())
    with worktree(repository.path, "HEAD"):
        assert left.is_dir()
    process.kill()
    process.communicate()
    assert left.is_dir()
    with worktree(repository.path, "HEAD"):
        assert not left.parent.exists()
    assert repository.worktrees == 1


def test_the_entry_of_a_worktree_that_is_gone_is_removed(repository: Repository):
    with worktree(repository.path, "HEAD") as tree:
        kept = tree.parent.with_name("kept")
        shutil.copytree(repository.path / ".git/worktrees", kept)
    shutil.copytree(kept, repository.path / ".git/worktrees")
    assert repository.worktrees == 2
    with worktree(repository.path, "HEAD"):
        assert repository.worktrees == 2
    assert repository.worktrees == 1


def test_the_users_hooks_and_gits_own_variables_stay_out(repository: Repository, tmp_path, monkeypatch):
    hook = repository.write(".git/hooks/post-checkout", f"#!/bin/sh\ntouch {tmp_path}/hook-ran\n")
    hook.chmod(0o755)
    monkeypatch.setenv("GIT_DIR", "/nonexistent")
    monkeypatch.setenv("GIT_INDEX_FILE", "/nonexistent")
    with worktree(repository.path, "HEAD") as tree:
        assert (tree / "code.txt").exists()
    assert not (tmp_path / "hook-ran").exists()


# The two sides


def test_only_the_projects_paths_are_the_sides_own(tmp_path: Path):
    top, root = tmp_path / "top", tmp_path / "root"
    (top / "src").mkdir(parents=True)
    (tmp_path / "link").symlink_to(top)
    side = Checkout(top, root, tmp_path)
    assert side.path(top / "src" / "a.py") == root / "src" / "a.py"
    assert side.path(tmp_path / "link" / "src") == root / "src"
    assert side.path(Path("/usr/lib")) == Path("/usr/lib")
    assert side.path(top / ".venv/lib/site-packages/x.py") == top / ".venv/lib/site-packages/x.py"


def test_a_process_imports_the_project_from_its_own_side(tmp_path: Path, monkeypatch):
    top, root, aside = tmp_path / "top", tmp_path / "root", tmp_path / "aside"
    monkeypatch.setenv("PYTHONPATH", f"/elsewhere{os.pathsep}{top}/src")
    monkeypatch.setattr(sys, "path", ["/elsewhere", f"{top}/src", "/usr/lib/python3", f"{top}/suites"])
    found = Checkout(top, root, aside).environment()["PYTHONPATH"].split(os.pathsep)
    assert [p for p in found if str(tmp_path) in p or p == "/elsewhere"] == [
        str(aside),
        "/elsewhere",
        f"{root}/src",
        f"{root}/suites",
    ]
    assert "/usr/lib/python3" not in found


def test_a_package_editable_by_a_finder_is_the_sides_own(tmp_path: Path, monkeypatch):
    import types

    top, root = tmp_path / "top", tmp_path / "root"
    module = types.ModuleType("__editable___mine_finder")
    module.MAPPING = {"mine": str(top / "lib" / "mine")}
    finder = type("Finder", (), {"__module__": module.__name__})
    monkeypatch.setitem(sys.modules, module.__name__, module)
    monkeypatch.setattr(sys, "meta_path", [*sys.meta_path, finder])
    found = Checkout(top, root, tmp_path / "aside").environment()["PYTHONPATH"].split(os.pathsep)
    assert str(root / "lib") in found


def test_modules_of_the_other_side_are_noticed(tmp_path: Path, monkeypatch):
    import types

    top, root = tmp_path / "top", tmp_path / "root"
    for name, file in {
        "theirs": top / "lib" / "theirs.py",
        "own": root / "lib" / "own.py",
        "installed": top / ".venv/lib/site-packages/installed.py",
    }.items():
        module = types.ModuleType(name)
        module.__file__ = str(file)
        monkeypatch.setitem(sys.modules, name, module)
    assert borrowed(top, root) == ["lib/theirs.py"]
    assert borrowed(top, top) == []


def test_both_sides_lie_in_temporary_folders_that_go(repository: Repository):
    config = repository.pytester.parseconfig()
    commit = repository.git("rev-parse", "HEAD").strip()
    with checkouts(config, commit) as (here, there):
        assert here.root == here.top == there.top == repository.path
        assert (there.root / "code.txt").is_file()
        assert (there.aside / "pytest_gpuperf" / "plugin.py").is_file()
        assert there.folder(repository.path / "new" / "folder") == there.root
    assert not there.aside.exists()
    assert not there.root.exists()


# Baselines at a revision


def baseline(value: float) -> Baseline:
    return Baseline(Metric("size", "1", "lower", "exact", "record"), {}, {}, 0.0, (Run((value,), {}),))


def test_baselines_are_read_as_the_revision_has_them(repository: Repository):
    folder = repository.path / "deep" / "baselines"
    now = Store(folder)
    now.save("my pool", "suites/test_a.py", {"test_a": {"size": baseline(4.0)}})
    commit = repository.commit()
    now.save("my pool", "suites/test_a.py", {"test_a": {"size": baseline(9.0)}})
    now.save("other", "suites/test_b.py", {"test_b": {"size": baseline(1.0)}})
    old = RevisionStore(folder, Revision("main", commit))
    assert old.load("my pool", "suites/test_a.py")["test_a"]["size"].value == 4.0
    shutil.rmtree(folder)
    assert old.pools() == ["my-pool"]
    assert old.suites("my pool") == ["suites/test_a.py"]
    assert old.load("my pool", "suites/test_a.py")["test_a"]["size"].value == 4.0
    assert old.load("my pool", "suites/test_b.py") == {}


def test_what_the_revision_has_no_baseline_of_is_read_here(repository: Repository):
    """A change that adds a test brings its baseline, and one that removes a test takes it away."""
    folder = repository.path / "baselines"
    now = Store(folder)
    now.save("pool", "test_a.py", {"test_old": {"size": baseline(4.0)}, "test_gone": {"size": baseline(5.0)}})
    commit = repository.commit()
    changed = {"test_old": {"size": baseline(9.0), "new": baseline(1.0)}, "test_gone": {}}
    now.save("pool", "test_a.py", changed)
    now.save("pool", "test_new.py", {"test_new": {"size": baseline(7.0)}})
    store = RevisionStore(folder, Revision("main", commit))
    assert store.suites("pool") == ["test_a.py", "test_new.py"]
    assert store.load("pool", "test_new.py")["test_new"]["size"].value == 7.0
    found = {name: kept.value for name, kept in store.load("pool", "test_a.py")["test_old"].items()}
    assert found == {"size": 4.0, "new": 1.0}
    assert "test_gone" in store.load("pool", "test_a.py")
    due = store.due("pool", "test_a.py")
    assert list(due) == ["test_old"]
    assert due["test_old"]["size"].value == 4.0


def test_a_file_that_is_broken_in_the_revision_is_named_there(repository: Repository):
    store = Store(repository.path / "baselines")
    store.save("pool", "test_a.py", {"test_a": {"size": baseline(4.0)}})
    good = store.path("pool", "test_a.py").read_text()
    store.path("pool", "test_a.py").write_text("{")
    broken = Revision("main", repository.commit())
    store.path("pool", "test_a.py").write_text(good)
    with pytest.raises(BaselineError) as refused:
        RevisionStore(store.folder, broken).load("pool", "test_a.py")
    assert f"pool/test_a.json at {broken}: line 1" in str(refused.value)
    assert "mend it there; a change that does needs --gpuperf-accept" in str(refused.value)


def test_baselines_of_a_revision_are_never_written(repository: Repository):
    store = RevisionStore(repository.path / "baselines", resolve(repository.path, "HEAD"))
    assert store.pools() == []
    with pytest.raises(BaselineError, match="read only"):
        store.save("pool", "test_a.py", {"test_a": {"size": baseline(4.0)}})


def test_a_change_cannot_hide_its_loss_in_its_own_baseline(repository: Repository):
    suite = "def test_size(gpuperf): gpuperf.record('size', {}, kind='exact')"
    repository.write("test_suite.py", suite.format("4.0"))
    (repository.path / "baselines").mkdir()
    repository.run("--gpuperf-update")
    repository.commit()
    repository.write("test_suite.py", suite.format("32.0"))
    repository.run("--gpuperf-update")
    assert repository.run().ret == 0
    result = repository.run("--gpuperf-baselines-from=HEAD")
    assert result.ret == 1
    result.stdout.fnmatch_lines(["gpuperf: *baselines in baselines at HEAD (*)", "regressed: size x8*"])


def test_a_change_may_add_and_remove_tests_with_their_baselines(repository: Repository):
    suite = "def test_{0}(gpuperf): gpuperf.record('{0}', 4.0, kind='exact')\n"
    repository.write("test_suite.py", suite.format("kept") + suite.format("gone"))
    (repository.path / "baselines").mkdir()
    repository.run("--gpuperf-update")
    repository.commit()
    repository.write("test_suite.py", suite.format("kept") + suite.format("new"))
    repository.run("--gpuperf-update=prune")
    result = repository.run("--gpuperf-baselines-from=HEAD", "--gpuperf-strict=on")
    assert result.ret == 0, result.stdout.str()
    result.stdout.fnmatch_lines(["2 equal"])
    repository.git("checkout", "-q", "baselines")
    result = repository.run("--gpuperf-baselines-from=HEAD", "--gpuperf-strict=on")
    assert result.ret == 1
    result.stdout.fnmatch_lines(["missing *test_gone*"])


@pytest.fixture
def gated(repository: Repository) -> Repository:
    """A project for a revision to judge; its one baseline file is ``baselines/cpu/test_suite.json``."""
    repository.write("test_suite.py", "def test_size(gpuperf): gpuperf.record('size', 4, kind='exact')")
    repository.write("pytest.ini", "[pytest]\n")
    (repository.path / "baselines").mkdir()
    repository.record()
    return repository


MENDING = "the change that mends it there needs --gpuperf-accept"
LARGE = (
    ("baselines/cpu/test_suite.json", 33 << 20, "32768 KiB", 1),
    ("baselines/quarantine.toml", 300 << 10, "256 KiB", 4),
    ("pytest.ini", 33 << 20, "32768 KiB", 4),
)


@pytest.mark.parametrize(("name", "size", "limit", "code"), LARGE, ids=[each[0] for each in LARGE])
def test_what_is_too_large_in_a_revision_is_not_read(
    gated: Repository, monkeypatch, name: str, size: int, limit: str, code: int
):
    path = gated.path / name
    before = path.read_text() if path.exists() else None
    path.write_text(f"# {'x' * size}")
    gated.commit()
    path.unlink() if before is None else path.write_text(before)
    monkeypatch.setattr("pytest_gpuperf.git.git_bytes", _of_small_files)
    result = gated.pytester.runpytest_inprocess("--gpuperf", "--gpuperf-baselines-from=HEAD")
    assert result.ret == code
    text = result.stdout.str() + result.stderr.str()
    assert f"{name} at HEAD (" in text
    assert (
        f"): larger than {limit}, and not read; the change that mends it there needs --gpuperf-accept" in text
    )
    assert "Traceback" not in text
    assert gated.run("--gpuperf-baselines-from=HEAD", "--gpuperf-accept").ret == 0


def _of_small_files(folder: Path, *arguments: str, timeout: float | None = None) -> bytes:
    found = git_bytes(folder, *arguments, timeout=timeout)
    assert len(found) < 200 << 10, "the large file's contents were read"
    return found


INSTEAD = (
    ("baselines/cpu/test_suite.json", 1),
    ("baselines/cpu", 1),
    ("baselines", 1),
    ("baselines/quarantine.toml", 4),
    ("pytest.ini", 4),
)


@pytest.mark.parametrize("kind", ["a symbolic link", "a submodule"])
@pytest.mark.parametrize(("name", "code"), INSTEAD, ids=[each[0] for each in INSTEAD])
def test_a_link_or_a_submodule_in_a_revision_is_named(gated: Repository, name: str, code: int, kind: str):
    """Its baselines would else be none, and the change's own count instead."""
    commit = gated.commit()
    what = gated.git("hash-object", "-w", "code.txt").strip() if kind == "a symbolic link" else commit
    gated.git("rm", "-rq", "--cached", "--ignore-unmatch", name)
    mode = "120000" if kind == "a symbolic link" else "160000"
    gated.git("update-index", "--add", "--cacheinfo", f"{mode},{what},{name}")
    gated.git("commit", "-q", "-m", "not a file")
    result = gated.run("--gpuperf-baselines-from=HEAD")
    assert result.ret == code
    text = result.stdout.str() + result.stderr.str()
    assert f"{name} at HEAD (" in text
    assert f"): {kind}, and not a regular file; {MENDING}" in text
    assert "Traceback" not in text


def test_a_test_file_that_was_a_link_is_no_new_one(gated: Repository):
    """Its markers are unknown, and so are not what the change says."""
    gated.git("rm", "-q", "--cached", "--ignore-unmatch", "test_suite.py")
    link = gated.git("hash-object", "-w", "code.txt").strip()
    gated.git("add", "baselines", "pytest.ini")
    gated.git("update-index", "--add", "--cacheinfo", f"120000,{link},test_suite.py")
    gated.git("commit", "-q", "-m", "a link")
    result = gated.run("--gpuperf-baselines-from=HEAD")
    assert result.ret == 1
    result.stdout.fnmatch_lines(["*test_suite.py at HEAD (*): a symbolic link, and not a regular file*"])
