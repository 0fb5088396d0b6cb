"""Independent Bernoulli pixels, parametrised by their logits."""

from __future__ import annotations

from typing import ClassVar, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from vae.config import part


@part
class Bernoulli:
    """log p(x|z) = Σ_d x_d log σ(l_d) + (1 − x_d) log σ(−l_d).

    It is a mass function on {0, 1}. On grey x in [0, 1] (``binarisation: expected``) it is the expected log-likelihood
    of the image's random binarisations. That is no log p(x) and has no bits per dimension (see
    ``docs/reading-the-numbers.md``).
    """

    kind: Literal["bernoulli"] = "bernoulli"
    discrete: ClassVar[bool] = True
    support: ClassVar[str] = "binary"

    def build(self, *, levels: int) -> BernoulliLikelihood:
        """Return the likelihood, which does not depend on ``levels``."""
        del levels
        return BernoulliLikelihood()


class BernoulliLikelihood(nn.Module):
    """See :class:`Bernoulli`."""

    outputs_per_dimension = 1

    def nll(self, output: Tensor, x: Tensor) -> Tensor:
        """Return −log p(x_d|z) in nats: logits [B, D], x [B, D] in [0, 1] -> [B, D]."""
        return functional.binary_cross_entropy_with_logits(output, x, reduction="none")

    def mean(self, output: Tensor) -> Tensor:
        """Return the pixel probabilities [B, D]."""
        return torch.sigmoid(output)

    def output_bias(self, mean: Tensor) -> Tensor:
        """Return the log-odds of the data's mean, clipped as in the code of Burda et al. 2016."""
        return torch.logit(mean.clamp(1e-3, 1 - 1e-3))
