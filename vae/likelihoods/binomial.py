"""Binomial counts: a normalised likelihood of integer pixels 0..n."""

from __future__ import annotations

import math
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from vae.config import part
from vae.likelihoods.support import integer_levels


@part
class Binomial:
    """log p(x|z) = Σ_d log C(n, k_d) + k_d log σ(l_d) + (n − k_d) log σ(−l_d), with counts k = n·x.

    n is the data's largest value: 16 for the digits, 255 for 8-bit images.
    """

    kind: Literal["binomial"] = "binomial"
    discrete: ClassVar[bool] = True
    support: ClassVar[str] = "levels"

    def build(self, *, levels: int) -> BinomialLikelihood:
        """Return the likelihood with n = ``levels``."""
        return BinomialLikelihood(integer_levels(self.kind, levels))


class BinomialLikelihood(nn.Module):
    """See :class:`Binomial`. A pixel counts ``n`` Bernoulli draws."""

    outputs_per_dimension = 1
    log_coefficient: Tensor

    def __init__(self, n: int) -> None:
        super().__init__()
        self.n = n
        # A table of log C(n, k) for k = 0..n, because lgamma at every pixel of every batch is slow.
        table = [math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1) for k in range(n + 1)]
        self.register_buffer("log_coefficient", torch.tensor(table), persistent=False)

    def nll(self, output: Tensor, x: Tensor) -> Tensor:
        """Return −log p(x_d|z) in nats: logits [B, D], counts divided by n [B, D] -> [B, D]."""
        cross_entropy = functional.binary_cross_entropy_with_logits(output, x, reduction="none")
        return self.n * cross_entropy - self.log_coefficients(x)

    def log_coefficients(self, x: Tensor) -> Tensor:
        """Return log C(n, n·x) of counts divided by n, in the shape of ``x``."""
        return self.log_coefficient[(x * self.n).round_().long()]

    def mean(self, output: Tensor) -> Tensor:
        """Return the expected count divided by n, [B, D]."""
        return torch.sigmoid(output)

    def output_bias(self, mean: Tensor) -> Tensor:
        """Return the log-odds of the data's mean."""
        return torch.logit(mean.clamp(1e-3, 1 - 1e-3))
