"""A learned Gaussian prior for each label."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

import torch
from torch import Tensor, nn

from vae.config import part
from vae.distributions import log_normal, sample_normal

if TYPE_CHECKING:
    from vae.posteriors import Posterior
    from vae.priors import Encode


@part
class LabelConditional:
    """p(z|y) = N(m_y, diag s²_y), with a learned mean and variance for each label (Sohn et al. 2015, CVAE's prior network).

    It is a table, because with one-hot labels a prior network of any depth is equivalent to one.
    """

    kind: Literal["label_conditional"] = "label_conditional"
    needs_label: ClassVar[bool] = True

    def build(self, *, latent_size: int, label_size: int, dimensions: int) -> LabelConditionalPrior:
        """Return the prior, a table of ``label_size`` rows."""
        del dimensions
        return LabelConditionalPrior(latent_size, label_size)


class LabelConditionalPrior(nn.Module):
    """See :class:`LabelConditional`. It starts at N(0, I) for every label. ``condition`` is the one-hot label [B, K]."""

    closed_form = True

    def __init__(self, latent_size: int, label_size: int) -> None:
        super().__init__()
        zeros = nn.Parameter().new_zeros(label_size, latent_size)
        self.mean_of = nn.Parameter(zeros.clone())
        self.log_variance_of = nn.Parameter(zeros.clone())

    def kl(self, posterior: Posterior, z: Tensor, condition: Tensor | None, encode: Encode) -> Tensor:
        """Return KL(q ‖ p(z|y)) by dimension, [B, L] nats."""
        del z, encode
        return posterior.kl_to_normal(*self.moments(condition))

    def log_density(self, z: Tensor, condition: Tensor | None, encode: Encode) -> Tensor:
        """Return log p(z|y): z [..., B, L], labels [B, K] -> [..., B]."""
        del encode
        return log_normal(z, *self.moments(condition)).sum(-1)

    def sample(self, noise: Tensor, uniform: Tensor, condition: Tensor | None, encode: Encode) -> Tensor:
        """Return m_y + s_y·ε, [B, L]."""
        del uniform, encode
        return sample_normal(*self.moments(condition), noise)

    def standardise(self, mean: Tensor, condition: Tensor | None) -> Tensor:
        """Return (μ_q − m_y) / s_y, [B, L]."""
        prior_mean, prior_log_variance = self.moments(condition)
        return (mean - prior_mean) * torch.exp(-0.5 * prior_log_variance)

    def moments(self, condition: Tensor | None) -> tuple[Tensor, Tensor]:
        """Return m_y and log s²_y, each [B, L]."""
        assert condition is not None, "a label-conditional prior is only built for labelled models"
        return condition @ self.mean_of, condition @ self.log_variance_of
