"""Maximum mean discrepancy between codes and prior: InfoVAE and the Wasserstein autoencoder."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

import torch

from vae.config import NonNegativeFloat, PositiveFloat, part
from vae.objectives.loss import Loss
from vae.objectives.unannealed import Unannealed

if TYPE_CHECKING:
    from torch import Tensor

    from vae.objectives.loss import Batch

Kernel = Literal["rbf", "imq"]


@part
class InfoVae(Unannealed):
    """Reconstruction + (1 − α)·KL + (α + λ − 1)·MMD(q(z), p(z)) (Zhao et al. 2019, arXiv:1706.02262, eq. 6 and 3.2).

    MMD is the unbiased estimate (Gretton et al. 2012, eq. 3) between the codes of a batch and as many draws of the prior.
    The ``kernel`` is rbf, exp(−d²/c), or imq, c/(c + d²), with c = 2·L·``scale²`` (Tolstikhin et al. 2018, section 4).
    """

    kind: Literal["info_vae"] = "info_vae"
    alpha: float = 0.0
    weight: NonNegativeFloat = 10.0  # λ
    kernel: Kernel = "rbf"
    scale: PositiveFloat = 1.0
    posteriors: ClassVar[tuple[str, ...]] = ("diagonal", "full_covariance")

    def loss(self, batch: Batch) -> Loss:
        """Return the weighted sum of reconstruction, KL and MMD."""
        discrepancy = _to_prior(batch, self.kernel, self.scale)
        kl = batch.terms.kl.sum() / len(batch.terms.kl)
        total = batch.terms.reconstruction.mean() + (1 - self.alpha) * kl
        return Loss(total + (self.alpha + self.weight - 1) * discrepancy, {"mmd": discrepancy})


@part
class WaeMmd(Unannealed):
    """Reconstruction + λ·MMD(q(z), p(z)) (Tolstikhin et al. 2018, arXiv:1711.01558, algorithm 2).

    The encoder may be deterministic, as in the paper; the model then has no ELBO. Kernel and estimate are those of InfoVAE.
    """

    kind: Literal["wae_mmd"] = "wae_mmd"
    weight: NonNegativeFloat = 10.0  # λ
    kernel: Kernel = "imq"
    scale: PositiveFloat = 1.0
    posteriors: ClassVar[tuple[str, ...]] = ("deterministic", "diagonal", "full_covariance")
    matches_prior: ClassVar[bool] = True  # samples of the prior can be decoded, with or without an ELBO

    def loss(self, batch: Batch) -> Loss:
        """Return the weighted sum of reconstruction and MMD."""
        discrepancy = _to_prior(batch, self.kernel, self.scale)
        return Loss(batch.terms.reconstruction.mean() + self.weight * discrepancy, {"mmd": discrepancy})


def _to_prior(batch: Batch, kernel: Kernel, scale: float) -> Tensor:
    z = batch.terms.z[0]
    drawn = batch.model.draw_prior(torch.randn_like(z), torch.rand(len(z), device=z.device), batch.condition)
    return mmd(z, drawn, kernel, bandwidth=2.0 * z.shape[1] * scale**2)


def mmd(a: Tensor, b: Tensor, kernel: Kernel, *, bandwidth: float) -> Tensor:
    """Return the unbiased squared MMD of [n, L] and [m, L], a scalar. It may be negative. It is 0 if either has one row."""
    if min(len(a), len(b)) < 2:  # noqa: PLR2004 - no pair to compare
        return (a.sum() + b.sum()) * 0.0

    def mean_over_pairs(gram: Tensor) -> Tensor:
        return (gram.sum() - gram.diagonal().sum()) / (len(gram) * (len(gram) - 1))

    within = mean_over_pairs(_gram(a, a, kernel, bandwidth)) + mean_over_pairs(_gram(b, b, kernel, bandwidth))
    return within - 2 * _gram(a, b, kernel, bandwidth).mean()


def _gram(a: Tensor, b: Tensor, kernel: Kernel, bandwidth: float) -> Tensor:
    squared = (a.square().sum(1)[:, None] + b.square().sum(1)[None] - 2 * a @ b.T).clamp(min=0)
    return torch.exp(-squared / bandwidth) if kernel == "rbf" else bandwidth / (bandwidth + squared)
