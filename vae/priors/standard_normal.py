"""The standard normal prior."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from torch import Tensor, nn

from vae.config import part
from vae.distributions import log_normal

if TYPE_CHECKING:
    from vae.posteriors import Posterior
    from vae.priors import Encode


@part
class StandardNormal:
    """p(z) = N(0, I)."""

    kind: Literal["standard_normal"] = "standard_normal"
    needs_label: ClassVar[bool] = False

    def build(self, *, latent_size: int, label_size: int, dimensions: int) -> StandardNormalPrior:
        """Return the prior, which depends on ``latent_size`` only."""
        del label_size, dimensions
        return StandardNormalPrior(latent_size)


class StandardNormalPrior(nn.Module):
    """See :class:`StandardNormal`."""

    closed_form = True
    zero: Tensor

    def __init__(self, latent_size: int) -> None:
        super().__init__()
        self.register_buffer("zero", nn.Parameter().new_zeros(latent_size), persistent=False)

    def kl(self, posterior: Posterior, z: Tensor, condition: Tensor | None, encode: Encode) -> Tensor:
        """Return KL(q ‖ N(0, I)) by dimension, [B, L] nats."""
        del z, condition, encode
        return posterior.kl_to_standard_normal()

    def log_density(self, z: Tensor, condition: Tensor | None, encode: Encode) -> Tensor:
        """Return log N(z; 0, I), [..., B]."""
        del condition, encode
        return log_normal(z, self.zero, self.zero).sum(-1)

    def sample(self, noise: Tensor, uniform: Tensor, condition: Tensor | None, encode: Encode) -> Tensor:
        """Return ``noise``, [B, L]."""
        del uniform, condition, encode
        return noise

    def standardise(self, mean: Tensor, condition: Tensor | None) -> Tensor:
        """Return ``mean``, [B, L]."""
        del condition
        return mean
