"""A machine that got slower: when its sentinels say so, and what that does to a failure."""

from __future__ import annotations

import pytest

from pytest_gpuperf.measurement import Baseline, Metric, Run
from pytest_gpuperf.rules.differences import environment_differences
from pytest_gpuperf.rules.machine import slowdown

METRIC = Metric("kernel", "s", "lower", "noisy", "device_time")
STILL = (1.0, 1.0003, 0.9998, 1.0001, 0.9999)  # factors of five processes on a machine that stands still


def environment(bandwidth=1.0, compute=1.0, launch=0.0, clock: float | None = 1980.0, code="c0de"):
    taken = {
        "bandwidth_s": 92e-6 * bandwidth + launch,
        "compute_s": 530e-6 * compute + launch,
        "launch_s": 2e-6 + launch,
        "code": code,
    }
    if clock:
        taken["sm_mhz"] = clock
    return {"device_uuid": "GPU-1", "sentinels": taken}


def baseline(environments) -> Baseline:
    return Baseline(METRIC, {}, {}, 0.001, tuple(Run((1e-3,), each) for each in environments))


RECORDED = baseline([environment(factor, factor) for factor in STILL])


def processes(bandwidth=1.0, compute=1.0, **more):
    return [environment(bandwidth * factor, compute * factor, **more) for factor in STILL[:4]]


def why(old, now, tolerance) -> str:
    """Why the machine got slower; "" where it did not."""
    found = slowdown(old, now, tolerance, 1e-3)
    return found.reason if found else ""


def test_a_machine_that_stands_still_is_no_excuse():
    assert why(RECORDED, processes(), 0.02) == ""


@pytest.mark.parametrize("name", ["bandwidth", "compute"])
def test_either_sentinel_tells_a_machine_that_got_slower(name):
    reason = why(RECORDED, processes(**{name: 1.03}, clock=1410.0), 0.02)
    bound = {"bandwidth": "memory", "compute": "arithmetic"}[name]
    assert reason.startswith(f"the machine moved: a kernel that never changes, bound by {bound}, takes ")
    assert "+3.00 % against the baseline's runs" in reason
    assert reason.endswith("(SM clock 1980 MHz then, 1410 MHz now)")


def test_slower_on_a_faster_machine_is_the_codes_doing():
    assert why(RECORDED, processes(bandwidth=0.97, compute=0.9), 0.02) == ""
    assert why(RECORDED, processes(bandwidth=0.97, compute=1.03), 0.02)


def test_it_excuses_what_the_worst_sentinel_lost_and_no_more():
    found = slowdown(RECORDED, processes(bandwidth=1.03, compute=1.02), 0.02, 1e-3)
    assert found is not None
    assert "bound by memory" in found.reason
    assert found.share == pytest.approx(0.03, rel=0.1)


@pytest.mark.parametrize("seconds", [5e-6, 20e-6, 1e-3])
def test_a_lower_clock_excuses_the_same_share_of_a_short_kernel(seconds):
    # Not the 6.4 us that the long sentinel of arithmetic lost.
    found = slowdown(RECORDED, processes(compute=1.012), 0.02, seconds)
    assert found is not None
    assert found.share == pytest.approx(0.013, abs=0.003)


def test_a_late_launch_costs_every_kernel_the_same_seconds():
    found = {
        seconds: slowdown(RECORDED, processes(launch=1.8e-6), 0.02, seconds) for seconds in (20e-6, 1e-3)
    }
    assert found[20e-6] is not None
    assert found[20e-6].share == pytest.approx(1.8 / 20, rel=0.05)
    assert "a launch takes +1.80 µs" in found[20e-6].reason
    assert "bound by memory" not in found[20e-6].reason, "whose loss is the launch's"
    assert found[1e-3] is None, "0.18 % of a millisecond"


def test_without_the_launch_sentinel_the_others_judge():
    old = [environment(factor, factor) for factor in STILL]
    for each in old:
        del each["sentinels"]["launch_s"]
    assert why(baseline(old), processes(compute=1.03), 0.02)
    assert why(baseline(old), processes(), 0.02) == ""


@pytest.mark.parametrize(("factor", "tolerance", "moves"), [(1.003, 0.02, False), (1.008, 0.02, True)])
def test_it_has_moved_beyond_an_eighth_of_the_tolerance(factor, tolerance, moves):
    assert bool(why(RECORDED, processes(compute=factor), tolerance)) is moves


def test_a_tolerant_metric_is_judged_on_a_machine_that_moved():
    assert why(RECORDED, processes(compute=1.01), 0.10) == ""


def test_an_interval_that_reaches_back_is_no_proof():
    wide = [environment(compute=factor) for factor in (1.0, 1.05, 0.99, 1.06)]
    assert why(RECORDED, wide, 0.02) == ""


def test_without_an_sm_clock_the_reason_has_none():
    reason = why(RECORDED, processes(compute=1.05, clock=None), 0.02)
    assert reason.endswith("against the baseline's runs")


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (RECORDED, [{}] * 4),
        (RECORDED, [*processes(compute=1.05)[:3], {}]),
        (baseline([{}] * 5), processes(compute=1.05)),
        (RECORDED, processes(compute=1.05, code="0the2")),
        (RECORDED, processes(compute=1.05, code=None)),
    ],
)
def test_what_was_not_taken_alike_says_nothing(old, new):
    assert why(old, new, 0.02) == ""


def test_runs_without_sentinels_are_left_out():
    old = baseline([{"device_uuid": "GPU-1"}] * 2 + [environment(factor) for factor in STILL])
    assert why(old, processes(bandwidth=1.05), 0.02)


def test_sentinels_are_no_difference_between_environments():
    assert environment_differences([environment(clock=1980.0)], environment(compute=2.0, clock=900.0)) == []


# --------------------------------------------------------------------------- the whole way

# What a GPU's processes would store: figures from a file that a test writes for each run.
CONFTEST = """
    import os
    import pathlib
    import pytest
    from pytest_gpuperf.measurement import Measurement, Metric
    from pytest_gpuperf.session import recorder_of
    from pytest_gpuperf.waking import session_of

    @pytest.fixture
    def figures(request):
        kernel, host, sentinel = map(float, pathlib.Path("figures.txt").read_text().split())
        shake = 1 + os.getpid() % 7 * 1e-5
        session_of(request.config).guard.sentinels = {"compute_s": sentinel * shake, "code": "c0de"}
        for name, seconds, instrument in (("kernel", kernel, "device_time"), ("host", host, "host_time")):
            metric = Metric(name, "s", "lower", "noisy", instrument)
            recorder_of(request.node).add(Measurement(metric, {}, (seconds * shake,)))
"""


def test_a_failure_on_a_machine_that_moved_is_unfit(pytester: pytest.Pytester):
    pytester.makeini("[pytest]\n")
    pytester.makeconftest(CONFTEST)
    pytester.makepyfile(test_suite="def test_it(figures): pass")
    (pytester.path / "baselines").mkdir()

    def run(*flags: str, kernel=1.0, host=1.0, sentinel=1.0) -> pytest.RunResult:
        (pytester.path / "figures.txt").write_text(f"{kernel} {host} {sentinel}")
        return pytester.runpytest_subprocess("--gpuperf", *flags)

    assert run("--gpuperf-update", "--gpuperf-runs=3").ret == 0
    result = run("--gpuperf-strict=on", kernel=1.05, sentinel=1.04)
    assert result.ret == 20
    result.stdout.fnmatch_lines(["unfit: kernel*", "*the machine moved: *bound by arithmetic*+4.00 %*"])
    # More than the machine can have lost is the code's.
    result = run("--gpuperf-strict=on", kernel=1.08, sentinel=1.04)
    assert result.ret == 1
    result.stdout.fnmatch_lines(
        ["regressed: kernel*", "*the machine moved: *that excuses 4.* % and no more*"]
    )
    result = run("--gpuperf-strict=on", kernel=1.05, sentinel=0.96)
    assert result.ret == 1
    result.stdout.fnmatch_lines(["regressed: kernel*"])
    # A host's time is not the device's business.
    result = run("--gpuperf-strict=on", kernel=1.05, host=2.0, sentinel=1.04)
    assert result.ret == 1
    result.stdout.fnmatch_lines(["unfit: kernel*", "regressed: host*"])
