"""Corruption of the encoder's input. The target stays clean (Vincent et al. 2008, 2010).

With a deterministic code this is a denoising autoencoder, and with any other posterior a denoising VAE (Im et al. 2017).
Held-out bounds are computed on clean input, and ``val/denoise_error`` on corrupted input.
"""

from __future__ import annotations

from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor

from vae.config import Fraction, PositiveFloat, part


@part
class NoCorruption:
    """The encoder sees the clean x."""

    kind: Literal["none"] = "none"

    def apply(self, x: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Return ``x``."""
        del generator
        return x


@part
class GaussianCorruption:
    """x + std·ε with ε ~ N(0, I). The result is not clipped."""

    kind: Literal["gaussian"] = "gaussian"
    std: PositiveFloat = 0.3

    def apply(self, x: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Return the corrupted x, [B, D]."""
        return x + self.std * _like(x, generator, normal=True)


@part
class Masking:
    """Each dimension is set to 0 with probability ``fraction``."""

    kind: Literal["masking"] = "masking"
    fraction: Fraction = 0.25

    def apply(self, x: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Return the corrupted x, [B, D]."""
        return x * (_like(x, generator) >= self.fraction)


@part
class SaltAndPepper:
    """Each dimension is set to 0 or to 1, with equal chance, with probability ``fraction``."""

    kind: Literal["salt_and_pepper"] = "salt_and_pepper"
    fraction: Fraction = 0.25

    def apply(self, x: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Return the corrupted x, [B, D]."""
        uniform = _like(x, generator)
        x = torch.where(uniform < self.fraction / 2, 0.0, x)
        return torch.where(uniform >= 1 - self.fraction / 2, 1.0, x)


CorruptionConfig = Annotated[NoCorruption | GaussianCorruption | Masking | SaltAndPepper, Field(discriminator="kind")]


def _like(x: Tensor, generator: torch.Generator | None, *, normal: bool = False) -> Tensor:
    """Return noise in the shape of ``x``, drawn from torch's generator, or from ``generator`` on that one's device."""
    draw = torch.randn if normal else torch.rand
    if generator is None:
        return draw(x.shape, device=x.device)
    return draw(x.shape, generator=generator, device=generator.device).to(x.device)
