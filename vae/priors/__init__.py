"""p(z), or p(z|y): what the posterior is pulled towards, and what samples are drawn from.

Each prior is a config with ``build(latent_size, label_size, dimensions)``, which makes a module with

* ``closed_form``: whether ``kl`` is exact given x, or estimated from the codes z that were drawn;
* ``kl(posterior, z, condition, encode)``: KL(q ‖ p) in nats, [B, L] by dimension, or [B, 1] where it does not divide;
* ``log_density(z, condition, encode)``: log p(z), [..., B];
* ``sample(noise, uniform, condition, encode)``: z of the prior from ε [B, L] and u [B], uniform on [0, 1);
* ``standardise(mean, condition)``: posterior means in units in which activity is counted.

``condition`` is the one-hot label [B, K] or None; ``encode`` maps x [B, D] to a posterior (for VampPrior alone).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Protocol

from pydantic import Field

from vae.priors.label_conditional import LabelConditional
from vae.priors.mixture import Mixture
from vae.priors.standard_normal import StandardNormal
from vae.priors.vamp import Vamp

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

    from vae.posteriors import Posterior

    Encode = Callable[[Tensor], Posterior]

PriorConfig = Annotated[StandardNormal | LabelConditional | Mixture | Vamp, Field(discriminator="kind")]


class Prior(Protocol):
    """See the top of this file."""

    closed_form: bool

    def kl(self, posterior: Posterior, z: Tensor, condition: Tensor | None, encode: Encode) -> Tensor:
        """[B, L] or [B, 1] nats."""

    def log_density(self, z: Tensor, condition: Tensor | None, encode: Encode) -> Tensor:
        """[..., B] nats."""

    def sample(self, noise: Tensor, uniform: Tensor, condition: Tensor | None, encode: Encode) -> Tensor:
        """[B, L]."""

    def standardise(self, mean: Tensor, condition: Tensor | None) -> Tensor:
        """[B, L]."""


__all__ = ["LabelConditional", "Mixture", "Prior", "PriorConfig", "StandardNormal", "Vamp"]
