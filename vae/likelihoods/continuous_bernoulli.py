"""Continuous Bernoulli: a density on [0, 1] for grey pixels."""

from __future__ import annotations

from typing import ClassVar, Literal

import torch
from torch import Tensor, nn
from torch.distributions import ContinuousBernoulli as Distribution

from vae.config import part

_STEPS = 60  # bisections: the interval is below 1e-15 of its start


@part
class ContinuousBernoulli:
    """log p(x|z) = Σ_d x_d log λ_d + (1 − x_d) log(1 − λ_d) + log C(λ_d) (Loaiza-Ganem & Cunningham 2019).

    The normalised form of cross-entropy on grey pixels (arXiv:1907.06845, eq. 4): a density on [0, 1], never ranked
    against a Bernoulli's mass function. The decoder gives the logits of λ, which is not the mean.
    """

    kind: Literal["continuous_bernoulli"] = "continuous_bernoulli"
    discrete: ClassVar[bool] = False
    support: ClassVar[str] = "unit"

    def build(self, *, levels: int) -> ContinuousBernoulliLikelihood:
        """The same for all data."""
        del levels
        return ContinuousBernoulliLikelihood()


class ContinuousBernoulliLikelihood(nn.Module):
    """See :class:`ContinuousBernoulli`."""

    outputs_per_dimension = 1

    def nll(self, output: Tensor, x: Tensor) -> Tensor:
        """[B, D] logits, [B, D] in [0, 1] -> [B, D] nats; may be negative."""
        return -_of(output).log_prob(x)

    def mean(self, output: Tensor) -> Tensor:
        """λ/(2λ − 1) + 1/(2 atanh(1 − 2λ)), [B, D]."""
        mean: Tensor = _of(output).mean
        return mean

    def output_bias(self, mean: Tensor) -> Tensor:
        """The logits whose mean is the data's, by bisection: the mean has no closed inverse."""
        target = mean.double().clamp(1e-3, 1 - 1e-3)
        low, high = torch.full_like(target, -1e4), torch.full_like(target, 1e4)
        for _ in range(_STEPS):
            middle = (low + high) / 2
            # In terms of the logit l the mean is 1/(1 − e^−l) − 1/l, without cancellation away from 0.
            value = torch.where(
                middle.abs() < 1e-3,  # noqa: PLR2004 - the series is exact to 1e-10 there
                0.5 + middle / 12,
                1 / (-torch.expm1(-middle)) - 1 / middle,
            )
            low, high = torch.where(value < target, middle, low), torch.where(value < target, high, middle)
        return ((low + high) / 2).to(mean.dtype)

    def diagnostics(self, output: Tensor) -> dict[str, Tensor]:
        """Nothing to watch."""
        del output
        return {}


def _of(logits: Tensor) -> Distribution:
    return Distribution(logits=logits, validate_args=False)
