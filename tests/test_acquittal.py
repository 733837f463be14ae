"""A red that the machine's software brings: found out with the baseline's own code, and exit code 21."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from gitproject import Repository
from latencies import INI

# CODE is what a commit changes, STACK what an installation does: both sides of a comparison have today's.
SUITE = """
    import os

    CODE = 4.0
    STACK = float(os.environ["STACK"])

    def test_size(gpuperf):
        gpuperf.record("size", CODE * STACK, kind="exact")
"""
# As if there were a GPU.
UNIT = """
    from pytest_gpuperf.machine import environment

    described = environment.describe
    here = {"device_uuid": "GPU-1", "compiler": "g++ 2.0"}
    environment.describe = lambda *where: {**described(*where), **here}
"""
NOISY = SUITE.replace(', kind="exact"', ', "s"')


@pytest.fixture
def repository(pytester: pytest.Pytester, monkeypatch) -> Repository:
    monkeypatch.setenv("STACK", "1.0")
    pytester.makeconftest(UNIT)
    pytester.makeini(INI)
    pytester.mkdir("baselines")
    return Repository(pytester, {"test_suite.py": SUITE})


def record(repository: Repository, **environment: object) -> None:
    """Baselines of the commit that is checked out, as if recorded in another environment than today's."""
    repository.record()
    file = stored(repository)
    content = json.loads(file.read_text())
    for run in content["runs"].values():
        run.update(environment)
    file.write_text(json.dumps(content))


def stored(repository: Repository) -> Path:
    (file,) = (repository.path / "baselines").rglob("*.json")
    return file


def test_a_red_that_the_old_code_shows_too_is_the_environments(repository: Repository, monkeypatch):
    repository.write("test_suite.py", NOISY)
    commit = repository.commit()[:10]
    record(repository, compiler="g++ 1.0")
    monkeypatch.setenv("STACK", "1.5")
    result = repository.run("--junitxml=out.xml", "--gpuperf-strict=on")
    assert result.ret == 21
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["exit code 21: the machine or its software moved, *: record anew"])
    result.stdout.fnmatch_lines(
        [
            "environment moved: size +50.00 % (*), tolerance 5 %",
            f"  why       the baseline's own code, commit {commit}, is as slow here and now: 6 s",
            "  differs   compiler g++ 1.0 -> g++ 2.0",
            "environment moved *test_size *",
            "1 environment moved",
            "The machine or its software moved, and the code did not. To take its figures",
            "  pytest test_suite.py::test_size --gpuperf --gpuperf-update",
        ]
    )
    assert 'value="environment moved' in (repository.path / "out.xml").read_text()
    assert repository.worktrees == 1


def test_the_old_code_decides_on_an_unknown_gpu(repository: Repository, monkeypatch):
    repository.write("test_suite.py", NOISY)
    repository.commit()
    record(repository, device_uuid="GPU-7")
    monkeypatch.setenv("STACK", "1.5")
    result = repository.run("--gpuperf-strict=on")
    assert result.ret == 0
    result.stdout.fnmatch_lines(
        [
            "equal *test_size * 6 s *+0.00 %*",
            "This GPU has no baseline runs of its own (GPUs of one model can differ by 2 %).",
            "  Record them with:",
            "  pytest --gpuperf --gpuperf-update=append",
        ]
    )


def test_another_gpu_is_no_excuse_for_another_result(repository: Repository, monkeypatch):
    record(repository, device_uuid="GPU-7")
    monkeypatch.setenv("STACK", "1.5")
    result = repository.run()
    assert result.ret == 21
    result.stdout.fnmatch_lines(["environment moved: size +50.00 %*"])


def test_a_gpu_is_held_to_its_own_runs(repository: Repository, monkeypatch):
    """Another unit's runs beside them, twice as slow, neither hide a loss nor take the message over."""
    repository.write("test_suite.py", NOISY)
    repository.commit()
    monkeypatch.setenv("STACK", "2.0")
    record(repository, device_uuid="GPU-7")
    monkeypatch.setenv("STACK", "1.0")
    assert repository.run("--gpuperf-update=append").ret == 0
    repository.write("test_suite.py", NOISY.replace("4.0", "4.4"))
    result = repository.run("--gpuperf-strict=on")
    assert result.ret == 1
    result.stdout.fnmatch_lines(["regressed: size +10.00 %*", "  baseline  4 s  (5 runs, *"])
    result.stdout.no_fnmatch_line("This GPU has no baseline runs*")


def test_a_red_of_the_code_stays_one_on_whatever_software(repository: Repository):
    record(repository, compiler="g++ 1.0")
    repository.write("test_suite.py", SUITE.replace("4.0", "8.0"))
    repository.commit()
    result = repository.run()
    assert result.ret == 1
    result.stdout.fnmatch_lines(
        [
            "regressed: size x2*",
            "  baseline  4  (1 run, *",
            "  old code  4  (commit *, here and now)",
            "  now       8",
            "  since     commit *, 1 commit ago: git log *..",
        ]
    )


def test_a_change_that_adds_to_the_softwares_loss_stays_red(repository: Repository, monkeypatch):
    record(repository, compiler="g++ 1.0")
    repository.write("test_suite.py", SUITE.replace("4.0", "8.0"))
    monkeypatch.setenv("STACK", "1.5")
    assert repository.run().ret == 1


@pytest.mark.parametrize(
    ("environment", "flags"),
    [
        pytest.param({}, [], id="the same software"),
        pytest.param({"compiler": "g++ 1.0"}, ["--gpuperf-acquit=off"], id="flag"),
        pytest.param({"compiler": "g++ 1.0"}, ["-o", "gpuperf_acquit=off"], id="ini key"),
    ],
)
def test_nothing_is_acquitted(repository: Repository, monkeypatch, environment: dict, flags: list[str]):
    record(repository, **environment)
    monkeypatch.setenv("STACK", "1.5")
    result = repository.run(*flags)
    assert result.ret == 1
    result.stdout.no_fnmatch_line("*baseline's own code*")


@pytest.fixture
def timed(repository: Repository) -> Repository:
    """A baseline of a time by the host's clock, of this very software."""
    repository.write("test_suite.py", NOISY)
    repository.commit()
    record(repository)
    return repository


def test_a_host_that_drifted_is_unfit(timed: Repository, monkeypatch):
    monkeypatch.setenv("STACK", "1.5")
    result = timed.run("--gpuperf-strict=on")
    assert result.ret == 20
    result.stdout.fnmatch_lines(
        [
            "unfit: size +50.00 %*",
            "  why       the baseline's own code, commit *, is as slow here and now: 6 s",
        ]
    )
    assert timed.run().ret == 0
    assert timed.run("--gpuperf-acquit=off").ret == 1


def test_a_host_that_drifted_no_further_than_hosts_do_is_equal(timed: Repository, monkeypatch):
    monkeypatch.setenv("STACK", "1.1")
    result = timed.run("--gpuperf-strict=on")
    assert result.ret == 0
    result.stdout.fnmatch_lines(["equal *test_size * 4.400 s *+0.00 %*"])
    alone = timed.run("--gpuperf-strict=on", "--gpuperf-acquit=off")
    assert alone.ret == 1
    alone.stdout.fnmatch_lines(
        ["inconclusive: size +10.00 %*", "*a host's clock may differ by *between days"]
    )


def test_a_loss_on_a_host_that_drifted_is_one(timed: Repository, monkeypatch):
    monkeypatch.setenv("STACK", "1.1")
    timed.write("test_suite.py", NOISY.replace("4.0", "4.8"))
    result = timed.run()
    assert result.ret == 1
    result.stdout.fnmatch_lines(
        [
            "regressed: size +20.00 %*",
            "  baseline  4 s  (5 runs, *",
            "  old code  4.400 s  (commit *, here and now, 4 processes)",
            "  now       5.280 s  (4 processes, alternating)",
        ]
    )


def test_a_loss_on_a_host_that_stands_still_is_one(timed: Repository):
    timed.write("test_suite.py", NOISY.replace("4.0", "4.8"))
    result = timed.run()
    assert result.ret == 1
    result.stdout.fnmatch_lines(["regressed: size +20.00 %*", "  old code  4 s  (commit *, 4 processes)"])


@pytest.mark.parametrize(
    ("environment", "words"),
    [
        ({"dirty": True}, "it was recorded with changes to * that were not committed"),
        ({"commit": "0" * 40}, "'0000*' is not a valid revision of *"),
        ({"commit": ""}, "its runs do not name a commit"),
    ],
)
def test_a_baseline_whose_code_is_not_known_acquits_nobody(
    repository: Repository, monkeypatch, environment: dict[str, object], words: str
):
    record(repository, compiler="g++ 1.0", **environment)
    monkeypatch.setenv("STACK", "1.5")
    result = repository.run()
    assert result.ret == 1
    result.stdout.fnmatch_lines(
        ["regressed: size +50.00 %*", f"*not compared with the baseline's own code: {words}"]
    )


def test_a_test_that_the_old_code_fails_stays_red(repository: Repository, monkeypatch):
    record(repository, compiler="g++ 1.0")
    repository.write("test_suite.py", SUITE + "\n        assert STACK < 2\n")
    commit = repository.commit()
    file = stored(repository)
    content = json.loads(file.read_text())
    for run in content["runs"].values():
        run["commit"] = commit
    file.write_text(json.dumps(content))
    repository.write("test_suite.py", SUITE)
    monkeypatch.setenv("STACK", "3")
    result = repository.run()
    assert result.ret == 1
    result.stdout.fnmatch_lines(["*not compared with the baseline's own code: * fails it: assert 3.0 < 2*"])


def test_an_old_code_kept_from_measuring_leaves_it_open(repository: Repository, monkeypatch):
    """Stored runs alone are for where the old code cannot be had, and it may be had in a minute."""
    kept = """from pytest_gpuperf.errors import NotFit
        if CODE == 4 and "LOST" in os.environ: raise NotFit("lost")
        """
    repository.write("test_suite.py", NOISY.replace("gpuperf.record", f"{kept}gpuperf.record"))
    repository.commit()
    record(repository)
    suite = repository.path / "test_suite.py"
    suite.write_text(suite.read_text().replace("4.0", "8.0"))
    monkeypatch.setenv("LOST", "1")
    result = repository.run("--gpuperf-strict=on", "-o", "gpuperf_cooldown=0.01")
    assert result.ret == 20, result.stdout.str()
    result.stdout.fnmatch_lines(["unfit: size*", "  why       the machine was not fit to measure: lost"])
    monkeypatch.delenv("LOST")
    assert repository.run().ret == 1


def test_a_bound_holds_on_whatever_software(repository: Repository, monkeypatch):
    repository.write("test_suite.py", SUITE.replace('kind="exact"', 'kind="exact", max=5.0'))
    repository.commit()
    record(repository, compiler="g++ 1.0")
    monkeypatch.setenv("STACK", "1.5")
    result = repository.run()
    assert result.ret == 1
    result.stdout.fnmatch_lines(["regressed: size*"])


def test_a_roll_out_does_not_run_the_old_code_for_every_test(repository: Repository, monkeypatch):
    parametrized = SUITE.replace("import os", "import os, pytest").replace(
        "def test_size(gpuperf)", "@pytest.mark.parametrize('n', range(4))\n    def test_size(gpuperf, n)"
    )
    repository.write("test_suite.py", parametrized)
    repository.commit()
    record(repository, compiler="g++ 1.0")
    monkeypatch.setenv("STACK", "1.5")
    result = repository.run("--gpuperf-max-confirm=1")
    assert result.ret == 21
    result.assert_outcomes(failed=4)
    assert result.stdout.str().count("a first process of each side") == 2


# A device time as a GPU would give it, with the hash of all that the launch tells the device.
LAUNCH = """
    import os
    from pytest_gpuperf.measurement import Measurement, Metric
    from pytest_gpuperf.session import recorder_of

    def test_kernel(gpuperf, request):
        metric = Metric("kernel", "s", "lower", "noisy", "device_time")
        samples = (1e-3 * float(os.environ["STACK"]),) * 3
        recorder_of(request.node).add(Measurement(metric, {}, samples, os.environ["LAUNCH"]))
"""


@pytest.fixture
def launched(repository: Repository, monkeypatch) -> Repository:
    """A baseline of a kernel's time, of this software."""
    repository.write("test_suite.py", LAUNCH)
    repository.commit()
    monkeypatch.setenv("LAUNCH", "old")
    record(repository)
    return repository


def test_the_same_launch_to_the_bit_is_not_this_changes_loss(launched: Repository, monkeypatch):
    monkeypatch.setenv("STACK", "1.5")
    result = launched.run("--gpuperf-strict=on")
    assert result.ret == 20
    result.stdout.fnmatch_lines(
        ["unfit: kernel +50.00 %*", "*machine code, geometry, scalars and inputs are the baseline's own*"]
    )


def test_identical_work_within_unit_differences_is_not_asked(launched: Repository, monkeypatch):
    record(launched, device_uuid="GPU-7")
    monkeypatch.setenv("STACK", "1.025")
    result = launched.run("--gpuperf-strict=on")
    assert result.ret == 0
    result.stdout.fnmatch_lines(["inconclusive *test_kernel *+2.50 %*", "This GPU has no baseline runs*"])
    result.stdout.no_fnmatch_line("gpuperf: comparing with*")


def test_identical_work_explains_only_what_units_differ_by(launched: Repository, monkeypatch):
    record(launched, device_uuid="GPU-7")
    monkeypatch.setenv("STACK", "10")
    alone = launched.run("--gpuperf-strict=on", "--gpuperf-acquit=off")
    assert alone.ret == 1
    alone.stdout.fnmatch_lines(["regressed: kernel x10*"])
    asked = launched.run("--gpuperf-strict=on")
    assert asked.ret == 0  # the old code is as slow here
    asked.stdout.fnmatch_lines(["equal *test_kernel *"])


def test_a_launch_whose_inputs_are_not_known_is_no_ones_own(launched: Repository, monkeypatch):
    monkeypatch.setenv("LAUNCH", "old?")
    record(launched, device_uuid="GPU-7")
    monkeypatch.setenv("STACK", "1.025")
    result = launched.run("--gpuperf-strict=on")
    result.stdout.fnmatch_lines(["gpuperf: comparing with*", "equal *test_kernel *"])


def test_a_slower_kernel_meets_the_old_code_on_a_known_gpu(launched: Repository, monkeypatch):
    monkeypatch.setenv("LAUNCH", "new")
    launched.write("test_suite.py", LAUNCH.replace("1e-3", "2e-3"))
    result = launched.run()
    assert result.ret == 1
    result.stdout.fnmatch_lines(
        ["regressed: kernel x2*", "  old code  1.000 ms  (commit *, here and now, 4 processes)"]
    )
    assert result.stdout.str().count("block ") == 2
