"""β as a function of the training step. All of them end at the configured β."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from vae.config import PositiveFloat, PositiveInt, part

if TYPE_CHECKING:
    from vae.objectives.loss import Progress


@part
class ConstantBeta:
    """β from the first step to the last."""

    kind: Literal["constant"] = "constant"

    def fraction(self, progress: Progress) -> float:
        """1."""
        del progress
        return 1.0

    def annealing_epochs(self, epochs: int) -> int:
        """None to wait for."""
        del epochs
        return 0


@part
class LinearWarmup:
    """β rises linearly from 0 over the first ``epochs`` epochs (Bowman et al. 2016; Sønderby et al. 2016)."""

    kind: Literal["linear_warmup"] = "linear_warmup"
    epochs: PositiveFloat = 1.0

    def fraction(self, progress: Progress) -> float:
        """min(1, step / warm-up steps)."""
        return min(1.0, progress.step / (self.epochs * progress.steps_per_epoch))

    def annealing_epochs(self, epochs: int) -> int:
        """The warm-up."""
        del epochs
        return math.ceil(self.epochs)


@part
class CosineWarmup:
    """β rises from 0 over the first ``epochs`` epochs by half a cosine: slowly, fast, slowly."""

    kind: Literal["cosine_warmup"] = "cosine_warmup"
    epochs: PositiveFloat = 1.0

    def fraction(self, progress: Progress) -> float:
        """½ (1 − cos(π · min(1, step / warm-up steps)))."""
        place = min(1.0, progress.step / (self.epochs * progress.steps_per_epoch))
        return 0.5 * (1.0 - math.cos(math.pi * place))

    def annealing_epochs(self, epochs: int) -> int:
        """The warm-up."""
        del epochs
        return math.ceil(self.epochs)


@part
class Cyclical:
    """``cycles`` equal cycles: in each, β rises linearly from 0 over ``ramp`` of it, then stays (Fu et al. 2019)."""

    kind: Literal["cyclical"] = "cyclical"
    cycles: PositiveInt = 4
    ramp: Annotated[float, Field(gt=0, le=1)] = 0.5

    def fraction(self, progress: Progress) -> float:
        """The place in the cycle / ramp, at most 1."""
        # In whole numbers: at a cycle's first step a rounded ``step % cycle`` may be a whole cycle, not 0.
        place = (progress.step * self.cycles) % progress.total_steps / progress.total_steps
        return min(1.0, place / self.ramp)

    def annealing_epochs(self, epochs: int) -> int:
        """The first whole cycle."""
        return math.ceil(epochs / self.cycles)


BetaSchedule = Annotated[ConstantBeta | LinearWarmup | CosineWarmup | Cyclical, Field(discriminator="kind")]
