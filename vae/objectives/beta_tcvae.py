"""β-TCVAE: the KL divided into mutual information, total correlation and dimension-wise KL."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, ClassVar, Literal, cast

import torch

from vae.config import NonNegativeFloat, part
from vae.objectives.loss import Loss
from vae.objectives.unannealed import Unannealed

if TYPE_CHECKING:
    from torch import Tensor

    from vae.objectives.loss import Batch
    from vae.posteriors.diagonal import Diagonal

Estimator = Literal["weighted", "stratified"]


@part
class BetaTcvae(Unannealed):
    """Reconstruction + α·I(x; z) + β·TC(z) + γ·Σ_d KL(q(z_d) ‖ p(z_d)) (Chen et al. 2018, arXiv:1802.04942, eq. 4).

    ``estimator`` estimates log q(z) from a batch of B of N examples. ``weighted`` is minibatch weighted sampling of
    Chen et al. with 1/B in place of 1/(N·B). It differs from theirs by a constant and has the same gradient.
    ``stratified`` is their minibatch stratified sampling, averaged over the choice of the special example. The posterior
    of the example itself weighs 1/N, and each other one (N − 1)/(N·(B − 1)), which is unbiased. Both are exact if the
    batch is the whole set.
    """

    kind: Literal["beta_tcvae"] = "beta_tcvae"
    alpha: NonNegativeFloat = 1.0
    beta: NonNegativeFloat = 4.0
    gamma: NonNegativeFloat = 1.0
    estimator: Estimator = "weighted"
    posteriors: ClassVar[tuple[str, ...]] = ("diagonal",)
    priors: ClassVar[tuple[str, ...]] = ("standard_normal",)

    def loss(self, batch: Batch) -> Loss:
        """Return the reconstruction plus the three weighted terms, in nats per example."""
        posterior = cast("Diagonal", batch.terms.posterior)
        z = batch.terms.z[0]
        information, correlation, dimension_wise = decompose(z, posterior, batch.examples, self.estimator)
        total = batch.terms.reconstruction.mean()
        total = total + self.alpha * information + self.beta * correlation + self.gamma * dimension_wise
        terms = {
            "mutual_information": information,
            "total_correlation": correlation,
            "dimension_wise_kl": dimension_wise,
        }
        return Loss(total, terms)


def decompose(z: Tensor, posterior: Diagonal, examples: int, estimator: Estimator) -> tuple[Tensor, Tensor, Tensor]:
    """Return mutual information, total correlation and dimension-wise KL to N(0, I), each a scalar in nats.

    ``z`` [B, L] is one draw from each posterior of the batch, and ``examples`` is N. The three terms sum to the batch's
    mean of log q(z|x) − log p(z).
    """
    size = len(z)
    # The log density of code i under posterior j by dimension, [B, B, L].
    pairs = posterior.log_density_by_dimension(z.unsqueeze(1))
    log_weight = log_weights(size, examples, estimator, z.device)
    log_q_given_x = posterior.log_density(z)
    log_q = torch.logsumexp(pairs.sum(2) + log_weight, dim=1)
    log_q_by_dimension = torch.logsumexp(pairs + log_weight.unsqueeze(2), dim=1).sum(1)
    log_p = (-0.5 * (z.square() + math.log(2 * math.pi))).sum(1)
    return (log_q_given_x - log_q).mean(), (log_q - log_q_by_dimension).mean(), (log_q_by_dimension - log_p).mean()


def log_weights(size: int, examples: int, estimator: Estimator, device: torch.device | str = "cpu") -> Tensor:
    """Return the log weight of posterior j in the estimate of q(z_i), [B, B]. The weights of each row sum to 1."""
    if estimator == "weighted" or size == 1:
        return torch.full((size, size), -math.log(size), device=device)
    weights = torch.full((size, size), (examples - 1) / (examples * (size - 1)), device=device)
    weights.fill_diagonal_(1 / examples)
    return weights.log()
