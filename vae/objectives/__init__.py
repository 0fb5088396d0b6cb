"""The objectives that training minimises. Each is a function of the terms of a model's bound.

Each objective is a config that implements :class:`vae.objectives.loss.Objective`. An objective that trains an adversary
against the model also implements :class:`vae.objectives.loss.Adversarial`. An objective with a setting that changes from
step to step, such as β in a warm-up, also implements :class:`vae.objectives.loss.Scheduled`.
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
