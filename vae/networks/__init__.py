"""Networks. Each has an encoder from x to the posterior's parameters, and a decoder from z to the likelihood's.

Each network is a config with ``build(sizes)``, which returns two modules. The encoder maps x [B, D] to
[B, posterior_outputs], and the decoder maps z [B, L] to [B, outputs_per_dimension × D]. Both take a condition [B, K] or
None as a second argument. A decoder that can start at the data's mean has ``set_output_bias``. A network does not choose
its input and output sizes: they come from the data and from the other parts.
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
