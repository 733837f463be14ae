"""MLPerf's compliance audits: the answers of a performance phase (TEST01), and no caching (TEST04).

They follow compliance/TEST01 and compliance/TEST04 of mlcommons/inference (b66003e1, August 2026), their
audit.config for ResNet-50, verify_accuracy.py and verify_performance.py. Phases are shorter, in up to ROUNDS
rounds: rates that are apart in each round, and at their best, are a problem. TEST04 compares one image again
and again with images of which none comes twice, and none came before: MLPerf's own comparison is with a phase
of 600 s that draws from 1,024 images, in which a cache that holds them all is as fast.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pytest_gpuperf.errors import GpuperfError
from pytest_gpuperf.figures import short
from pytest_gpuperf.mlperf import logs
from pytest_gpuperf.mlperf.datasets import Dataset, Part, dataset_of
from pytest_gpuperf.mlperf.loadgen import AGAIN, accuracy, loaded_images, performance, require_loadable
from pytest_gpuperf.mlperf.result import PerformanceResult
from pytest_gpuperf.mlperf.scores import ScoreResult, same, score_of
from pytest_gpuperf.mlperf.session import Session
from pytest_gpuperf.mlperf.settings import Profile, Scenario

SAMPLED: Mapping[str, int] = {  # TEST01/resnet50/audit.config
    "accuracy_log_rng_seed": 720381539243781796,
    "accuracy_log_sampling_target": 4096,
}
SAME: Mapping[str, int] = {  # TEST04/audit.config
    "performance_issue_unique": 0,
    "performance_issue_same": 1,
    "performance_issue_same_index": 3,
}
UNIQUE: Mapping[str, int] = {"performance_issue_unique": 1, "performance_issue_same": 0}
ROUNDS = 3
QUERIES = 11  # as many as early stopping on a median needs
NEAR, NEAR_STREAM = 0.1, 0.2  # verify_performance.py: of a rate; of a stream of up to 200,000 queries/s
SCORE = 0.01  # how far sampled answers may score otherwise where some differ: the README's Part III
Rounds = tuple[tuple[float, float], ...]


@dataclass(frozen=True, slots=True)
class AuditResult:
    """What an audit found: ``problems``, a sentence for each, and none if it was passed.

    ``rounds`` are pairs of rates, without and with the audit: samples per second in Offline (of most batches
    in a short phase), queries in Server, and of a stream the inverse of its median latency, of its
    early-stopping one in a "valid" phase. TEST01 compared ``sampled`` answers, and ``differing`` differed.
    """

    test: str
    scenario: str
    rounds: Rounds
    problems: tuple[str, ...]
    sampled: int = 0
    differing: int = 0

    def check(self) -> None:
        """Raise AssertionError with the ``problems`` if there are any."""
        __tracebackhide__ = True
        if self.problems:
            raise AssertionError(f"{self.test} in {self.scenario}: {'; '.join(self.problems)}")


class Audit:
    """An audit of a session in a scenario.

    ``folder`` makes a folder for the logs of a phase; ``loaded`` images are in memory (None: as many as in a
    performance phase); ``options`` are those of every performance phase. Without ``times``, on a host whose
    times are not judged, TEST01 is one of answers alone.
    """

    def __init__(
        self,
        session: Session,
        scenario: Scenario,
        folder: Callable[[str], Path],
        loaded: int | None,
        times: bool,
        **options: Any,
    ) -> None:
        if getattr(session.model, "state", None):
            raise GpuperfError(
                f"{session.model.name} carries state from query to query; audits are for others"
            )
        self._session, self._scenario, self._folder, self._options = session, scenario, folder, options
        self._dataset, self._profile = dataset_of(session.model, None), Profile.of(options["profile"])
        self._loaded = loaded or loaded_images(session, self._dataset, self._profile)
        require_loadable(self._loaded, self._dataset, {})
        self._times = times
        self._warm_up: float | None = None
        self._near = NEAR if scenario.one_query or scenario.server else NEAR_STREAM

    def _performance(self, name: str, dataset: Dataset, **more: Any) -> PerformanceResult:
        warm_up, self._warm_up = self._warm_up, AGAIN
        return performance(
            self._session,
            self._scenario,
            log_dir=self._folder(name),
            loaded=len(dataset),
            dataset=dataset,
            keep_trace=False,
            warm_up=warm_up,
            **self._options,
            **more,
        )

    def _rate(self, result: PerformanceResult) -> float:
        long = self._profile.min_queries is None
        if self._scenario.one_query:  # a short phase is of milliseconds, and so may be a pause of the host
            return (0.0 if long else result.answered) or result.samples_per_second
        if self._scenario.server:
            return result.qps
        # Of a few queries the bound on a median is all but the longest.
        bound = result.early_stopping if long else None
        return 1 / (bound or result.latency.p50)

    def _rounds(
        self,
        pair: Callable[[int], tuple[PerformanceResult, PerformanceResult]],
        fits: Callable[[float, float], bool],
        least: int = 1,
        most: int = ROUNDS,
    ) -> tuple[Rounds, Path]:
        """Run pairs of phases until some rates fit; returns all of them, and the last phase's logs."""
        rounds: Rounds = ()
        while len(rounds) < least or (len(rounds) < most and not _some(rounds, fits)):
            results = pair(len(rounds))
            rounds = (*rounds, (self._rate(results[0]), self._rate(results[1])))
        return rounds, results[1].log_dir

    def test01(self) -> AuditResult:
        """Hold answers that LoadGen samples in a performance phase to those of the accuracy phase."""
        part, session = Part(self._dataset, 0, self._loaded), self._session
        log_dir, stall = self._folder("accuracy"), self._options["stall"]
        known = accuracy(session, scenario=self._scenario, log_dir=log_dir, dataset=part, stall=stall)

        def pair(number: int) -> tuple[PerformanceResult, PerformanceResult]:
            self._keep(False)
            plain = self._performance(f"{number}-plain", part)
            self._keep(True)
            return plain, self._performance(f"{number}-sampled", part, configured=SAMPLED)

        def alike(plain: float, sampled: float) -> bool:
            return not self._times or abs(sampled / plain - 1) <= self._near

        rounds, folder = self._rounds(pair, alike)
        images, found = logs.read_sampled(folder, len(part))
        if isinstance(known, ScoreResult):
            given, answers = session.answers.at(found), known.answers  # type: ignore[attr-defined]
        else:
            given, answers = found.tolist(), known.predictions.tolist()
        differing, problems = self._compared(part, images, given, [answers[image] for image in images])
        if not _some(rounds, alike):
            problems.append(_rates("with answers sampled the rate is another", rounds, self._near))
        return AuditResult("TEST01", self._scenario.name, rounds, tuple(problems), len(images), differing)

    def _keep(self, wanted: bool) -> None:
        if getattr(self._session.model, "score", None) is not None:
            self._session.answers.keep(wanted)  # type: ignore[attr-defined]

    def _compared(
        self, part: Dataset, images: Sequence[int], given: Sequence[Any], expected: Sequence[Any]
    ) -> tuple[int, list[str]]:
        """Return how many sampled answers are not those expected, and the problem if there is one."""
        if not len(images):
            return 0, ["LoadGen sampled no answer of the performance phase; give more seconds="]
        differing = [at for at in range(len(images)) if not same(given[at], expected[at])]
        labels = [part.labels[image] for image in images]
        now, then = (score_of(self._session.model, answers, labels)[0] for answers in (given, expected))
        if not differing or (then and abs(now - then) <= SCORE * abs(then)):
            return len(differing), []
        first = differing[0]
        return len(differing), [
            f"{len(differing):,} of {len(images):,} answers sampled in the performance phase are not the "
            f"accuracy phase's, first that to image {images[first]} ({short(given[first])}, it was "
            f"{short(expected[first])}); they score {now:.4g}, and those {then:.4g}"
        ]

    def test04(self) -> AuditResult:
        """Hold the rate of one image again and again to that of images of which none came before."""
        parts, warm, count = self._parts()

        def pair(number: int) -> tuple[PerformanceResult, PerformanceResult]:
            part = parts[number]
            size = {"min_query_count": count, "min_duration": 0} if count else {}
            unique = {**UNIQUE, **size} if count else {}
            before = self._performance(f"{number}-unique", part, configured=unique, warm=warm)
            after = self._performance(f"{number}-same", part, configured={**SAME, **size}, warm=warm)
            return before, after

        def honest(unique: float, again: float) -> bool:
            return again < unique * (1 + self._near)

        rounds, _ = self._rounds(pair, honest, len(parts) if count else 1, len(parts))
        faster = _rates("the same image again and again is faster: are answers cached?", rounds, self._near)
        problems = () if _some(rounds, honest) else (faster,)
        return AuditResult("TEST04", self._scenario.name, rounds, problems)

    def _parts(self) -> tuple[list[Part], Part | None, int]:
        """Return the images of each round, those to warm up with, and how many queries a phase has.

        MLPerf's own durations, and Server's early stopping, need more queries than there are images: then a
        phase has as many as it takes (0), from the images that are loaded.
        """
        asked, total = self._scenario, len(self._dataset)
        if asked.server or self._profile.min_queries is None:
            return [Part(self._dataset, 0, self._loaded)] * ROUNDS, None, 0
        batch = asked.batch(self._session.batch_sizes[-1])
        few = SAME["performance_issue_same_index"] + 1
        least = -(-few // batch) * batch if asked.one_query else QUERIES * batch
        rounds = min(ROUNDS, (total - batch) // least)
        if rounds < 1:
            raise GpuperfError(
                f"TEST04 in {asked.name} needs {least + batch} images, so that none comes twice; the dataset "
                f"{self._dataset.name} has {total}"
            )
        size = min(max(self._loaded, least), (total - batch) // rounds)
        size -= size % batch
        parts = [Part(self._dataset, number * size, size) for number in range(rounds)]
        return parts, Part(self._dataset, total - batch, batch), size if asked.one_query else size // batch


def _some(rounds: Rounds, fits: Callable[[float, float], bool]) -> bool:
    """Say whether the rates of some round fit, or the best ones."""
    return any(fits(*rates) for rates in (*rounds, _best(rounds)))


def _best(rounds: Rounds) -> tuple[float, float]:
    """Return the highest rates without and with the audit: what disturbs a phase makes it slower."""
    return max(plain for plain, _ in rounds), max(audited for _, audited in rounds)


def _rates(what: str, rounds: Rounds, near: float) -> str:
    plain, audited = _best(rounds)
    best = f"the best of {len(rounds)} rounds are {audited:.4g} and {plain:.4g} a second"
    return f"{what} ({best}, more than {near:.0%} apart)"
