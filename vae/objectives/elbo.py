"""The evidence lower bound, with a weight on the KL and an allowance for it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from vae.config import NonNegativeFloat, part
from vae.objectives.beta_schedule import BetaSchedule, ConstantBeta

if TYPE_CHECKING:
    from torch import Tensor


@part
class Elbo:
    """Minimises reconstruction + β·KL, in nats per example (Kingma & Welling 2014; β-VAE: Higgins et al. 2017).

    ``free_bits`` λ, in nats: each latent dimension's KL, averaged over the batch, counts as at least λ, so the
    optimiser gains nothing by pushing it lower (Kingma et al. 2016, arXiv:1606.04934, eq. 15).
    """

    kind: Literal["elbo"] = "elbo"
    beta: NonNegativeFloat = 1.0
    beta_schedule: BetaSchedule = ConstantBeta()
    free_bits: NonNegativeFloat = 0.0


def elbo_loss(config: Elbo, reconstruction: Tensor, kl: Tensor, beta: float) -> Tensor:
    """The loss: reconstruction [B] and KL [B, L] in nats, β at this step -> a scalar, nats per example."""
    if config.free_bits > 0:
        return reconstruction.mean() + beta * kl.mean(0).clamp(min=config.free_bits).sum()
    return reconstruction.mean() + beta / len(kl) * kl.sum()
