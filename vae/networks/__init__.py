"""The functions inside a VAE: an encoder from x to the posterior's parameters, a decoder from z to the likelihood's.

Both take flat rows: encoder [B, D] -> [B, outputs], decoder [B, L] -> [B, outputs_per_dimension × D], each with
an optional one-hot label [B, K]. Sizes come from the data, never from here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from vae.config import part
from vae.networks.conv import Conv, ConvDecoder, ConvEncoder
from vae.networks.mlp import Mlp, MlpDecoder, MlpEncoder
from vae.networks.sizes import Sizes

if TYPE_CHECKING:
    from torch import nn

NetworkConfig = Annotated[Mlp | Conv, Field(discriminator="kind")]


@part
class Unconditional:
    """The model sees x alone and bounds log p(x)."""

    kind: Literal["none"] = "none"


@part
class OnLabel:
    """The label enters encoder and decoder, one-hot; the model bounds log p(x|y) (Sohn et al. 2015).

    ``at: input`` feeds it beside x and beside z; ``every_layer`` also to each hidden layer.
    """

    kind: Literal["label"] = "label"
    at: Literal["input", "every_layer"] = "input"


ConditioningConfig = Annotated[Unconditional | OnLabel, Field(discriminator="kind")]


def build_networks(config: NetworkConfig, sizes: Sizes) -> tuple[nn.Module, nn.Module]:
    """Encoder and decoder. A network that doesn't fit the data's shape raises ConfigError."""
    match config:
        case Mlp():
            return MlpEncoder(config, sizes), MlpDecoder(config, sizes)
        case Conv():
            return ConvEncoder(config, sizes), ConvDecoder(config, sizes)


__all__ = [
    "ConditioningConfig",
    "Conv",
    "Mlp",
    "NetworkConfig",
    "OnLabel",
    "Sizes",
    "Unconditional",
    "build_networks",
]
