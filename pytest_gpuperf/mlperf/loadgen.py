"""One phase of MLPerf's LoadGen around a session, in this process.

LoadGen can poison a process (``phase.poisoned`` says so afterwards) and can end it: a completion of an
unknown query, or a crash in the model's own library, takes the process down with a signal. So a test that
uses this belongs in a child process, and only its parent can bound those. What is bound in here: a callback
that raises, a model that hangs, a log folder that cannot be written, a phase that LoadGen calls INVALID, an
interrupt.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np

from pytest_gpuperf.errors import GpuperfError
from pytest_gpuperf.machine.energy import EnergyMeter
from pytest_gpuperf.mlperf import configuration, contracts, logs, settings, warmup
from pytest_gpuperf.mlperf.accuracy import Gate, shifted
from pytest_gpuperf.mlperf.datasets import Dataset, dataset_of
from pytest_gpuperf.mlperf.library import InOrder
from pytest_gpuperf.mlperf.logged import early_stopping
from pytest_gpuperf.mlperf.models import require_scenario
from pytest_gpuperf.mlperf.phase import Lasting, Phase
from pytest_gpuperf.mlperf.request import LONGEST, STALL
from pytest_gpuperf.mlperf.result import AccuracyResult, PerformanceResult
from pytest_gpuperf.mlperf.scores import ScoreResult, scored
from pytest_gpuperf.mlperf.session import Session
from pytest_gpuperf.mlperf.settings import Load, Profile, Scenario
from pytest_gpuperf.mlperf.timing import InvalidPhase, answering, timed

PERFORMANCE_SAMPLES = 1024  # MLPerf's for ResNet-50
SHORTEST_SUBMITTED = 600.0  # seconds
CPU_PERFORMANCE_SAMPLES = 64  # keeps the loading of a phase on the CPU under a second
PATIENCE = 10.0  # seconds beyond a phase's length: with who waits so long, all that came meanwhile are late
AGAIN = 0.2  # seconds of warm-up of a further phase of the same session
MUCH = 1.25  # of what full batches alone would give: the rate of a server that was given none


def performance(
    session: Session,
    scenario: str | Scenario,
    *,
    log_dir: Path,
    profile: str = "short",
    seconds: float | None = None,
    stall: float = STALL,
    keep_trace: bool = True,
    warm_up: float | None = None,
    loaded: int | None = None,
    configured: Mapping[str, int | float] = MappingProxyType({}),
    dataset: Dataset | None = None,
    warm: Dataset | None = None,
    lasting: Lasting | None = None,
    metered: bool = True,
) -> PerformanceResult:
    """Run a performance phase; the images' copy to the device is part of every query.

    ``seconds`` overrides the profile's duration; ``stall`` bounds the seconds in which neither a batch is
    completed nor an image loaded; ``keep_trace`` leaves LoadGen's trace in ``log_dir``; ``loaded`` images
    are in memory, and queries are drawn from them; ``configured`` is what a configuration file says beyond
    that; ``dataset`` stands in for the model's, and the images of ``warm`` are those to warm up with;
    ``lasting`` is what outlasts the phase; energy is measured if ``metered``.
    Raises GpuperfError for everything in the module's docstring, and Unavailable without LoadGen.
    """
    chosen, asked = Profile.of(profile), Scenario.of(scenario)
    require_scenario(session.model, asked)
    batch, dataset = asked.batch(session.batch_sizes[-1]), dataset or dataset_of(session.model, None)
    workers = _workers(session, asked)
    wait = asked.max_wait if asked.server else None
    phase = Phase(session, dataset, batch, log_dir, stall, wait, workers, lasting)
    meter = EnergyMeter(session.addresses()) if metered and hasattr(session, "addresses") else None
    phase.callbacks.meter = meter
    loaded = loaded_images(session, dataset, chosen) if loaded is None else loaded
    require_loadable(loaded, dataset, configured)
    limit = seconds if seconds is not None else chosen.seconds
    if warm_up is None:  # for a GPU's clocks, or for a CPU's caches and thread pools
        warm_up = 3.0 if _on_device(session) or limit is None else min(3.0, 0.1 * limit)
    notes: list[str] = []

    def prepare() -> Any:
        nonlocal asked
        sizes = session.batch_sizes[:-1] if asked.server else ()
        with phase.callbacks.library.reading(warm or dataset):
            phase.callbacks.load(range(len(warm) if warm else min(loaded, max(batch, warmup.IMAGES))))
            load = Load(batch, loaded, warmup.probe(phase.callbacks, batch, sizes, warm_up))
        if asked.server:
            warmup.require_in_time(phase.callbacks, asked)
        if asked.server and not asked.qps:
            asked = replace(asked, qps=MUCH * batch / load.seconds)
        fits = _fitting(asked, chosen, load, limit, notes)
        made = settings.performance(phase.lg, asked, chosen, fits, load)
        configuration.apply(made, configured, asked.name)
        settings.require_room(made, asked, chosen, configured)
        if asked.server:
            phase.callbacks.patience = _patience(made, asked, limit, notes)
        return made

    with logs.tracing(log_dir, keep=keep_trace) if not asked.one_query else nullcontext():
        used = phase.run(prepare, trace=not asked.one_query)
        detail = logs.read_detail(log_dir)
        if detail.num_errors or not detail.valid or phase.callbacks.abandoned:
            raise InvalidPhase(asked, detail, phase.callbacks.completions)
        timing = timed(asked, phase.callbacks, detail, log_dir)
    length = limit if limit is not None else used.min_duration_ms / 1000
    contract = contracts.of_performance(session, dataset, asked, detail, batch, configured)
    contract |= {"profile": chosen.name, "seconds": length, "performance_samples": loaded}
    said = [*phase.notes, *notes, *_reservations(chosen, loaded, limit)]
    if meter and meter.note:
        said.append(meter.note)
    return PerformanceResult(
        asked.name,
        *timing,
        contract,
        {**session.description, "batch": batch},
        log_dir,
        tuple(said),
        early_stopping(detail),
        (meter.joules, meter.step) if meter and meter.joules is not None else None,
        answering(phase.callbacks.completions),
    )


def require_loadable(loaded: int, dataset: Dataset, configured: Mapping[str, int | float]) -> None:
    """Raise GpuperfError unless so many images can be loaded, and that which is to come again is one."""
    if loaded > len(dataset):
        raise GpuperfError(
            f"performance_sample_count={loaded}, and the dataset {dataset.name} has {len(dataset)} images"
        )
    if (same := int(configured.get("performance_issue_same_index", 0))) >= loaded:  # LoadGen would crash
        raise GpuperfError(f"performance_issue_same_index = {same}, and {loaded} images are loaded")


def _fitting(
    scenario: Scenario, profile: Profile, load: Load, seconds: float | None, notes: list[str]
) -> float | None:
    """Return the seconds that LoadGen's memory is enough for, and note it if those are fewer.

    Raises GpuperfError if a phase that follows MLPerf's rules would have to be shorter.
    """
    longest, wanted = settings.longest(scenario, profile, load), seconds or SHORTEST_SUBMITTED
    if wanted <= longest:
        return seconds
    why = (
        f"LoadGen makes up all queries beforehand, and those of {wanted:g} s at {load.seconds * 1e6:.3g} us "
        f"a batch would take more than {profile.memory >> 30} GiB"
    )
    if profile.name == "valid":
        raise GpuperfError(f'{why}: ask for seconds={longest:.0f} or less, or profile="short"')
    notes.append(f"measured {longest:.2g} s: {why}")
    return longest


def _patience(made: Any, scenario: Scenario, seconds: float | None, notes: list[str]) -> float:
    """Return how long a query may wait before the phase is lost, and note a phase longer than was asked for.

    Raises GpuperfError if it would take days to have its queries.
    """
    count, lasts = made.min_query_count, made.min_query_count / scenario.qps
    if lasts > LONGEST:
        raise GpuperfError(
            f"qps={scenario.qps:g}: a phase has {count:,} queries or more, which takes {lasts / 3600:,.0f} "
            "hours at that rate: ask for a higher one"
        )
    if seconds and lasts > 2 * seconds:
        notes.append(f"measured {lasts:.0f} s, not {seconds:g}: {count:,} queries, {scenario.qps:g} a second")
    return PATIENCE + scenario.max_wait + max(made.min_duration_ms / 1000, lasts, 2 * scenario.max_latency)


def _reservations(profile: Profile, loaded: int, seconds: float | None) -> list[str]:
    """Say where a phase is not what was asked for, or not what MLPerf takes."""
    said = []
    if profile.name == "valid" and loaded < PERFORMANCE_SAMPLES:
        said.append(
            f"MLPerf takes phases with {PERFORMANCE_SAMPLES:,} loaded images or more; here were {loaded:,}"
        )
    if profile.name == "valid" and seconds is not None and seconds < SHORTEST_SUBMITTED:
        said.append(f"MLPerf takes phases of {SHORTEST_SUBMITTED:g} s or more; this one was of {seconds:g} s")
    return said


def accuracy(
    session: Session,
    *,
    log_dir: Path,
    scenario: str | Scenario = "Offline",
    count: int | None = None,
    stall: float = STALL,
    dataset: Dataset | None = None,
) -> AccuracyResult | ScoreResult:
    """Run an accuracy phase over the first ``count`` images (None: all); raises as ``performance`` does."""
    asked, dataset = Scenario.of(scenario), dataset or dataset_of(session.model, count)
    require_scenario(session.model, asked)
    wait = asked.max_wait if asked.server else None
    batch, workers = asked.batch(session.batch_sizes[-1]), _workers(session, asked)
    phase = Phase(session, dataset, batch, log_dir, stall, wait, workers)
    scoring = getattr(session.model, "score", None) is not None
    answers = getattr(session, "answers", None)
    if answers is not None:
        answers.keep(True)
    loaded = loaded_images(session, dataset, Profile.of("short"))

    def prepare() -> Any:
        phase.callbacks.prepare(dataset)
        return settings.accuracy(phase.lg, asked, loaded)

    phase.run(prepare, trace=False)
    if answers is not None and not scoring:
        answers.keep(False)
    detail = logs.read_detail(log_dir)
    if detail.num_errors:
        raise GpuperfError(f"LoadGen met {detail.num_errors} errors ({detail.path}): {detail.reason}")
    classes, contract = (
        logs.read_accuracy(log_dir, len(dataset)),
        contracts.of(session, dataset, asked, detail),
    )
    if isinstance(phase.callbacks.library, InOrder):
        classes = classes[phase.callbacks.library.order]
    contract["mode"] = "accuracy"
    if scoring:
        return scored(session, classes, dataset.labels, contract, log_dir, phase.notes)
    labels = np.asarray(dataset.labels, np.int64)
    reference = session.model.reference
    scope = reference.scope(len(dataset)) if isinstance(reference, Gate) else ""
    return AccuracyResult(
        session.model,
        session.precision,
        classes,
        labels,
        contract,
        session.description,
        log_dir,
        (*phase.notes, *filter(None, [scope, shifted(classes, labels)])),
    )


def loaded_images(session: Session, dataset: Dataset, profile: Profile) -> int:
    """Return how many images are loaded at once: whole largest batches, so that a batch is a slice.

    "valid" loads no fewer than MLPerf asks for, if there are so many.
    """
    few = profile.name == "short" and not _on_device(session)
    limit = min(len(dataset), CPU_PERFORMANCE_SAMPLES if few else PERFORMANCE_SAMPLES)
    largest = session.batch_sizes[-1]
    whole = limit - limit % largest
    if whole < limit and profile.name == "valid":
        return min(whole + largest, len(dataset))
    return whole or limit


def _on_device(session: Session) -> bool:
    """Say whether the session computes on a GPU; a suite's own need not have the attribute."""
    return getattr(session, "on_device", False)


def _workers(session: Session, scenario: Scenario) -> Sequence[Any]:
    """Return what runs the batches; a stream has one at a time."""
    workers: Sequence[Any] = getattr(session, "workers", ()) or (session,)
    return workers if scenario.one_query or scenario.server else workers[:1]
