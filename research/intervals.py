"""Standard errors, medians, and the confidence intervals of Student and Welch."""

from __future__ import annotations

import math
import statistics
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

LEVEL = 0.95  # the confidence level of every reported interval


def standard_error(values: Sequence[float]) -> float | None:
    """Return the standard error of the mean, standard deviation / √n; None for fewer than two values."""
    return statistics.stdev(values) / math.sqrt(len(values)) if len(values) > 1 else None


def median_index(values: Sequence[float | None]) -> int:
    """Return the index of the (lower) median. A missing value counts as the lowest."""
    order = sorted(range(len(values)), key=lambda i: (values[i] is not None, values[i] or 0.0, i))
    return order[(len(order) - 1) // 2]


@dataclass(frozen=True)
class Paired:
    """The mean of paired differences, its standard error, and Student's interval at ``LEVEL``.

    ``error``, ``low`` and ``high`` are None for one pair, which says nothing about the spread.
    """

    mean: float
    error: float | None
    low: float | None
    high: float | None
    pairs: int


def paired_interval(differences: Sequence[float]) -> Paired:
    """Return the mean of ``differences``, one or more, with the interval of Student's t (Student 1908).

    Every paired comparison of the project uses this function: ``compare`` over examples, ``ablate`` over seeds.
    """
    count = len(differences)
    mean = math.fsum(differences) / count
    error = standard_error(differences)
    if error is None:
        return Paired(mean, None, None, None, count)
    from scipy import stats  # noqa: PLC0415 - takes its time

    half = float(stats.t.ppf((1 + LEVEL) / 2, count - 1)) * error
    return Paired(mean, error, mean - half, mean + half, count)


def welch_interval(first: Sequence[float], second: Sequence[float]) -> tuple[float, float]:
    """Return Welch's interval (1947) at ``LEVEL`` for the difference of two means; variances may differ."""
    from scipy import stats  # noqa: PLC0415 - takes its time

    if len(set(first)) == len(set(second)) == 1:
        difference = statistics.fmean(first) - statistics.fmean(second)
        return difference, difference
    interval = stats.ttest_ind(first, second, equal_var=False).confidence_interval(LEVEL)
    return float(interval.low), float(interval.high)
