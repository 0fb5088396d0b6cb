"""Normalisation layers by name."""

from __future__ import annotations

from typing import Literal

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

VectorNormalisation = Literal["none", "batch", "layer"]
ImageNormalisation = Literal["none", "batch", "group"]

_GROUPS = 8  # the largest number of groups
_GROUP_CHANNELS = 4  # the smallest number of channels in a group: with one channel and one pixel, a group is constant


def vector_normalisation(name: VectorNormalisation, width: int) -> nn.Module | None:
    """Return a layer for [B, width]: batch (Ioffe & Szegedy 2015) or layer normalisation (Ba et al. 2016); None for none."""
    match name:
        case "none":
            return None
        case "batch":
            return nn.BatchNorm1d(width)
        case "layer":
            return nn.LayerNorm(width)


def image_normalisation(name: ImageNormalisation, channels: int) -> nn.Module | None:
    """Return a layer for [B, channels, H, W]: batch or group normalisation (Wu & He 2018); None for none.

    The number of groups is the largest divisor of ``channels`` within the bounds above, or 1.
    """
    match name:
        case "none":
            return None
        case "batch":
            return nn.BatchNorm2d(channels)
        case "group":
            most = max(1, min(_GROUPS, channels // _GROUP_CHANNELS))
            groups = max(count for count in range(1, most + 1) if channels % count == 0)
            return nn.GroupNorm(groups, channels)


def has_batch_norm(model: nn.Module) -> bool:
    """Return True if the model normalises over a batch, so that its examples influence each other in training."""
    return any(isinstance(module, _BatchNorm) for module in model.modules())
