"""A learned mixture of Gaussians."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from vae.config import part
from vae.distributions import log_normal, sample_normal

if TYPE_CHECKING:
    from vae.posteriors import Posterior
    from vae.priors import Encode


@part
class Mixture:
    """p(z) = Σ_c w_c N(z; m_c, diag s²_c) with learned weights, means and variances.

    See Dilokthanakul et al. 2016 and Tomczak 2018. KL(q ‖ p) has no closed form. It is estimated by log q(z|x) − log p(z) at
    the drawn codes.
    """

    kind: Literal["mixture"] = "mixture"
    components: Annotated[int, Field(ge=2)] = 10
    needs_label: ClassVar[bool] = False

    def build(self, *, latent_size: int, label_size: int, dimensions: int) -> MixturePrior:
        """Return the prior. Means are drawn from N(0, I), so that the components differ; variances start at 1."""
        del label_size, dimensions
        return MixturePrior(self.components, latent_size)


class MixturePrior(nn.Module):
    """See :class:`Mixture`."""

    closed_form = False

    def __init__(self, components: int, latent_size: int) -> None:
        super().__init__()
        self.logits = nn.Parameter(torch.zeros(components))
        self.means = nn.Parameter(torch.randn(components, latent_size))
        self.log_variances = nn.Parameter(torch.zeros(components, latent_size))

    def kl(self, posterior: Posterior, z: Tensor, condition: Tensor | None, encode: Encode) -> Tensor:
        """Return log q(z|x) − log p(z), averaged over the draws z [S, B, L]: [B, 1] nats."""
        return monte_carlo_kl(posterior, z, self.log_density(z, condition, encode))

    def log_density(self, z: Tensor, condition: Tensor | None, encode: Encode) -> Tensor:
        """Return log Σ_c w_c N(z; m_c, s²_c), [..., B]."""
        del condition, encode
        by_component = log_normal(z.unsqueeze(-2), self.means, self.log_variances).sum(-1)
        return torch.logsumexp(by_component + torch.log_softmax(self.logits, 0), dim=-1)

    def sample(self, noise: Tensor, uniform: Tensor, condition: Tensor | None, encode: Encode) -> Tensor:
        """Choose a component c by u, and return m_c + s_c·ε, [B, L]."""
        del condition, encode
        chosen = pick(torch.softmax(self.logits, 0), uniform)
        return sample_normal(self.means[chosen], self.log_variances[chosen], noise)

    def standardise(self, mean: Tensor, condition: Tensor | None) -> Tensor:
        """Return ``mean``, [B, L]."""
        del condition
        return mean


def monte_carlo_kl(posterior: Posterior, z: Tensor, log_prior: Tensor) -> Tensor:
    """Return log q(z|x) − log p(z) averaged over draws: z [S, B, L], log p(z) [S, B] -> [B, 1]. It may be negative."""
    return (posterior.log_density(z) - log_prior).mean(0).unsqueeze(1)


def pick(weights: Tensor, uniform: Tensor) -> Tensor:
    """Return indices [B] of categories with probabilities ``weights`` [C], chosen by u ~ U[0, 1) [B]."""
    cumulative = weights.cumsum(0)
    return torch.searchsorted(cumulative, uniform * cumulative[-1], right=True).clamp_(max=len(weights) - 1)
