"""LoadGen's settings: its scenarios, MLPerf's own for ResNet-50, and phases short enough for a merge gate."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pytest_gpuperf.errors import GpuperfError

# Seconds; below what a callback into Python takes, so that no model makes LoadGen prepare for millions.
LEAST_LATENCY = 3e-6
SAMPLE_COST = 1.5e-6  # seconds that LoadGen and Python add to a sample, seen in Offline with a null model
SERVER_QUERIES = 662  # as many as a p99 needs
ACCURACY_QPS = 100_000.0
# Bytes that LoadGen 6.0 holds for a query that it made up, for each sample of one, and for one of Offline's.
QUERY_BYTES, SAMPLE_BYTES, OFFLINE_BYTES = 264, 46, 203


@dataclass(frozen=True, slots=True)
class Scenario:
    """A way in which LoadGen sends queries, under LoadGen's own name for it.

    A stream has one query of ``samples_per_query`` images under way at a time; its latencies and its queries
    per second are judged. With ``one_query`` the whole phase is a single query, run in the session's largest
    batches: its latencies only tell how far the work was, and images per second are judged. A ``server``
    gets ``qps`` queries a second at random times, and must answer 99 of 100 within ``max_latency`` seconds;
    they may wait ``max_wait`` seconds for a fuller batch. ``median_key`` is what LoadGen's log calls its
    median.
    """

    name: str
    samples_per_query: int = 1
    one_query: bool = False
    server: bool = False
    qps: float = 0.0
    max_latency: float = 0.015  # MLPerf's for ResNet-50
    max_wait: float = 0.0
    median_key: str = "result_50.00_percentile_latency_ns"

    @classmethod
    def of(cls, name: str | Scenario) -> Scenario:
        """Return the scenario called ``name``; raises GpuperfError naming those that exist."""
        if isinstance(name, Scenario):
            return name
        if name not in SCENARIOS:
            *others, last = SCENARIOS
            raise GpuperfError(f'there is no scenario "{name}"; use {", ".join(others)} or {last}')
        return SCENARIOS[name]

    def batch(self, largest: int) -> int:
        """Return how many images the model runs at a time if the session takes up to ``largest``."""
        return largest if self.one_query or self.server else self.samples_per_query


SCENARIOS: Mapping[str, Scenario] = {
    "SingleStream": Scenario("SingleStream"),
    "MultiStream": Scenario(  # eight since inference v2.0
        "MultiStream", samples_per_query=8, median_key="result_50.00_percentile_per_query_latency_ns"
    ),
    "Server": Scenario("Server", server=True),
    "Offline": Scenario("Offline", one_query=True),
}


@dataclass(frozen=True, slots=True)
class Profile:
    """The length of a phase; its ``seconds`` are those that LoadGen measures, after the warm-up.

    ``min_queries`` and ``percentile`` None leave MLPerf's own (600 s; 100, 662 and 24,576; p90 and p99).
    "short" asks LoadGen's early stopping for the percentile that is judged, the median, which needs 11
    queries. ``hint`` is the fraction of the probe's time that LoadGen is told to expect; 0.25 bears a
    fourfold faster machine and costs 0.3 kB for each query that is never asked, too much at 600 s.
    ``offline`` is that of an Offline phase, which lasts 1.1 / ``offline`` times as long as asked: LoadGen
    asks for a tenth more than is expected. ``memory`` is what its queries may take, in bytes.
    """

    name: str
    seconds: float | None
    min_queries: int | None
    percentile: float | None
    hint: float
    offline: float
    memory: int

    @classmethod
    def of(cls, name: str) -> Profile:
        """Return the profile called ``name``; raises GpuperfError naming those that exist."""
        if name not in PROFILES:
            raise GpuperfError(f'there is no LoadGen profile "{name}"; use {" or ".join(PROFILES)}')
        return PROFILES[name]


PROFILES: Mapping[str, Profile] = {
    "short": Profile("short", 10.0, 11, 0.5, hint=0.25, offline=0.25, memory=1 << 30),
    "valid": Profile("valid", None, None, None, hint=0.6, offline=0.9, memory=1 << 32),
}


@dataclass(frozen=True, slots=True)
class Load:
    """The model's work: batches of ``batch`` images out of ``loaded``, each taking ``seconds``."""

    batch: int
    loaded: int
    seconds: float


def accuracy(lg: Any, scenario: Scenario, loaded: int) -> Any:
    """Return the settings of an accuracy phase that loads so many images at a time."""
    settings = _mlperf(lg, scenario, lg.TestMode.AccuracyOnly, loaded)
    settings.multi_stream_samples_per_query = scenario.samples_per_query
    settings.server_target_qps = ACCURACY_QPS  # LoadGen paces this mode as well
    return settings


def longest(scenario: Scenario, profile: Profile, load: Load) -> float:
    """Return how many seconds of a phase LoadGen can hold in memory: it makes up every query beforehand."""
    expected = _expected(load)
    if scenario.one_query:
        extra = 1.1 / profile.offline if profile.min_queries is None else 1.0
        return profile.memory / (OFFLINE_BYTES * extra) * expected / load.batch
    size = QUERY_BYTES + SAMPLE_BYTES * scenario.samples_per_query
    if scenario.server:
        return profile.memory / size / scenario.qps
    return profile.memory / size * max(expected * profile.hint, LEAST_LATENCY) / 2  # it makes twice as many


def require_room(
    made: Any, scenario: Scenario, profile: Profile, configured: Mapping[str, int | float]
) -> None:
    """Raise GpuperfError if by the settings ``made`` LoadGen's queries would not fit into memory.

    Only a configuration file can ask for so many: ``longest`` bounds what comes from arguments.
    """
    lasts = made.min_duration_ms / 1000
    if scenario.one_query:
        count, size = max(made.min_query_count, 1.1 * lasts * made.offline_expected_qps), OFFLINE_BYTES
    else:
        name = "multi_stream" if scenario.samples_per_query > 1 else "single_stream"
        expected = getattr(made, f"{name}_expected_latency_ns") * 1e-9
        rate = made.server_target_qps if scenario.server else 1 / expected if expected else math.inf
        count = max(made.min_query_count, 2 * lasts * rate)
        size = QUERY_BYTES + SAMPLE_BYTES * scenario.samples_per_query
    if configured and count * size > profile.memory:
        said = ", ".join(f"{key} = {value}" for key, value in configured.items())
        raise GpuperfError(
            f"LoadGen makes up all queries beforehand, and by the configuration ({said}) they would be "
            f"{count:.3g}, which take more than {profile.memory >> 30} GiB: give other values"
        )


def _expected(load: Load) -> float:
    return load.seconds + SAMPLE_COST * load.batch


def performance(lg: Any, scenario: Scenario, profile: Profile, seconds: float | None, load: Load) -> Any:
    """Return the settings of a performance phase of ``seconds`` (None: MLPerf's).

    LoadGen makes up its queries beforehand from the hints, and a phase that runs out of them is INVALID:
    the hints leave room for a machine that turns out faster than ``load`` says.
    """
    settings = _mlperf(lg, scenario, lg.TestMode.PerformanceOnly, load.loaded)
    if seconds is not None:
        settings.min_duration_ms = max(1, round(seconds * 1000))
    expected = _expected(load)
    hint = round(max(expected * profile.hint, LEAST_LATENCY) * 1e9)
    settings.single_stream_expected_latency_ns = hint
    settings.multi_stream_expected_latency_ns = hint
    settings.offline_expected_qps = load.batch / expected / profile.offline
    settings.multi_stream_samples_per_query = scenario.samples_per_query
    if scenario.server:
        settings.server_target_qps = scenario.qps
        settings.server_target_latency_ns = round(scenario.max_latency * 1e9)
        settings.server_coalesce_queries = True  # those that are due together come in one call
    if profile.percentile is not None:
        settings.single_stream_target_latency_percentile = profile.percentile
        settings.multi_stream_target_latency_percentile = profile.percentile
    if profile.min_queries is not None:
        settings.min_query_count = SERVER_QUERIES if scenario.server else profile.min_queries
        if scenario.one_query:
            # A single query cannot be extended: it asks for whole batches, as many as fit the duration as
            # expected, whatever they then take. Only a phase ten times too short is INVALID.
            duration = settings.min_duration_ms / 1000
            settings.min_query_count = max(1, round(duration / expected)) * load.batch
            settings.min_duration_ms = max(1, round(duration * 100))
            settings.offline_expected_qps = 1.0
    return settings


def _mlperf(lg: Any, scenario: Scenario, mode: Any, loaded: int) -> Any:
    """Return MLPerf's own settings for ResNet-50 (seeds, counts, durations) from inside LoadGen."""
    settings = lg.TestSettings()
    # With 0 as the last argument the configuration can be read more than once in a process.
    if settings.FromConfig("", "resnet50", scenario.name, 0):
        raise GpuperfError("this LoadGen has no built-in mlperf.conf: pip install 'mlcommons-loadgen>=5'")
    settings.scenario, settings.mode = getattr(lg.TestScenario, scenario.name), mode
    settings.performance_sample_count_override = loaded
    return settings
