"""q(z|x): what the encoder's outputs say of the code.

Each posterior is a config with

* ``num_outputs(latent_size)``: how many numbers it needs of the encoder;
* ``read(outputs, latent_size)``: [B, num_outputs] -> a :class:`Posterior` for each example;
* ``has_density``: False for a point, which has neither KL nor ELBO.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Protocol

from pydantic import Field

from vae.posteriors.deterministic import Deterministic
from vae.posteriors.diagonal import DiagonalGaussian
from vae.posteriors.full_covariance import FullCovariance

if TYPE_CHECKING:
    from torch import Tensor

PosteriorConfig = Annotated[DiagonalGaussian | FullCovariance | Deterministic, Field(discriminator="kind")]


class Posterior(Protocol):
    """A batch of posteriors: B examples, L latent dimensions; nats."""

    @property
    def mean(self) -> Tensor:
        """E[z], [B, L]."""

    @property
    def variance(self) -> Tensor:
        """Var[z] of each dimension, [B, L]."""

    def sample(self, noise: Tensor) -> Tensor:
        """z from ε ~ N(0, I), both [..., B, L]."""

    def log_density(self, z: Tensor) -> Tensor:
        """log q(z|x), [..., B]."""

    def kl_to_standard_normal(self) -> Tensor:
        """KL(q ‖ N(0, I)) by dimension, [B, L]; its sum over dimensions is the whole."""

    def kl_to_normal(self, mean: Tensor, log_variance: Tensor) -> Tensor:
        """KL(q ‖ N(m, diag s²)) by dimension, [B, L]; m and log s² [L] or [B, L]."""

    def detach(self) -> Posterior:
        """Return the same distributions with detached parameters, so that no gradient flows through them."""


__all__ = ["Deterministic", "DiagonalGaussian", "FullCovariance", "Posterior", "PosteriorConfig"]
