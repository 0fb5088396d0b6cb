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

_NARROW = 1e-3  # bins of fewer scales than this: the error of the series is below 1e-7


@part
class DiscretisedLogistic:
    """P(k) = σ((k + ½ − m)/s) − σ((k − ½ − m)/s), the edge bins taking the tails (Salimans et al. 2017, eq. 2).

    For integers 0..levels, 8-bit images above all. One component (PixelCNN++ mixes several). The decoder gives m, on
    the scale of x in [0, 1], and log s for each pixel; s is kept at or above ``floor`` of the data's range.
    """

    kind: Literal["discretised_logistic"] = "discretised_logistic"
    floor: PositiveFloat = 1e-3
    discrete: ClassVar[bool] = True
    support: ClassVar[str] = "levels"

    def build(self, *, levels: int) -> DiscretisedLogisticLikelihood:
        """Bins 0..``levels``."""
        return DiscretisedLogisticLikelihood(integer_levels(self.kind, levels), self.floor)


class DiscretisedLogisticLikelihood(nn.Module):
    """See :class:`DiscretisedLogistic`."""

    outputs_per_dimension = 2
    start = math.log(0.1)  # of log s: the decoder's outputs are deviations from it

    def __init__(self, levels: int, floor: float) -> None:
        super().__init__()
        self.levels = levels
        self.floor = math.log(floor)

    def nll(self, output: Tensor, x: Tensor) -> Tensor:
        """[B, 2·D], [B, D] integers divided by ``levels`` -> [B, D] nats."""
        mean, log_scale = self._location_and_log_scale(output)
        half = 0.5 / self.levels
        inverse = torch.exp(-log_scale)
        above, below = (x - mean + half) * inverse, (x - mean - half) * inverse
        # log(σ(a) − σ(b)) = log σ(a) + log σ(−b) + log(1 − e^−(a − b)): nothing cancels, however far the tails.
        inside = functional.logsigmoid(above) + functional.logsigmoid(-below)
        # Under a scale so wide that a − b underflows, log(1 − e^−w) = log w − w/2 + ..., or the gradient would be NaN.
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
        """E[k]/levels by summing tail masses, Σ_k P(K ≥ k) / levels: [B, D]."""
        mean, log_scale = self._location_and_log_scale(output)
        inverse = torch.exp(-log_scale)
        total = torch.zeros_like(mean)
        for k in range(1, self.levels + 1):
            total += torch.sigmoid((mean - (k - 0.5) / self.levels) * inverse)
        return total / self.levels

    def output_bias(self, mean: Tensor) -> Tensor:
        """The locations whose mean, with the tails folded in, is the data's, and the starting scale."""

        def mean_of(location: Tensor) -> Tensor:
            return self.mean(torch.cat([location, torch.zeros_like(location)]).unsqueeze(0)).squeeze(0)

        reach = 20 * math.exp(max(self.start, self.floor))  # of the scale: what is beyond weighs e^−20
        location = parameter_of_mean(mean_of, mean.clamp(1e-3, 1 - 1e-3), low=-reach, high=1 + reach)
        return torch.cat([location, torch.zeros_like(location)])

    def diagnostics(self, output: Tensor) -> dict[str, Tensor]:
        """``at_floor``: the fraction of each example's pixels whose scale is held by the floor, [B]."""
        return {"at_floor": (output.chunk(2, dim=1)[1] + self.start <= self.floor).float().mean(1)}

    def _location_and_log_scale(self, output: Tensor) -> tuple[Tensor, Tensor]:
        mean, log_scale = output.chunk(2, dim=1)
        return mean, (log_scale + self.start).clamp(min=self.floor)
