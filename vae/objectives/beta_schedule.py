"""Schedules of β over the training steps. All of them end at the configured β."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from vae.config import PositiveFloat, PositiveInt, part

if TYPE_CHECKING:
    from vae.objectives.loss import Progress


@part
class ConstantBeta:
    """The full β at every step."""

    kind: Literal["constant"] = "constant"

    def fraction(self, progress: Progress) -> float:
        """Return 1."""
        del progress
        return 1.0

    def annealing_epochs(self, epochs: int) -> int:
        """Return 0: there is no annealing."""
        del epochs
        return 0


@part
class LinearWarmup:
    """β rises linearly from 0 over the first ``epochs`` epochs (Bowman et al. 2016; Sønderby et al. 2016)."""

    kind: Literal["linear_warmup"] = "linear_warmup"
    epochs: PositiveFloat = 1.0

    def fraction(self, progress: Progress) -> float:
        """Return the share of β at a step: min(1, step / warm-up steps)."""
        return min(1.0, progress.step / (self.epochs * progress.steps_per_epoch))

    def annealing_epochs(self, epochs: int) -> int:
        """Return the length of the warm-up, rounded up."""
        del epochs
        return math.ceil(self.epochs)


@part
class CosineWarmup:
    """β rises from 0 over the first ``epochs`` epochs along half a cosine: slowly, then fast, then slowly."""

    kind: Literal["cosine_warmup"] = "cosine_warmup"
    epochs: PositiveFloat = 1.0

    def fraction(self, progress: Progress) -> float:
        """Return the share of β at a step: ½ (1 − cos(π · min(1, step / warm-up steps)))."""
        place = min(1.0, progress.step / (self.epochs * progress.steps_per_epoch))
        return 0.5 * (1.0 - math.cos(math.pi * place))

    def annealing_epochs(self, epochs: int) -> int:
        """Return the length of the warm-up, rounded up."""
        del epochs
        return math.ceil(self.epochs)


@part
class Cyclical:
    """β repeats ``cycles`` equal cycles (Fu et al. 2019).

    In each cycle it rises linearly from 0 over the share ``ramp`` of the cycle, and then stays.
    """

    kind: Literal["cyclical"] = "cyclical"
    cycles: PositiveInt = 4
    ramp: Annotated[float, Field(gt=0, le=1)] = 0.5

    def fraction(self, progress: Progress) -> float:
        """Return the share of β at a step: the position in the cycle divided by the ramp, at most 1."""
        # Computed in integers: with rounding, ``step % cycle`` at a cycle's first step can be a whole cycle instead of 0.
        place = (progress.step * self.cycles) % progress.total_steps / progress.total_steps
        return min(1.0, place / self.ramp)

    def annealing_epochs(self, epochs: int) -> int:
        """Return the length of the first cycle, rounded up."""
        return math.ceil(epochs / self.cycles)


BetaSchedule = Annotated[ConstantBeta | LinearWarmup | CosineWarmup | Cyclical, Field(discriminator="kind")]
