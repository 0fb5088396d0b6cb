"""FactorVAE: a discriminator between codes and codes with shuffled dimensions estimates the total correlation."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional

from vae.config import NonNegativeFloat, PositiveInt, part
from vae.objectives.loss import Loss
from vae.objectives.unannealed import Unannealed
from vae.optimizers import Adam, OptimizerConfig

if TYPE_CHECKING:
    from vae.objectives.loss import Batch


@part
class FactorVae(Unannealed):
    """Reconstruction + KL + γ·TC(z), TC by the density-ratio trick (Kim & Mnih 2018, arXiv:1802.05983, eq. 2 and 3).

    The discriminator has ``hidden`` layers with leaky ReLU of slope 0.2, and its own ``optimizer``. Both are part of the
    state that a run resumes from. It is trained on the codes of the same batch, as in the code of Locatello et al. 2019.
    The paper draws a second batch.
    """

    kind: Literal["factor_vae"] = "factor_vae"
    gamma: NonNegativeFloat = 10.0
    hidden: Annotated[tuple[PositiveInt, ...], Field(min_length=1)] = (1000,) * 5
    optimizer: OptimizerConfig = Adam(lr=1e-4, betas=(0.5, 0.9))
    posteriors: ClassVar[tuple[str, ...]] = ("diagonal", "full_covariance")

    def adversary(self, latent_size: int) -> nn.Module:
        """Return the discriminator: codes [B, L] -> the logits [B] that a code is not shuffled."""
        return Discriminator(latent_size, self.hidden)

    def loss(self, batch: Batch) -> Loss:
        """Return the loss of the model, in nats per example. TC is the mean of the discriminator's logits of the codes."""
        assert batch.adversary is not None, "the training loop makes one"
        correlation = batch.adversary(batch.terms.z[0]).mean()
        kl = batch.terms.kl.sum() / len(batch.terms.kl)
        total = batch.terms.reconstruction.mean() + kl + self.gamma * correlation
        return Loss(total, {"total_correlation": correlation})

    def adversary_loss(self, batch: Batch) -> Tensor:
        """Return the loss of the discriminator: its cross-entropy for codes and for shuffled codes."""
        assert batch.adversary is not None, "the training loop makes one"
        z = batch.terms.z[0].detach()
        real, shuffled = batch.adversary(z), batch.adversary(shuffle_dimensions(z))
        return 0.5 * (functional.softplus(-real).mean() + functional.softplus(shuffled).mean())


class Discriminator(nn.Module):
    """See :class:`FactorVae`."""

    def __init__(self, latent_size: int, hidden: tuple[int, ...]) -> None:
        super().__init__()
        widths = (latent_size, *hidden)
        layers: list[nn.Module] = []
        for wide, narrow in pairwise(widths):
            layers += [nn.Linear(wide, narrow), nn.LeakyReLU(0.2)]
        self.layers = nn.Sequential(*layers, nn.Linear(widths[-1], 1))

    def forward(self, z: Tensor) -> Tensor:
        logit: Tensor = self.layers(z).squeeze(1)
        return logit


def shuffle_dimensions(z: Tensor) -> Tensor:
    """Permute each dimension of z [B, L] over the batch independently. The result is drawn from Π_d q(z_d)."""
    order = torch.rand(z.shape, device=z.device).argsort(dim=0)
    return z.gather(0, order)
