"""Continuous Bernoulli: a density on [0, 1] for grey pixels."""

from __future__ import annotations

from typing import ClassVar, Literal

import torch
from torch import Tensor, nn

from vae.config import part
from vae.likelihoods.inverse import parameter_of_mean

# Below this |logit| a series replaces formulas that are 0/0 at 0. Its first missing term is below 1e-8. Each branch gets
# arguments that are clamped to its own range, because where() passes on NaN gradients of the branch that it rejects.
_SERIES = 0.3


@part
class ContinuousBernoulli:
    """log p(x|z) = Σ_d x_d log λ_d + (1 − x_d) log(1 − λ_d) + log C(λ_d) (Loaiza-Ganem & Cunningham 2019).

    This is the normalised form of cross-entropy on grey pixels (arXiv:1907.06845, eq. 4). It is a density on [0, 1] and is
    never ranked against a Bernoulli's mass function. The decoder gives the logits of λ, which is not the mean. As for any
    density, constant pixels have no best value: ``log p(0) = log |l|`` grows with the logarithm of the logit l.
    """

    kind: Literal["continuous_bernoulli"] = "continuous_bernoulli"
    discrete: ClassVar[bool] = False
    support: ClassVar[str] = "unit"

    def build(self, *, levels: int) -> ContinuousBernoulliLikelihood:
        """Return the likelihood, which does not depend on ``levels``."""
        del levels
        return ContinuousBernoulliLikelihood()


class ContinuousBernoulliLikelihood(nn.Module):
    """See :class:`ContinuousBernoulli`.

    In the logit l it is an exponential family, log p(x) = l·x − A(l) with A(l) = log((e^l − 1)/l), and its mean is A′(l).
    ``torch.distributions`` uses λ instead, and clamps it where float32 rounds it to 1. From |l| = 16 on its density no
    longer integrates to 1 (0.53 at 30). No mean is below 0.063, so black pixels are lost.
    """

    outputs_per_dimension = 1

    def nll(self, output: Tensor, x: Tensor) -> Tensor:
        """Return −log p(x_d|z) in nats: logits [B, D], x [B, D] in [0, 1] -> [B, D]. It may be negative."""
        size = output.abs()
        away, near = size.clamp(min=_SERIES), output.clamp(-_SERIES, _SERIES)
        square = near.square()
        # A(l) = max(l, 0) + log((1 − e^−|l|)/|l|) = l/2 + l²/24 − l⁴/2880 + ...
        exact = (output + size) / 2 + torch.log(-torch.expm1(-away) / away)
        series = near / 2 + square / 24 - square.square() / 2880
        return torch.where(size < _SERIES, series, exact) - output * x

    def mean(self, output: Tensor) -> Tensor:
        """Return A′(l) = 1/(1 − e^−l) − 1/l, [B, D]."""
        size = output.abs()
        away, near = size.clamp(min=_SERIES), output.clamp(-_SERIES, _SERIES)
        square = near.square()
        # Computed from |l| by symmetry, because e^−l would overflow.
        upper = -1 / torch.expm1(-away) - 1 / away
        exact = torch.where(output > 0, upper, 1 - upper)
        series = 0.5 + near * (1 / 12 - square / 720 + square.square() / 30240)
        return torch.where(size < _SERIES, series, exact)

    def output_bias(self, mean: Tensor) -> Tensor:
        """Return the logits with the data's mean."""
        return parameter_of_mean(self.mean, mean.clamp(1e-3, 1 - 1e-3), low=-1e4, high=1e4)
