"""How much slower the machine got since a baseline, by its sentinels, and which loss that excuses."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import median
from typing import Any, NamedTuple

from pytest_gpuperf.judging.verdict import judge
from pytest_gpuperf.measurement import SENTINELS, Baseline, Measurement, Metric, Run

EXCUSED = 2
"""Times what the sentinels lost: a kernel may be hit harder than they are. A choice: on H100s in machines
with two of them the sentinel of memory takes 1.6 % longer, and thirteen kernels from -0.6 to +1.6 %."""


class Slower(NamedTuple):
    """A machine that got slower: the most by which a sentinel did, ``share`` (a fraction) and ``seconds``."""

    reason: str
    share: float
    seconds: float

    def excuses(self, metric: Metric, baseline: float) -> float:
        """The greatest loss from ``baseline`` that may be the machine's, a fraction.

        EXCUSED times what the sentinels lost: as a share, as a lower clock takes it, or in seconds, as a
        longer way to the first instruction does, whichever is more.
        """
        in_seconds = self.seconds / baseline if metric.unit == "s" else 0.0
        return EXCUSED * max(self.share, in_seconds)


def slower(
    baseline: Baseline,
    replicas: Sequence[Mapping[str, Any]],
    tolerance: float,
    device_uuid: str | None = None,
) -> Slower | None:
    """How much slower than at ``baseline`` the machine is; None where no sentinel got slower.

    ``replicas`` are the environments of the processes that confirmed a red. A sentinel got slower where
    d - h > log(1 + tolerance / 2), with d and h as the verdict has them, from the same runs: half the
    tolerance, so that no red can come from the machine alone. One that got faster excuses nothing: what is
    slower on a faster machine is slower by its own doing. Sentinels of other machine code (another nvcc
    compiled them) are another question and say nothing.
    """
    every = (_slower(name, baseline, replicas, tolerance, device_uuid) for name in SENTINELS)
    found = [each for each in every if each]
    if not found:
        return None
    most = max(found, key=lambda each: each.share)
    return most._replace(seconds=max(each.seconds for each in found))


def _slower(
    name: str, baseline: Baseline, replicas: Sequence[Mapping[str, Any]], tolerance: float, uuid: str | None
) -> Slower | None:
    metric = Metric(f"sentinel {name}", "s", "lower", "noisy", "device_time")
    now = [taken for environment in replicas if name in (taken := environment.get("sentinels", {}))]
    codes = {taken.get("code") for taken in now}
    old = [
        Run((taken[name],), run.environment)
        for run in baseline.runs
        if name in (taken := run.environment.get("sentinels", {})) and {taken.get("code")} == codes
    ]
    if not old or len(now) < len(replicas):
        return None
    measured = [Measurement(metric, {}, (taken[name],)) for taken in now]
    stored = Baseline(metric, {}, {}, metric.constants.prior_sd, tuple(old))
    found = judge(stored, measured[0], measured, tolerance=tolerance, place={}, device_uuid=uuid)
    if found.interval is None or found.change is None or found.baseline is None:
        return None  # a tolerance that only runs of the same GPU can be held to, and there is none
    low, high = found.interval
    if low <= tolerance / 2:
        return None
    reason = (
        f"the machine moved: a kernel that never changes, bound by {SENTINELS[name]}, takes "
        f"{100 * found.change:+.2f} % against the baseline's runs{_clocks(old, now)}"
    )
    return Slower(reason, high, high * found.baseline)


def _clocks(old: Sequence[Run], now: Sequence[Mapping[str, Any]]) -> str:
    """The SM clock then and now, where that was read: the usual cause, and a number to look for."""
    then = [clock for run in old if (clock := run.environment["sentinels"].get("sm_mhz"))]
    today = [clock for taken in now if (clock := taken.get("sm_mhz"))]
    if not then or not today:
        return ""
    return f" (SM clock {median(then):.0f} MHz then, {median(today):.0f} MHz now)"
