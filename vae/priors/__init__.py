"""p(z), or p(z|y): what the posterior is pulled towards, and what samples are drawn from.

Each prior is a module with

* ``kl(mean, log_variance, label)``: KL(q ‖ p) for each dimension, [B, L] nats, in closed form;
* ``log_density(z, label)``: log p(z) for each dimension, the shape of z;
* ``moments(label)``: mean and log variance of the prior, [L] or [B, L].
"""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from vae.priors.label_conditional import LabelConditional, LabelConditionalPrior
from vae.priors.standard_normal import StandardNormal, StandardNormalPrior

PriorConfig = Annotated[StandardNormal | LabelConditional, Field(discriminator="kind")]
Prior = StandardNormalPrior | LabelConditionalPrior


def build_prior(config: PriorConfig, *, latent_size: int, label_size: int) -> Prior:
    """The prior of ``config`` over ``latent_size`` dimensions, given one of ``label_size`` labels if it asks."""
    match config:
        case StandardNormal():
            return StandardNormalPrior(latent_size)
        case LabelConditional():
            return LabelConditionalPrior(latent_size, label_size)


__all__ = ["LabelConditional", "Prior", "PriorConfig", "StandardNormal", "build_prior"]
