"""The sizes that a network needs from the data and the rest of the model."""

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
    encoder_condition: int = 0  # length of the condition that the encoder is given; 0: none
    decoder_condition: int = 0  # the same for the decoder
    condition_everywhere: bool = False  # it enters every layer, not the first alone

    @property
    def dimensions(self) -> int:
        """D = C·H·W."""
        return math.prod(self.shape)
