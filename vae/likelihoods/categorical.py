"""Categorical pixels: every integer value has a probability of its own."""

from __future__ import annotations

from typing import ClassVar, Literal

import torch
from torch import Tensor, nn

from vae.config import part
from vae.likelihoods.support import integer_levels


@part
class Categorical:
    """log p(x|z) = Σ_d log softmax(l_d)[k_d] for integers k in 0..levels (van den Oord et al. 2016, section 3.3)."""

    kind: Literal["categorical"] = "categorical"
    discrete: ClassVar[bool] = True
    support: ClassVar[str] = "levels"

    def build(self, *, levels: int) -> CategoricalLikelihood:
        """Return the likelihood with ``levels`` + 1 classes."""
        return CategoricalLikelihood(integer_levels(self.kind, levels))


class CategoricalLikelihood(nn.Module):
    """See :class:`Categorical`. The decoder's row holds the logits of value 0 for all pixels, then of value 1, and so on."""

    def __init__(self, levels: int) -> None:
        super().__init__()
        self.levels = levels
        self.outputs_per_dimension = levels + 1

    def nll(self, output: Tensor, x: Tensor) -> Tensor:
        """Return −log p(x_d|z) in nats: logits [B, (levels + 1)·D], integers divided by ``levels`` [B, D] -> [B, D]."""
        logits: Tensor = output.unflatten(1, (self.levels + 1, -1))
        values = (x * self.levels).round().long().unsqueeze(1)
        return torch.logsumexp(logits, dim=1) - logits.gather(1, values).squeeze(1)

    def mean(self, output: Tensor) -> Tensor:
        """Return E[k]/levels, [B, D]."""
        weights = torch.softmax(output.unflatten(1, (self.levels + 1, -1)), dim=1)
        values = torch.linspace(0, 1, self.levels + 1, dtype=weights.dtype, device=weights.device)
        return torch.einsum("bkd,k->bd", weights, values)

    def output_bias(self, mean: Tensor) -> Tensor:
        """Return binomial log-probabilities with the data's mean. Many distributions have this mean; this one is smooth."""
        p = mean.clamp(1e-3, 1 - 1e-3)
        values = torch.arange(self.levels + 1, device=mean.device).unsqueeze(1)
        log_p: Tensor = torch.distributions.Binomial(self.levels, probs=p).log_prob(values)
        return log_p.flatten()
