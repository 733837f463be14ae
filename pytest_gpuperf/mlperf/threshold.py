"""Where phases stop being valid, from phases that may lie: a probability for each rate."""

from __future__ import annotations

import math

import numpy as np

# How often a pause of the host spoils a phase that the server would have kept, and how likely each is held to
# be beforehand; phases that contradict each other make the higher ones likelier.
SPOILT = ((0.05, 0.5), (0.2, 0.3), (0.4, 0.2))
LUCKY = 0.01  # how often a phase above the peak is valid
BLUR = 0.006  # of a rate: within it a phase may end either way
NEAR = 0.1  # of the guess: half of the peaks are expected that near to it, the rest with Cauchy's tails
SURE = 0.9  # the probability that the peak lies between the bounds
FAR = 4.0  # the logarithm by which it may be off


class Threshold:
    """The highest rate that is kept, as far as the phases that were seen tell it, to a ``resolution``."""

    def __init__(self, guess: float, resolution: float) -> None:
        step = math.log1p(resolution) / 8
        self._rates = math.log(guess) + step * np.arange(-round(FAR / step), round(FAR / step) + 1)
        expected = -np.log1p(((self._rates - math.log(guess)) / NEAR) ** 2)
        self._likely = np.array([math.log(share) + expected for _, share in SPOILT])

    def saw(self, rate: float, valid: bool) -> None:
        """Take in a phase."""
        above = (self._rates - math.log(rate)) / BLUR
        kept = 1 / (1 + np.exp(np.clip(-1.7 * above, -50, 50)))  # 1.7: as a normal distribution's
        for row, (spoilt, _) in zip(self._likely, SPOILT, strict=True):
            passing = LUCKY + (1 - LUCKY - spoilt) * kept
            row += np.log(passing if valid else 1 - passing)

    def bounds(self) -> tuple[float, float, float]:
        """Return the rates between which the peak lies, and the one that it is as likely below as above."""
        total = np.exp(self._likely - self._likely.max()).sum(axis=0).cumsum()
        shares = np.array([(1 - SURE) / 2, 0.5, (1 + SURE) / 2]) * total[-1]
        low, middle, high = np.exp(self._rates[np.searchsorted(total, shares)])
        return float(low), float(middle), float(high)
