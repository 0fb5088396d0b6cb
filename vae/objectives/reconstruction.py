"""Reconstruction with an optional penalty on the code, for autoencoders that are not variational."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

import torch
from pydantic import Field

from vae.config import NonNegativeFloat, part
from vae.objectives.loss import Loss
from vae.objectives.unannealed import Unannealed

if TYPE_CHECKING:
    from torch import Tensor

    from vae.objectives.loss import Batch


@part
class NoSparsity:
    """No penalty on the code."""

    kind: Literal["none"] = "none"

    def penalty(self, code: Tensor) -> Tensor | None:
        """Return None."""
        del code
        return None


@part
class L1:
    """The penalty ``weight · Σ_d |z_d|``, averaged over the batch."""

    kind: Literal["l1"] = "l1"
    weight: NonNegativeFloat = 1e-2

    def penalty(self, code: Tensor) -> Tensor | None:
        """Return the penalty of codes [B, L], a scalar."""
        return self.weight * code.abs().sum(1).mean()


@part
class KlToRho:
    """The penalty weight · Σ_d KL(Bernoulli(ρ) ‖ Bernoulli(ρ̂_d)) (Ng 2011, CS294A notes).

    ρ̂_d is the batch's mean of z_d, which lies in (0, 1).
    """

    kind: Literal["kl_to_rho"] = "kl_to_rho"
    weight: NonNegativeFloat = 1.0
    rho: Annotated[float, Field(gt=0, lt=1)] = 0.05

    def penalty(self, code: Tensor) -> Tensor | None:
        """Return the penalty of codes [B, L] in (0, 1), a scalar."""
        mean = code.mean(0).clamp(1e-6, 1 - 1e-6)
        kl = self.rho * torch.log(self.rho / mean) + (1 - self.rho) * torch.log((1 - self.rho) / (1 - mean))
        return self.weight * kl.sum()


Sparsity = Annotated[NoSparsity | L1 | KlToRho, Field(discriminator="kind")]


@part
class Reconstruction(Unannealed):
    """Minimises −log p(x|z) at z = f(x), plus a ``sparsity`` penalty on the code."""

    kind: Literal["reconstruction"] = "reconstruction"
    sparsity: Sparsity = NoSparsity()
    posteriors: ClassVar[tuple[str, ...]] = ("deterministic",)

    def loss(self, batch: Batch) -> Loss:
        """Return the reconstruction plus the penalty, in nats per example."""
        total = batch.terms.reconstruction.mean()
        penalty = self.sparsity.penalty(batch.terms.posterior.mean)
        if penalty is None:
            return Loss(total)
        return Loss(total + penalty, {"sparsity_penalty": penalty})
