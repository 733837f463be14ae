"""Quantiles of Student's t, against SciPy's."""

from __future__ import annotations

import pytest
from scipy import special, stats

from pytest_gpuperf.rules.student import noncentrality, quantile


@pytest.mark.parametrize("freedom", [1, 2, 2.5, 4, 7.3, 19, 60.1, 1e3, 1e5, 1e7])
def test_quantiles_of_t_are_those_of_scipy(freedom):
    for probability in (0.9, 0.95, 0.99, 0.995, 0.9985):
        expected = special.stdtrit(freedom, probability)
        assert quantile(freedom, probability) == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("freedom", [2, 4, 5, 8, 17, 19, 200])
def test_noncentral_t_is_scipys(freedom):
    for probability, t in ((0.05, 3.1), (0.05, quantile(freedom, 0.9985)), (0.2, 2.0)):
        shift = noncentrality(freedom, probability, t)
        assert stats.nct.cdf(t, freedom, shift) == pytest.approx(probability, rel=1e-7)
