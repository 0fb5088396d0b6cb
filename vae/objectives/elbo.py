"""The evidence lower bound, with a weight on the KL and free bits."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from vae.config import NonNegativeFloat, part
from vae.objectives.beta_schedule import BetaSchedule, ConstantBeta, Cyclical
from vae.objectives.loss import Loss

if TYPE_CHECKING:
    from torch import Tensor

    from vae.objectives.loss import Batch, Progress


@part
class Elbo:
    """Minimises reconstruction + β·KL, in nats per example (Kingma & Welling 2014; β-VAE: Higgins et al. 2017).

    ``free_bits`` is λ in nats (Kingma et al. 2016, arXiv:1606.04934, eq. 15). The KL of each latent dimension, averaged
    over the batch, counts as at least λ, so the optimizer gains nothing by pushing it lower. If the KL does not divide
    into dimensions, λ holds for the whole KL.
    """

    kind: Literal["elbo"] = "elbo"
    beta: NonNegativeFloat = 1.0
    beta_schedule: BetaSchedule = ConstantBeta()
    free_bits: NonNegativeFloat = 0.0
    samples: ClassVar[int] = 1
    importance_weighted: ClassVar[bool] = False
    posteriors: ClassVar[tuple[str, ...]] = ("diagonal", "full_covariance")

    def loss(self, batch: Batch) -> Loss:
        """Return reconstruction + β·KL, in nats per example."""
        beta = batch.settings_of(self)["beta"]
        return Loss(batch.terms.reconstruction.mean() + beta * self.counted(batch.terms.kl))

    def settings_at(self, progress: Progress) -> dict[str, float]:
        """Return β, the weight on the KL, for the step at ``progress``."""
        return {"beta": self.beta * self.beta_schedule.fraction(progress)}

    def counted(self, kl: Tensor) -> Tensor:
        """Return the KL [B, L] with free bits, averaged over the batch: a scalar in nats per example."""
        if self.free_bits > 0:
            return kl.mean(0).clamp(min=self.free_bits).sum()
        return kl.sum() / len(kl)

    def annealing_epochs(self, epochs: int) -> int:
        """Return the number of epochs until β has its value for the first time."""
        return self.beta_schedule.annealing_epochs(epochs)

    def cycle_epochs(self, epochs: int) -> float | None:
        """Return the length of a cycle of β in epochs; None if β has no cycle."""
        return epochs / self.beta_schedule.cycles if isinstance(self.beta_schedule, Cyclical) else None
