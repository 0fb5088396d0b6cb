"""Discretised logistic: integer pixels as bins of a logistic density."""

from __future__ import annotations

import math
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from vae.config import PositiveFloat, part
from vae.likelihoods.inverse import parameter_of_mean
from vae.likelihoods.support import integer_levels

_NARROW = 1e-3  # width of a bin in scales below which a series is used; its error is below 1e-7


@part
class DiscretisedLogistic:
    """P(k) = σ((k + ½ − m)/s) − σ((k − ½ − m)/s); the edge bins hold the tails (Salimans et al. 2017, eq. 2).

    It is for integers 0..levels, above all for 8-bit images. It has one component, where PixelCNN++ mixes several. The
    decoder gives m, in the scale of x in [0, 1], and log s for each pixel. s is at least ``floor`` of the data's range.
    """

    kind: Literal["discretised_logistic"] = "discretised_logistic"
    floor: PositiveFloat = 1e-3
    discrete: ClassVar[bool] = True
    support: ClassVar[str] = "levels"

    def build(self, *, levels: int) -> DiscretisedLogisticLikelihood:
        """Return the likelihood with bins 0..``levels``."""
        return DiscretisedLogisticLikelihood(integer_levels(self.kind, levels), self.floor)


class DiscretisedLogisticLikelihood(nn.Module):
    """See :class:`DiscretisedLogistic`."""

    outputs_per_dimension = 2
    start = math.log(0.1)  # the starting value of log s; the decoder's outputs are deviations from it

    def __init__(self, levels: int, floor: float) -> None:
        super().__init__()
        self.levels = levels
        self.floor = math.log(floor)

    def nll(self, output: Tensor, x: Tensor) -> Tensor:
        """Return −log p(x_d|z) in nats: outputs [B, 2·D], integers divided by ``levels`` [B, D] -> [B, D]."""
        mean, log_scale = self._location_and_log_scale(output)
        half = 0.5 / self.levels
        inverse = torch.exp(-log_scale)
        above, below = (x - mean + half) * inverse, (x - mean - half) * inverse
        # log(σ(a) − σ(b)) = log σ(a) + log σ(−b) + log(1 − e^−(a − b)). Nothing cancels, even far in the tails.
        inside = functional.logsigmoid(above) + functional.logsigmoid(-below)
        # With a scale so wide that a − b underflows, the series log(1 − e^−w) = log w − w/2 + ... avoids a NaN gradient.
        width = 2 * half * inverse
        log_width = torch.where(
            width < _NARROW,
            -log_scale - math.log(self.levels) - width / 2,
            torch.log(-torch.expm1(-width.clamp(min=_NARROW))),
        )
        inside = inside + log_width
        lowest, highest = functional.logsigmoid(above), functional.logsigmoid(-below)
        log_mass = torch.where(x < half, lowest, torch.where(x > 1 - half, highest, inside))
        return -log_mass

    def mean(self, output: Tensor) -> Tensor:
        """Return E[k]/levels as the sum of tail masses Σ_k P(K ≥ k) / levels, [B, D]."""
        mean, log_scale = self._location_and_log_scale(output)
        inverse = torch.exp(-log_scale)
        total = torch.zeros_like(mean)
        for k in range(1, self.levels + 1):
            total += torch.sigmoid((mean - (k - 0.5) / self.levels) * inverse)
        return total / self.levels

    def output_bias(self, mean: Tensor) -> Tensor:
        """Return the locations with which the mean, tails included, is the data's mean; and 0, the starting scale."""

        def mean_of(location: Tensor) -> Tensor:
            return self.mean(torch.cat([location, torch.zeros_like(location)]).unsqueeze(0)).squeeze(0)

        reach = 20 * math.exp(max(self.start, self.floor))  # 20 scales, beyond which a tail weighs e^−20
        location = parameter_of_mean(mean_of, mean.clamp(1e-3, 1 - 1e-3), low=-reach, high=1 + reach)
        return torch.cat([location, torch.zeros_like(location)])

    def diagnostics(self, output: Tensor) -> dict[str, Tensor]:
        """Return ``at_floor`` [B], the fraction of each example's pixels whose scale is at the floor."""
        return {"at_floor": (output.chunk(2, dim=1)[1] + self.start <= self.floor).float().mean(1)}

    def _location_and_log_scale(self, output: Tensor) -> tuple[Tensor, Tensor]:
        mean, log_scale = output.chunk(2, dim=1)
        return mean, (log_scale + self.start).clamp(min=self.floor)
