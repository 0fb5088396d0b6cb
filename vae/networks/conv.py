"""Convolutional encoder and decoder for images of any size and any number of channels."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from vae.config import ConfigError, FractionBelowOne, PositiveInt, part
from vae.networks.activations import Activation, activation
from vae.networks.normalisation import ImageNormalisation, image_normalisation

if TYPE_CHECKING:
    from collections.abc import Callable

    from vae.networks.sizes import Sizes


@part
class Conv:
    """A convolution of stride 2 for each entry of ``channels``, which halves height and width, and then one dense layer.

    The decoder mirrors the encoder with transposed convolutions. With ``kernel: 4`` even sizes are halved exactly. With 3
    or 5 the halves are rounded up. The decoder always returns to the size of the data.
    """

    kind: Literal["conv"] = "conv"
    channels: Annotated[tuple[PositiveInt, ...], Field(min_length=1)] = (32, 64)
    kernel: Literal[3, 4, 5] = 4
    dense: PositiveInt = 256
    activation: Activation = "relu"
    normalisation: ImageNormalisation = "none"
    dropout: FractionBelowOne = 0.0

    def build(self, sizes: Sizes) -> tuple[nn.Module, nn.Module]:
        """Return encoder and decoder.

        Raises:
            ConfigError: The images are too small to be halved that often.

        """
        return ConvEncoder(self, sizes), ConvDecoder(self, sizes)


def _sizes_by_level(config: Conv, height: int, width: int) -> list[tuple[int, int]]:
    """Return (H, W) of the data and after each convolution."""
    padding = (config.kernel - 1) // 2
    sizes = [(height, width)]
    for level in range(len(config.channels)):
        h, w = ((side + 2 * padding - config.kernel) // 2 + 1 for side in sizes[-1])
        if min(sizes[-1]) < 2 or min(h, w) < 1:  # noqa: PLR2004 - a side of 1 can't be halved
            rule = f"must have at most {level} entries for images of {height}×{width}"
            raise ConfigError(f"network.channels {rule}, got {len(config.channels)}; use fewer")
        sizes.append((h, w))
    return sizes


def with_planes(image: Tensor, condition: Tensor) -> Tensor:
    """Append the condition as constant planes: [B, C, H, W], [B, K] -> [B, C + K, H, W]."""
    planes = condition[:, :, None, None].expand(-1, -1, image.shape[2], image.shape[3])
    return torch.cat([image, planes], dim=1)


def _normalisations(config: Conv, channels: tuple[int, ...]) -> nn.ModuleList:
    made = [image_normalisation(config.normalisation, width) for width in channels]
    return nn.ModuleList(layer for layer in made if layer is not None)


class ConvEncoder(nn.Module):
    """[B, D] -> [B, posterior_outputs]."""

    def __init__(self, config: Conv, sizes: Sizes) -> None:
        super().__init__()
        self.shape = sizes.shape
        self.everywhere = sizes.condition_everywhere
        spatial = _sizes_by_level(config, *sizes.shape[1:])
        inputs = (sizes.shape[0], *config.channels[:-1])
        condition = sizes.encoder_condition
        extra = [condition if i == 0 or self.everywhere else 0 for i in range(len(inputs))]
        everywhere = condition if self.everywhere else 0
        padding = (config.kernel - 1) // 2
        self.convolutions = nn.ModuleList(
            nn.Conv2d(wide + more, narrow, config.kernel, stride=2, padding=padding)
            for wide, more, narrow in zip(inputs, extra, config.channels, strict=True)
        )
        self.normalisations = _normalisations(config, config.channels)
        self.activation = activation(config.activation)
        self.dropout = nn.Dropout(config.dropout)
        flat = config.channels[-1] * spatial[-1][0] * spatial[-1][1]
        self.dense = nn.Linear(flat + everywhere, config.dense)
        self.output = nn.Linear(config.dense + everywhere, sizes.posterior_outputs)

    def forward(self, x: Tensor, condition: Tensor | None) -> Tensor:
        h = x.unflatten(1, self.shape)
        for index, convolution in enumerate(self.convolutions):
            if condition is not None and (index == 0 or self.everywhere):
                h = with_planes(h, condition)
            h = convolution(h)
            if self.normalisations:
                h = self.normalisations[index](h)
            h = self.activation(h)
        h = h.flatten(1)
        if condition is not None and self.everywhere:
            h = torch.cat([h, condition], dim=1)
        h = self.dropout(self.activation(self.dense(h)))
        if condition is not None and self.everywhere:
            h = torch.cat([h, condition], dim=1)
        posterior: Tensor = self.output(h)
        return posterior


class ConvDecoder(nn.Module):
    """[B, L] -> [B, outputs_per_dimension × D]."""

    def __init__(self, config: Conv, sizes: Sizes) -> None:
        super().__init__()
        self.everywhere = sizes.condition_everywhere
        spatial = _sizes_by_level(config, *sizes.shape[1:])
        everywhere = sizes.decoder_condition if self.everywhere else 0
        self.start = (config.channels[-1], *spatial[-1])
        self.first = nn.Linear(sizes.latent + sizes.decoder_condition, config.dense)
        self.dense = nn.Linear(config.dense + everywhere, config.channels[-1] * spatial[-1][0] * spatial[-1][1])
        self.image_channels = sizes.shape[0]
        out_channels = sizes.outputs_per_dimension * self.image_channels
        outputs = (*config.channels[-2::-1], out_channels)
        padding = (config.kernel - 1) // 2
        self.convolutions = nn.ModuleList()
        for level, (wide, narrow) in enumerate(zip(config.channels[::-1], outputs, strict=True)):
            small, large = spatial[-1 - level], spatial[-2 - level]
            # The padding with which the transposed convolution restores the size before the encoder's convolution.
            missing = [
                big - ((side - 1) * 2 - 2 * padding + config.kernel) for side, big in zip(small, large, strict=True)
            ]
            self.convolutions.append(
                nn.ConvTranspose2d(
                    wide + everywhere,
                    narrow,
                    config.kernel,
                    stride=2,
                    padding=padding,
                    output_padding=(missing[0], missing[1]),
                )
            )
        self.normalisations = _normalisations(config, outputs[:-1])
        self.activation = activation(config.activation)
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, z: Tensor, condition: Tensor | None) -> Tensor:
        if condition is not None:
            z = torch.cat([z, condition], dim=1)
        h = self.dropout(self.activation(self.first(z)))
        if condition is not None and self.everywhere:
            h = torch.cat([h, condition], dim=1)
        h = self.activation(self.dense(h)).unflatten(1, self.start)
        last = len(self.convolutions) - 1
        for index, convolution in enumerate(self.convolutions):
            if condition is not None and self.everywhere:
                h = with_planes(h, condition)
            h = convolution(h)
            if index < last:
                if self.normalisations:
                    h = self.normalisations[index](h)
                h = self.activation(h)
        flat: Tensor = h.flatten(1)
        return flat

    def set_output_bias(self, mean: Tensor, bias_of: Callable[[Tensor], Tensor]) -> None:
        """Set the output bias so that the decoder predicts the mean of each channel of ``mean`` [D] at first.

        The pixels of a channel share one bias. ``bias_of`` is the likelihood's ``output_bias``.
        """
        output = self.convolutions[-1]
        assert isinstance(output, nn.ConvTranspose2d)
        assert output.bias is not None
        with torch.no_grad():
            output.bias.copy_(bias_of(mean.reshape(self.image_channels, -1).mean(1)))
