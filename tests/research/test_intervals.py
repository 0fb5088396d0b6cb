"""Intervals over seeds and examples: Student's t everywhere, one implementation for every paired comparison."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from research.experiments.ablation_table import paired_difference
from research.intervals import paired_interval


@pytest.mark.parametrize("count", [2, 3, 5, 30, 5000])
def test_paired_interval_is_that_of_scipys_paired_test(count):
    """Mean, standard error and interval agree with scipy at every number of pairs."""
    one, other = np.random.default_rng(count).normal(size=(2, count))
    found = paired_interval((one - other).tolist())
    expected = stats.ttest_rel(one, other).confidence_interval(0.95)

    assert (expected.low, expected.high) == pytest.approx((found.low, found.high))
    assert (one - other).mean() == pytest.approx(found.mean)
    assert stats.sem(one - other) == pytest.approx(found.error)
    assert found.pairs == count


def test_paired_interval_by_hand():
    """Four differences: mean 3, standard error √(10/3/4), t of three degrees of freedom 3.182446."""
    found = paired_interval([1.0, 2.0, 4.0, 5.0])

    assert found.mean == 3.0
    assert found.error == pytest.approx(math.sqrt(10.0 / 3.0 / 4.0))
    assert found.high - found.mean == pytest.approx(3.182446 * found.error)
    assert found.mean - found.low == pytest.approx(3.182446 * found.error)


def test_paired_interval_of_one_pair_has_no_interval():
    """One difference says nothing about the spread."""
    found = paired_interval([2.5])

    assert (found.mean, found.error, found.low, found.high, found.pairs) == (2.5, None, None, None, 1)


def test_paired_interval_of_equal_differences_is_a_point():
    """A model against itself differs by exactly 0, in an interval of no width."""
    found = paired_interval([0.0, 0.0, 0.0])

    assert (found.mean, found.error, found.low, found.high) == (0.0, 0.0, 0.0, 0.0)


def test_paired_interval_covers_the_true_difference_in_95_percent_of_samples_of_five():
    """1.96 standard errors at n = 5 cover 87.9 %."""
    samples = np.random.default_rng(0).normal(size=(4000, 5))
    inside = 0
    for sample in samples:
        found = paired_interval(sample.tolist())
        inside += found.low <= 0.0 <= found.high

    assert inside / len(samples) == pytest.approx(0.95, abs=0.012)


@pytest.mark.parametrize("count", [1, 2, 7])
def test_paired_interval_of_compare_and_ablate_agree(count):
    """The table of an ablation has the very numbers for the same figures."""
    own, full = np.random.default_rng(1).normal(size=(2, count)).tolist()

    assert paired_interval([a - b for a, b in zip(own, full, strict=True)]) == paired_difference(own, full)
