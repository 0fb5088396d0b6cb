"""Posteriors q(z|x). Each turns the outputs of the encoder into a distribution over the code.

Each posterior is a config with

* ``num_outputs(latent_size)``: the number of outputs that it needs from the encoder;
* ``read(outputs, latent_size)``: returns a :class:`Posterior` for outputs [B, num_outputs];
* ``has_density``: False for a deterministic code, which has neither a KL nor an ELBO.
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
    """A batch of posteriors for B examples with L latent dimensions. Densities and KL are in nats."""

    @property
    def mean(self) -> Tensor:
        """Return E[z], [B, L]."""

    @property
    def variance(self) -> Tensor:
        """Return Var[z] of each dimension, [B, L]."""

    def sample(self, noise: Tensor) -> Tensor:
        """Return z from ε ~ N(0, I), both [..., B, L]."""

    def log_density(self, z: Tensor) -> Tensor:
        """Return log q(z|x), [..., B]."""

    def kl_to_standard_normal(self) -> Tensor:
        """Return KL(q ‖ N(0, I)) by dimension, [B, L]. The sum over dimensions is the whole KL."""

    def kl_to_normal(self, mean: Tensor, log_variance: Tensor) -> Tensor:
        """Return KL(q ‖ N(m, diag s²)) by dimension, [B, L]. m and log s² are [L] or [B, L]."""

    def detach(self) -> Posterior:
        """Return the same distributions with detached parameters, so that no gradient flows through them."""


__all__ = ["Deterministic", "DiagonalGaussian", "FullCovariance", "Posterior", "PosteriorConfig"]
