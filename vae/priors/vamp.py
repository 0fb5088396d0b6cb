"""VampPrior: the aggregate posterior of learned pseudo-inputs."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from vae.config import part
from vae.priors.mixture import monte_carlo_kl, pick

if TYPE_CHECKING:
    from vae.posteriors import Posterior
    from vae.priors import Encode


@part
class Vamp:
    """p(z) = 1/K Σ_k q(z|u_k) with learned pseudo-inputs u_k (Tomczak & Welling 2018, arXiv:1705.07120, eq. 10).

    The pseudo-inputs start as training examples. KL(q ‖ p) is estimated at the drawn codes.
    """

    kind: Literal["vamp"] = "vamp"
    components: Annotated[int, Field(ge=2)] = 50
    needs_label: ClassVar[bool] = False

    def build(self, *, latent_size: int, label_size: int, dimensions: int) -> VampPrior:
        """Return the prior, with pseudo-inputs of ``dimensions``."""
        del label_size
        return VampPrior(self.components, latent_size, dimensions)


class VampPrior(nn.Module):
    """See :class:`Vamp`."""

    closed_form = False

    def __init__(self, components: int, latent_size: int, dimensions: int) -> None:
        super().__init__()
        self.latent_size = latent_size
        self.pseudo_inputs = nn.Parameter(torch.rand(components, dimensions))

    def start_from(self, examples: Tensor) -> None:
        """Set the pseudo-inputs to ``examples`` [n, D], which are repeated if there are too few."""
        with torch.no_grad():
            count = len(self.pseudo_inputs)
            self.pseudo_inputs.copy_(examples.repeat(-(-count // len(examples)), 1)[:count])

    def kl(self, posterior: Posterior, z: Tensor, condition: Tensor | None, encode: Encode) -> Tensor:
        """Return log q(z|x) − log p(z), averaged over the draws z [S, B, L]: [B, 1] nats."""
        return monte_carlo_kl(posterior, z, self.log_density(z, condition, encode))

    def log_density(self, z: Tensor, condition: Tensor | None, encode: Encode) -> Tensor:
        """Return log 1/K Σ_k q(z|u_k), [..., B]."""
        del condition
        by_component = encode(self.pseudo_inputs).log_density(z.unsqueeze(-2))
        return torch.logsumexp(by_component, dim=-1) - math.log(len(self.pseudo_inputs))

    def sample(self, noise: Tensor, uniform: Tensor, condition: Tensor | None, encode: Encode) -> Tensor:
        """Choose a pseudo-input by u, and return a draw from its posterior, [B, L]."""
        del condition
        chosen = pick(uniform.new_ones(len(self.pseudo_inputs)), uniform)
        return encode(self.pseudo_inputs[chosen]).sample(noise)

    def standardise(self, mean: Tensor, condition: Tensor | None) -> Tensor:
        """Return ``mean``, [B, L]."""
        del condition
        return mean
