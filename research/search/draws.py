"""Many draws from a space, none of them trained: what its parameters are, and which draws are no config."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import optuna

from research.search.spaces import SkippedDraw, SpaceError, random_draws
from vae.config import ConfigError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from research.search.spaces import Space
    from vae.train_config import TrainConfig

BINS = 12  # of a histogram
LOG_WHOLE_BINS = 8  # of one of whole numbers on a log scale: finer ones would have bins that no number falls into


@dataclass(frozen=True)
class Draw:
    """One draw: what was suggested, and the config that came of it, or why none did."""

    params: dict[str, Any]
    distributions: dict[str, optuna.distributions.BaseDistribution]
    config: TrainConfig | None
    problem: str | None = None
    skipped: bool = False  # by the space's own word (optuna.TrialPruned)


def draw_many(space: Space, *, epochs: int | None, seed: int, count: int, data: str | None = None) -> list[Draw]:
    """Draw ``count`` configs at random, all with training seed 0: equal draws give equal configs.

    The first 50 are those that a sweep of the same seed looks at before it starts. A draw that is no config is
    kept with its reason.

    Raises:
        ConfigError: there is no set called ``data``, or it needs more than its name.

    """
    found: list[Draw] = []
    for trial, drawn in random_draws(space, epochs=epochs, seed=seed, count=count, data=data):
        params, distributions = dict(trial.params), dict(trial.distributions)
        if isinstance(drawn, ConfigError) and not found:
            raise drawn  # not the space: there is no such set as ``data``
        if isinstance(drawn, SpaceError | ConfigError):
            found.append(Draw(params, distributions, None, str(drawn), isinstance(drawn, SkippedDraw)))
        else:
            found.append(Draw(params, distributions, drawn))
    return found


def describe_parameters(draws: Sequence[Draw]) -> list[dict[str, Any]]:
    """Each parameter in the order of its first appearance: kind, range or choices, how often drawn, a histogram.

    ``low`` and ``high`` are the widest range that any draw had; ``varies`` says that draws differed in it.
    """
    names = list(dict.fromkeys(name for one in draws for name in one.distributions))
    return [_describe(name, [one for one in draws if name in one.distributions], len(draws)) for name in names]


def _describe(name: str, having: list[Draw], of: int) -> dict[str, Any]:
    distributions = [one.distributions[name] for one in having]
    values = [one.params[name] for one in having]
    told: dict[str, Any] = {
        "name": name,
        "drawn": len(having),
        "of": of,
        "varies": any(other != distributions[0] for other in distributions),
    }
    numeric = [
        d
        for d in distributions
        if isinstance(d, optuna.distributions.FloatDistribution | optuna.distributions.IntDistribution)
    ]
    if len(numeric) < len(distributions):
        choices = {str(c): None for d in distributions for c in getattr(d, "choices", ())}
        seen = Counter(str(value) for value in values)
        told |= {"kind": "categorical", "choices": {choice: seen[choice] for choice in choices}}
        return told
    whole = all(isinstance(d, optuna.distributions.IntDistribution) for d in numeric)
    low, high, log = min(d.low for d in numeric), max(d.high for d in numeric), all(d.log for d in numeric)
    told |= {"kind": "int" if whole else "float", "low": low, "high": high, "log": log, "step": numeric[0].step}
    told["histogram"] = histogram(values, low, high, log=log, whole=whole)
    return told


def histogram(values: Sequence[float], low: float, high: float, *, log: bool, whole: bool) -> list[int]:
    """Return how many values in each of 12 or 8 equal bins between ``low`` and ``high``; a few whole numbers have one each."""
    bins = LOG_WHOLE_BINS if whole and log else BINS
    if whole and high - low < bins:
        return [sum(value == low + index for value in values) for index in range(int(high - low) + 1)]
    scale = math.log if log else float
    start, width = scale(low), (scale(high) - scale(low)) or 1.0
    counts = Counter(min(bins - 1, int((scale(value) - start) / width * bins)) for value in values)
    return [counts[index] for index in range(bins)]
