"""Gaussian pixels with one variance, fixed or learned, or with one for each pixel."""

from __future__ import annotations

import math
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn

from vae.config import PositiveFloat, part


@part
class Gaussian:
    """log p(x|z) = −½ Σ_d [(x_d − m_d)²/σ² + log σ² + log 2π], a density in the scale of x.

    ``variance`` is σ², or its starting value if it is learned. With ``learned`` ``shared`` it is one number for all pixels,
    trained with the weights (σ-VAE, Rybkin et al. 2021, arXiv:2006.13202). With ``per_pixel`` the decoder puts it out for
    each pixel of each example. A learned σ is at least ``floor``, by default one 256th of the data's range, because the
    density of constant pixels is unbounded (Mattei & Frellsen 2018).
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
    """See :class:`Gaussian`. It has one variance for all pixels."""

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
        """Return −log p(x_d|z) in nats: means [B, D], x [B, D] -> [B, D]. It may be negative, as for any density."""
        log_variance = self.log_variance.clamp(min=self.floor)
        constant = log_variance + math.log(2 * math.pi)
        return 0.5 * ((x - output).square() * torch.exp(-log_variance) + constant)

    def mean(self, output: Tensor) -> Tensor:
        """Return the means, which are the outputs, [B, D]."""
        return output

    def output_bias(self, mean: Tensor) -> Tensor:
        """Return the data's mean."""
        return mean


class PerPixelGaussianLikelihood(nn.Module):
    """See :class:`Gaussian`. The decoder's row holds all means, then all log variances."""

    outputs_per_dimension = 2

    def __init__(self, config: Gaussian) -> None:
        super().__init__()
        self.start = math.log(config.variance)
        self.floor = 2.0 * math.log(config.floor)

    def nll(self, output: Tensor, x: Tensor) -> Tensor:
        """Return −log p(x_d|z) in nats: outputs [B, 2·D], x [B, D] -> [B, D]."""
        mean, log_variance = output.chunk(2, dim=1)
        # The outputs are deviations from the configured variance, so that a new network starts with that variance.
        log_variance = (log_variance + self.start).clamp(min=self.floor)
        return 0.5 * ((x - mean).square() * torch.exp(-log_variance) + log_variance + math.log(2 * math.pi))

    def mean(self, output: Tensor) -> Tensor:
        """Return the means, [B, D]."""
        return output.chunk(2, dim=1)[0]

    def output_bias(self, mean: Tensor) -> Tensor:
        """Return the data's mean, and 0 for the configured variance."""
        return torch.cat([mean, torch.zeros_like(mean)])

    def diagnostics(self, output: Tensor) -> dict[str, Tensor]:
        """Return ``at_floor`` [B], the fraction of each example's pixels whose σ is at the floor."""
        log_variance = output.chunk(2, dim=1)[1] + self.start
        return {"at_floor": (log_variance <= self.floor).float().mean(1)}
