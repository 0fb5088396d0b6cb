"""The sizes that a network needs from the data and the rest of the model."""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class Sizes:
    """The sizes that a network must fit. The network chooses none of them."""

    shape: tuple[int, int, int]  # C, H, W
    latent: int  # L
    posterior_outputs: int  # outputs of the encoder for the posterior: 2·L for a diagonal Gaussian
    outputs_per_dimension: int  # outputs of the decoder for each dimension of x
    encoder_condition: int = 0  # length of the encoder's condition; 0 for none
    decoder_condition: int = 0  # length of the decoder's condition; 0 for none
    condition_everywhere: bool = False  # True if the condition enters every layer, not only the first

    @property
    def dimensions(self) -> int:
        """Return D = C·H·W."""
        return math.prod(self.shape)
