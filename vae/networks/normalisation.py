"""Normalisation layers by name."""

from __future__ import annotations

import math
from typing import Literal

from torch import nn

VectorNormalisation = Literal["none", "batch", "layer"]
ImageNormalisation = Literal["none", "batch", "group"]

_GROUPS = 8  # at most: the largest divisor of the channels is taken


def vector_normalisation(name: VectorNormalisation, width: int) -> nn.Module | None:
    """For [B, width]: batch (Ioffe & Szegedy 2015) or layer normalisation (Ba et al. 2016); None for none."""
    match name:
        case "none":
            return None
        case "batch":
            return nn.BatchNorm1d(width)
        case "layer":
            return nn.LayerNorm(width)


def image_normalisation(name: ImageNormalisation, channels: int) -> nn.Module | None:
    """For [B, channels, H, W]: batch or group normalisation (Wu & He 2018); None for none."""
    match name:
        case "none":
            return None
        case "batch":
            return nn.BatchNorm2d(channels)
        case "group":
            return nn.GroupNorm(math.gcd(_GROUPS, channels), channels)


def has_batch_norm(model: nn.Module) -> bool:
    """Whether examples of a batch see each other in training."""
    return any(isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d) for module in model.modules())
