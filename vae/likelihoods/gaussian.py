"""Gaussian pixels: one variance, fixed or learned, or one for each pixel."""

from __future__ import annotations

import math
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn

from vae.config import PositiveFloat, part


@part
class Gaussian:
    """log p(x|z) = −½ Σ_d [(x_d − m_d)²/σ² + log σ² + log 2π]: a density, on the scale of x.

    ``variance`` is σ², or where it is learned its starting value. ``learned``: ``shared`` is one number for all
    pixels, trained with the weights (σ-VAE, Rybkin et al. 2021, arXiv:2006.13202); ``per_pixel`` is put out by the
    decoder for each pixel of each example. ``floor`` keeps a learned σ at or above one 256th of the data's range by
    default: where pixels are constant the density is unbounded (Mattei & Frellsen 2018).
    """

    kind: Literal["gaussian"] = "gaussian"
    variance: PositiveFloat = 1.0
    learned: Literal["none", "shared", "per_pixel"] = "none"
    floor: PositiveFloat = 1.0 / 256.0
    discrete: ClassVar[bool] = False
    support: ClassVar[str] = "real"

    def build(self, *, levels: int) -> GaussianLikelihood | PerPixelGaussianLikelihood:
        """Return the likelihood, which does not depend on ``levels``."""
        del levels
        return PerPixelGaussianLikelihood(self) if self.learned == "per_pixel" else GaussianLikelihood(self)


class GaussianLikelihood(nn.Module):
    """See :class:`Gaussian`: one variance for all pixels."""

    outputs_per_dimension = 1
    log_variance: Tensor

    def __init__(self, config: Gaussian) -> None:
        super().__init__()
        start = torch.tensor(math.log(config.variance))
        if config.learned == "shared":
            self.log_variance = nn.Parameter(start)
        else:
            self.register_buffer("log_variance", start, persistent=False)
        self.floor = 2.0 * math.log(config.floor) if config.learned == "shared" else -math.inf

    def nll(self, output: Tensor, x: Tensor) -> Tensor:
        """[B, D] means, [B, D] -> [B, D] nats; may be negative, as for any density."""
        log_variance = self.log_variance.clamp(min=self.floor)
        constant = log_variance + math.log(2 * math.pi)
        return 0.5 * ((x - output).square() * torch.exp(-log_variance) + constant)

    def mean(self, output: Tensor) -> Tensor:
        """The means themselves, [B, D]."""
        return output

    def output_bias(self, mean: Tensor) -> Tensor:
        """The data's mean."""
        return mean

    def diagnostics(self, output: Tensor) -> dict[str, Tensor]:
        """Nothing to watch."""
        del output
        return {}


class PerPixelGaussianLikelihood(nn.Module):
    """See :class:`Gaussian`: the decoder puts out all means, then all log variances."""

    outputs_per_dimension = 2

    def __init__(self, config: Gaussian) -> None:
        super().__init__()
        self.start = math.log(config.variance)
        self.floor = 2.0 * math.log(config.floor)

    def nll(self, output: Tensor, x: Tensor) -> Tensor:
        """[B, 2·D], [B, D] -> [B, D] nats."""
        mean, log_variance = output.chunk(2, dim=1)
        # The outputs are deviations from the configured variance, so that a new network starts there.
        log_variance = (log_variance + self.start).clamp(min=self.floor)
        return 0.5 * ((x - mean).square() * torch.exp(-log_variance) + log_variance + math.log(2 * math.pi))

    def mean(self, output: Tensor) -> Tensor:
        """The means, [B, D]."""
        return output.chunk(2, dim=1)[0]

    def output_bias(self, mean: Tensor) -> Tensor:
        """The data's mean, and the configured variance."""
        return torch.cat([mean, torch.zeros_like(mean)])

    def diagnostics(self, output: Tensor) -> dict[str, Tensor]:
        """``at_floor``: the fraction of each example's pixels whose σ is held by the floor, [B]."""
        log_variance = output.chunk(2, dim=1)[1] + self.start
        return {"at_floor": (log_variance <= self.floor).float().mean(1)}
