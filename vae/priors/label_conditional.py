"""A learned Gaussian prior for each label."""

from __future__ import annotations

from typing import Literal

from torch import Tensor, nn

from vae.config import part
from vae.distributions import kl_between_normals, log_normal


@part
class LabelConditional:
    """p(z|y) = N(m_y, diag s²_y), a learned mean and variance for each label (Sohn et al. 2015, CVAE's prior network).

    With one-hot labels a prior network of any depth is a table, so it is one.
    """

    kind: Literal["label_conditional"] = "label_conditional"


class LabelConditionalPrior(nn.Module):
    """See :class:`LabelConditional`. Starts at N(0, I) for every label. ``label`` is one-hot, [B, K]."""

    def __init__(self, latent_size: int, label_size: int) -> None:
        super().__init__()
        zeros = nn.Parameter().new_zeros(label_size, latent_size)
        self.mean_of = nn.Parameter(zeros.clone())
        self.log_variance_of = nn.Parameter(zeros.clone())

    def kl(self, mean: Tensor, log_variance: Tensor, label: Tensor | None) -> Tensor:
        """KL(q ‖ p(z|y)) for each dimension, [B, L] nats."""
        return kl_between_normals(mean, log_variance, *self.moments(label))

    def log_density(self, z: Tensor, label: Tensor | None) -> Tensor:
        """log p(z|y) for each dimension; z [..., B, L] against label [B, K]."""
        return log_normal(z, *self.moments(label))

    def moments(self, label: Tensor | None) -> tuple[Tensor, Tensor]:
        """m_y and log s²_y, each [B, L]."""
        assert label is not None, "a label-conditional prior is only built for labelled models"
        return label @ self.mean_of, label @ self.log_variance_of
