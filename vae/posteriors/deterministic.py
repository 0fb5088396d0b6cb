"""A code without a distribution: the autoencoders that are not variational."""

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

    There is no density over z: no KL, no ELBO, nothing that ranks with a model that has one. ``activation``:
    what the encoder's last layer goes through; ``sigmoid`` gives the code in (0, 1) of sparse autoencoders.
    """

    kind: Literal["deterministic"] = "deterministic"
    activation: Literal["identity", "sigmoid", "relu", "tanh"] = "identity"
    has_density: ClassVar[bool] = False

    def num_outputs(self, latent_size: int) -> int:
        """The code itself: L."""
        return latent_size

    def read(self, outputs: Tensor, latent_size: int) -> Point:
        """[B, L] -> the code."""
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
        """0, [B, L]."""
        return torch.zeros_like(self.mean)

    def sample(self, noise: Tensor) -> Tensor:
        """The code, whatever ``noise`` is; its shape."""
        return self.mean.expand_as(noise)

    def log_density(self, z: Tensor) -> NoReturn:
        """A point has none."""
        del z
        raise TypeError("a deterministic code has no density")

    def kl_to_standard_normal(self) -> Tensor:
        """No term at all: [B, 0], whose sum adds nothing to a loss."""
        return self.mean[:, :0]

    def kl_to_normal(self, mean: Tensor, log_variance: Tensor) -> Tensor:
        """No term at all: [B, 0]."""
        del mean, log_variance
        return self.mean[:, :0]

    def detach(self) -> Point:
        """No gradient through the code."""
        return Point(self.mean.detach())
