"""What training minimises: a function of the terms that a model yields."""

from __future__ import annotations

from vae.objectives.beta_schedule import ConstantBeta, Cyclical, LinearWarmup
from vae.objectives.elbo import Elbo

# One member today; a second makes this a union discriminated by ``kind``.
ObjectiveConfig = Elbo

__all__ = ["ConstantBeta", "Cyclical", "Elbo", "LinearWarmup", "ObjectiveConfig"]
