"""What the data and the rest of the model ask of a network."""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class Sizes:
    """The numbers that a network must fit; none of them is the network's own choice."""

    shape: tuple[int, int, int]  # C, H, W
    latent: int  # L
    posterior_outputs: int  # what the posterior needs of the encoder: 2·L for a diagonal Gaussian
    outputs_per_dimension: int  # what the likelihood needs of the decoder
    labels: int = 0  # K; 0 when nothing is conditioned on
    labels_everywhere: bool = False  # the label enters every layer, not the first alone

    @property
    def dimensions(self) -> int:
        """D = C·H·W."""
        return math.prod(self.shape)
