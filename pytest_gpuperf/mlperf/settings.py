"""LoadGen's settings: MLPerf's own for ResNet-50, and the shorter phases that a merge gate can afford."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from pytest_gpuperf.errors import GpuperfError

Scenario = Literal["SingleStream", "MultiStream", "Offline"]
# Seconds; below what a callback into Python takes, so that no model makes LoadGen prepare for millions.
LEAST_LATENCY = 3e-6
SAMPLE_COST = 1.5e-6  # seconds that LoadGen and Python add to a sample, seen in Offline with a null model
SAMPLES_PER_QUERY = 8  # MultiStream's, since inference v2.0


@dataclass(frozen=True, slots=True)
class Profile:
    """How long a phase is. ``seconds`` includes the warm-up in "short" and excludes it in "valid".

    ``min_queries`` and ``percentile`` None leave MLPerf's own (600 s; 100, 662 and 24,576; p90 and p99).
    "short" asks LoadGen's early stopping for the percentile that is judged, the median, which needs 11
    queries. ``hint`` is the fraction of the probe's time that LoadGen is told to expect; 0.25 bears a
    fourfold faster machine and costs 0.3 kB for each query that is never asked, too much at 600 s.
    """

    name: str
    seconds: float | None
    min_queries: int | None
    percentile: float | None
    hint: float
    includes_warm_up: bool


PROFILES: Mapping[str, Profile] = {
    "short": Profile("short", 10.0, 11, 0.5, hint=0.25, includes_warm_up=True),
    "valid": Profile("valid", None, None, None, hint=0.6, includes_warm_up=False),
}


def profile(name: str) -> Profile:
    if name not in PROFILES:
        raise GpuperfError(f'there is no LoadGen profile "{name}"; use {" or ".join(PROFILES)}')
    return PROFILES[name]


def mlperf(lg: Any, scenario: str) -> Any:
    """MLPerf's own settings for ResNet-50 from the configuration inside LoadGen (seeds, counts, durations).

    The last argument is 0 because only then is that configuration read more than once in a process.
    """
    settings = lg.TestSettings()
    if settings.FromConfig("", "resnet50", scenario, 0):
        raise GpuperfError("this LoadGen has no built-in mlperf.conf: pip install 'mlcommons-loadgen>=5'")
    settings.scenario = getattr(lg.TestScenario, scenario)
    return settings


def performance(
    lg: Any, scenario: str, profile: Profile, seconds: float | None, probe: float, batch: int, loaded: int
) -> Any:
    """A performance phase of ``seconds`` (None: MLPerf's) with ``loaded`` images, where a batch took
    ``probe`` s.

    LoadGen makes up its queries beforehand from the hints, and a phase that runs out of them is INVALID:
    the hints leave room for a machine that turns out faster than the probe.
    """
    settings = mlperf(lg, scenario)
    settings.mode = lg.TestMode.PerformanceOnly
    settings.performance_sample_count_override = loaded
    if seconds is not None:
        settings.min_duration_ms = max(1, round(seconds * 1000))
    probe += SAMPLE_COST * batch
    hint = round(max(probe * profile.hint, LEAST_LATENCY) * 1e9)
    settings.single_stream_expected_latency_ns = hint
    settings.multi_stream_expected_latency_ns = hint
    settings.offline_expected_qps = batch / probe / profile.hint
    if profile.percentile is not None:
        settings.single_stream_target_latency_percentile = profile.percentile
        settings.multi_stream_target_latency_percentile = profile.percentile
    if profile.min_queries is not None:
        settings.min_query_count = profile.min_queries
        if scenario == "Offline":
            _offline_by_count(settings, probe, batch)
    return settings


def _offline_by_count(settings: Any, probe: float, batch: int) -> None:
    """Whole batches, as many as the probe promises for the duration, whatever they then take: Offline has a
    single query that cannot be extended. Only a phase ten times too short is INVALID.
    """
    seconds = settings.min_duration_ms / 1000
    settings.min_query_count = max(1, round(seconds / probe)) * batch
    settings.min_duration_ms = max(1, round(seconds * 100))
    settings.offline_expected_qps = 1.0
