"""How four widely used tools decide that one process is slower than another: six rules, each from its source.

A rule gets the samples of an old and of a new process, in seconds, in the order they were taken, and
says whether its user would see red. Some of the tools only print: red is then the words that call the
new process slower. Rates are turned into times (1/x) beforehand.
"""

from __future__ import annotations

import importlib.metadata
import math
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cache
from statistics import fmean, median, stdev
from types import ModuleType, SimpleNamespace

import numpy as np

Samples = Sequence[float]
CRITERION_RESAMPLES = 2_000
"""criterion's default is 100,000; with this many a p value is off by 0.005 (sd) at 0.05."""
CRITERION_SAMPLES = 100
REPETITIONS = 9
_SEED = 20260801


@dataclass(frozen=True, slots=True)
class Rule:
    name: str
    source: str
    red: Callable[[Samples, Samples], bool]


def pytest_benchmark(field: str, percent: float) -> Callable[[Samples, Samples], bool]:
    """``--benchmark-compare-fail=FIELD:PERCENT%``, by pytest-benchmark's own class (utils.py, 5.3)."""
    from pytest_benchmark.utils import PercentageRegressionCheck

    check = PercentageRegressionCheck(field, percent)
    statistic = {"median": median, "mean": fmean}[field]
    return lambda old, new: bool(check.fails({field: statistic(new)}, {field: statistic(old)}))


def nvbench(old: Samples, new: Samples) -> bool:
    """SLOW of ``nvbench-compare-legacy`` (cuda-bench 0.3.0, nvbench_compare.py, compare_benches).

    The change of the mean against the smaller of the two relative standard deviations, which NVBench
    takes with n - 1 and from five samples on (nvbench/detail/statistics.cuh).
    """
    noises = [stdev(s) / fmean(s) for s in (old, new) if len(s) >= 5]
    least = min((noise for noise in noises if noise), default=0.0)
    change = (fmean(new) - fmean(old)) / fmean(old)
    return bool(least) and abs(change) > least and change >= 0


@cache
def _nvbench_robust() -> ModuleType:
    """The script of the cuda-bench package itself; its package would ask for a CUDA driver.

    Raises ImportError where cuda-bench is not installed.
    """
    try:
        file = importlib.metadata.distribution("cuda-bench").locate_file("cuda/bench/scripts")
    except importlib.metadata.PackageNotFoundError:
        raise ImportError("pip install cuda-bench colorama") from None
    sys.path.insert(0, str(file))
    try:
        import nvbench_compare_robust as script
    finally:
        sys.path.remove(str(file))
    script.load_nvbench_compare_tooling(load_color=False)
    return script


def nvbench_robust(old: Samples, new: Samples) -> bool:
    """SLOW of ``nvbench-compare-robust`` with its default thresholds, by its own compare_gpu_timings.

    It confirms a gap in clock cycles too. Recorded runs have no clock, so both sides get the same: that
    check then never objects.
    """
    script = _nvbench_robust()
    empty = script.make_empty_gpu_timing_data()

    def timing(samples: Samples) -> object:
        source = SimpleNamespace(values=np.array(samples, np.float32), has_material_payload=lambda: True)
        return replace(empty, sample_source=source, sm_clock_rate_mean=1.0)

    return script.compare_gpu_timings(timing(old), timing(new)).status is script.ComparisonStatus.SLOW


def google_benchmark(old: Samples, new: Samples) -> bool:
    """The U test of Google Benchmark's compare.py (tools/gbench/report.py, calc_utest), alpha 0.05.

    It compares repetitions, nine recommended, each the mean of many iterations in one process: here nine
    consecutive blocks of the samples. compare.py only colours the p value; red is one below alpha with
    the median gone up.
    """
    from scipy.stats import mannwhitneyu

    before, after = blocks(old, REPETITIONS), blocks(new, REPETITIONS)
    if min(len(before), len(after)) < 2:
        return False
    p = mannwhitneyu(before, after, alternative="two-sided").pvalue
    return bool(p < 0.05 and median(after) > median(before))


def criterion(old: Samples, new: Samples) -> bool:
    """Performance "has regressed" of criterion.rs 0.7 (src/report.rs, src/analysis/compare.rs), defaults.

    A bootstrapped Welch t test of the means at 0.05, and then the whole 95 % bootstrap interval of the
    change of the mean above 1 %. Its 100 samples are here consecutive blocks of ours.
    """
    a = np.array(blocks(new, CRITERION_SAMPLES))
    b = np.array(blocks(old, CRITERION_SAMPLES))
    generator = np.random.default_rng(_SEED)
    if _criterion_p(a, b, generator) >= 0.05:
        return False
    chunks = math.ceil(math.sqrt(CRITERION_RESAMPLES))
    # One resample of the new process serves a chunk of those of the old (stats/univariate/mod.rs).
    above = np.repeat(_resample(a, chunks, len(a), generator).mean(axis=1), chunks)
    below = _resample(b, chunks * chunks, len(b), generator).mean(axis=1)
    low, high = np.percentile((above / below - 1)[:CRITERION_RESAMPLES], [2.5, 97.5])
    return bool(low > 0.01 and high > 0.01)


def _criterion_p(a: np.ndarray, b: np.ndarray, generator: np.random.Generator) -> float:
    drawn = _resample(np.concatenate([a, b]), CRITERION_RESAMPLES, len(a) + len(b), generator)
    with np.errstate(divide="ignore", invalid="ignore"):
        null = _welch(drawn[:, : len(a)], drawn[:, len(a) :])
        t = _welch(a[None], b[None])[0]
    null = null[np.isfinite(null)]
    hits = int((null < t).sum())
    return 2 * min(hits, len(null) - hits) / max(1, len(null))


def _resample(values: np.ndarray, count: int, size: int, generator: np.random.Generator) -> np.ndarray:
    return values[generator.integers(0, len(values), (count, size))]


def _welch(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    spread = a.var(axis=1, ddof=1) / a.shape[1] + b.var(axis=1, ddof=1) / b.shape[1]
    return (a.mean(axis=1) - b.mean(axis=1)) / np.sqrt(spread)


def blocks(samples: Samples, count: int) -> list[float]:
    """The means of ``count`` consecutive, almost equal blocks; of no more samples than that, themselves."""
    if len(samples) <= count:
        return list(samples)
    return [float(part.mean()) for part in np.array_split(np.array(samples), count)]


def pair_rules() -> list[Rule]:
    """Every rule that can run here, and no other: the robust one needs a package."""
    found = [
        Rule("pytest-benchmark median:5%", "pytest-benchmark", pytest_benchmark("median", 5)),
        Rule("pytest-benchmark mean:2%", "pytest-benchmark", pytest_benchmark("mean", 2)),
        Rule("NVBench compare (legacy)", "cuda-bench 0.3.0", nvbench),
        Rule("NVBench compare (robust)", "cuda-bench 0.3.0", nvbench_robust),
        Rule("Google Benchmark U test", "tools/gbench/report.py", google_benchmark),
        Rule("criterion", "criterion.rs 0.7", criterion),
    ]
    try:
        _nvbench_robust()
    except ImportError:
        found = [rule for rule in found if rule.red is not nvbench_robust]
    return found
