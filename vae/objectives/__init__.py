"""The objectives that training minimises: functions of the terms that a model yields.

Each objective is a config that answers what :class:`vae.objectives.loss.Objective` lists. One with a network of its
own to train against has ``adversary(latent_size)`` and ``adversary_loss(batch)`` besides, and an ``optimizer``; one of
which something changes from step to step, as β in a warm-up, has ``settings_at(progress)``.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from vae.external import External
from vae.objectives.beta_schedule import ConstantBeta, CosineWarmup, Cyclical, LinearWarmup
from vae.objectives.beta_tcvae import BetaTcvae
from vae.objectives.capacity import Capacity
from vae.objectives.dip_vae import DipVae
from vae.objectives.elbo import Elbo
from vae.objectives.factor_vae import FactorVae
from vae.objectives.iwae import Iwae
from vae.objectives.loss import Batch, Loss, Objective, Progress
from vae.objectives.mmd import InfoVae, WaeMmd
from vae.objectives.reconstruction import L1, KlToRho, NoSparsity, Reconstruction

ObjectiveConfig = Annotated[
    Elbo | Capacity | Iwae | BetaTcvae | InfoVae | WaeMmd | DipVae | FactorVae | Reconstruction | External,
    Field(discriminator="kind"),
]

__all__ = [
    "L1",
    "Batch",
    "BetaTcvae",
    "Capacity",
    "ConstantBeta",
    "CosineWarmup",
    "Cyclical",
    "DipVae",
    "Elbo",
    "FactorVae",
    "InfoVae",
    "Iwae",
    "KlToRho",
    "LinearWarmup",
    "Loss",
    "NoSparsity",
    "Objective",
    "ObjectiveConfig",
    "Progress",
    "Reconstruction",
    "WaeMmd",
]
