"""A deterministic code, for autoencoders that are not variational."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal, NoReturn

import torch

from vae.config import part

if TYPE_CHECKING:
    from torch import Tensor


@part
class Deterministic:
    """z = f(x), one point (Rumelhart et al. 1986; Hinton & Salakhutdinov 2006).

    There is no density over z, so there is no KL and no ELBO, and no ranking with a model that has them. ``activation`` is
    applied to the encoder's outputs; ``sigmoid`` gives the code in (0, 1) of sparse autoencoders.
    """

    kind: Literal["deterministic"] = "deterministic"
    activation: Literal["identity", "sigmoid", "relu", "tanh"] = "identity"
    has_density: ClassVar[bool] = False

    def num_outputs(self, latent_size: int) -> int:
        """Return L, the size of the code."""
        return latent_size

    def read(self, outputs: Tensor, latent_size: int) -> Point:
        """Return the code of outputs [B, L]."""
        del latent_size
        match self.activation:
            case "identity":
                return Point(outputs)
            case "sigmoid":
                return Point(torch.sigmoid(outputs))
            case "relu":
                return Point(torch.relu(outputs))
            case "tanh":
                return Point(torch.tanh(outputs))


@dataclass(frozen=True, eq=False)
class Point:
    """See :class:`Deterministic`."""

    mean: Tensor  # [B, L]

    @property
    def variance(self) -> Tensor:
        """Return zeros, [B, L]."""
        return torch.zeros_like(self.mean)

    def sample(self, noise: Tensor) -> Tensor:
        """Return the code in the shape of ``noise``, [..., B, L]. The values of ``noise`` have no effect."""
        return self.mean.expand_as(noise)

    def log_density(self, z: Tensor) -> NoReturn:
        """Raise ``TypeError``: a point has no density."""
        del z
        raise TypeError("a deterministic code has no density")

    def kl_to_standard_normal(self) -> Tensor:
        """Return an empty term [B, 0], whose sum adds nothing to a loss."""
        return self.mean[:, :0]

    def kl_to_normal(self, mean: Tensor, log_variance: Tensor) -> Tensor:
        """Return an empty term [B, 0]."""
        del mean, log_variance
        return self.mean[:, :0]

    def detach(self) -> Point:
        """Return the same code, without a gradient."""
        return Point(self.mean.detach())
