"""Gaussian pixels with one variance, fixed or learned."""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor, nn

from vae.config import PositiveFloat, part


@part
class Gaussian:
    """log p(x|z) = −½ Σ_d [(x_d − m_d)²/σ² + log σ² + log 2π]: a density, on x scaled to [0, 1].

    ``variance`` is σ², or where ``learned`` its starting value: one number for all pixels, trained with the
    weights (σ-VAE, Rybkin et al. 2021, arXiv:2006.13202). ``floor`` keeps a learned σ at or above one
    256th of the data's range by default: where pixels are constant the density is unbounded.
    """

    kind: Literal["gaussian"] = "gaussian"
    variance: PositiveFloat = 1.0
    learned: bool = False
    floor: PositiveFloat = 1.0 / 256.0


class GaussianLikelihood(nn.Module):
    """See :class:`Gaussian`."""

    outputs_per_dimension = 1
    discrete = False
    log_variance: Tensor

    def __init__(self, config: Gaussian) -> None:
        super().__init__()
        start = torch.tensor(math.log(config.variance))
        if config.learned:
            self.log_variance = nn.Parameter(start)
        else:
            self.register_buffer("log_variance", start, persistent=False)
        self.floor = 2.0 * math.log(config.floor) if config.learned else -math.inf

    def nll(self, output: Tensor, x: Tensor) -> Tensor:
        """[B, D] means, [B, D] -> [B] nats; may be negative, as for any density."""
        log_variance = self.log_variance.clamp(min=self.floor)
        squared = (x - output).square().sum(1)
        constant = x.shape[1] * (log_variance + math.log(2 * math.pi))
        return 0.5 * (squared * torch.exp(-log_variance) + constant)

    def mean(self, output: Tensor) -> Tensor:
        """The means themselves, [B, D]."""
        return output

    def output_bias(self, mean: Tensor) -> Tensor:
        """The data's mean."""
        return mean
