"""What MLPerf's submission checker asks of a performance phase of ResNet-50, from its detail log."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pytest_gpuperf.figures import number

# mlcommons/inference, tools/submission/submission_checker: constants.py and checks/performance_check.py.
DURATION_MS = 600_000
SAMPLES = 1024
OFFLINE_SAMPLES = 24_576
SERVER_LATENCY_NS = 15_000_000
SEEDS: Mapping[str, Mapping[str, int]] = {  # by round
    "v6.1": {
        "effective_qsl_rng_seed": 2085463073848966840,
        "effective_sample_index_rng_seed": 2747215439041700203,
        "effective_schedule_rng_seed": 16159082839903944936,
    }
}


def objections(values: Mapping[str, Any], errors: int = 0) -> list[str]:
    """Return a sentence for each rule that the phase breaks; none if the checker would take it."""
    scenario = values.get("effective_scenario")
    found = []
    if errors:
        found.append(f"LoadGen met {errors} errors")
    if values.get("result_validity") != "VALID":
        found.append(f"LoadGen calls it {values.get('result_validity')}")
    limits = [("effective_performance_sample_count", SAMPLES), ("effective_min_duration_ms", DURATION_MS)]
    if scenario == "Offline":
        limits.append(("effective_samples_per_query", OFFLINE_SAMPLES))
    elif not values.get("early_stopping_met"):
        found.append(f"early stopping was not met: {values.get('early_stopping_result', 'no result')}")
    for name, least in limits:
        if (number(values.get(name)) or 0) < least:
            found.append(f"{name} is {values.get(name)}, and {least:,} is the least")
    if scenario == "Server" and (number(values.get("effective_target_latency_ns")) or 0) > SERVER_LATENCY_NS:
        found.append(f"effective_target_latency_ns is more than {SERVER_LATENCY_NS:,}")
    if not any(all(values.get(key) == seed for key, seed in seeds.items()) for seeds in SEEDS.values()):
        found.append(f"its seeds are those of no round known here ({', '.join(SEEDS)})")
    return found
