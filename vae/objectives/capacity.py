"""Capacity annealing: the KL is held near a target that grows."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, ClassVar, Literal

from vae.config import NonNegativeFloat, PositiveFloat, part
from vae.objectives.loss import Loss

if TYPE_CHECKING:
    from vae.objectives.loss import Batch, Progress


@part
class Capacity:
    """Minimises ``reconstruction + γ·|KL − C|`` (Burgess et al. 2018, arXiv:1804.03599, eq. 8).

    C grows linearly from 0 to ``capacity`` nats over ``epochs`` epochs. KL is the mean over the batch.
    """

    kind: Literal["capacity"] = "capacity"
    gamma: NonNegativeFloat = 30.0
    capacity: NonNegativeFloat = 25.0
    epochs: PositiveFloat = 1.0
    samples: ClassVar[int] = 1
    importance_weighted: ClassVar[bool] = False
    posteriors: ClassVar[tuple[str, ...]] = ("diagonal", "full_covariance")

    def settings_at(self, progress: Progress) -> dict[str, float]:
        """Return C for the step at ``progress``, in nats."""
        return {"capacity": self.capacity * min(1.0, progress.step / (self.epochs * progress.steps_per_epoch))}

    def loss(self, batch: Batch) -> Loss:
        """Return ``reconstruction + γ·|KL − C|``, in nats per example."""
        target = batch.settings_of(self)["capacity"]
        distance = (batch.terms.kl.sum() / len(batch.terms.kl) - target).abs()
        return Loss(batch.terms.reconstruction.mean() + self.gamma * distance, {"capacity_distance": distance})

    def annealing_epochs(self, epochs: int) -> int:
        """Return the number of epochs until the capacity is reached, rounded up."""
        del epochs
        return math.ceil(self.epochs)

    def cycle_epochs(self, epochs: int) -> float | None:
        """Return None: there is no cycle."""
        del epochs
        return None
