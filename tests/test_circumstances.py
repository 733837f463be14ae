"""What the machine says to a failure: repeated while unfit, bounded; it fails nothing and records nothing."""

from __future__ import annotations

import pytest
from latencies import INI, HostProject

from pytest_gpuperf.machine.environment import host_place
from pytest_gpuperf.measurement import Baseline, Metric, Outcome, Run, TestKey, Verdict
from pytest_gpuperf.processes.child import AGAIN
from pytest_gpuperf.records import Record, Row
from pytest_gpuperf.report.message import explain
from pytest_gpuperf.rules.case import Case, Replicas
from pytest_gpuperf.rules.machine import allow_for_machine
from pytest_gpuperf.storage import format  # noqa: F401  (pytester forgets what a test imports first)
from pytest_gpuperf.storage.baselines import Store

FIT, HOT = Record(()), Record((), unfit="the device was throttled")
METRIC = Metric("kernel", "s", "lower", "noisy", "device_time")
FIGURES = {"baseline": 1.0, "interval": (0.03, 0.05), "tolerance": 0.02}
RED = Verdict(Outcome.REGRESSED, **FIGURES, exceeds=True)
UNSURE = Verdict(Outcome.INCONCLUSIVE, **FIGURES, exceeds=True)
GREEN = Verdict(Outcome.EQUAL, tolerance=0.02)


def decided(verdict: Verdict, replicas: Replicas, record: Record = FIT) -> tuple[Outcome, str]:
    found = allow_for_machine(verdict, METRIC, None, record, replicas)
    return found.outcome, found.reason


@pytest.mark.parametrize("verdict", [RED, UNSURE, GREEN])
def test_replicas_of_a_fit_machine_decide(verdict):
    assert decided(verdict, Replicas([FIT] * 4)) == (verdict.outcome, "")


@pytest.mark.parametrize("verdict", [RED, UNSURE])
def test_one_unfit_replica_takes_a_red_back(verdict):
    reason = "the machine was not fit to measure: the device was throttled"
    assert decided(verdict, Replicas([FIT, HOT, FIT, FIT])) == (Outcome.UNFIT, reason)


def test_as_fast_as_ever_on_an_unfit_machine_is_as_fast_as_ever():
    assert decided(GREEN, Replicas([HOT] * 4)) == (Outcome.EQUAL, "")


def test_an_unfit_screen_counts_only_if_nothing_was_remeasured():
    assert decided(RED, Replicas([FIT] * 4), record=HOT)[0] is Outcome.REGRESSED
    assert decided(UNSURE, Replicas(), record=HOT)[0] is Outcome.UNFIT


@pytest.mark.parametrize("verdict", [RED, UNSURE, GREEN])
def test_replicas_that_were_not_all_had_decide_nothing(verdict):
    assert decided(verdict, Replicas([FIT], unfit="lock not got")) == (Outcome.UNFIT, "lock not got")
    outcome, reason = decided(verdict, Replicas([FIT], trouble="died of SIGSEGV"))
    assert outcome is Outcome.UNMEASURED
    assert reason.endswith("measured it again died of SIGSEGV")


def test_sentinels_are_asked_only_about_slow_device_times():
    moved = {"sentinels": {"compute_s": 1.1, "code": "c0de"}}
    runs = tuple(Run((1.0,), {"sentinels": {"compute_s": 1.0, "code": "c0de"}}) for _ in range(5))
    replicas = Replicas([Record((), environment=moved)] * 4)
    host = Metric("kernel", "s", "lower", "noisy", "host_time")
    within = Verdict(Outcome.INCONCLUSIVE, tolerance=0.02, exceeds=False)
    for metric, verdict, outcome in (
        (METRIC, RED, Outcome.UNFIT),
        (METRIC, within, Outcome.INCONCLUSIVE),
        (METRIC, GREEN, Outcome.EQUAL),
        (host, RED, Outcome.REGRESSED),
    ):
        stored = Baseline(metric, {}, {}, 0.0006, runs)
        assert allow_for_machine(verdict, metric, stored, FIT, replicas).outcome is outcome


@pytest.mark.parametrize(
    ("better", "interval", "outcome"),
    [
        ("lower", (0.06, 0.08), Outcome.UNFIT),
        ("lower", (0.08, 0.10), Outcome.REGRESSED),
        ("higher", (-0.07, -0.06), Outcome.UNFIT),
        ("higher", (-0.10, -0.08), Outcome.REGRESSED),  # a slowdown by 8.7 to 11.1 %
    ],
)
def test_a_loss_that_the_sentinels_do_not_explain_stands(better, interval, outcome):
    moved = {"sentinels": {"compute_s": 1.05, "code": "c0de"}}  # excuses some 5.1 %
    runs = tuple(Run((1.0,), {"sentinels": {"compute_s": 1.0, "code": "c0de"}}) for _ in range(5))
    metric = Metric("kernel", "1/s", better, "noisy", "device_time")
    stored = Baseline(metric, {}, {}, 0.0006, runs)
    red = Verdict(
        Outcome.REGRESSED, baseline=1.0, interval=interval, tolerance=0.02, exceeds=True, reason="so"
    )
    replicas = Replicas([Record((), environment=moved)] * 4)
    found = allow_for_machine(red, metric, stored, FIT, replicas)
    assert found.outcome is outcome
    if outcome is Outcome.REGRESSED:
        assert found.reason.startswith("so; the machine moved: ")


def test_an_unfit_machine_is_told_by_what_differs():
    stored = Baseline(METRIC, {}, {}, 0.0006, (Run((1.0,), {"gpus": 1}),))
    row = Row(TestKey("s.py", "t"), METRIC, Verdict(Outcome.UNFIT, reason="the machine moved"))
    case = Case(key=row.test, stored={METRIC.name: stored})
    assert "  differs   gpus 1 -> 2" in explain([row], case, Record((), environment={"gpus": 2})).splitlines()
    assert "differs" not in explain([row], case, Record((), environment={"gpus": 1}))
    core = Record((), device={"backend": "cuda", "gpu": "H100"}, environment={"binding": "cuda.core"})
    assert "  device    H100, backend cuda (cuda.core)" in explain([row], case, core).splitlines()


# --------------------------------------------------------------------------- the whole way

# A word for each process: what it measures, with "!" where its machine is unfit, "lost" or "taken".
SUITE = """
    import pathlib
    from pytest_gpuperf.errors import NotFit, NotFree

    def test_latency(gpuperf):
        count = pathlib.Path("count.txt")
        number = int(count.read_text()) if count.exists() else 0
        count.write_text(str(number + 1))
        words = pathlib.Path("latency.txt").read_text().split()
        word = words[min(number, len(words) - 1)]
        pathlib.Path("unfit").write_text("the device was throttled" if "!" in word else "")
        if word == "lost":
            raise NotFit("GPU is lost")
        if word == "taken":
            raise NotFree("the device was not free")
        gpuperf.record("latency", float(word.strip("!")), "s")
"""
# What a GPU's watch would find.
CONFTEST = """
    import pathlib
    from pytest_gpuperf.waking import session_of

    class Watch:
        note = ""

        def after(self):
            return pathlib.Path("unfit").read_text()

        def during(self):
            pathlib.Path("looked").touch()

        def close(self):
            pathlib.Path("closed").touch()

    def pytest_runtest_setup(item):
        guard = session_of(item.config).guard
        guard._watch, guard._alone = Watch(), True
"""


class Project(HostProject):
    def __init__(self, pytester: pytest.Pytester) -> None:
        super().__init__(pytester, SUITE, f"{INI}gpuperf_cooldown = 0.01\ngpuperf_backend = emulated\n")
        pytester.makeconftest(CONFTEST)

    def run(self, words: str, *flags: str) -> pytest.RunResult:
        self.tell(words)
        return self.judge(*flags)

    def stores(self, *seconds: float) -> None:
        """Baseline runs as an update would have written them."""
        metric = Metric("latency", "s", "lower", "noisy", "record")
        runs = tuple(Run((value,), {"date": f"2026-11-0{day}"}) for day, value in enumerate(seconds, 1))
        baseline = Baseline(metric, {}, {"backend": "cpu", **host_place()}, 0.02, runs)
        store = Store(self.path / "baselines")
        store.save("cpu", "test_suite.py", {"test_latency": {"latency": baseline}})

    @property
    def samples(self) -> list[float]:
        runs = self.stored["entries"]["test_latency"]["latency"]["runs"]
        return [run["samples"][0] for run in runs]


@pytest.mark.parametrize(
    ("second", "why"),
    [
        ("7.0!", "the device was throttled"),
        ("lost", "GPU is lost"),  # five processes of 75 s were thrown away for one of them
    ],
)
def test_a_run_on_an_unfit_machine_is_recorded_again(project: Project, second: str, why: str):
    result = project.run(f"1.0 {second} 1.002 1.003", "--gpuperf-update", "--gpuperf-runs=2")
    assert result.ret == 0, result.stdout.str()
    assert project.samples == [1.002, 1.003]
    result.stdout.fnmatch_lines([f"gpuperf: {why}; measuring 1 test again in 0.01 s"])


def test_a_machine_that_stays_unfit_records_nothing(project: Project):
    result = project.run("1.0 1.0!", "--gpuperf-update", "--gpuperf-runs=1")
    assert result.ret == 20
    assert project.processes == 1 + 1 + AGAIN
    result.stdout.fnmatch_lines(
        [
            "not recorded: *the machine was not fit to measure: the device was thr*",
            "exit code 20: the machine was not fit, or not free: run again, elsewhere",
        ]
    )
    assert not list((project.path / "baselines").rglob("*.json"))


def test_an_unfit_replica_is_repeated_and_a_loss_still_fails(project: Project):
    project.stores(1.0, 1.001, 0.999)
    result = project.run("1.3! 1.3! 1.3! 1.3 1.301 1.299 1.3")
    assert result.ret == 1
    assert project.processes == 1 + 2 + 4
    result.stdout.fnmatch_lines(["regressed: latency +30.*"])


def test_a_machine_that_stays_unfit_is_neither_red_nor_green(project: Project):
    project.stores(1.0, 1.001, 0.999)
    result = project.run("1.3!", "--gpuperf-strict=on")
    assert result.ret == 20
    assert project.processes == 1 + 1 + AGAIN
    result.stdout.fnmatch_lines(["unfit: latency*", "*not fit to measure: the device was throttled"])
    result = project.run("1.3!")
    assert result.ret == 0
    result.stdout.fnmatch_lines(["unfit *test_latency*"])


def test_a_lost_device_asks_for_another_machine(project: Project):
    result = project.run("lost", "--gpuperf-strict=on")
    assert result.ret == 20
    result.stdout.fnmatch_lines(["test_suite.py:*: GPU is lost"])
    assert project.run("1.0 lost", "--gpuperf-update", "--gpuperf-runs=1").ret == 20
    project.stores(1.0, 1.001, 0.999)
    result = project.run("1.3 1.3 lost", "--gpuperf-strict=on")
    assert result.ret == 20
    result.stdout.fnmatch_lines(["unfit: latency*", "*GPU is lost"])


def test_a_replica_kept_from_measuring_is_measured_once_more(project: Project):
    project.stores(1.0, 1.001, 0.999)
    result = project.run("1.3 lost 1.3 1.301 1.299 1.3")
    assert result.ret == 1
    assert project.processes == 1 + 1 + 4
    result.stdout.fnmatch_lines(["regressed: latency +30.*"])


def test_an_isolated_test_kept_from_measuring_gets_another(project: Project):
    own = SUITE.replace("def test", "@pytest.mark.gpuperf(isolated=True)\n    def test")
    project.pytester.makepyfile(test_suite=own.replace("import pathlib", "import pathlib, pytest", 1))
    project.stores(1.0, 1.001, 0.999)
    assert project.run("lost 1.0", "--gpuperf-strict=on").ret == 0
    assert project.processes == 2
    assert project.run("lost lost 1.0", "--gpuperf-strict=on").ret == 20
    assert project.processes == 2


def test_a_lock_is_not_waited_for_twice(project: Project):
    assert project.run("1.0 taken 1.0", "--gpuperf-update", "--gpuperf-runs=1").ret == 20
    assert project.processes == 2


def test_the_device_is_watched_until_the_session_ends(project: Project):
    project.pytester.makepyfile(test_suite="def test_timed(gpu, gpuperf): gpuperf(lambda: None)")
    (project.path / "unfit").write_text("")
    project.run("1.0").assert_outcomes(passed=1)
    assert (project.path / "looked").exists()
    assert (project.path / "closed").exists()
