"""One run's own knowledge: pools, keys and the exit code."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from pytest_gpuperf.errors import GpuperfError
from pytest_gpuperf.options import owner_of
from pytest_gpuperf.session import GpuperfSession
from pytest_gpuperf.waking import session_of

H100 = {"backend": "cuda", "gpu": "NVIDIA H100 80GB HBM3", "power_limit_w": 700.0}


@pytest.fixture
def session(pytester: pytest.Pytester) -> GpuperfSession:
    return session_of(pytester.parseconfigure())


@pytest.mark.parametrize(
    ("device", "pool"),
    [
        (H100, "NVIDIA H100 80GB HBM3"),
        ({**H100, "mig": "3g.40gb"}, "NVIDIA H100 80GB HBM3 3g.40gb"),
        ({**H100, "power_limit_w": 500.0, "power_limit_default_w": 700.0}, "NVIDIA H100 80GB HBM3 500W"),
        ({"backend": "emulated"}, "emulated"),
        ({"backend": "cpu"}, "cpu"),
    ],
)
def test_a_pool_is_named_after_what_makes_runners_alike(session: GpuperfSession, device, pool):
    assert session.project.pool(device) == pool


def test_a_users_pool_never_takes_in_emulated_figures(pytester: pytest.Pytester):
    session = session_of(pytester.parseconfigure("--gpuperf", "--gpuperf-pool=ci-h100"))
    assert session.project.pool(H100) == "ci-h100"
    assert session.project.pool({"backend": "emulated"}) == "emulated"


@pytest.mark.parametrize(
    ("causes", "status"),
    [
        (set(), 0),
        ({"wrong"}, 1),
        ({"setup"}, 22),
        ({"infrastructure"}, 20),
        ({"infrastructure", "setup"}, 22),
        ({"environment"}, 21),
        ({"environment", "infrastructure"}, 21),
        ({"environment", "setup"}, 22),
        ({"environment", "wrong"}, 1),
        ({"infrastructure", "setup", "wrong"}, 1),
    ],
)
def test_the_exit_code_tells_a_runner_what_to_do(session: GpuperfSession, causes, status):
    session.results.causes |= causes
    assert session.results.exit_status(0 if not causes else 1, 0) == status


@pytest.mark.parametrize("status", [2, 3, 4, 5])
def test_pytests_own_exit_codes_stay(session: GpuperfSession, status: int):
    session.results.causes.add("setup")
    assert session.results.exit_status(status, 0) == status


def test_a_tests_key_does_not_depend_on_the_root(pytester: pytest.Pytester):
    project = pytester.mkdir("b")
    (project / "suites").mkdir()
    (project / "baselines").mkdir()
    (project / "suites" / "test_k.py").write_text("")
    inside = session_of(pytester.parseconfigure("--rootdir", str(project)))
    outside = session_of(pytester.parseconfigure("--rootdir", str(pytester.path)))
    assert inside.project.key("suites/test_k.py::test") == outside.project.key("b/suites/test_k.py::test")
    assert str(inside.project.key("suites/test_k.py::test")) == "suites/test_k.py::test"


def test_a_suite_beside_the_ini_folder_has_its_own_baselines(pytester: pytest.Pytester):
    # pytest's root folder is then the ini file's, and the test's node id has no file in it.
    (pytester.mkdir("cfg") / "perf.ini").write_text("[pytest]\n")
    pytester.mkdir("baselines")
    pytester.makepyfile(test_it="def test_a(gpuperf): gpuperf.record('v', 1, kind='exact')")
    command = ("-c", "cfg/perf.ini", "test_it.py", "--gpuperf")
    assert pytester.runpytest_subprocess(*command, "--gpuperf-update").ret == 0
    assert [path.name for path in (pytester.path / "baselines").rglob("*.json")] == ["test_it.json"]
    pytester.makepyfile(test_it="def test_a(gpuperf): gpuperf.record('v', 2, kind='exact')")
    result = pytester.runpytest_subprocess(*command)
    assert result.ret == 1
    result.stdout.fnmatch_lines(["regressed: v x2*", "  again     pytest test_it.py::test_a --gpuperf -c *"])


@pytest.mark.parametrize(
    ("root", "git", "suite", "owner"),
    [
        ("a/b", None, "a/b/c", None),  # what lies above the root folder is not the project's
        ("a/b", "a", "a/b/c", "a"),  # but what the repository has is
        ("a", "a/b", "a/b/c", "a"),  # and a submodule's tests belong to it, too
        ("x", "a/b", "a/b/c", None),
        ("x", "a", "a/b/c", "a"),
        ("x", None, "a/b/c", None),
        ("x", None, "a", "a"),
    ],
)
def test_the_search_ends_at_the_root_or_the_repositorys_top(
    tmp_path: Path, root: str, git: str | None, suite: str, owner: str | None
):
    for name in (root, suite, "baselines", "a/baselines"):
        (tmp_path / name).mkdir(parents=True, exist_ok=True)
    if git:
        (tmp_path / git / ".git").write_text("gitdir: elsewhere")
    found = owner_of(tmp_path / suite, "baselines", tmp_path / "fallback", tmp_path / root)
    assert found == tmp_path / (owner or "fallback")


def test_baselines_above_the_project_are_not_its_own(pytester: pytest.Pytester):
    pytester.mkdir("baselines")
    project = pytester.mkdir("project")
    (project / "pytest.ini").write_text("[pytest]\n")
    (project / "test_it.py").write_text("def test_a(gpuperf): gpuperf.record('v', 1, kind='exact')\n")
    assert pytester.runpytest_subprocess("project", "--gpuperf", "--gpuperf-update").ret == 0
    assert not list((pytester.path / "baselines").iterdir())
    assert [path.name for path in (project / "baselines").rglob("*.json")] == ["test_it.json"]


def test_a_suite_outside_its_baselines_folder_is_named(pytester: pytest.Pytester, tmp_path: Path):
    session = session_of(pytester.parseconfigure("--gpuperf-baselines", str(tmp_path / "elsewhere")))
    with pytest.raises(GpuperfError, match="lies outside"):
        session.project.key("../other/test_k.py::test")


def test_a_worker_takes_its_own_device(monkeypatch):
    from pytest_gpuperf.session import _claim_device

    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,5")
    _claim_device(1)
    assert os.environ["CUDA_VISIBLE_DEVICES"] == "5"
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    _claim_device(1)
    assert os.environ["CUDA_VISIBLE_DEVICES"] == "1"
