"""The trials, epochs and hours of a budget, with early stopping and without. This is arithmetic; nothing is run."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from research.ledger.settings import Asha, rungs

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from research.ledger.settings import Scheduler

EXACT_TRIALS = 1500  # beyond, the share that goes on at a rung is 1/reduction to three digits
MOST_TRIALS = 1_000_000
_RESAMPLES = 1000


def pass_probability(scheduler: Asha, arrived: int) -> float:
    """The chance of the ``arrived``-th trial at a rung to go on, when every order of the values is as likely.

    ASHA lets it go on at or above the (1 − 1/reduction) quantile of the values so far, its own among them; below
    ``min_population`` always.
    """
    if arrived < scheduler.min_population:
        return 1.0
    below = math.ceil((arrived - 1) * (1 - 1 / scheduler.reduction) - 1e-9)
    return (arrived - below) / arrived


def expected_arrivals(scheduler: Scheduler, epochs: int, trials: int) -> list[float]:
    """Return how many of ``trials`` are expected to reach each rung and, last, the full budget.

    Exact for trials that arrive one after the other and whose values at different rungs say nothing of each other;
    a rung's arrivals are a sum of independent chances then, and their distribution is carried from rung to rung. Trials
    that run beside each other arrive at a rung together, and those that came too early to be judged are judged later:
    that is not counted, and stops a few more.
    """
    if not isinstance(scheduler, Asha):
        return [float(trials)]
    exact = min(trials, EXACT_TRIALS)
    counts = np.zeros(exact + 1)
    counts[exact] = 1.0  # at the first rung everybody arrives
    going_on = _table([pass_probability(scheduler, n) for n in range(1, exact + 1)])
    found = [float(trials)]
    for level in range(1, len(rungs(scheduler, epochs)) + 1):
        counts = counts @ going_on
        rest = (trials - exact) / scheduler.reduction**level
        found.append(float(counts @ np.arange(exact + 1)) + rest)
    return found


def _table(chances: list[float]) -> NDArray[np.float64]:
    """Row n: the distribution of how many of the first n go on."""
    table = np.zeros((len(chances) + 1, len(chances) + 1))
    table[0, 0] = 1.0
    for n, chance in enumerate(chances, start=1):
        table[n] = table[n - 1] * (1 - chance)
        table[n, 1:] += table[n - 1, :-1] * chance
    return table


def expected_epochs(scheduler: Scheduler, epochs: int, trials: int) -> float:
    """The mean number of epochs of a trial of a sweep of ``trials`` with a full budget of ``epochs``."""
    ends = [*rungs(scheduler, epochs), epochs] if isinstance(scheduler, Asha) else [epochs]
    arrivals = expected_arrivals(scheduler, epochs, trials)
    lengths = [end - before for before, end in zip([0, *ends], ends, strict=False)]
    return sum(length * count for length, count in zip(lengths, arrivals, strict=True)) / trials


def most_trials(hours_of: Callable[[int], float], hours: float) -> int:
    """The most trials whose ``hours_of`` are at most ``hours``; 0 where one is too many."""
    low, high = 0, 1
    while high < MOST_TRIALS and hours_of(high) <= hours:
        low, high = high, high * 2
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if hours_of(middle) <= hours else (low, middle)
    return low


def total_range(each: list[float], trials: int, misfit: float) -> tuple[float, float]:
    """Return the range of the sum over ``trials`` draws of ``each`` in 95 of 100 sweeps, widened by the factor ``misfit``."""
    rng = np.random.default_rng(0)  # the same plan twice says the same
    count = min(trials, EXACT_TRIALS)
    sums = rng.choice(np.array(each), size=(_RESAMPLES, count)).sum(1) * (trials / count)
    low, high = np.quantile(sums, [0.025, 0.975])
    return float(low) / misfit, float(high) * misfit
