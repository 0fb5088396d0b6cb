"""Independent Bernoulli pixels, parametrised by logits."""

from __future__ import annotations

from typing import ClassVar, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from vae.config import part


@part
class Bernoulli:
    """log p(x|z) = Σ_d x_d log σ(l_d) + (1 − x_d) log σ(−l_d).

    A mass function on {0, 1}. On grey x in [0, 1] (``binarisation: expected``) it is the expected log-likelihood
    of the image's random binarisations and nothing else: no log p(x), no bits per dimension (SCIENCE in
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
        """[B, D] logits, [B, D] in [0, 1] -> [B, D] nats."""
        return functional.binary_cross_entropy_with_logits(output, x, reduction="none")

    def mean(self, output: Tensor) -> Tensor:
        """Pixel probabilities [B, D]."""
        return torch.sigmoid(output)

    def output_bias(self, mean: Tensor) -> Tensor:
        """Log-odds of the data's mean, clipped as Burda et al. 2016's code does."""
        return torch.logit(mean.clamp(1e-3, 1 - 1e-3))

    def diagnostics(self, output: Tensor) -> dict[str, Tensor]:
        """Nothing to watch."""
        del output
        return {}
