"""The importance-weighted bound."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

import torch
from pydantic import Field

from vae.config import part
from vae.objectives.loss import Loss
from vae.objectives.unannealed import Unannealed

if TYPE_CHECKING:
    from torch import Tensor

    from vae.objectives.loss import Batch


@part
class Iwae(Unannealed):
    """Minimises −log 1/k Σ_i p(x, z_i) / q(z_i|x) (Burda et al. 2016, arXiv:1509.00519, eq. 8).

    With ``doubly_reparameterised`` the encoder's gradient has no score term, so its signal-to-noise ratio does not fall
    with k (Tucker et al. 2019, arXiv:1810.04152, eq. 8). The value of the loss is the same.
    """

    kind: Literal["iwae"] = "iwae"
    k: Annotated[int, Field(ge=1, le=5000)] = 5
    doubly_reparameterised: bool = False
    importance_weighted: ClassVar[bool] = True
    posteriors: ClassVar[tuple[str, ...]] = ("diagonal", "full_covariance")

    @property
    def samples(self) -> int:  # type: ignore[override] # a draw for each weight
        """Return k."""
        return self.k

    def loss(self, batch: Batch) -> Loss:
        """Return −log of the mean importance weight, averaged over the batch, in nats per example."""
        terms = batch.terms
        z, posterior = terms.z, terms.posterior
        if self.doubly_reparameterised:
            posterior = posterior.detach()
        log_prior = batch.model.prior.log_density(z, batch.condition, batch.model.encode_alone)
        log_weight = log_prior - terms.reconstruction - posterior.log_density(z)  # [k, B]
        bound = torch.logsumexp(log_weight, dim=0) - math.log(self.k)
        if not self.doubly_reparameterised:
            return Loss(-bound.mean(), {"iwae_bound": bound.mean()})
        share = torch.softmax(log_weight.detach(), dim=0)
        # Decoder and prior get Σ w̃ ∇log w. The encoder's gradient passes through z, where it is multiplied by w̃ again.
        z.register_hook(lambda gradient: share.unsqueeze(-1) * gradient)
        surrogate = -(share * log_weight).sum(0).mean()
        return Loss(_value_of(-bound.mean(), surrogate), {"iwae_bound": bound.mean()})


def _value_of(value: Tensor, gradient: Tensor) -> Tensor:
    """Return a scalar with the value of ``value`` and the gradient of ``gradient``."""
    return gradient + (value - gradient).detach()
