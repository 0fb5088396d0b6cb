"""DIP-VAE: a penalty pulls the covariance of the codes over the data towards the identity."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

import torch

from vae.config import NonNegativeFloat, part
from vae.objectives.loss import Loss
from vae.objectives.unannealed import Unannealed

if TYPE_CHECKING:
    from torch import Tensor

    from vae.objectives.loss import Batch


@part
class DipVae(Unannealed):
    """Reconstruction + β·KL + λ_od·Σ_{i≠j} C_ij² + λ_d·Σ_i (C_ii − 1)² (Kumar et al. 2018, arXiv:1711.00848, eq. 6 and 7).

    In ``version`` I, C = Cov[μ(x)]. In version II, C = Cov[μ(x)] + E[Σ(x)], the covariance of z. Both are over the batch.
    """

    kind: Literal["dip_vae"] = "dip_vae"
    version: Literal["I", "II"] = "I"
    beta: NonNegativeFloat = 1.0
    off_diagonal: NonNegativeFloat = 10.0
    diagonal: NonNegativeFloat = 100.0
    posteriors: ClassVar[tuple[str, ...]] = ("diagonal",)

    def loss(self, batch: Batch) -> Loss:
        """Return reconstruction + β·KL + penalty, in nats per example."""
        posterior = batch.terms.posterior
        covariance = covariance_of(posterior.mean)
        if self.version == "II":
            covariance = covariance + torch.diag(posterior.variance.mean(0))
        diagonal = covariance.diagonal()
        off = covariance.square().sum() - diagonal.square().sum()
        penalty = self.off_diagonal * off + self.diagonal * (diagonal - 1).square().sum()
        kl = batch.terms.kl.sum() / len(batch.terms.kl)
        total = batch.terms.reconstruction.mean() + self.beta * kl + penalty
        return Loss(total, {"covariance_penalty": penalty})


def covariance_of(codes: Tensor) -> Tensor:
    """Return the covariance of codes [B, L] -> [L, L]. It is divided by B, like the expectations of the paper."""
    centred = codes - codes.mean(0)
    return centred.T @ centred / len(codes)
