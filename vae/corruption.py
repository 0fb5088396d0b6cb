"""Corruption of the input before the encoder sees it; the target stays clean (Vincent et al. 2008, 2010).

A denoising autoencoder is a deterministic code with a corruption; on any other posterior it is a denoising VAE
(Im et al. 2017). Held-out bounds are of clean input; ``val/denoise_error`` is of corrupted input.
"""

from __future__ import annotations

from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor

from vae.config import Fraction, PositiveFloat, part


@part
class NoCorruption:
    """The encoder sees x as it is."""

    kind: Literal["none"] = "none"

    def apply(self, x: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """X itself."""
        del generator
        return x


@part
class GaussianCorruption:
    """x + std·ε with ε ~ N(0, I); not clipped."""

    kind: Literal["gaussian"] = "gaussian"
    std: PositiveFloat = 0.3

    def apply(self, x: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """[B, D] -> [B, D]."""
        return x + self.std * _like(x, generator, normal=True)


@part
class Masking:
    """Each dimension is set to 0 with probability ``fraction``."""

    kind: Literal["masking"] = "masking"
    fraction: Fraction = 0.25

    def apply(self, x: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """[B, D] -> [B, D]."""
        return x * (_like(x, generator) >= self.fraction)


@part
class SaltAndPepper:
    """Each dimension is set to 0 or to 1, with equal chance, with probability ``fraction``."""

    kind: Literal["salt_and_pepper"] = "salt_and_pepper"
    fraction: Fraction = 0.25

    def apply(self, x: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """[B, D] -> [B, D]."""
        uniform = _like(x, generator)
        x = torch.where(uniform < self.fraction / 2, 0.0, x)
        return torch.where(uniform >= 1 - self.fraction / 2, 1.0, x)


CorruptionConfig = Annotated[NoCorruption | GaussianCorruption | Masking | SaltAndPepper, Field(discriminator="kind")]


def _like(x: Tensor, generator: torch.Generator | None, *, normal: bool = False) -> Tensor:
    """Noise in the shape of ``x``: from torch's generator, or from a given one, on whose device it is drawn."""
    draw = torch.randn if normal else torch.rand
    if generator is None:
        return draw(x.shape, device=x.device)
    return draw(x.shape, generator=generator, device=generator.device).to(x.device)
