"""Laplace pixels with one scale, which is fixed or learned."""

from __future__ import annotations

import math
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn

from vae.config import PositiveFloat, part


@part
class Laplace:
    """``log p(x|z) = −Σ_d [|x_d − m_d|/b + log 2b]``, a density. Its mean m is also its median, which fits absolute errors.

    ``scale`` is b. If ``learned`` is ``shared``, it is the starting value of b, and b is at least ``floor``.
    """

    kind: Literal["laplace"] = "laplace"
    scale: PositiveFloat = 1.0
    learned: Literal["none", "shared"] = "none"
    floor: PositiveFloat = 1.0 / 256.0
    discrete: ClassVar[bool] = False
    support: ClassVar[str] = "real"

    def build(self, *, levels: int) -> LaplaceLikelihood:
        """Return the likelihood, which does not depend on ``levels``."""
        del levels
        return LaplaceLikelihood(self)


class LaplaceLikelihood(nn.Module):
    """See :class:`Laplace`."""

    outputs_per_dimension = 1
    log_scale: Tensor

    def __init__(self, config: Laplace) -> None:
        super().__init__()
        start = torch.tensor(math.log(config.scale))
        if config.learned == "shared":
            self.log_scale = nn.Parameter(start)
        else:
            self.register_buffer("log_scale", start, persistent=False)
        self.floor = math.log(config.floor) if config.learned == "shared" else -math.inf

    def nll(self, output: Tensor, x: Tensor) -> Tensor:
        """Return −log p(x_d|z) in nats: locations [B, D], x [B, D] -> [B, D]."""
        log_scale = self.log_scale.clamp(min=self.floor)
        return (x - output).abs() * torch.exp(-log_scale) + log_scale + math.log(2)

    def mean(self, output: Tensor) -> Tensor:
        """Return the locations, which are the outputs, [B, D]."""
        return output

    def output_bias(self, mean: Tensor) -> Tensor:
        """Return the data's mean."""
        return mean
