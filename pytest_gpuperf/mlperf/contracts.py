"""What must be equal for two phases of LoadGen to be compared."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import metadata
from typing import Any

from pytest_gpuperf.mlperf.datasets import Dataset
from pytest_gpuperf.mlperf.logs import Detail
from pytest_gpuperf.mlperf.session import ALONE, Session, Team
from pytest_gpuperf.mlperf.settings import Scenario


def of(session: Session, dataset: Dataset, scenario: Scenario, detail: Detail) -> dict[str, Any]:
    """Return the contract of a phase, whatever its mode."""
    return {
        "model": session.model.name,
        "recipe": session.model.recipe,
        "dataset": dataset.name,
        "images": len(dataset),
        "scenario": scenario.name,
        "precision": session.precision,
        **getattr(session, "contract", {}),
        "loadgen": metadata.version("mlcommons-loadgen"),
        "seed_qsl": detail.values["effective_qsl_rng_seed"],
        "seed_sample": detail.values["effective_sample_index_rng_seed"],
        "seed_schedule": detail.values["effective_schedule_rng_seed"],
    }


def of_performance(
    session: Session,
    dataset: Dataset,
    scenario: Scenario,
    detail: Detail,
    batch: int,
    configured: Mapping[str, int | float],
) -> dict[str, Any]:
    """Return the contract of a performance phase, but for what its caller was asked for."""
    contract = of(session, dataset, scenario, detail)
    contract |= {"samples_per_query": scenario.samples_per_query, **_placed(session)}
    if configured:
        contract["configuration"] = " ".join(f"{key}={value}" for key, value in sorted(configured.items()))
    if threads := getattr(session, "threads", None):
        contract["threads"] = threads
    if scenario.server:
        contract |= {"target_qps": scenario.qps, "max_latency": scenario.max_latency}
        contract |= {"max_wait": scenario.max_wait, "max_batchsize": batch}
    return contract


def _placed(session: Session) -> dict[str, Any]:
    """Return where the images lie, and on how many streams and devices they are run, if on more than one."""
    team: Team = getattr(session, "team", ALONE)
    several = {"streams": team.streams, "devices": team.devices}
    placed = {"qsl": team.qsl, "input_copy": team.qsl == "host"}
    return placed | {name: count for name, count in several.items() if count > 1}
