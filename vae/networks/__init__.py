"""The functions inside a model: an encoder from x to the posterior's parameters, a decoder from z to the likelihood's.

Each network is a config with ``build(sizes)``: encoder [B, D] -> [B, posterior_outputs] and decoder [B, L] ->
[B, outputs_per_dimension × D], called with a condition [B, K] beside, or None. A decoder that can start at the data's
mean has ``set_output_bias``. Sizes come from the data, never from here.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from vae.external import External
from vae.networks.conv import Conv
from vae.networks.mlp import Mlp
from vae.networks.resnet import ResNet
from vae.networks.sizes import Sizes

NetworkConfig = Annotated[Mlp | Conv | ResNet | External, Field(discriminator="kind")]

__all__ = ["Conv", "Mlp", "NetworkConfig", "ResNet", "Sizes"]
