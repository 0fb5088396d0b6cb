"""The standard normal prior."""

from __future__ import annotations

from typing import Literal

from torch import Tensor, nn

from vae.config import part
from vae.distributions import kl_to_standard_normal, log_normal


@part
class StandardNormal:
    """p(z) = N(0, I)."""

    kind: Literal["standard_normal"] = "standard_normal"


class StandardNormalPrior(nn.Module):
    """See :class:`StandardNormal`."""

    zero: Tensor

    def __init__(self, latent_size: int) -> None:
        super().__init__()
        self.register_buffer("zero", nn.Parameter().new_zeros(latent_size), persistent=False)

    def kl(self, mean: Tensor, log_variance: Tensor, label: Tensor | None) -> Tensor:
        """KL(q ‖ N(0, I)) for each dimension, [B, L] nats."""
        del label
        return kl_to_standard_normal(mean, log_variance)

    def log_density(self, z: Tensor, label: Tensor | None) -> Tensor:
        """log N(z; 0, 1) for each dimension."""
        del label
        return log_normal(z, self.zero, self.zero)

    def moments(self, label: Tensor | None) -> tuple[Tensor, Tensor]:
        """Mean 0 and log variance 0, each [L]."""
        del label
        return self.zero, self.zero
