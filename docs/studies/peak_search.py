"""How far searches for Server's peak differ, of a simulated server and of a real one on the CPU.

    python docs/studies/peak_search.py                    # simulated: 2,160 searches, three minutes
    python docs/studies/peak_search.py --real 20 --batch 8 --service 0.02 --latency 0.15

Simulated is a server of one worker, by default as ResNet-50 in fp16 on an H100 (0.4 ms a batch and 0.0925 an
image, 64 at most, padded to a power of two): its phases are those of the real ones (Poisson arrivals of one
seed, 2 s, at most 1 % late by LoadGen's early stopping), and ``peak.search`` is the product's own. Real is
LoadGen in front of a ``Sut`` that sleeps for the service time.
"""

from __future__ import annotations

import argparse
import math
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from pytest_gpuperf.errors import GpuperfError
from pytest_gpuperf.mlperf import peak
from pytest_gpuperf.mlperf.settings import SERVER_QUERIES, Scenario
from pytest_gpuperf.mlperf.sut import Sut, SutSession
from pytest_gpuperf.mlperf.timing import answering

SECONDS, RESOLUTION, OVERHEAD, PAUSE = 2.0, 0.02, 0.6, 0.05
ARRIVALS = np.random.default_rng(7).exponential(size=100_000).cumsum()


@dataclass
class Simulated:
    """A server, and what disturbs it: phases spoilt, pauses a second, a capacity that swings in a minute.

    ``differing`` is the standard deviation of the logarithm of a phase's own capacity.
    """

    chance: np.random.Generator
    spoilt: float = 0.0
    pauses: float = 0.0
    swing: float = 0.0
    differing: float = 0.0
    batch: int = 64
    fixed: float = 0.0004
    each: float = 0.0000925
    latency: float = 0.015
    now: float = field(init=False)
    _slower: float = field(init=False)

    def __post_init__(self) -> None:
        self.now = self.begun = self.chance.uniform(0, 1000)
        self._slower = 1.0

    def _service(self, count: int, when: float) -> float:
        padded = 1 << (count - 1).bit_length()
        swing = 1 + self.swing * math.sin(2 * math.pi * when / 60)
        slower = self._slower * swing
        return (self.fixed + self.each * padded) * slower * (1 + 0.01 * self.chance.standard_normal())

    def phase(self, rate: float, seconds: float) -> tuple[bool, list[tuple[float, int]]]:
        """Return whether it is valid, and its completions."""
        count = max(SERVER_QUERIES, int(rate * seconds))
        due = ARRIVALS[:count] / rate
        if self.differing:
            self._slower = math.exp(self.differing * self.chance.standard_normal())
        paused = sorted(self.chance.uniform(0, due[-1], self.chance.poisson(self.pauses * due[-1])))
        clock, done, late, completions = 0.0, 0, 0, []
        while done < count:
            clock = max(clock, due[done])
            stop = min(done + self.batch, int(np.searchsorted(due, clock, "right")))
            end = clock + self._service(stop - done, self.now + clock)
            while paused and paused[0] < end:
                end += PAUSE
                paused.pop(0)
            late += int((end - due[done:stop] > self.latency).sum())
            completions.append((end, stop - done))
            clock, done = end, stop
        self.now += max(clock, due[-1]) + OVERHEAD
        return late <= _allowed(count) and self.chance.random() >= self.spoilt, completions

    def search(self) -> tuple[float, int, float]:
        """Return the peak that is found, and the phases and the seconds that it took."""
        first = 1.25 * self.batch / self._service(self.batch, self.now) * self.chance.uniform(1, 1.4)

        def attempt(rate: float, part: float) -> peak.Attempt:
            rate = rate or first
            valid, completions = self.phase(rate, SECONDS * part)
            return peak.Attempt(rate, valid or None, min(rate, answering(completions)))

        found, tried = peak.search(attempt, RESOLUTION, lambda answered: self.latency / SECONDS)
        return found.rate, len(tried), self.now - self.begun


def _allowed(count: int) -> int:
    """Return how many queries may be late for LoadGen to be sure, with 99 %, of 1 %."""
    return max(1, int(count * 0.01 - 2.326 * math.sqrt(count * 0.01 * 0.99)))


def truth(**server: Any) -> float:
    """Return the highest rate that most of five undisturbed phases keep."""
    quiet = Simulated(np.random.default_rng(0), **server)
    low, high = 1.0, 1e6
    while high / low > 1.0005:
        rate = math.sqrt(low * high)
        kept = sum(quiet.phase(rate, SECONDS)[0] for _ in range(5)) >= 3
        low, high = (rate, high) if kept else (low, rate)
    return low


DISTURBED: Mapping[str, Mapping[str, float]] = {
    "nothing": {},
    "2 % of the phases spoilt": {"spoilt": 0.02},
    "5 % of the phases spoilt": {"spoilt": 0.05},
    "10 % of the phases spoilt": {"spoilt": 0.1},
    "a pause of 50 ms every 20 s": {"pauses": 0.05},
    "a pause of 50 ms every 5 s": {"pauses": 0.2},
    "a capacity that swings by 0.5 % in a minute": {"swing": 0.005},
    "5 % spoilt, a pause every 20 s, swing of 0.5 %": {"spoilt": 0.05, "pauses": 0.05, "swing": 0.005},
    "a capacity that differs between phases by 1 %": {"differing": 0.01},
    "a capacity that differs between phases by 2 %": {"differing": 0.02},
    "a capacity that differs between phases by 4 %": {"differing": 0.04},
    "5 % spoilt, a capacity that differs by 2 %": {"spoilt": 0.05, "differing": 0.02},
}
SERVERS: Mapping[str, Mapping[str, float]] = {
    "as an H100": {},
    "2 ms, one query at a time": {"batch": 1, "fixed": 0.002, "each": 0.0},
    "2 ms, batches of 8": {"batch": 8, "fixed": 0.002, "each": 0.0},
}


def simulated(searches: int) -> None:
    print("| server | disturbed by | bias | of 20, (max - min) / median | beyond 4 % | phases | seconds |")
    print("|---|---|---|---|---|---|---|")
    for name, server in SERVERS.items():
        expected = truth(**server)
        for how, disturbed in DISTURBED.items():
            found, given_up = [], 0
            for number in range(searches):
                chance = np.random.default_rng(number)
                try:
                    found.append(Simulated(chance, **server, **disturbed).search())  # type: ignore[arg-type]
                except GpuperfError:
                    given_up += 1
            print(f"| {name} | {how} | {_row(found, expected)}{f' ({given_up} given up)' * bool(given_up)} |")


def _row(found: list[tuple[float, int, float]], expected: float) -> str:
    rates, phases, seconds = zip(*found, strict=True)
    spreads = [spread(rates[start : start + 20]) for start in range(0, len(rates) - 19, 20)]
    off = sum(abs(rate / expected - 1) > 2 * RESOLUTION for rate in rates)
    return (
        f"{median(rates) / expected - 1:+.2%} | {median(spreads):.2%}, at most {max(spreads):.2%} | {off} of "
        f"{len(rates)} | {np.mean(phases):.1f}, at most {max(phases)} | {np.mean(seconds):.0f}"
    )


def spread(rates: Any) -> float:
    return float((max(rates) - min(rates)) / median(rates))


class Numbers:
    name = "numbers"

    def __init__(self, count: int | None = None) -> None:
        self.labels = (np.arange(100) % 10)[:count]

    def __len__(self) -> int:
        return len(self.labels)

    def images(self, indices: Any) -> np.ndarray:
        return np.asarray(indices, np.float32)[:, None]


def real(searches: int, batch: int, service: float, latency: float) -> None:
    def run(images: np.ndarray) -> np.ndarray:
        time.sleep(service)
        return images[:, 0].astype(np.int64) % 10

    session = SutSession(Sut(name="sleeper", run=run, dataset=Numbers), batch)
    asked, rates = replace(Scenario.of("Server"), max_latency=latency), []
    for _ in range(searches):
        begin = time.perf_counter()
        with tempfile.TemporaryDirectory() as folder:
            try:
                found = peak.find_peak(
                    session,
                    asked,
                    seconds=SECONDS,
                    resolution=RESOLUTION,
                    log_dir=Path(folder),
                    keep_trace=False,
                )
            except GpuperfError as error:
                print(f"{time.perf_counter() - begin:.0f} s: {error}", flush=True)
                continue
        rates.append(found.qps)
        took = time.perf_counter() - begin
        tried = " ".join(f"{rate:.0f}{'' if valid else '-'}" for rate, valid in found.phases)
        print(f"{found.qps:.1f}  {len(found.phases)} phases  {took:.1f} s  {tried}", flush=True)
        print(f"   of {len(rates)}: median {median(rates):.1f}, spread {spread(rates):.2%}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--searches", type=int, default=60, help="simulated ones a row")
    parser.add_argument("--real", type=int, default=0, help="searches of a real server")
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--service", type=float, default=0.002, help="seconds of a batch")
    parser.add_argument("--latency", type=float, default=0.015, help="the bound, in seconds")
    asked = parser.parse_args()
    if asked.real:
        real(asked.real, asked.batch, asked.service, asked.latency)
    else:
        simulated(asked.searches)


if __name__ == "__main__":
    main()
