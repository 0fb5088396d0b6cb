"""A Gaussian posterior whose dimensions may be correlated."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

import torch
from torch.distributions import MultivariateNormal

from vae.config import part

if TYPE_CHECKING:
    from torch import Tensor


@part
class FullCovariance:
    """q(z|x) = N(μ(x), T Tᵀ), T lower triangular with a positive diagonal (Kingma & Welling 2019, section 2.5.2).

    The encoder's outputs are μ [L], log diag T [L], and T below the diagonal row by row [L(L − 1)/2].
    """

    kind: Literal["full_covariance"] = "full_covariance"
    has_density: ClassVar[bool] = True

    def num_outputs(self, latent_size: int) -> int:
        """Return 2·L + L(L − 1)/2."""
        return 2 * latent_size + latent_size * (latent_size - 1) // 2

    def read(self, outputs: Tensor, latent_size: int) -> Full:
        """Return the posterior of outputs [B, num_outputs]."""
        mean, log_diagonal, below = outputs.split([latent_size, latent_size, outputs.shape[1] - 2 * latent_size], dim=1)
        rows, columns = torch.tril_indices(latent_size, latent_size, offset=-1, device=outputs.device)
        triangle = torch.diag_embed(torch.exp(log_diagonal))
        triangle[:, rows, columns] = below
        return Full(mean, log_diagonal, triangle)


@dataclass(frozen=True, eq=False)
class Full:
    """See :class:`FullCovariance`."""

    mean: Tensor  # [B, L]
    log_diagonal: Tensor  # the logarithm of T's diagonal, [B, L]
    triangle: Tensor  # T, [B, L, L]

    @property
    def variance(self) -> Tensor:
        """Return the diagonal of T Tᵀ, [B, L]."""
        return self.triangle.square().sum(2)

    def sample(self, noise: Tensor) -> Tensor:
        """Return μ + T ε, [..., B, L] like ``noise``."""
        return self.mean + (self.triangle @ noise.unsqueeze(-1)).squeeze(-1)

    def log_density(self, z: Tensor) -> Tensor:
        """Return log N(z; μ, T Tᵀ), [..., B]."""
        density: Tensor = MultivariateNormal(self.mean, scale_tril=self.triangle, validate_args=False).log_prob(z)
        return density

    def kl_to_standard_normal(self) -> Tensor:
        """Return the KL by the chain rule, [B, L].

        Dimension d contributes E KL(q(z_d | z_<d, x) ‖ N(0, 1)), which is never negative:
        ½ (Σ_{j ≤ d} T_dj² + μ_d² − 1 − log T_dd²). The sum over d is ½ (tr Σ + μᵀμ − L − log det Σ).
        """
        return 0.5 * (self.variance + self.mean.square() - 1.0) - self.log_diagonal

    def kl_to_normal(self, mean: Tensor, log_variance: Tensor) -> Tensor:
        """Return the KL, [B, L], after each dimension of z is standardised by the prior's mean and scale."""
        squared = (self.variance + (self.mean - mean).square()) * torch.exp(-log_variance)
        return 0.5 * (squared - 1.0 + log_variance) - self.log_diagonal

    def detach(self) -> Full:
        """Return the same distribution, without a gradient through μ and T."""
        return Full(self.mean.detach(), self.log_diagonal.detach(), self.triangle.detach())
