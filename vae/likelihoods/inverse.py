"""The parameter with a given mean, for distributions whose mean has no closed inverse."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

_STEPS = 60  # halvings, after which the interval is below float64's resolution


def parameter_of_mean(mean_of: Callable[[Tensor], Tensor], mean: Tensor, *, low: float, high: float) -> Tensor:
    """Return the parameters [D] in ``low``..``high`` at which ``mean_of`` is ``mean`` [D]. It must increase in each of them.

    Bisection in float64 needs no slope, so it also works where a mean saturates. It runs once for a model.
    """
    target = mean.double()
    below, above = torch.full_like(target, low), torch.full_like(target, high)
    for _ in range(_STEPS):
        middle = (below + above) / 2
        too_small = mean_of(middle) < target
        below, above = torch.where(too_small, middle, below), torch.where(too_small, above, middle)
    return ((below + above) / 2).to(mean.dtype)
