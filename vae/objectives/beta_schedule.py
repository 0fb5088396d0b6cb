"""β as a function of the training step. All of them end at the configured β."""

from __future__ import annotations

import math
from typing import Annotated, Literal

from pydantic import Field

from vae.config import PositiveFloat, PositiveInt, part


@part
class ConstantBeta:
    """β from the first step to the last."""

    kind: Literal["constant"] = "constant"


@part
class LinearWarmup:
    """β rises linearly from 0 over the first ``epochs`` epochs (Bowman et al. 2016; Sønderby et al. 2016)."""

    kind: Literal["linear_warmup"] = "linear_warmup"
    epochs: PositiveFloat = 1.0


@part
class Cyclical:
    """``cycles`` equal cycles: in each, β rises linearly from 0 over ``ramp`` of it, then stays (Fu et al. 2019)."""

    kind: Literal["cyclical"] = "cyclical"
    cycles: PositiveInt = 4
    ramp: Annotated[float, Field(gt=0, le=1)] = 0.5


BetaSchedule = Annotated[ConstantBeta | LinearWarmup | Cyclical, Field(discriminator="kind")]


def beta_fraction(schedule: BetaSchedule, *, step: int, steps_per_epoch: int, total_steps: int) -> float:
    """The share of β in force at ``step``, counted from 0."""
    match schedule:
        case ConstantBeta():
            return 1.0
        case LinearWarmup():
            return min(1.0, step / (schedule.epochs * steps_per_epoch))
        case Cyclical():
            # In whole numbers: at a cycle's first step a rounded ``step % cycle`` may be a whole cycle, not 0.
            place = (step * schedule.cycles) % total_steps / total_steps
            return min(1.0, place / schedule.ramp)


def annealing_epochs(schedule: BetaSchedule, epochs: int) -> int:
    """Epochs before a run of ``epochs`` may be judged: its warm-up, or its first whole cycle. 0 without a schedule."""
    match schedule:
        case ConstantBeta():
            return 0
        case LinearWarmup():
            return math.ceil(schedule.epochs)
        case Cyclical():
            return math.ceil(epochs / schedule.cycles)
