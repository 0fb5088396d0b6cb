"""Residual encoder and decoder for images of any size and any number of channels."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional

from vae.config import ConfigError, FractionBelowOne, PositiveInt, part
from vae.networks.activations import Activation, activation
from vae.networks.conv import with_planes
from vae.networks.normalisation import ImageNormalisation, image_normalisation

if TYPE_CHECKING:
    from collections.abc import Callable

    from vae.networks.sizes import Sizes


@part
class ResNet:
    """Pre-activation residual blocks (He et al. 2016b, arXiv:1603.05027), ``blocks`` for each entry of ``channels``.

    The first level keeps the images' size. Each later level first halves it, rounding up. One dense layer follows. The
    decoder mirrors the encoder. It grows by nearest neighbours to exactly the sizes that the encoder had.
    """

    kind: Literal["resnet"] = "resnet"
    channels: Annotated[tuple[PositiveInt, ...], Field(min_length=1)] = (16, 32, 64)
    blocks: PositiveInt = 1
    dense: PositiveInt = 256
    activation: Activation = "silu"
    normalisation: ImageNormalisation = "group"
    dropout: FractionBelowOne = 0.0

    def build(self, sizes: Sizes) -> tuple[nn.Module, nn.Module]:
        """Return encoder and decoder.

        Raises:
            ConfigError: The images are too small to be halved that often.

        """
        return ResNetEncoder(self, sizes), ResNetDecoder(self, sizes)


class Block(nn.Module):
    """x + f(x), where f normalises, activates and convolves, twice. The condition joins the input of f, not the shortcut."""

    def __init__(self, config: ResNet, channels_in: int, channels_out: int, condition: int, *, stride: int = 1) -> None:
        super().__init__()
        self.first_norm = image_normalisation(config.normalisation, channels_in)
        self.first = nn.Conv2d(channels_in + condition, channels_out, 3, stride=stride, padding=1)
        self.second_norm = image_normalisation(config.normalisation, channels_out)
        self.second = nn.Conv2d(channels_out, channels_out, 3, padding=1)
        self.activation = activation(config.activation)
        self.dropout = nn.Dropout(config.dropout)
        straight = stride == 1 and channels_in == channels_out
        self.shortcut = None if straight else nn.Conv2d(channels_in, channels_out, 1, stride=stride)

    def forward(self, x: Tensor, condition: Tensor | None) -> Tensor:
        h = self.activation(x if self.first_norm is None else self.first_norm(x))
        h = self.first(h if condition is None else with_planes(h, condition))
        h = self.activation(h if self.second_norm is None else self.second_norm(h))
        h = self.second(self.dropout(h))
        added: Tensor = h + (x if self.shortcut is None else self.shortcut(x))
        return added


def _sizes_by_level(config: ResNet, height: int, width: int) -> list[tuple[int, int]]:
    """Return (H, W) at each level."""
    sizes = [(height, width)]
    for level in range(1, len(config.channels)):
        if min(sizes[-1]) < 2:  # noqa: PLR2004 - a side of 1 can't be halved
            rule = f"must have at most {level} entries for images of {height}×{width}"
            raise ConfigError(f"network.channels {rule}, got {len(config.channels)}; use fewer")
        sizes.append(((sizes[-1][0] + 1) // 2, (sizes[-1][1] + 1) // 2))
    return sizes


class ResNetEncoder(nn.Module):
    """[B, D] -> [B, posterior_outputs]."""

    def __init__(self, config: ResNet, sizes: Sizes) -> None:
        super().__init__()
        self.shape = sizes.shape
        self.everywhere = sizes.condition_everywhere
        spatial = _sizes_by_level(config, *sizes.shape[1:])
        condition = sizes.encoder_condition
        everywhere = condition if self.everywhere else 0
        self.stem = nn.Conv2d(sizes.shape[0] + condition, config.channels[0], 3, padding=1)
        self.blocks = nn.ModuleList()
        before = config.channels[0]
        for level, channels in enumerate(config.channels):
            for index in range(config.blocks):
                stride = 2 if level > 0 and index == 0 else 1
                self.blocks.append(Block(config, before, channels, everywhere, stride=stride))
                before = channels
        self.norm = image_normalisation(config.normalisation, before)
        self.activation = activation(config.activation)
        self.dense = nn.Linear(before * spatial[-1][0] * spatial[-1][1] + everywhere, config.dense)
        self.output = nn.Linear(config.dense + everywhere, sizes.posterior_outputs)

    def forward(self, x: Tensor, condition: Tensor | None) -> Tensor:
        h = x.unflatten(1, self.shape)
        h = self.stem(h if condition is None else with_planes(h, condition))
        inner = condition if self.everywhere else None
        for block in self.blocks:
            h = block(h, inner)
        h = self.activation(h if self.norm is None else self.norm(h)).flatten(1)
        h = self.activation(self.dense(_beside(h, inner)))
        posterior: Tensor = self.output(_beside(h, inner))
        return posterior


class ResNetDecoder(nn.Module):
    """[B, L] -> [B, outputs_per_dimension × D]."""

    def __init__(self, config: ResNet, sizes: Sizes) -> None:
        super().__init__()
        self.everywhere = sizes.condition_everywhere
        self.spatial = _sizes_by_level(config, *sizes.shape[1:])
        everywhere = sizes.decoder_condition if self.everywhere else 0
        self.start = (config.channels[-1], *self.spatial[-1])
        self.first = nn.Linear(sizes.latent + sizes.decoder_condition, config.dense)
        self.dense = nn.Linear(
            config.dense + everywhere, config.channels[-1] * self.spatial[-1][0] * self.spatial[-1][1]
        )
        self.blocks = nn.ModuleList()
        self.sizes: list[tuple[int, int]] = []  # the size of each block's input
        before = config.channels[-1]
        for level in reversed(range(len(config.channels))):
            for _ in range(config.blocks):
                self.blocks.append(Block(config, before, config.channels[level], everywhere))
                self.sizes.append(self.spatial[level])
                before = config.channels[level]
        self.norm = image_normalisation(config.normalisation, before)
        self.activation = activation(config.activation)
        self.image_channels = sizes.shape[0]
        self.output = nn.Conv2d(before, sizes.outputs_per_dimension * self.image_channels, 3, padding=1)

    def forward(self, z: Tensor, condition: Tensor | None) -> Tensor:
        inner = condition if self.everywhere else None
        h = self.activation(self.first(_beside(z, condition)))
        h = self.activation(self.dense(_beside(h, inner))).unflatten(1, self.start)
        for block, size in zip(self.blocks, self.sizes, strict=True):
            if h.shape[2:] != size:
                h = functional.interpolate(h, size=size, mode="nearest")
            h = block(h, inner)
        flat: Tensor = self.output(self.activation(h if self.norm is None else self.norm(h))).flatten(1)
        return flat

    def set_output_bias(self, mean: Tensor, bias_of: Callable[[Tensor], Tensor]) -> None:
        """Set the output bias so that the decoder predicts the mean of each channel of ``mean`` [D] at first.

        ``bias_of`` is the likelihood's ``output_bias``.
        """
        assert self.output.bias is not None
        with torch.no_grad():
            self.output.bias.copy_(bias_of(mean.reshape(self.image_channels, -1).mean(1)))


def _beside(h: Tensor, condition: Tensor | None) -> Tensor:
    return h if condition is None else torch.cat([h, condition], dim=1)
