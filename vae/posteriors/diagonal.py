"""A Gaussian posterior with independent dimensions."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

import torch

from vae.config import part
from vae.distributions import kl_between_normals, kl_to_standard_normal, log_normal, sample_normal

if TYPE_CHECKING:
    from torch import Tensor


@part
class DiagonalGaussian:
    """q(z|x) = N(μ(x), diag σ²(x)) (Kingma & Welling 2014). The encoder's outputs are μ, then log σ²."""

    kind: Literal["diagonal"] = "diagonal"
    has_density: ClassVar[bool] = True

    def num_outputs(self, latent_size: int) -> int:
        """Return 2·L, for μ and log σ²."""
        return 2 * latent_size

    def read(self, outputs: Tensor, latent_size: int) -> Diagonal:
        """Return the posterior of outputs [B, 2·L]."""
        del latent_size
        return Diagonal(*outputs.chunk(2, dim=1))


@dataclass(frozen=True, eq=False)
class Diagonal:
    """See :class:`DiagonalGaussian`. Mean and log variance are [B, L]."""

    mean: Tensor
    log_variance: Tensor

    @property
    def variance(self) -> Tensor:
        """Return σ², [B, L]."""
        return torch.exp(self.log_variance)

    def sample(self, noise: Tensor) -> Tensor:
        """Return μ + σ·ε, [..., B, L] like ``noise``."""
        return sample_normal(self.mean, self.log_variance, noise)

    def log_density(self, z: Tensor) -> Tensor:
        """Return Σ_d log N(z_d; μ_d, σ²_d), [..., B]."""
        return self.log_density_by_dimension(z).sum(-1)

    def log_density_by_dimension(self, z: Tensor) -> Tensor:
        """Return log N(z_d; μ_d, σ²_d), [..., B, L]."""
        return log_normal(z, self.mean, self.log_variance)

    def kl_to_standard_normal(self) -> Tensor:
        """Return the KL by its closed form, [B, L] (Kingma & Welling 2014, appendix B)."""
        return kl_to_standard_normal(self.mean, self.log_variance)

    def kl_to_normal(self, mean: Tensor, log_variance: Tensor) -> Tensor:
        """Return the KL by its closed form, [B, L]."""
        return kl_between_normals(self.mean, self.log_variance, mean, log_variance)

    def detach(self) -> Diagonal:
        """Return the same distribution, without a gradient through μ and σ."""
        return Diagonal(self.mean.detach(), self.log_variance.detach())
