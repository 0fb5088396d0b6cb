"""Priors p(z) or p(z|y). The KL pulls the posterior towards the prior, and samples are drawn from it.

Each prior is a config with ``build(latent_size, label_size, dimensions)``, which returns a module that implements
:class:`Prior`.
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
    """A prior. ``condition`` is the one-hot label [B, K] or None. ``encode`` maps x [B, D] to a posterior, for VampPrior."""

    closed_form: bool  # True if ``kl`` is exact given x, False if it is estimated from the drawn codes z

    def kl(self, posterior: Posterior, z: Tensor, condition: Tensor | None, encode: Encode) -> Tensor:
        """Return KL(q ‖ p) in nats: [B, L] by dimension, or [B, 1] if it does not divide. z [S, B, L] are draws from q."""

    def log_density(self, z: Tensor, condition: Tensor | None, encode: Encode) -> Tensor:
        """Return log p(z) in nats: z [..., B, L] -> [..., B]."""

    def sample(self, noise: Tensor, uniform: Tensor, condition: Tensor | None, encode: Encode) -> Tensor:
        """Return samples of the prior, [B, L], from ε ~ N(0, I) [B, L] and u ~ U[0, 1) [B]."""

    def standardise(self, mean: Tensor, condition: Tensor | None) -> Tensor:
        """Return posterior means [B, L] in the units in which active dimensions are counted."""


__all__ = ["LabelConditional", "Mixture", "Prior", "PriorConfig", "StandardNormal", "Vamp"]
